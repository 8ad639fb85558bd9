//! Settings of what is offered to a neighbor beyond the base protocol.

use manx_bgp::{AddPathConfig, Family, Features};
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::{FamilyName, Neighbor};

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

/// A feature that this neighbor cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Add-Path for a family that the session does not carry.
    #[error(
        "'addPath.families' has {0}, which the session does not carry: add it to 'families' or leave it out here"
    )]
    AddPathFamily(Family),
}

/// Whether the neighbor can have all features that it asks for.
pub(super) fn check(neighbor: &Neighbor) -> Result<(), Unusable> {
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
    }
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
        let neighbor = format!("address: 192.0.2.2, asn: 1, families: [ipv4], {settings}");
        format!("asn: 64512\nrouterId: 192.0.2.1\nneighbors: [{{{neighbor}}}]")
    }

    #[test]
    fn add_path_is_for_the_families_of_the_session() {
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
        for (settings, complaint) in [
            (
                "addPath: {families: [ipv6]}",
                "192.0.2.2: 'addPath.families' has IPv6 unicast",
            ),
            ("addPath: {send: 70000}", "from 0 to 65535, or 'all'"),
            ("addPath: {send: some}", "from 0 to 65535, or 'all'"),
            ("addPath: {recieve: true}", "did you mean 'receive'?"),
        ] {
            let error = Settings::parse(&with(settings)).expect_err(settings).to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
