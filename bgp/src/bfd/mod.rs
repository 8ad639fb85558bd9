//! Bidirectional Forwarding Detection (RFC 5880) over one hop (RFC 5881) and several (RFC 5883), asynchronous
//! mode without authentication and echoes: one deterministic machine for all sessions of a speaker.
//!
//! The line to sockets and clock is the speaker's: [`Bfd::handle`], [`Bfd::poll`], [`Bfd::deadline`].

pub mod packet;
mod session;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::PeerKey;
pub use packet::{Diagnostic, Packet};
use session::{Cx, Session};
pub use state::State;

/// The time to live, or hop limit, of every packet; one over a single hop that comes with less has been
/// forwarded, and does not count (RFC 5881 §5).
pub const TTL: u8 = 255;

/// The source ports of all packets (RFC 5881 §4).
pub const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// What identifies a session; one peer may have both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// With whom.
    pub peer: PeerKey,
    /// Over several hops (RFC 5883), not on one link.
    pub multihop: bool,
}

/// A session's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Which.
    pub key: Key,
    /// The address to send from; the driver's choice where absent.
    pub local: Option<IpAddr>,
    /// We would like to send no faster than this; 1 µs to 4294 s.
    pub min_tx: Duration,
    /// We take no more than one packet in this time; 1 µs to 4294 s.
    pub min_rx: Duration,
    /// The neighbour is to give up after this many intervals without a packet of ours.
    pub multiplier: NonZeroU8,
}

/// What happens to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// Adds a session, or changes its settings; it stays in its state.
    SetSession(SessionConfig),
    /// Ends a session; the neighbour is told that this is no failure.
    RemoveSession(Key),
    /// A datagram came.
    Received {
        /// The sender.
        from: IpAddr,
        /// The interface, for link-local senders.
        scope: u32,
        /// It came to the port for several hops.
        multihop: bool,
        /// Its time to live or hop limit.
        ttl: u8,
        /// All of it.
        bytes: Bytes,
    },
    /// Time has passed. Only this lets a session fail, so that packets which wait in a socket while the driver
    /// was held up count first: hand in what has come before each `Tick`.
    Tick,
}

/// What the machine asks for and reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram with [`TTL`] from one of [`SOURCE_PORTS`], always the same for one session.
    Send {
        /// To the session's peer, at [`Key::remote`].
        key: Key,
        /// From where.
        from: Option<IpAddr>,
        /// All of it.
        bytes: Bytes,
    },
    /// The session came up.
    Up(Key),
    /// The session was up, and the path has failed.
    Down(Key, Diagnostic),
    /// The session was up, and the neighbour's operator took it down: the path has not failed, and nothing that
    /// relies on it is to be torn down (RFC 5882 §3.2).
    NeighborAdminDown(Key),
    /// A removed session has said all that it had to say: its socket may go.
    Gone(Key),
}

/// A session as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// Which.
    pub key: Key,
    /// Our state.
    pub state: State,
    /// The neighbour's, if it is heard.
    pub remote_state: Option<State>,
    /// Why the session last left Up.
    pub diagnostic: Diagnostic,
    /// The time between our packets, before jitter; absent where the neighbour wants none.
    pub transmit_interval: Option<Duration>,
    /// How long the neighbour may be silent; absent while it is.
    pub detection_time: Option<Duration>,
}

/// The machine.
#[derive(Debug)]
pub struct Bfd {
    sessions: BTreeMap<Key, Session>,
    discriminators: BTreeMap<NonZeroU32, Key>,
    /// When which session is due: one entry per session that ever is.
    deadlines: BTreeSet<(Instant, Key)>,
    outputs: VecDeque<Output>,
    rng: StdRng,
}

impl Key {
    /// Where the peer listens (RFC 5881 §4, RFC 5883 §5).
    #[must_use]
    pub fn remote(self) -> SocketAddr {
        self.peer.socket_address(port(self.multihop))
    }
}

