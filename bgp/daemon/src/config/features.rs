//! Settings of what is offered to a neighbor beyond the base protocol.

use manx_bgp::wire::Role;
use manx_bgp::{AddPathConfig, Family, Features, RoleConfig};
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::{FamilyName, Neighbor, PeerAs};

/// Several paths per prefix (RFC 7911).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AddPathSettings {
    /// Take the peer's. Default false.
    pub receive: bool,
    /// How many to send at most, the best first, or `all`. Default 0: only the best, as without Add-Path.
    #[serde(deserialize_with = "paths")]
    pub send: usize,
    /// For which families. Default: all of the neighbor's.
    pub families: Option<Vec<FamilyName>>,
}

/// What we are to a neighbor of another AS (RFC 9234), as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoleName {
    /// We sell it transit.
    Provider,
    /// We are the route server that it is a member of.
    Rs,
    /// It is the route server that we are a member of.
    RsClient,
    /// We buy transit from it.
    Customer,
    /// Both exchange their own and their customers' routes.
    Peer,
}

/// A feature that this neighbor cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Add-Path for a family that the session does not carry.
    #[error(
        "'addPath.families' has {0}, which the session does not carry: add it to 'families' or leave it out here"
    )]
    AddPathFamily(Family),
    /// A role towards a neighbor of our own AS.
    #[error("'role' is for neighbors of another AS (RFC 9234 §4.1): leave it out here")]
    RoleWithinAs,
    /// Strict about nothing.
    #[error("'strictRole' needs a 'role': write ours, or leave it out")]
    StrictWithoutRole,
    /// Long-lived graceful restart alone.
    #[error(
        "'longLivedGracefulRestart' is not without 'gracefulRestart' (RFC 9494 §4.1): leave one as it is, or switch both off"
    )]
    LongLivedAlone,
}

/// The stale time of `longLivedGracefulRestart: true`, in seconds: a day.
const STALE_TIME: u32 = 86_400;

/// The longest stale time, in seconds: it has 24 bits (RFC 9494 §3.1).
const MAX_STALE_TIME: u32 = 0x00ff_ffff;

/// Whether the neighbor can have all features that it asks for.
pub(super) fn check(neighbor: &Neighbor, our_asn: u32) -> Result<(), Unusable> {
    let within = match neighbor.asn {
        PeerAs::Number(asn) => asn == our_asn,
        PeerAs::Internal => true,
        PeerAs::External => false,
    };
    match neighbor.role {
        Some(_) if within => return Err(Unusable::RoleWithinAs),
        None if neighbor.strict_role => return Err(Unusable::StrictWithoutRole),
        Some(_) | None => {}
    }
    if neighbor.long_lived_graceful_restart.is_some() && neighbor.graceful_restart.is_none() {
        return Err(Unusable::LongLivedAlone);
    }
    let mut families = neighbor.add_path.families.iter().flatten();
    match families.find(|family| !neighbor.families.contains(family)) {
        Some(family) => Err(Unusable::AddPathFamily(family.family())),
        None => Ok(()),
    }
}

/// The features as the speaker takes them.
pub(super) fn features(neighbor: &Neighbor) -> Features {
    let Neighbor {
        add_path, families, ..
    } = neighbor;
    let families = add_path.families.as_ref().unwrap_or(families);
    Features {
        extended_messages: neighbor.extended_messages,
        extended_next_hop: neighbor.extended_next_hop,
        add_path: families
            .iter()
            .map(|family| AddPathConfig {
                family: family.family(),
                receive: add_path.receive,
                send: add_path.send,
            })
            .collect(),
        role: neighbor.role.map(|role| RoleConfig {
            role: role.role(),
            strict: neighbor.strict_role,
        }),
    }
}

impl RoleName {
    fn role(self) -> Role {
        match self {
            Self::Provider => Role::Provider,
            Self::Rs => Role::RouteServer,
            Self::RsClient => Role::RouteServerClient,
            Self::Customer => Role::Customer,
            Self::Peer => Role::Peer,
        }
    }
}

