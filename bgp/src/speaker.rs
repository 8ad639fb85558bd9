//! The speaker: all peers, the RIB, and what leaves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::wire::{Context, Message, NextHop};
use crate::{Family, Prefix};

/// What identifies a peer: its address and, for a link-local one, the interface's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// The peer's address.
    pub address: IpAddr,
    /// The interface, for link-local addresses; 0 otherwise.
    pub scope: u32,
}

/// A transport connection, numbered by the speaker when it dials and by the driver (`Accepted`) otherwise:
/// the driver's numbers have the highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// The speaker's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our AS.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our cluster identifier as a reflector (RFC 4456); the router id by default.
    pub cluster_id: Option<Ipv4Addr>,
    /// We come back from a restart and kept forwarding: OPEN says R and F, and export waits for the peers'
    /// End-of-RIB or `deferral` (RFC 4724 §4.1).
    pub restarted: bool,
    /// How long export waits after a restart, at most.
    pub deferral: Duration,
    /// Seed of all jitter.
    pub seed: u64,
    /// Next hops per prefix towards the kernel, at most.
    pub max_paths: usize,
}

/// A peer's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Who.
    pub key: PeerKey,
    /// The port to dial.
    pub port: u16,
    /// The peer's AS.
    pub asn: u32,
    /// The address to dial from, and our next hop; the driver's choice where absent.
    pub local_address: Option<IpAddr>,
    /// Our next hops per family, for next hop self; `local_address` of the same family where absent.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub next_hop_v6: Option<std::net::Ipv6Addr>,
    /// Wait for the peer to connect.
    pub passive: bool,
    /// Proposed hold time; zero: none. 3 s at least otherwise.
    pub hold_time: Duration,
    /// Families to offer.
    pub families: Vec<Family>,
    /// Treat the peer as a client (RFC 4456).
    pub route_reflector_client: bool,
    /// Offer graceful restart with this restart time (RFC 4724).
    pub graceful_restart: Option<Duration>,
    /// Which next hop announcements carry.
    pub next_hop: NextHopMode,
    /// What comes in.
    pub import: Policy,
    /// What goes out.
    pub export: Policy,
}

/// Which next hop announcements carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHopMode {
    /// RFC 4271 §5.1.3: ourselves for our own routes and towards eBGP, unchanged otherwise.
    Auto,
    /// Always ourselves.
    SelfAddress,
    /// Unchanged wherever there is one.
    Keep,
}

/// What passes, in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Everything.
    Accept,
    /// Nothing.
    Reject,
    /// Prefixes inside any of these.
    Within(std::sync::Arc<[Prefix]>),
}

/// What happens to the speaker.
#[derive(Clone, Debug)]
pub enum Input {
    /// Adds a peer, or changes its settings; other peers notice nothing.
    SetPeer(Box<PeerConfig>),
    /// Ends a peer's session (cease, peer de-configured) and forgets it.
    RemovePeer(PeerKey),
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
        message: Result<Message, crate::wire::Notification>,
    },
    /// The connection is gone.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// The connection's send buffer has drained: it may take more.
    Drained {
        /// Which.
        conn: ConnId,
    },
    /// Nothing but time has passed.
    Tick,
    /// The process ends: with graceful restart offered, leave without a NOTIFICATION so that peers keep
    /// our routes; otherwise cease.
    Shutdown,
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
    /// Close the connection once what was sent has left; no `Closed` follows.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// The best paths of a prefix changed; an empty list means unreachable. Own prefixes do not appear.
    Selected {
        /// Which prefix.
        prefix: Prefix,
        /// The next hops, best first.
        next_hops: Vec<NextHop>,
    },
    /// Every peer that will send its initial routes has done so, or the time for it is up: what the kernel
    /// holds and the speaker has not selected is stale. Once per life.
    Converged,
    /// A peer's session came up or went down.
    Session {
        /// Whose.
        peer: PeerKey,
        /// Up or down.
        up: bool,
        /// Why it went down.
        reason: Option<String>,
    },
}

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
}
