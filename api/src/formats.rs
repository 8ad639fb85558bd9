//! How values that Rust reads too generously, or not at all, are read from text.

/// AS numbers: a number, or text that is one or is in RFC 5396's dotted notation (`1.10` is 65546).
pub(crate) mod as_number {
    use std::fmt;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserialize, Deserializer};

    struct AsNumber(u32);

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        AsNumber::deserialize(deserializer).map(|asn| asn.0)
    }

    pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        Option::<AsNumber>::deserialize(deserializer).map(|asn| asn.map(|asn| asn.0))
    }

    impl<'de> Deserialize<'de> for AsNumber {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(AsNumberVisitor)
        }
    }

    struct AsNumberVisitor;

    impl Visitor<'_> for AsNumberVisitor {
        type Value = AsNumber;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an AS number from 1 to 4294967295, or dotted and in quotes as '1.10'")
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<AsNumber, E> {
            let asn = u32::try_from(value).map(AsNumber);
            asn.map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<AsNumber, E> {
            parse(text)
                .map(AsNumber)
                .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }

    fn parse(text: &str) -> Option<u32> {
        let Some((high, low)) = text.split_once('.') else {
            return text.parse().ok();
        };
        let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
        Some(u32::from(high) << 16 | u32::from(low))
    }
}

/// Selectors where saying nothing and saying `all()` differ.
pub(crate) mod selector {
    use serde::{Deserialize as _, Deserializer, de};

    use crate::Selector;

    /// None where nothing or a blank text stands.
    pub(crate) fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Selector>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let stated = text.filter(|text| !text.trim_matches([' ', '\t']).is_empty());
        stated
            .map(|text| text.parse().map_err(de::Error::custom))
            .transpose()
    }
}

/// What Kubernetes reads a `null` as: the same as nothing.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Default,
{
    use serde::Deserialize as _;
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads whatever Kubernetes writes where we have nothing to say, and forgets it.
pub(crate) fn ignored<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    use serde::Deserialize as _;
    serde::de::IgnoredAny::deserialize(deserializer).map(drop)
}

/// Whether a switch is off, as it is where it is not written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

/// Fields that are known elsewhere, and refused here with a reason.
pub(crate) mod refused {
    use serde::{Deserializer, de};

    pub(crate) fn http<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
        Err(de::Error::custom(
            "is refused: packets are looked at one by one, and no request is read; leave it out, and let a proxy decide",
        ))
    }

    pub(crate) fn nodes<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
        Err(de::Error::custom(
            "is refused: it is no standard field yet; write the nodes' addresses in networks",
        ))
    }

    pub(crate) fn domain_names<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
        Err(de::Error::custom(
            "is refused: names are not looked up, as they may mean other addresses to the pod; write networks",
        ))
    }
}

/// Networks: address, slash, length. A bare address is not taken for a network of one.
pub(crate) mod cidr {
    use std::str::FromStr;

    use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
    use serde::{Deserialize as _, Deserializer, de};

    const NETWORK: &str = "address and length, as in 192.0.2.0/24 or 2001:db8::/64";

    pub(crate) fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNetwork, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text, NETWORK)
    }

    pub(crate) fn optional<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpNetwork>, D::Error> {
        any(deserializer).map(Some)
    }

    /// A list; a bare address is a network of one, as calicoctl takes it in reservations.
    pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNetwork>, D::Error> {
        let network = |text: String| {
            let expected = "an address, or address and length, as in 192.0.2.1 or 2001:db8::/64";
            text.parse::<IpNetwork>()
                .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &expected))
        };
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.into_iter().map(network).collect()
    }

    /// A list of networks, each with its length.
    pub(crate) fn strict_list<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IpNetwork>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
        let network = |text: String| parse(&text, NETWORK);
        texts.into_iter().map(network).collect()
    }

    pub(crate) fn v4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Network>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let parse = |text: String| {
            parse(
                &text,
                "an IPv4 address and its on-link length, as in 192.0.2.1/24",
            )
        };
        text.map(parse).transpose()
    }

    pub(crate) fn v6<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv6Network>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let parse = |text: String| {
            parse(
                &text,
                "an IPv6 address and its on-link length, as in 2001:db8::1/64",
            )
        };
        text.map(parse).transpose()
    }

    fn parse<T: FromStr, E: de::Error>(text: &str, right: &str) -> Result<T, E> {
        let (network, has_length) = (text.parse(), text.contains('/'));
        network
            .ok()
            .filter(|_| has_length)
            .ok_or_else(|| E::custom(format!("'{text}' is not a network: write {right}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::node::NodeBgp;

    fn read(field: &str, value: &Value) -> Result<NodeBgp, String> {
        serde_json::from_value(json!({ field: value })).map_err(|error| error.to_string())
    }

    #[test]
    fn as_numbers_are_numbers_or_text() {
        for (value, asn) in [
            (json!(64512), 64512),
            (json!("64512"), 64512),
            (json!("1.10"), 65546),
            (json!("0.64512"), 64512),
            (json!("65535.65534"), 4_294_967_294),
        ] {
            assert_eq!(read("asNumber", &value).unwrap().as_number, Some(asn), "{value}");
        }
        for value in [
            json!(-1),
            json!(4_294_967_296_u64),
            json!(1.1),
            json!("1.65536"),
            json!("1.2.3"),
            json!("AS1"),
            json!(""),
        ] {
            let error = read("asNumber", &value).unwrap_err();
            assert!(
                error.contains("an AS number from 1 to 4294967295"),
                "{value}: {error}"
            );
        }
        assert_eq!(read("asNumber", &Value::Null).unwrap().as_number, None);
    }

    #[test]
    fn networks_have_a_length_and_a_family() {
        assert!(read("ipv4Address", &json!("192.0.2.1/24")).is_ok());
        assert!(read("ipv6Address", &json!("2001:db8::1/64")).is_ok());
        for (field, value) in [
            ("ipv4Address", "192.0.2.1"),
            ("ipv4Address", "192.0.2.1/33"),
            ("ipv4Address", "2001:db8::1/64"),
            ("ipv6Address", "2001:db8::1"),
            ("ipv6Address", "192.0.2.1/24"),
        ] {
            let error = read(field, &json!(value)).unwrap_err();
            assert!(
                error.starts_with(&format!("'{value}' is not a network: write")),
                "{error}"
            );
        }
    }
}