/// The port to listen at.
#[must_use]
pub fn port(multihop: bool) -> u16 {
    if multihop { 4784 } else { 3784 }
}

impl Bfd {
    /// A machine without sessions. The seed also makes the discriminators, which nobody is to guess.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: BTreeMap::new(),
            discriminators: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::SetSession(config) => self.set(now, config),
            Input::RemoveSession(key) => self.step(now, key, Session::remove),
            Input::Received {
                from,
                scope,
                multihop,
                ttl,
                bytes,
            } => {
                let sender = Key {
                    peer: PeerKey::of(from, scope),
                    multihop,
                };
                self.receive(now, sender, ttl, &bytes);
            }
            Input::Tick => self.expire(now),
        }
    }

    /// The next output, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle` with `Tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Every session as it stands, in order of key.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionSnapshot> {
        self.sessions.values().map(Session::snapshot).collect()
    }

    fn set(&mut self, now: Instant, config: SessionConfig) {
        let key = config.key;
        if self.sessions.contains_key(&key) {
            return self.step(now, key, |session, cx| session.reconfigure(config, cx));
        }
        let discriminator = self.discriminator();
        self.discriminators.insert(discriminator, key);
        let mut cx = Cx {
            now,
            rng: &mut self.rng,
            out: &mut self.outputs,
        };
        let session = Session::new(config, discriminator, &mut cx);
        self.sessions.insert(key, session);
        self.reschedule(key);
    }

    /// One that no session has.
    fn discriminator(&mut self) -> NonZeroU32 {
        loop {
            let candidate = self.rng.random();
            if !self.discriminators.contains_key(&candidate) {
                return candidate;
            }
        }
    }

    /// Finds the session by the discriminator that we gave it or, while the neighbour does not know it yet, by
    /// the sender (RFC 5880 §6.8.6; RFC 5881 §3, RFC 5883 §4). The kinds do not mix: over several hops nothing
    /// vouches for where a packet is from.
    fn receive(&mut self, now: Instant, sender: Key, ttl: u8, datagram: &[u8]) {
        let discarded = |why: &str| tracing::debug!(peer = %sender.peer.address, why, "BFD packet discarded");
        if !sender.multihop && ttl != TTL {
            return discarded("it was forwarded");
        }
        let packet = match Packet::decode(datagram) {
            Ok(packet) => packet,
            Err(error) => return discarded(&error.to_string()),
        };
        let key = match packet.your_discriminator {
            Some(ours) => self.discriminators.get(&ours).copied(),
            None => Some(sender).filter(|key| self.sessions.contains_key(key)),
        };
        match key.filter(|key| key.multihop == sender.multihop) {
            Some(key) => self.step(now, key, |session, cx| session.receive(&packet, cx)),
            None => discarded("it belongs to no session"),
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let mut over = false;
            self.step(now, key, |session, cx| over = session.expire(cx));
            if over && let Some(session) = self.sessions.remove(&key) {
                self.discriminators.remove(&session.discriminator());
                self.outputs.push_back(Output::Gone(key));
                self.deadlines
                    .extract_if(.., |(_, due)| *due == key)
                    .for_each(drop);
            }
        }
    }

    fn step(&mut self, now: Instant, key: Key, step: impl FnOnce(&mut Session, &mut Cx<'_>)) {
        if let Some(session) = self.sessions.get_mut(&key) {
            let mut cx = Cx {
                now,
                rng: &mut self.rng,
                out: &mut self.outputs,
            };
            step(session, &mut cx);
            self.reschedule(key);
        }
    }

    /// Keeps the table of deadlines in step with a session's timers.
    fn reschedule(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let deadline = session.deadline();
        if session.scheduled == deadline {
            return;
        }
        if let Some(at) = std::mem::replace(&mut session.scheduled, deadline) {
            self.deadlines.remove(&(at, key));
        }
        self.deadlines.extend(deadline.map(|at| (at, key)));
    }
}
