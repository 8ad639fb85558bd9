//! CNI types and the thin plugin: standard input to the agent's socket to standard output.
//!
//! # A call's life
//!
//! The container runtime starts `manx` with the verb and the attachment in its environment and the network's
//! configuration on standard input. [`run`] checks both, sends a [`Call`] (or the [`NetConf`] alone, for
//! STATUS and GC) to the agent's control socket as one JSON-RPC line ([`manx_api::rpc`]), and renders the
//! agent's [`Success`] or [`Error`] in the specification version the configuration asks for. The plugin holds
//! no credentials and keeps no state.
//!
//! While the agent is down, ADD answers error 11 (*try again later*), STATUS error 50, and DEL leaves a
//! [`tombstone`] and succeeds, so that no pod hangs in *Terminating*.
//!
//! Supported are the specification's versions 0.3.1, 0.4.0, 1.0.0 and 1.1.0.

mod args;
mod attachment;
mod client;
mod config;
mod error;
pub mod install;
mod invocation;
mod mac;
mod plugin;
mod result;
mod runtime;
pub mod tombstone;
mod version;

pub use args::Args;
pub use attachment::{Attachment, ContainerId, InterfaceName, InvalidName};
pub use config::{DEFAULT_SOCKET, DEFAULT_STATE_DIR, NetConf};
pub use error::{Code, Error};
pub use invocation::{Call, Command};
pub use mac::{InvalidMac, MacAddress};
pub use plugin::{Answer, run};
pub use result::{Dns, Interface, IpConfig, Route, Success};
pub use version::SpecVersion;
