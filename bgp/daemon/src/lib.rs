//! Sockets and timers around the BGP speaker; a library for the agent, a binary for reflectors and labs.
//!
//! The speaker ([`manx_bgp::Speaker`]) decides everything; this crate carries bytes and time to it and its
//! outputs back. It knows no protocol beyond framing.
//!
//! ```text
//!  listener (1 per address) ──accepted──┐
//!  dialler  (1 per attempt) ──dialled───┤                       ┌──bytes──► writer (1 per connection)
//!  reader   (1 per connection) ─message─┼─► inbox ─► driver ────┤◄─drained──┘
//!  Handle   (any number) ───────input───┘  bounded   (owns the  ├─context─► reader
//!                                                     speaker)  └─Selected, Session, Converged─► Events
//! ```
//!
//! What holds:
//! - The listeners are bound before [`start`] returns, so a peer that is told of us finds us.
//! - Only the driver waits for nobody: towards a connection it tries and gives up on the connection, towards
//!   [`Events`] it merges what the consumer has not taken yet. So neither a stalled peer nor a slow consumer
//!   holds up another session's KEEPALIVE.
//! - Readers do wait for the driver: when the inbox is full they stop reading and TCP slows the peers down.
//! - A reader that panics on its input costs its own connection and nothing else.
//! - BFD has a thread of its own, which sees packets and the clock only: no amount of routes delays it. What it
//!   finds reaches the driver past the inbox.
//! - When the last [`Handle`] is dropped everything stops at once, as if the process had died: peers that
//!   were offered graceful restart keep our routes. [`Handle::shutdown`] is the polite way.

mod bfd;
pub mod config;
mod connection;
pub mod control;
mod driver;
pub mod filters;
mod guard;
mod handle;
pub mod operate;
mod ranges;
pub mod reload;
pub mod show;
mod sockets;
mod sockopt;
mod syn;
mod ttl_filter;

use std::io;
use std::net::SocketAddr;

pub use handle::{Event, Events, Handle};
pub use manx_bgp as bgp;

/// What a speaker starts with; peers and routes come later through the [`Handle`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The speaker's own settings.
    pub config: manx_bgp::Config,
    /// Where to listen; port 0 takes a free one (see [`Handle::listening`]). Empty: peers cannot dial us.
    pub listen: Vec<SocketAddr>,
}

/// Binds every listener, then runs the speaker on the current Tokio runtime.
///
/// # Errors
/// The first address that cannot be bound, named, or a listener that cannot be guarded; nothing has been started
/// then.
///
/// # Panics
/// Outside a Tokio runtime with I/O and time enabled.
pub fn start(options: Options) -> io::Result<(Handle, Events)> {
    let listeners = options
        .listen
        .iter()
        .map(|&address| sockets::listen(address))
        .collect::<io::Result<Vec<_>>>()?;
    let listening = listeners
        .iter()
        .map(tokio::net::TcpListener::local_addr)
        .collect::<io::Result<Vec<_>>>()?;
    driver::spawn(options.config, listeners, listening.into())
}
