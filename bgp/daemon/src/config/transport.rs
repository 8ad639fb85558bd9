//! Settings that guard a neighbor's connections: who signs, how far, over which interface.

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use manx_bgp::Transport;
use manx_bgp::transport::{AoAlgorithm, AoKey, Authentication, Distance, Secret};
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::Neighbor;

/// The farthest that `ttlSecurity` can tell from anywhere (RFC 5082 §3), in hops.
const MAX_SECURED: u8 = 254;

/// A key of the TCP Authentication Option (RFC 5925).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpAoKey {
    /// The KeyID in what we send, 0 to 255: the peer's `receiveId`.
    pub send_id: u8,
    /// The KeyID in what we receive, 0 to 255: the peer's `sendId`.
    pub receive_id: u8,
    /// What signs. Default `hmac-sha-1-96`.
    #[serde(default)]
    pub algorithm: AlgorithmName,
    /// The file with the master key; the end of its last line does not count.
    pub secret_file: PathBuf,
}

/// An algorithm of RFC 5926, as the file names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum AlgorithmName {
    /// HMAC-SHA-1-96.
    #[default]
    #[serde(rename = "hmac-sha-1-96")]
    HmacSha1,
    /// AES-128-CMAC-96.
    #[serde(rename = "aes-128-cmac-96")]
    AesCmac,
}

/// Two settings that exclude each other, or one that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// RFC 5082 §3 counts hops itself.
    #[error("'ttlSecurity' and 'multihop' contradict each other: write 'ttlSecurity: HOPS' alone")]
    Distance,
    /// Two ways to sign.
    #[error("'{0}' and '{1}' both say how to sign: keep one of the two")]
    Signatures(&'static str, &'static str),
    /// Keys of TCP-AO are told apart by their identifiers.
    #[error("two keys of 'tcpAo' have the sendId or receiveId {0}: give each its own")]
    SameId(u8),
    /// No key at all.
    #[error("'tcpAo' is empty: write at least one key, or leave it out")]
    NoKeys,
}

/// What is to be read in a neighbor's settings once each of them is well formed.
pub(super) fn check(neighbor: &Neighbor) -> Result<(), Contradiction> {
    if neighbor.ttl_security.is_some() && neighbor.multihop.is_some() {
        return Err(Contradiction::Distance);
    }
    let signatures = [
        ("password", neighbor.password.is_some()),
        ("passwordFile", neighbor.password_file.is_some()),
        ("tcpAo", neighbor.tcp_ao.is_some()),
    ];
    let mut given = signatures
        .iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| *name);
    if let (Some(one), Some(other)) = (given.next(), given.next()) {
        return Err(Contradiction::Signatures(one, other));
    }
    let keys = neighbor.tcp_ao.as_deref();
    if keys.is_some_and(<[_]>::is_empty) {
        return Err(Contradiction::NoKeys);
    }
    let keys = keys.unwrap_or_default();
    for (place, key) in keys.iter().enumerate() {
        for other in &keys[..place] {
            if key.send_id == other.send_id {
                return Err(Contradiction::SameId(key.send_id));
            }
            if key.receive_id == other.receive_id {
                return Err(Contradiction::SameId(key.receive_id));
            }
        }
    }
    Ok(())
}

/// What a neighbor's connections have to be. Files are read now; one that cannot be keeps the neighbor away.
pub(super) fn transport(neighbor: &Neighbor) -> Transport {
    let zone = neighbor
        .address
        .as_ref()
        .and_then(|address| address.zone.as_deref());
    let interface = zone.or(neighbor.interface.as_deref());
    Transport {
        authentication: authentication(neighbor),
        distance: match (neighbor.ttl_security, neighbor.multihop) {
            (Some(hops), _) => Distance::Secured(hops),
            (None, Some(hops)) => Distance::Hops(hops),
            (None, None) => Distance::Any,
        },
        interface: interface.map(Into::into),
    }
}

fn authentication(neighbor: &Neighbor) -> Option<Authentication> {
    let or_missing = |read: Result<Authentication, String>| {
        read.unwrap_or_else(|reason| Authentication::Missing(reason.into()))
    };
    let in_place = neighbor.password.clone().map(Authentication::Md5);
    let in_file = || {
        let path = neighbor.password_file.as_ref()?;
        Some(or_missing(secret_in(path).map(Authentication::Md5)))
    };
    let option = || {
        let keys = neighbor.tcp_ao.as_ref()?.iter().map(ao_key);
        Some(or_missing(keys.collect::<Result<_, _>>().map(Authentication::Ao)))
    };
    in_place.or_else(in_file).or_else(option)
}

fn ao_key(key: &TcpAoKey) -> Result<AoKey, String> {
    Ok(AoKey {
        send_id: key.send_id,
        receive_id: key.receive_id,
        algorithm: match key.algorithm {
            AlgorithmName::HmacSha1 => AoAlgorithm::HmacSha1,
            AlgorithmName::AesCmac => AoAlgorithm::AesCmac,
        },
        secret: secret_in(&key.secret_file)?,
    })
}

fn secret_in(path: &Path) -> Result<Secret, String> {
    let explain = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let content = std::fs::read(path).map_err(|error| explain(&error))?;
    Secret::from_file(&content).map_err(|error| explain(&error))
}

