//! The speaker: all peers, the RIB, and what leaves.

use std::time::Instant;

pub use crate::config::{Config, NextHopMode, PeerConfig, PeerKey, Policy};
pub use crate::seam::{ConnId, Input, Output};
pub use crate::status::{PathSnapshot, PeerSnapshot, State};

/// Bytes under way to one peer beyond which its announcements wait for `Drained`.
pub const SEND_BUDGET: usize = 256 * 1024;

/// The machine.
#[derive(Debug)]
pub struct Speaker {
    config: Config,
}

impl Speaker {
    /// A speaker without peers.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Takes one input.
    pub fn handle(&mut self, _now: Instant, _input: Input) {
        let _ = &self.config;
    }

    /// The next output, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        None
    }

    /// When to call `handle` with `Tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Every configured peer as it stands, in order of key.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        Vec::new()
    }

    /// Every path of every prefix, the best first within a prefix.
    #[must_use]
    pub fn paths(&self) -> Vec<PathSnapshot> {
        Vec::new()
    }
}
