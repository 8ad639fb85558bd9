//! What unit tests share.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::session::Session;
use crate::session::negotiate::{Restarted, negotiate, offer};
use crate::{Config, Family, PeerConfig, PeerKey};

/// Some instant.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to make an Instant"
)]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

/// The address and router id of speaker number `id`.
pub(crate) fn address(id: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, id)
}

/// The settings of speaker number `id`, all of one AS.
pub(crate) fn config(id: u8) -> Config {
    Config {
        asn: 64_512,
        router_id: address(id),
        cluster_id: None,
        restarted: false,
        deferral: Duration::from_secs(10),
        farewell: String::new(),
        interfaces: [].into(),
        seed: id.into(),
        max_paths: 8,
    }
}

/// The settings for speaker number `id` as a peer.
pub(crate) fn peer(id: u8) -> PeerConfig {
    let key = PeerKey {
        address: IpAddr::V4(address(id)),
        scope: 0,
    };
    PeerConfig {
        families: Family::ALL.to_vec(),
        graceful_restart: Some(Duration::from_secs(120)),
        ..PeerConfig::new(key, 64_512)
    }
}

/// A session without graceful restart.
pub(crate) fn session() -> Session {
    let without = |id| PeerConfig {
        graceful_restart: None,
        ..peer(id)
    };
    let first_boot = Restarted {
        recovering: false,
        forwarding: false,
    };
    negotiate(
        &config(1),
        &without(2),
        &offer(&config(2), &without(1), first_boot),
    )
    .unwrap()
}
