//! The seam between the speaker and its driver: what happens to it, and what it asks for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::interfaces::Interface;
use crate::speaker::monitor::SessionEnd;
use crate::status::Fault;
use crate::wire::{Context, Message, NextHop, Notification};
use crate::{PeerConfig, PeerKey, Prefix, RangeConfig};

/// A transport connection, numbered by the speaker when it dials and by the driver (`Accepted`) otherwise:
/// the driver's numbers have the highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A next hop as packets go to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// The router's address.
    pub address: IpAddr,
    /// The interface that it is reached over: its index, for link-local addresses; 0 otherwise.
    pub scope: u32,
}

impl Gateway {
    /// What a next hop from a session over `scope` leads to. There, where one is given, it is the link-local address:
    /// this neighbour shares the link with us (RFC 2545 §2), and nothing else may tell how to reach the global one.
    #[must_use]
    pub fn new(next_hop: NextHop, scope: u32) -> Self {
        match next_hop {
            NextHop::V6 {
                global: _,
                link_local: Some(link_local),
            } if scope != 0 => Self {
                address: link_local.into(),
                scope,
            },
            NextHop::V4(_) | NextHop::V6 { .. } => Self {
                address: next_hop.address(),
                scope: 0,
            },
        }
    }
}

/// What happens to the speaker.
#[derive(Clone, Debug)]
pub enum Input {
    /// Adds a peer, or changes its settings; other peers notice nothing.
    SetPeer(Box<PeerConfig>),
    /// Ends a peer's session (cease, peer de-configured) and forgets it.
    RemovePeer(PeerKey),
    /// Lets peers connect from a range of addresses, or changes their settings.
    SetRange(Box<RangeConfig>),
    /// Ends the sessions of a range's peers, and lets no more connect.
    RemoveRange(Prefix),
    /// Announces a prefix of our own.
    Originate(Prefix),
    /// No longer announces it.
    Unoriginate(Prefix),
    /// A dial succeeded.
    Connected {
        /// Which.
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
    },
    /// A dial failed.
    ConnectFailed {
        /// Which.
        conn: ConnId,
    },
    /// A peer dialled us.
    Accepted {
        /// The driver's number.
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
        /// The interface, for link-local peers.
        scope: u32,
    },
    /// A message came, decoded with the connection's context, or one that could not be.
    Received {
        /// On which connection.
        conn: ConnId,
        /// What.
        message: Result<Message, Notification>,
    },
    /// The UPDATE that comes next on a connection was wrong, short of ending the session (RFC 7606).
    Faulty {
        /// On which connection.
        conn: ConnId,
        /// What was wrong with it.
        faults: Vec<Fault>,
    },
    /// The connection is gone.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// All bytes of this connection's `Send`s so far are with the kernel: it may take more. The driver says so
    /// each time its send queue becomes empty; without it, the speaker stops announcing to the peer once
    /// [`SEND_BUDGET`](crate::speaker::SEND_BUDGET) bytes are under way, and ends a session whose
    /// send queue never empties (RFC 9687).
    Drained {
        /// Which.
        conn: ConnId,
    },
    /// Whether peers are configured whose address is not known yet: as long as there are any, the start waits for them
    /// as for peers that do not answer.
    Unfound(bool),
    /// BFD has seen the path to the peer fail: its session, if there is one, ends at once, and graceful restart
    /// keeps none of its routes (RFC 5882 §4.3, RFC 9384 §3).
    PathDown(PeerKey),
    /// Empties a peer's session, or all, before it ends: routes are marked with GRACEFUL_SHUTDOWN for a time, then withdrawn,
    /// then the session ends (cease, administrative shutdown) and stays away until [`Undrain`](Self::Undrain)
    /// (RFC 8326). New settings do not bring it back. Where all are drained, so are new peers.
    Drain {
        /// Whose; all where absent.
        peer: Option<PeerKey>,
        /// How long routes are marked.
        time: Duration,
        /// What the peer reads (RFC 9003); 255 octets are sent at most.
        words: String,
    },
    /// Ends the drain of a peer, or of all, however far it is.
    Undrain(Option<PeerKey>),
    /// Ends a peer's session (cease, administrative reset) and tries again at once; one that is drained stays away.
    Reset {
        /// Whose.
        peer: PeerKey,
        /// What the peer reads (RFC 9003); 255 octets are sent at most.
        words: String,
    },
    /// Asks a peer for all its routes again, where it takes such requests, and sends it all of ours again (RFC 2918).
    Refresh(PeerKey),
    /// Over which interfaces we reach others now: filters that ask for them judge anew.
    Interfaces(Arc<[Interface]>),
    /// Nothing but time has passed.
    Tick,
    /// The process ends: with graceful restart offered, leave without a NOTIFICATION so that peers keep
    /// our routes; otherwise cease.
    Shutdown,
}

/// Where packets of a prefix go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Through any of these, the best first; through none: nowhere.
    pub next_hops: Vec<Gateway>,
    /// Through that one once all of these are lost: the next hop of the path that is best then.
    pub backup: Option<Gateway>,
    /// The route's metric in the kernel: [`NORMAL_PRIORITY`](crate::filter::NORMAL_PRIORITY), unless a filter set
    /// another.
    pub priority: u32,
}

/// What the speaker asks of its driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection; answer with `Connected` or `ConnectFailed`.
    Dial {
        /// The number to use.
        conn: ConnId,
        /// To whom.
        remote: SocketAddr,
        /// From where.
        local: Option<IpAddr>,
    },
    /// Decode this connection's further messages with this context.
    Decode {
        /// Which connection.
        conn: ConnId,
        /// The context.
        context: Context,
    },
    /// Write these bytes, after all before them.
    Send {
        /// Where.
        conn: ConnId,
        /// Whole messages.
        bytes: Bytes,
    },
    /// Close the connection once what was sent has left, or give up a dial that is under way; no `Closed`,
    /// `Connected` or `ConnectFailed` needs to follow (the speaker no longer listens to them).
    Close {
        /// Which.
        conn: ConnId,
    },
    /// The best paths of a prefix changed. Own prefixes do not appear.
    Selected {
        /// Which prefix.
        prefix: Prefix,
        /// Where it leads now.
        choice: Choice,
    },
    /// Every configured peer has told all its routes (End-of-RIB), two seconds after the start at the earliest,
    /// or [`deferral`](crate::Config::deferral) is up: what the kernel holds and the speaker has not selected is
    /// stale. Once per life.
    Converged,
    /// All peers were to be drained, and the last session has ended.
    Drained,
    /// A range has as many peers as it may have, and has turned one away; once until there is room again.
    RangeFull(Prefix),
    /// A peer's session came up or went down.
    Session {
        /// Whose.
        peer: PeerKey,
        /// Up or down.
        up: bool,
        /// Why it went down.
        reason: Option<String>,
        /// How it went down.
        end: Option<SessionEnd>,
    },
}
