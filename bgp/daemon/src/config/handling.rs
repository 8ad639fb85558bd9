//! Settings of how a neighbor's routes are handled beside its policies.

use std::time::Duration;

use manx_bgp::{Family, Handling, LimitAction, PathLimit};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Neighbor, PeerAs};

/// How many prefixes a neighbor may announce, of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxPrefix {
    /// Of IPv4; absent: any number.
    pub ipv4: Option<u32>,
    /// Of IPv6; absent: any number.
    pub ipv6: Option<u32>,
    /// A warning is logged at this percentage, 1 to 100. Default 75.
    #[serde(deserialize_with = "percent")]
    pub warn_percent: u8,
    /// What becomes of a neighbor that announces more. Default `down`.
    pub action: ActionName,
    /// Seconds after which the session may come back, with `action: restart`. Default 60.
    pub restart_after: u32,
}

/// What becomes of a neighbor that announces more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionName {
    /// A warning is logged, no more.
    Warn,
    /// The session ends and comes back after a while.
    Restart,
    /// The session ends until the neighbor's settings change.
    Down,
}

impl Default for MaxPrefix {
    fn default() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
            warn_percent: 75,
            action: ActionName::Down,
            restart_after: 60,
        }
    }
}

/// Settings that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The neighbour's AS as ours.
    #[error("'localAs' is the neighbor's own AS {0}: write another, or leave it out")]
    LocalAs(u32),
    /// 0, or another reserved AS number.
    #[error("'localAs' {0} is no AS number of ours: write 1 to 4294967294, but not 23456")]
    Reserved(u32),
}

/// Whether the settings agree with each other.
pub(super) fn check(neighbor: &Neighbor) -> Result<(), Misfit> {
    match neighbor.local_as {
        Some(asn) if neighbor.asn == PeerAs::Number(asn) => Err(Misfit::LocalAs(asn)),
        Some(asn @ (0 | 23_456 | u32::MAX)) => Err(Misfit::Reserved(asn)),
        Some(_) | None => Ok(()),
    }
}

/// The settings as the speaker takes them.
pub(super) fn handling(neighbor: &Neighbor) -> Handling {
    Handling {
        local_as: neighbor.local_as,
        allowed_own_as: neighbor.allow_own_as,
        enforce_first_as: neighbor.enforce_first_as,
        local_preference: neighbor.local_preference,
        med: neighbor.med,
        prepend: neighbor.prepend,
        as_override: neighbor.as_override,
        remove_private_as: neighbor.remove_private_as,
        limits: neighbor.max_prefix.map(limits).unwrap_or_default(),
    }
}

fn limits(max: MaxPrefix) -> Vec<PathLimit> {
    let action = match max.action {
        ActionName::Warn => LimitAction::Warn,
        ActionName::Restart => LimitAction::Restart(Duration::from_secs(max.restart_after.into())),
        ActionName::Down => LimitAction::Down,
    };
    let limit = |(family, max_of_family): (Family, Option<u32>)| {
        max_of_family.map(|count| PathLimit {
            family,
            max: count,
            warn_percent: max.warn_percent,
            action,
        })
    };
    [(Family::Ipv4Unicast, max.ipv4), (Family::Ipv6Unicast, max.ipv6)]
        .into_iter()
        .filter_map(limit)
        .collect()
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match u8::deserialize(deserializer)? {
        percent @ 1..=100 => Ok(percent),
        other => Err(D::Error::custom(format!(
            "{other} is no percentage: write 1 to 100"
        ))),
    }
}

/// A number for each family, or all settings.
pub(super) fn max_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MaxPrefix>, D::Error> {
    struct Limit;

    impl<'de> Visitor<'de> for Limit {
        type Value = MaxPrefix;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a number of prefixes, or ipv4, ipv6, warnPercent, action and restartAfter")
        }

        fn visit_u64<E: serde::de::Error>(self, max: u64) -> Result<Self::Value, E> {
            let max = u32::try_from(max).map_err(|_| E::invalid_value(Unexpected::Unsigned(max), &self))?;
            Ok(MaxPrefix {
                ipv4: Some(max),
                ipv6: Some(max),
                ..MaxPrefix::default()
            })
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            MaxPrefix::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(Limit).map(Some)
}
