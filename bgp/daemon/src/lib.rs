//! Sockets and timers around the BGP speaker; a library for the agent, a binary for reflectors and labs.
//!
//! The speaker ([`manx_bgp::Speaker`]) decides everything; this crate carries bytes and time to it and its
//! outputs back. It knows no protocol beyond framing.
//!
//! ```text
//!  listener (1 per address) ──accepted──┐
//!  dialler  (1 per attempt) ──dialled───┤                       ┌──bytes──► writer (1 per connection)
//!  reader   (1 per connection) ─message─┼─► inbox ─► driver ────┤◄─drained──┘
//!  radv     (1 per interface) ──heard───┤  bounded   (owns the  ├─context─► reader
//!  Handle   (any number) ───────input───┘             speaker)  └─Selected, Session, Converged─► Events
//! ```
//!
//! What holds:
//! - The listeners are bound before [`start`] returns, so a peer that is told of us finds us.
//! - Only the driver waits for nobody: towards a connection it tries and gives up on the connection, towards
//!   [`Events`] it merges what the consumer has not taken yet. So neither a stalled peer nor a slow consumer
//!   holds up another session's KEEPALIVE.
//! - Readers do wait for the driver: when the inbox is full they stop reading and TCP slows the peers down. What lies in the
//!   inbox counts before timers do: nobody is taken for dead who was only not heard yet.
//! - A reader that panics on its input costs its own connection and nothing else.
//! - A monitoring station (RFC 7854) takes what it is told at its own pace, and costs a bounded amount of memory
//!   however slow it is: `bmp` has the bound.
//! - BFD has a thread of its own, which sees packets and the clock only: no amount of routes delays it. What it
//!   finds reaches the driver past the inbox.
//! - What peers and strangers can make this process keep is bounded, as the table says; each row has its test.
//!
//! | what | at most | where |
//! |---|---|---|
//! | connections with one peer, closed ones that linger included | 16; of those, 2 are heard | `PER_PEER` |
//! | connections with strangers, and with those whom a range had no place for | 128, and 128 for each range | `PER_CROWD` |
//! | connections that the kernel has made and nobody has accepted | 1024 for each listener | `BACKLOG` |
//! | how long a connection is without OPEN, or unconfirmed | 4 minutes | `OPEN_HOLD` |
//! | how long a closed connection lingers | 2 s | `LINGER` |
//! | messages read and not yet looked at | 256, 1 MiB of them, 64 KiB of one connection | `JOBS`, `OCTETS`, `OCTETS_PER_CONNECTION` |
//! | octets for a peer that reads nothing | 640 KiB; what is beyond waits as the number of its prefix | `SEND_QUEUE` |
//! | octets kept for those of a group of peers that are late | 1 MiB and a step; who is later hears the last word only | `LOG` |
//! | how long a peer may take nothing | twice the hold time, 8 minutes at least (RFC 9687) | `SEND_HOLD` |
//! | answers to route refreshes | one under way, one more after it, for each family | `Outbound::requested` |
//! | how long a refresh may last, and stale routes of a peer that is back | 6 minutes | `repetition::LIMIT`, `STALE_LIMIT` |
//! | dynamic neighbours | `limit` of their range, 100 | `RangeConfig` |
//! | routes of a peer | `maxPrefix`; without it as many as memory holds: a setting, since nobody else knows what is right | `PathLimit` |
//! | attributes of a route | a message: 4,096 octets, 65,535 where agreed | `Context::max_message` |
//! | counters of errors | one for each attribute and cost | `Fault` |
//! | changes for [`Events`] | one for each prefix, peer and path | `Pending` |
//! | changes of paths that BFD sees | one for each session | `Paths` in `bfd.rs` |
//! | BFD packets of those who are no neighbours | none over one hop: the kernel drops what was forwarded | `ttl_filter.rs` |
//! | callers of the control socket | 256, each with a minute to ask and to take its answer | `CALLERS`, `PATIENCE` |
//!
//! - When the last [`Handle`] is dropped everything stops at once, as if the process had died: peers that
//!   were offered graceful restart keep our routes. [`Handle::shutdown`] is the polite way.

mod bfd;
mod bmp;
pub mod config;
mod connection;
pub mod control;
mod datagram;
mod discovery;
mod driver;
pub mod filters;
mod guard;
mod handle;
mod inbox;
mod interfaces;
mod links;
pub mod operate;
mod places;
mod radv;
mod ranges;
pub mod reload;
pub mod show;
mod sockets;
mod sockopt;
mod syn;
mod ttl_filter;

use std::io;
use std::net::SocketAddr;

pub use handle::{Event, Events, Handle, Lost};
pub use links::{LinkKey, LinkPeer, LinkSnapshot};
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
    start_beside(options, tokio::runtime::Handle::current())
}

/// The same, with connections read and written on another runtime. Tasks that wake one another like to stay on one thread:
/// where a speaker may use several, messages are decoded and sent while it works.
///
/// # Errors
/// As [`start`].
///
/// # Panics
/// As [`start`].
pub fn start_beside(options: Options, connections: tokio::runtime::Handle) -> io::Result<(Handle, Events)> {
    let listeners = options
        .listen
        .iter()
        .map(|&address| sockets::listen(address))
        .collect::<io::Result<Vec<_>>>()?;
    let listening = listeners
        .iter()
        .map(tokio::net::TcpListener::local_addr)
        .collect::<io::Result<Vec<_>>>()?;
    driver::spawn(options.config, listeners, listening.into(), connections)
}
