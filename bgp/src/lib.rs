//! The BGP speaker as one deterministic machine: wire, session, RIB, decision, export.
//!
//! The sans-I/O line runs around the *whole speaker*: every peer, connection collision, graceful restart,
//! the RIB and export. [`Speaker::handle`] takes one input at an instant, [`Speaker::poll`] gives outputs
//! until there are none, [`Speaker::deadline`] says when to come back at the latest. The same inputs at the
//! same instants with the same seed give the same outputs.

pub mod bfd;
pub mod config;
mod convergence;
mod decision;
mod drain;
pub mod dynamic;
mod egress;
pub mod error;
pub mod explain;
mod export;
pub mod features;
pub mod filter;
mod group;
pub mod handling;
mod import;
mod inbound;
pub mod interfaces;
mod leak;
mod long_lived;
mod peer;
pub mod prefix;
mod repetition;
mod rib;
pub mod seam;
mod session;
pub mod speaker;
pub mod status;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod wire;

pub use config::{ANY_EXTERNAL_AS, BfdConfig, Config, NextHopMode, PeerConfig, PeerKey, Policy};
pub use drain::Phase as DrainPhase;
pub use dynamic::{RangeConfig, RangeSnapshot};
pub use features::{AddPathConfig, Features, RoleConfig};
pub use handling::{Handling, LimitAction, LimitState, PathLimit};
pub use interfaces::Interface;
pub use prefix::{Family, Prefix};
pub use seam::{Choice, ConnId, Gateway, Input, Output};
pub use speaker::Speaker;
pub use speaker::monitor::{Established, Place, ReceivedRoute, SessionEnd, Statistics};
pub use status::{Fault, LimitSnapshot, PathSnapshot, PeerSnapshot, State};
pub use transport::Transport;
