//! Monitoring stations (RFC 7854), as the file lists them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A collector that is told of sessions and routes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collector {
    /// Where it listens: `192.0.2.9:11019`, `[2001:db8::9]:11019` or `collector.example:11019`.
    #[serde(deserialize_with = "address")]
    pub address: String,
    /// By what name it knows us, 255 octets at most. Default: the machine's name.
    #[serde(default, deserialize_with = "name")]
    pub name: Option<String>,
    /// Seconds between two reports of what is counted, 0 (never) to 65535. Default 60.
    #[serde(default = "statistics_interval_default")]
    pub statistics_interval: u16,
}

impl Collector {
    /// How often it hears of what is counted, if ever.
    #[must_use]
    pub fn statistics(&self) -> Option<Duration> {
        let interval = Duration::from_secs(self.statistics_interval.into());
        (!interval.is_zero()).then_some(interval)
    }
}

fn statistics_interval_default() -> u16 {
    60
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let named = |host: &str| {
        let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !host.is_empty() && host.chars().all(of_name)
    };
    let is_right = text
        .parse::<std::net::SocketAddr>()
        .map(|it| it.port())
        .ok()
        .or_else(|| {
            let (host, port) = text.rsplit_once(':')?;
            port.parse().ok().filter(|_| named(host))
        });
    match is_right {
        Some(1..) => Ok(text),
        Some(0) | None => Err(D::Error::custom(format!(
            "'{text}' is not where a collector listens: write 192.0.2.9:11019, [2001:db8::9]:11019 or collector.example:11019"
        ))),
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.len() {
        1..=255 => Ok(Some(name)),
        octets => Err(D::Error::custom(format!(
            "a name of {octets} octets is not possible: write 1 to 255"
        ))),
    }
}
