//! The BGP speaker as one deterministic machine: wire, session, RIB, decision, export.
//!
//! The sans-I/O line runs around the *whole speaker*: every peer, connection collision, graceful restart,
//! the RIB and export. [`Speaker::handle`] takes one input at an instant, [`Speaker::poll`] gives outputs
//! until there are none, [`Speaker::deadline`] says when to come back at the latest. The same inputs at the
//! same instants with the same seed give the same outputs.

pub mod config;
pub mod error;
pub mod prefix;
pub mod seam;
pub mod speaker;
pub mod status;
pub mod wire;

pub use config::{Config, NextHopMode, PeerConfig, PeerKey, Policy};
pub use prefix::{Family, Prefix};
pub use seam::{ConnId, Input, Output};
pub use speaker::Speaker;
pub use status::{PathSnapshot, PeerSnapshot, State};
