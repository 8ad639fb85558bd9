//! `dynamicNeighbors`: a range of addresses, how many may connect from it, and the settings of a neighbor.

use std::fmt;

use manx_bgp::{PeerKey, Prefix, RangeConfig};
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Neighbor;
use crate::filters::FilterSettings;

/// How many peers connect from a range, unless something else is said.
const LIMIT: u32 = 100;

/// A range of addresses that peers may connect from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicNeighbor {
    /// `range`: which addresses.
    pub range: Prefix,
    /// `limit`: how many peers at a time, at most. Default 100.
    pub limit: u32,
    /// All other fields: each peer's settings. Its address is the range's.
    pub template: Neighbor,
}

impl DynamicNeighbor {
    /// The range as the speaker takes it.
    pub(super) fn config(&self, our_asn: u32, filters: &[FilterSettings]) -> RangeConfig {
        let nobody = PeerKey::of(self.range.address(), 0);
        RangeConfig {
            range: self.range,
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
            template: self.template.peer(nobody, our_asn, filters),
        }
    }
}

impl<'de> Deserialize<'de> for DynamicNeighbor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = DynamicNeighbor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("range, limit and the settings of a neighbor")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let (mut range, mut limit) = (None, None);
                let fields = NeighborFields {
                    map,
                    range: &mut range,
                    limit: &mut limit,
                    address: Address::Due,
                };
                let template = Neighbor::deserialize(MapAccessDeserializer::new(fields))?;
                Ok(DynamicNeighbor {
                    range: range.ok_or_else(|| A::Error::missing_field("range"))?,
                    limit: limit.unwrap_or(LIMIT),
                    template,
                })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// The fields of a neighbor among those of a range; the address comes last, and is the range's.
struct NeighborFields<'a, A> {
    map: A,
    range: &'a mut Option<Prefix>,
    limit: &'a mut Option<u32>,
    address: Address,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Address {
    Due,
    Named,
    Given,
}

/// A range, as `routes` has them.
#[derive(Deserialize)]
struct Range(#[serde(deserialize_with = "range")] Prefix);

fn range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    super::prefix(ipnetwork::IpNetwork::deserialize(deserializer)?)
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for NeighborFields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(field) = self.map.next_key::<String>()? {
            match field.as_str() {
                "range" => *self.range = Some(self.map.next_value::<Range>()?.0),
                "limit" => *self.limit = Some(self.map.next_value()?),
                "address" => {
                    return Err(A::Error::custom(
                        "a dynamic neighbor has a 'range' and no 'address'",
                    ));
                }
                _ => {
                    let field: StringDeserializer<A::Error> = field.into_deserializer();
                    return seed.deserialize(field).map(Some);
                }
            }
        }
        if self.range.is_none() {
            return Err(A::Error::missing_field("range"));
        }
        if self.address == Address::Due {
            self.address = Address::Named;
            let field: StringDeserializer<A::Error> = "address".to_owned().into_deserializer();
            return seed.deserialize(field).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match (self.address, *self.range) {
            (Address::Named, Some(range)) => {
                self.address = Address::Given;
                let address: StringDeserializer<A::Error> =
                    range.network().network().to_string().into_deserializer();
                seed.deserialize(address)
            }
            (Address::Due | Address::Named | Address::Given, _) => self.map.next_value_seed(seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use manx_bgp::{ANY_EXTERNAL_AS, Policy};

    use super::super::Settings;

    fn with(fields: &str) -> String {
        format!("asn: 64512\nrouterId: 192.0.2.1\ndynamicNeighbors:\n- {fields}\n")
    }

    fn wrong(fields: &str) -> String {
        Settings::parse(&with(fields)).expect_err(fields).to_string()
    }

    #[test]
    fn a_range_has_a_limit_and_the_settings_of_a_neighbor() {
        let settings = Settings::parse(&with(
            "{range: 10.1.0.0/16, limit: 7, asn: internal, password: x, routeReflectorClient: true}",
        ))
        .unwrap();
        let range = settings.ranges().next().unwrap();
        assert_eq!(
            (range.range.to_string().as_str(), range.limit),
            ("10.1.0.0/16", 7)
        );
        assert_eq!(range.template.asn, 64512);
        assert!(range.template.route_reflector_client && range.template.transport.authentication.is_some());
        let settings =
            Settings::parse(&with("{asn: external, range: \"2001:db8::/64\", import: accept}")).unwrap();
        let range = settings.ranges().next().unwrap();
        assert_eq!((range.limit, range.template.asn), (100, ANY_EXTERNAL_AS));
        assert_eq!(
            (range.template.import, range.template.export),
            (Policy::Accept, Policy::Reject)
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (fields, complaint) in [
            ("{asn: 1}", "range"),
            ("{range: 10.1.0.0/16}", "asn"),
            (
                "{range: 10.1.0.1/16, asn: 1}",
                "has bits set beyond its length: write 10.1.0.0/16",
            ),
            (
                "{range: 10.1.0.0/16, asn: 1, address: 10.1.0.1}",
                "has a 'range' and no 'address'",
            ),
            (
                "{range: 10.1.0.0/16, asn: 1, holdtime: 3}",
                "did you mean 'holdTime'?",
            ),
            ("{range: 10.1.0.0/16, asn: extern}", "did you mean 'external'?"),
            (
                "{range: 10.1.0.0/16, asn: 1, ttlSecurity: 1, multihop: 2}",
                "10.1.0.0/16: 'ttlSecurity' and 'multihop'",
            ),
            (
                "{range: 10.1.0.0/16, asn: 1}\n- {range: 10.1.0.0/16, asn: 2}",
                "10.1.0.0/16 is listed twice",
            ),
        ] {
            let error = wrong(fields);
            assert!(error.contains(complaint), "{fields}\n{error}");
        }
    }
}