/// A password in the file itself. No complaint repeats it.
pub(super) fn password<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text = String::deserialize(deserializer)
        .map_err(|_| D::Error::custom("a password is text: put it in quotes"))?;
    Secret::new(text.as_bytes()).map(Some).map_err(D::Error::custom)
}

/// `true` for a neighbor on our link, or how many hops it is away at most.
pub(super) fn ttl_security<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NonZeroU8>, D::Error> {
    struct Hops;

    impl Visitor<'_> for Hops {
        type Value = Option<NonZeroU8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "true, false, or hops from 1 to {MAX_SECURED}")
        }

        fn visit_bool<E>(self, secured: bool) -> Result<Self::Value, E> {
            Ok(secured.then_some(NonZeroU8::MIN))
        }

        fn visit_u64<E: serde::de::Error>(self, hops: u64) -> Result<Self::Value, E> {
            match u8::try_from(hops).ok().and_then(NonZeroU8::new) {
                Some(hops) if hops.get() <= MAX_SECURED => Ok(Some(hops)),
                Some(_) | None => Err(E::invalid_value(Unexpected::Unsigned(hops), &self)),
            }
        }
    }

    deserializer.deserialize_any(Hops)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::Settings;
    use super::*;

    fn with(fields: &str) -> String {
        format!("asn: 64512\nrouterId: 192.0.2.1\nneighbors: [{{address: 192.0.2.2, asn: 64512, {fields}}}]")
    }

    fn read(fields: &str) -> Transport {
        let settings = Settings::parse(&with(fields)).unwrap();
        settings.peers().next().unwrap().transport
    }

    fn wrong(fields: &str) -> String {
        Settings::parse(&with(fields)).expect_err(fields).to_string()
    }

    fn hops(n: u8) -> NonZeroU8 {
        NonZeroU8::new(n).unwrap()
    }

    #[test]
    fn nothing_said_is_nothing_asked() {
        assert_eq!(read("passive: true"), Transport::default());
    }

    #[test]
    fn hops_and_interface_are_read() {
        for (fields, distance) in [
            ("ttlSecurity: true", Distance::Secured(hops(1))),
            ("ttlSecurity: 254", Distance::Secured(hops(254))),
            ("ttlSecurity: false", Distance::Any),
            ("multihop: 3", Distance::Hops(hops(3))),
        ] {
            assert_eq!(read(fields).distance, distance, "{fields}");
        }
        assert_eq!(read("interface: eth0").interface.as_deref(), Some("eth0"));
    }

    #[test]
    fn keys_are_read_from_where_they_are() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "hunter2").unwrap();
        let path = file.path().display();
        let secret = Secret::new(b"hunter2").unwrap();
        let md5 = Some(Authentication::Md5(secret.clone()));
        assert_eq!(read("password: hunter2").authentication, md5);
        assert_eq!(read(&format!("passwordFile: {path}")).authentication, md5);
        let key = AoKey {
            send_id: 1,
            receive_id: 2,
            algorithm: AoAlgorithm::AesCmac,
            secret,
        };
        let fields =
            format!("tcpAo: [{{sendId: 1, receiveId: 2, algorithm: aes-128-cmac-96, secretFile: {path}}}]");
        assert_eq!(read(&fields).authentication, Some(Authentication::Ao(vec![key])));
    }

    #[test]
    fn a_key_that_cannot_be_read_says_why() {
        let Some(Authentication::Missing(why)) = read("passwordFile: /nowhere/secret").authentication else {
            panic!("there is no such file");
        };
        assert!(why.contains("/nowhere/secret: No such file"), "{why}");
    }

    /// nasty case 62
    #[test]
    fn contradictions_are_refused_by_name() {
        let key = |send: u8, receive: u8| format!("{{sendId: {send}, receiveId: {receive}, secretFile: /x}}");
        for (fields, complaint) in [
            (
                "ttlSecurity: true, multihop: 2".to_owned(),
                "'ttlSecurity' and 'multihop' contradict",
            ),
            (
                "password: x, passwordFile: /x".to_owned(),
                "'password' and 'passwordFile' both",
            ),
            (
                format!("password: x, tcpAo: [{}]", key(1, 1)),
                "'password' and 'tcpAo' both",
            ),
            (
                format!("tcpAo: [{}, {}]", key(1, 1), key(1, 2)),
                "two keys of 'tcpAo' have the sendId or receiveId 1",
            ),
            (
                format!("tcpAo: [{}, {}]", key(1, 3), key(2, 3)),
                "two keys of 'tcpAo' have the sendId or receiveId 3",
            ),
            ("tcpAo: []".to_owned(), "'tcpAo' is empty"),
            ("ttlSecurity: 255".to_owned(), "hops from 1 to 254"),
            ("ttlSecurity: 0".to_owned(), "hops from 1 to 254"),
            ("multihop: 0".to_owned(), "nonzero"),
            ("password: ''".to_owned(), "this one is empty"),
            ("password: [hunter2]".to_owned(), "a password is text"),
        ] {
            let error = wrong(&fields);
            assert!(error.contains(complaint), "{fields}\n{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(wrong(&format!("password: {}", "x".repeat(81))).contains("this one has 81"));
    }
}
