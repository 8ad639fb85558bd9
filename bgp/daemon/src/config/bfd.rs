//! `bfd`: how the path to a neighbor is watched.

use std::fmt;
use std::num::NonZeroU8;
use std::time::Duration;

use manx_bgp::BfdConfig;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// How BFD watches the path to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BfdSettings {
    /// The peer is several hops away (RFC 5883). Default false: it is on our link.
    pub multihop: bool,
    /// Milliseconds between our packets at least, 10 to 60000. Default 300.
    #[serde(deserialize_with = "interval")]
    pub min_tx: u16,
    /// Milliseconds between the peer's at least, 10 to 60000. Default 300.
    #[serde(deserialize_with = "interval")]
    pub min_rx: u16,
    /// The path is down after this many intervals of silence, 1 to 255. Default 3.
    pub multiplier: NonZeroU8,
}

impl Default for BfdSettings {
    fn default() -> Self {
        Self {
            multihop: false,
            min_tx: 300,
            min_rx: 300,
            multiplier: NonZeroU8::MIN.saturating_add(2),
        }
    }
}

impl BfdSettings {
    /// As the speaker takes it.
    pub(super) fn config(self) -> BfdConfig {
        BfdConfig {
            multihop: self.multihop,
            min_tx: Duration::from_millis(self.min_tx.into()),
            min_rx: Duration::from_millis(self.min_rx.into()),
            multiplier: self.multiplier,
        }
    }
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        milliseconds @ 10..=60_000 => Ok(milliseconds),
        other => Err(D::Error::custom(format!(
            "an interval of {other} ms is not possible: write 10 to 60000"
        ))),
    }
}

/// A switch, or how.
pub(super) fn bfd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BfdSettings>, D::Error> {
    struct Settings;

    impl<'de> Visitor<'de> for Settings {
        type Value = Option<BfdSettings>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false, or multihop, minTx, minRx and multiplier")
        }

        fn visit_bool<E>(self, watched: bool) -> Result<Self::Value, E> {
            Ok(watched.then(BfdSettings::default))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            BfdSettings::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Settings)
}
