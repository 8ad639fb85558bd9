//! What the TCP connections with a peer have to be: signed, near, and over which interface.
//!
//! The speaker holds these settings and compares them; the driver makes sockets accordingly.

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

/// What the connections with a peer have to be. By default: nothing in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// How segments are signed. Unsigned ones are not taken then, and connections without are not made.
    pub authentication: Option<Authentication>,
    /// How far the peer may be.
    pub distance: Distance,
    /// The interface that all packets pass, by name; any by default.
    pub interface: Option<Arc<str>>,
}

/// How far a peer may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distance {
    /// As far as the system's TTL reaches.
    #[default]
    Any,
    /// This many hops at most: packets leave with this TTL. The peer's may come from anywhere.
    Hops(NonZeroU8),
    /// This many hops at most, which the peer's packets have to prove (GTSM, RFC 5082): ours leave with TTL 255, and
    /// those that have lost more on their way are dropped.
    Secured(NonZeroU8),
}

/// How the segments of a connection are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// TCP MD5 signatures (RFC 2385).
    Md5(Secret),
    /// The TCP Authentication Option (RFC 5925) with these keys: the first one is for sending, all are good for
    /// receiving. Not empty.
    Ao(Vec<AoKey>),
    /// They shall be signed, but the key could not be had, for this reason: no connection is made or taken.
    Missing(Arc<str>),
}

/// A key of the TCP Authentication Option: a Master Key Tuple (RFC 5925 §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AoKey {
    /// The KeyID in what we send: the peer's `receive_id`.
    pub send_id: u8,
    /// The KeyID in what we receive: the peer's `send_id`.
    pub receive_id: u8,
    /// What signs.
    pub algorithm: AoAlgorithm,
    /// The master key.
    pub secret: Secret,
}

/// The algorithms of RFC 5926 §2.1, with 96 bit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96.
    HmacSha1,
    /// AES-128-CMAC-96.
    AesCmac,
}

/// A shared secret: 1 to 80 octets. What prints it prints stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

/// Why some octets are no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nothing is easy to guess.
    #[error("a password has 1 to {max} octets, this one is empty", max = Secret::MAX)]
    Empty,
    /// More than the kernel takes.
    #[error("a password has 1 to {max} octets, this one has {0}", max = Secret::MAX)]
    TooLong(usize),
}

impl Distance {
    /// The TTL (hop limit) of packets that we send; the system's where absent.
    #[must_use]
    pub fn ttl_sent(self) -> Option<u8> {
        match self {
            Self::Any => None,
            Self::Hops(hops) => Some(hops.get()),
            Self::Secured(_) => Some(u8::MAX),
        }
    }

    /// The least TTL (hop limit) of packets that we take (RFC 5082 §3), 0 for any: one hop leaves it at 255.
    #[must_use]
    pub fn ttl_accepted(self) -> u8 {
        match self {
            Self::Any | Self::Hops(_) => 0,
            Self::Secured(hops) => u8::MAX - (hops.get() - 1),
        }
    }
}

impl Secret {
    /// The longest, in octets.
    pub const MAX: usize = 80;

    /// Takes octets for a secret.
    ///
    /// # Errors
    /// None at all, or more than [`MAX`](Self::MAX).
    pub fn new(octets: &[u8]) -> Result<Self, SecretError> {
        match octets.len() {
            0 => Err(SecretError::Empty),
            1..=Self::MAX => Ok(Self(octets.into())),
            more => Err(SecretError::TooLong(more)),
        }
    }

    /// Reads the content of a file: a line's end is not part of the secret.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_file(content: &[u8]) -> Result<Self, SecretError> {
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        Self::new(content.strip_suffix(b"\r").unwrap_or(content))
    }

    /// The octets, for the one who signs.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Transport {
    /// Whether `new` needs new connections. Other keys of the same kind do not: those of live ones are replaced.
    /// Except that an identifier of TCP-AO names one key for as long as a connection lasts (RFC 5925 §3.1).
    #[must_use]
    pub fn needs_new_connection(&self, new: &Self) -> bool {
        let kind = |it: &Self| it.authentication.as_ref().map(std::mem::discriminant);
        (self.distance, &self.interface, kind(self)) != (new.distance, &new.interface, kind(new))
            || self.ao_keys().iter().any(|key| {
                new.ao_keys()
                    .iter()
                    .any(|new| (key.send_id == new.send_id || key.receive_id == new.receive_id) && key != new)
            })
    }

    fn ao_keys(&self) -> &[AoKey] {
        match &self.authentication {
            Some(Authentication::Ao(keys)) => keys,
            Some(Authentication::Md5(_) | Authentication::Missing(_)) | None => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).unwrap()
    }

    /// RFC 5082 §3: packets leave with TTL 255, and those that come with less than they may are dropped.
    #[test]
    fn hops_are_what_the_ttl_may_lose() {
        let hops = |n| NonZeroU8::new(n).unwrap();
        for (distance, sent, accepted) in [
            (Distance::Any, None, 0),
            (Distance::Hops(hops(3)), Some(3), 0),
            (Distance::Secured(hops(1)), Some(255), 255),
            (Distance::Secured(hops(2)), Some(255), 254),
            (Distance::Secured(hops(254)), Some(255), 2),
        ] {
            assert_eq!(
                (distance.ttl_sent(), distance.ttl_accepted()),
                (sent, accepted),
                "{distance:?}"
            );
        }
    }

    #[test]
    fn a_secret_never_shows() {
        let transport = Transport {
            authentication: Some(Authentication::Md5(secret("hunter2"))),
            ..Transport::default()
        };
        let shown = format!("{transport:?} {transport:#?}");
        assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
    }

    #[test]
    fn a_secret_has_1_to_80_octets() {
        assert_eq!(Secret::new(b""), Err(SecretError::Empty));
        assert_eq!(Secret::new(&[7; 81]), Err(SecretError::TooLong(81)));
        assert_eq!(Secret::new(&[7; 80]).unwrap().expose(), [7; 80]);
        for content in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            assert_eq!(Secret::from_file(content.as_bytes()), Ok(secret("hunter2")));
        }
        assert_eq!(Secret::from_file(b"\n"), Err(SecretError::Empty));
    }

    #[test]
    fn only_another_key_leaves_connections_alone() {
        let base = Transport {
            authentication: Some(Authentication::Md5(secret("old"))),
            ..Transport::default()
        };
        let with = |authentication| Transport {
            authentication,
            ..base.clone()
        };
        assert!(!base.needs_new_connection(&with(Some(Authentication::Md5(secret("new"))))));
        assert!(base.needs_new_connection(&with(None)));
        assert!(base.needs_new_connection(&with(Some(Authentication::Missing("gone".into())))));
        assert!(base.needs_new_connection(&Transport {
            interface: Some("eth0".into()),
            ..base.clone()
        }));
        assert!(base.needs_new_connection(&Transport {
            distance: Distance::Secured(NonZeroU8::MIN),
            ..base.clone()
        }));
    }
}