/// A time, or a switch.
pub(super) fn long_lived_graceful_restart<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    struct Time;

    impl Visitor<'_> for Time {
        type Value = Option<u32>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "true, false, or seconds from 1 to {MAX_STALE_TIME}")
        }

        fn visit_bool<E>(self, offered: bool) -> Result<Self::Value, E> {
            Ok(offered.then_some(STALE_TIME))
        }

        fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Self::Value, E> {
            match u32::try_from(seconds) {
                Ok(seconds @ 1..=MAX_STALE_TIME) => Ok(Some(seconds)),
                Ok(_) | Err(_) => Err(E::invalid_value(Unexpected::Unsigned(seconds), &self)),
            }
        }
    }

    deserializer.deserialize_any(Time)
}

/// A number of paths, or `all`.
fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Paths;

    impl Visitor<'_> for Paths {
        type Value = usize;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a number of paths from 0 to 65535, or 'all'")
        }

        fn visit_u64<E: serde::de::Error>(self, paths: u64) -> Result<Self::Value, E> {
            u16::try_from(paths)
                .map(usize::from)
                .map_err(|_| E::invalid_value(Unexpected::Unsigned(paths), &self))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            match text {
                "all" => Ok(usize::MAX),
                other => Err(E::invalid_value(Unexpected::Str(other), &self)),
            }
        }
    }

    deserializer.deserialize_any(Paths)
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    use super::*;

    fn with(settings: &str) -> String {
        let asn = if settings.contains("asn") { "" } else { "asn: 1, " };
        let neighbor = format!("address: 192.0.2.2, {asn}families: [ipv4], {settings}");
        format!("asn: 64512\nrouterId: 192.0.2.1\nneighbors: [{{{neighbor}}}]")
    }

    #[test]
    fn long_lived_graceful_restart_is_a_switch_or_a_time() {
        for (value, expected) in [
            ("true", Some(86_400)),
            ("false", None),
            ("16777215", Some(16_777_215)),
        ] {
            let text = with(&format!("longLivedGracefulRestart: {value}"));
            let found = Settings::parse(&text).unwrap().neighbors[0].long_lived_graceful_restart;
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn features_fit_the_neighbor() {
        let read = |settings: &str| {
            let settings = Settings::parse(&with(settings)).unwrap();
            features(&settings.neighbors[0]).add_path
        };
        let entry = |receive, send| AddPathConfig {
            family: Family::Ipv4Unicast,
            receive,
            send,
        };
        assert_eq!(read("addPath: {send: all}"), [entry(false, usize::MAX)]);
        assert_eq!(
            read("addPath: {receive: true, send: 2, families: [ipv4]}"),
            [entry(true, 2)]
        );
        let settings = Settings::parse(&with("role: rsClient, strictRole: true")).unwrap();
        let role = RoleConfig {
            role: Role::RouteServerClient,
            strict: true,
        };
        assert_eq!(features(&settings.neighbors[0]).role, Some(role));
        for (settings, complaint) in [
            (
                "addPath: {families: [ipv6]}",
                "192.0.2.2: 'addPath.families' has IPv6 unicast",
            ),
            ("addPath: {send: 70000}", "from 0 to 65535, or 'all'"),
            ("addPath: {send: some}", "from 0 to 65535, or 'all'"),
            ("addPath: {recieve: true}", "did you mean 'receive'?"),
            ("role: costumer", "did you mean 'customer'?"),
            ("strictRole: true", "192.0.2.2: 'strictRole' needs a 'role'"),
            (
                "role: peer, asn: 64512",
                "192.0.2.2: 'role' is for neighbors of another AS",
            ),
            (
                "gracefulRestart: false, longLivedGracefulRestart: true",
                "192.0.2.2: 'longLivedGracefulRestart' is not without 'gracefulRestart'",
            ),
            (
                "longLivedGracefulRestart: 0",
                "expected true, false, or seconds from 1 to 16777215",
            ),
        ] {
            let error = Settings::parse(&with(settings)).expect_err(settings).to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
