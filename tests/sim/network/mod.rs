//! A network of speakers under a virtual clock.
//!
//! Connections carry octets: what a speaker sends is framed and decoded on the other side as a driver would do
//! it. Latency, the order of simultaneous events and losses come from one seed, which is printed when a test
//! fails: `MANX_SIM_SEED=<seed>` runs the same again.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use manx_bgp::wire::{self, Context, NextHop, Notification};
use manx_bgp::{Config, ConnId, Gateway, Input, Output, PeerConfig, PeerKey, Prefix, Speaker, State};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A speaker's place in the network.
pub(crate) type Node = usize;

/// The AS that everybody is of, unless a test says otherwise.
pub(crate) const ASN: u32 = 64_512;

/// One end of a connection.
type End = (Node, ConnId);

/// What happens at an instant.
#[derive(Debug)]
enum Event {
    /// A dial arrives.
    Syn { from: End, to: Node },
    /// The answer to a dial arrives: the other end, or none.
    Answer { at: End, other: Option<End> },
    /// Octets arrive.
    Octets { from: End, at: End, bytes: Bytes },
    /// The other end has closed.
    Fin { from: End, at: End },
}

/// An open connection as one end sees it.
#[derive(Debug)]
struct Socket {
    other: End,
    received: BytesMut,
    context: Context,
    /// Octets in the send queue.
    queued: usize,
    /// Octets were lost on the way: nothing arrives any more.
    hung: bool,
    /// When the last octet sent arrives: what is sent later arrives no earlier.
    arrives: Instant,
}

/// A speaker and its surroundings.
#[derive(Debug)]
pub(crate) struct Host {
    /// The speaker; none while the process is down.
    pub(crate) speaker: Option<Speaker>,
    /// What the kernel was told.
    pub(crate) selected: BTreeMap<Prefix, Vec<Gateway>>,
    /// Of what it was told since the speaker started: what else it holds is stale.
    told: BTreeSet<Prefix>,
    /// How often it was told something.
    pub(crate) changes: usize,
    /// Whether the speaker has said that it converged.
    pub(crate) converged: bool,
    /// Whose sessions are up.
    up: BTreeSet<PeerKey>,
    /// Sessions that came up and went down.
    pub(crate) flaps: usize,
    /// Dials, with their instants.
    pub(crate) dials: Vec<Instant>,
    /// Reads so slowly that the others' send queues never become empty.
    pub(crate) slow: bool,
    powered: bool,
    sockets: BTreeMap<ConnId, Socket>,
    dialling: BTreeSet<ConnId>,
    accepted: u64,
    deadline: Option<Instant>,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    /// The time.
    pub(crate) now: Instant,
    /// What everything random comes from.
    pub(crate) rng: StdRng,
    /// The hosts.
    pub(crate) hosts: Vec<Host>,
    /// The slowest that octets travel.
    pub(crate) latency: Duration,
    /// How everybody is configured as a peer, but for the address.
    pub(crate) peer: PeerConfig,
    seed: u64,
    events: BTreeMap<(Instant, u64), Event>,
    count: u64,
    deadlines: BTreeSet<(Instant, Node)>,
    /// Pairs that cannot reach each other.
    cuts: BTreeSet<(Node, Node)>,
    start: Instant,
}

/// Seeds for a test: the one of `MANX_SIM_SEED`, else the first `MANX_SIM_SEEDS` or as many as the test wants.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let count = number("MANX_SIM_SEEDS").unwrap_or(count);
    number("MANX_SIM_SEED").map_or(0..count, |seed| seed..seed + 1)
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Where speaker `node` is.
pub(crate) fn address(node: Node) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0001 + u32::try_from(node).unwrap())
}

/// Who has an address, of either family.
pub(crate) fn node_of(address: IpAddr) -> Node {
    let number = match address {
        IpAddr::V4(address) => u32::from(address) - 0x0a00_0001,
        IpAddr::V6(address) => u32::try_from(u128::from(address) & 0xffff_ffff).unwrap() - 1,
    };
    Node::try_from(number).unwrap()
}

/// What speaker `node` originates: a block of pod addresses.
pub(crate) fn block(node: Node) -> Prefix {
    let first = 0x0a80_0000 + (u32::try_from(node).unwrap() << 6);
    Prefix::v4(Ipv4Addr::from(first), 26).unwrap()
}

/// How `node` is known to its peers.
pub(crate) fn key(node: Node) -> PeerKey {
    PeerKey {
        address: IpAddr::V4(address(node)),
        scope: 0,
    }
}

/// Settings that tests vary.
pub(crate) fn config(node: Node, seed: u64) -> Config {
    Config {
        asn: ASN,
        router_id: address(node),
        cluster_id: None,
        restarted: false,
        deferral: Duration::from_secs(10),
        farewell: String::new(),
        interfaces: [].into(),
        seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(node as u64),
        max_paths: 4,
    }
}

/// Settings for a peer that tests vary.
pub(crate) fn peer(node: Node) -> PeerConfig {
    PeerConfig {
        graceful_restart: Some(Duration::from_secs(120)),
        ..PeerConfig::new(key(node), ASN)
    }
}

impl Network {
    /// `count` hosts on which nothing runs.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            rng: StdRng::seed_from_u64(seed),
            hosts: (0..count).map(|_| Host::new()).collect(),
            latency: Duration::from_millis(5),
            peer: peer(0),
            seed,
            events: BTreeMap::new(),
            count: 0,
            deadlines: BTreeSet::new(),
            cuts: BTreeSet::new(),
        }
    }

    /// Starts a speaker.
    pub(crate) fn start(&mut self, node: Node, config: Config) {
        let host = &mut self.hosts[node];
        host.speaker = Some(Speaker::new(config));
        host.powered = true;
        host.converged = false;
        host.told.clear();
        host.up.clear();
    }

    /// Starts a speaker that originates its block.
    pub(crate) fn boot(&mut self, node: Node) {
        self.start(node, config(node, self.seed));
        self.input(node, Input::Originate(block(node)));
    }

    /// Starts a speaker again whose forwarding went on, with all others as its peers.
    pub(crate) fn reboot(&mut self, node: Node) {
        self.start(
            node,
            Config {
                restarted: true,
                ..config(node, self.seed)
            },
        );
        self.input(node, Input::Originate(block(node)));
        self.mesh_peers(node);
    }

    /// Makes two speakers each other's peers.
    pub(crate) fn join(&mut self, a: Node, b: Node) {
        self.set_peer(a, b);
        self.set_peer(b, a);
    }

    /// Makes `with` a peer of `node`.
    pub(crate) fn set_peer(&mut self, node: Node, with: Node) {
        let config = PeerConfig {
            key: key(with),
            ..self.peer.clone()
        };
        self.input(node, Input::SetPeer(Box::new(config)));
    }

    /// A full mesh of all hosts, started together.
    pub(crate) fn mesh(count: usize, seed: u64) -> Self {
        Self::mesh_with(count, seed, |_| {})
    }

    /// A full mesh with other settings for peers.
    pub(crate) fn mesh_with(count: usize, seed: u64, settings: impl FnOnce(&mut PeerConfig)) -> Self {
        let mut network = Self::new(count, seed);
        settings(&mut network.peer);
        for node in 0..count {
            network.boot(node);
            network.mesh_peers(node);
        }
        network.run_until(Duration::from_secs(20), "the mesh is complete", Self::complete);
        network
    }

    /// Makes everybody else a peer of `node`.
    pub(crate) fn mesh_peers(&mut self, node: Node) {
        for other in (0..self.hosts.len()).filter(|&other| other != node) {
            self.set_peer(node, other);
        }
    }

    /// What a full mesh comes to: everybody reaches every other block through its owner.
    pub(crate) fn model(&self, node: Node) -> BTreeMap<Prefix, Vec<Gateway>> {
        let running = |other: &Node| self.hosts[*other].speaker.is_some();
        (0..self.hosts.len())
            .filter(|other| *other != node && running(other))
            .map(|other| (block(other), vec![Gateway::new(NextHop::V4(address(other)), 0)]))
            .collect()
    }

    /// Whether every running host of a full mesh is where the model says.
    pub(crate) fn complete(&self) -> bool {
        let running: Vec<Node> = (0..self.hosts.len())
            .filter(|&node| self.hosts[node].speaker.is_some())
            .collect();
        // The count alone tells most of the time, and costs little.
        let full = |node: &Node| self.hosts[*node].selected.len() + 1 == running.len();
        running.iter().all(full)
            && running
                .iter()
                .all(|&node| self.hosts[node].selected == self.model(node))
    }

    /// How often each host's kernel was told something, so far.
    pub(crate) fn changes(&self) -> Vec<usize> {
        self.hosts.iter().map(|host| host.changes).collect()
    }

    /// How often sessions of each host came up or went down, so far.
    pub(crate) fn flaps(&self) -> Vec<usize> {
        self.hosts.iter().map(|host| host.flaps).collect()
    }

    /// Gives a speaker one input, and performs what it asks for.
    pub(crate) fn input(&mut self, node: Node, input: Input) {
        if let Some(speaker) = &mut self.hosts[node].speaker {
            speaker.handle(self.now, input);
            self.perform(node);
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`; panics when `limit` is over.
    pub(crate) fn run_until(&mut self, limit: Duration, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(
                self.step(end),
                "not within {limit:?}: {what}\n{}",
                self.describe()
            );
        }
    }

    /// Asserts, and says how to replay the run.
    #[track_caller]
    pub(crate) fn check(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}", self.describe());
    }

    /// How far the session that `node` has with `with` is.
    pub(crate) fn state(&self, node: Node, with: Node) -> State {
        let peers = self.hosts[node]
            .speaker
            .as_ref()
            .map(Speaker::peers)
            .unwrap_or_default();
        peers
            .iter()
            .find(|peer| peer.key == key(with))
            .map_or(State::Idle, |peer| peer.state)
    }

    /// The number of Established sessions of a host.
    pub(crate) fn sessions(&self, node: Node) -> usize {
        let peers = self.hosts[node]
            .speaker
            .as_ref()
            .map(Speaker::peers)
            .unwrap_or_default();
        peers
            .iter()
            .filter(|peer| peer.state == State::Established)
            .count()
    }

    /// The number of open connections of a host.
    pub(crate) fn connections(&self, node: Node) -> usize {
        self.hosts[node].sockets.len()
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn describe(&self) -> String {
        format!(
            "seed {}, at {:?}; replay with MANX_SIM_SEED={}",
            self.seed,
            self.elapsed(),
            self.seed
        )
    }

    fn stop_clock(&mut self, node: Node) {
        if let Some(at) = self.hosts[node].deadline.take() {
            self.deadlines.remove(&(at, node));
        }
    }

    /// Lets the next thing happen, if it does before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let event = self.events.first_key_value().map(|(&(at, _), _)| at);
        let tick = self.deadlines.first().copied();
        let next = event.into_iter().chain(tick.map(|(at, _)| at)).min();
        let Some(at) = next.filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(at);
        if event == Some(at) {
            if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        } else if let Some((_, node)) = tick {
            self.input(node, Input::Tick);
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Syn { from, to } => self.answer(from, to),
            Event::Answer {
                at: (node, conn),
                other,
            } => self.answered(node, conn, other),
            Event::Octets { from, at, bytes } => self.deliver(from, at, &bytes),
            Event::Fin {
                from,
                at: (node, conn),
            } => {
                if self.socket((node, conn), from).is_some() {
                    self.hosts[node].sockets.remove(&conn);
                    self.input(node, Input::Closed { conn });
                }
            }
        }
    }

    /// A dial reaches a host: its kernel answers.
    fn answer(&mut self, from: End, to: Node) {
        let gone = self.cuts.contains(&(from.0, to)) || !self.hosts[to].powered;
        if gone || !self.hosts[from.0].dialling.contains(&from.1) {
            return;
        }
        let later = self.later();
        if self.hosts[to].speaker.is_none() {
            return self.at(
                later,
                Event::Answer {
                    at: from,
                    other: None,
                },
            );
        }
        let host = &mut self.hosts[to];
        host.accepted += 1;
        let conn = ConnId(1 << 63 | host.accepted);
        // What this end sends arrives after the answer.
        host.sockets.insert(conn, Socket::new(from, later));
        self.at(
            later,
            Event::Answer {
                at: from,
                other: Some((to, conn)),
            },
        );
        let local = SocketAddr::new(address(to).into(), 179);
        let remote = SocketAddr::new(address(from.0).into(), 40_000);
        self.input(
            to,
            Input::Accepted {
                conn,
                local,
                remote,
                scope: 0,
            },
        );
    }

    fn answered(&mut self, node: Node, conn: ConnId, other: Option<End>) {
        let wanted = self.hosts[node].dialling.remove(&conn);
        match other {
            Some(other) if wanted => {
                self.hosts[node]
                    .sockets
                    .insert(conn, Socket::new(other, self.now));
                let local = SocketAddr::new(address(node).into(), 40_000);
                self.input(node, Input::Connected { conn, local });
            }
            // The dial has been given up.
            Some(other) => {
                let later = self.later();
                self.at(
                    later,
                    Event::Fin {
                        from: (node, conn),
                        at: other,
                    },
                );
            }
            None if wanted => self.input(node, Input::ConnectFailed { conn }),
            None => {}
        }
    }

    /// A connection's socket at one end, if it is still the one that the other end knows: hosts that start
    /// again use numbers again.
    fn socket(&mut self, (node, conn): End, other: End) -> Option<&mut Socket> {
        self.hosts[node]
            .sockets
            .get_mut(&conn)
            .filter(|socket| socket.other == other)
    }

    /// Octets arrive at a host: they are read, and the sender's queue is shorter. A host that knows nothing of
    /// the connection resets it.
    fn deliver(&mut self, from: End, at: End, bytes: &Bytes) {
        let (cut, slow) = (self.cuts.contains(&(from.0, at.0)), self.hosts[at.0].slow);
        let Some(socket) = self.socket(at, from) else {
            if self.hosts[at.0].powered && !cut {
                let later = self.later();
                self.at(later, Event::Fin { from: at, at: from });
            }
            return;
        };
        socket.hung |= cut;
        if socket.hung {
            return;
        }
        socket.received.extend_from_slice(bytes);
        self.read(at.0, at.1);
        if let Some(sender) = self.socket(from, at).filter(|_| !slow) {
            sender.queued -= bytes.len();
            if sender.queued == 0 {
                self.input(from.0, Input::Drained { conn: from.1 });
            }
        }
    }

    /// Frames and decodes what has arrived.
    fn read(&mut self, node: Node, conn: ConnId) {
        while let Some(socket) = self.hosts[node].sockets.get_mut(&conn) {
            let message = match wire::frame(&mut socket.received, socket.context.max_message) {
                Ok(Some(frame)) => wire::decode(&frame, &socket.context),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let broken = message.is_err();
            self.input(
                node,
                Input::Received {
                    conn,
                    message: message.map_err(Notification::from),
                },
            );
            if broken {
                return;
            }
        }
    }

    /// Does what a speaker asks for.
    fn perform(&mut self, node: Node) {
        while let Some(output) = self.hosts[node].speaker.as_mut().and_then(Speaker::poll) {
            let host = &mut self.hosts[node];
            match output {
                Output::Dial { conn, remote, .. } => self.dial((node, conn), remote),
                Output::Decode { conn, context } => {
                    if let Some(socket) = host.sockets.get_mut(&conn) {
                        socket.context = context;
                    }
                }
                Output::Send { conn, bytes } => self.send((node, conn), bytes),
                Output::Close { conn } => self.close(node, conn),
                Output::Selected { prefix, choice } => {
                    host.changes += 1;
                    host.told.insert(prefix);
                    if choice.next_hops.is_empty() {
                        host.selected.remove(&prefix);
                    } else {
                        host.selected.insert(prefix, choice.next_hops);
                    }
                }
                Output::Converged => {
                    assert!(!host.converged, "converged twice\n{}", self.describe());
                    let Host {
                        selected,
                        told,
                        converged,
                        ..
                    } = &mut self.hosts[node];
                    selected.retain(|prefix, _| told.contains(prefix));
                    *converged = true;
                }
                Output::RangeFull(_) | Output::Drained => {}
                Output::Session { peer, up, .. } => {
                    host.flaps += 1;
                    let turns = if up {
                        host.up.insert(peer)
                    } else {
                        host.up.remove(&peer)
                    };
                    self.check(turns, "a session comes up once and goes down once");
                }
            }
        }
        self.wind(node);
    }

    /// Sets a host's alarm to its speaker's deadline.
    fn wind(&mut self, node: Node) {
        let deadline = self.hosts[node].speaker.as_ref().and_then(Speaker::deadline);
        self.check(
            deadline.is_none_or(|at| at > self.now),
            "what was due has been done",
        );
        if self.hosts[node].deadline != deadline {
            self.stop_clock(node);
            self.hosts[node].deadline = deadline;
            self.deadlines.extend(deadline.map(|at| (at, node)));
        }
    }

    fn dial(&mut self, from: End, remote: SocketAddr) {
        self.hosts[from.0].dialling.insert(from.1);
        self.hosts[from.0].dials.push(self.now);
        let later = self.later();
        let to = node_of(remote.ip());
        match Some(to).filter(|&to| to < self.hosts.len()) {
            Some(to) => self.at(later, Event::Syn { from, to }),
            None => self.at(
                later,
                Event::Answer {
                    at: from,
                    other: None,
                },
            ),
        }
    }

    fn send(&mut self, (node, conn): End, bytes: Bytes) {
        let later = self.later();
        let Some(socket) = self.hosts[node].sockets.get_mut(&conn) else {
            return;
        };
        socket.queued += bytes.len();
        socket.arrives = socket.arrives.max(later);
        let (at, arrives) = (socket.other, socket.arrives);
        self.at(
            arrives,
            Event::Octets {
                from: (node, conn),
                at,
                bytes,
            },
        );
    }

    fn close(&mut self, node: Node, conn: ConnId) {
        self.hosts[node].dialling.remove(&conn);
        let later = self.later();
        if let Some(socket) = self.hosts[node].sockets.remove(&conn)
            && !self.cuts.contains(&(node, socket.other.0))
        {
            self.at(
                socket.arrives.max(later),
                Event::Fin {
                    from: (node, conn),
                    at: socket.other,
                },
            );
        }
    }

    /// Some time from now, as long as a packet may take.
    fn later(&mut self) -> Instant {
        let micros = u64::try_from(self.latency.as_micros()).unwrap();
        self.now + Duration::from_micros(self.rng.random_range(micros / 10..=micros))
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }
}

impl Host {
    fn new() -> Self {
        Self {
            speaker: None,
            selected: BTreeMap::new(),
            told: BTreeSet::new(),
            up: BTreeSet::new(),
            changes: 0,
            converged: false,
            flaps: 0,
            dials: Vec::new(),
            powered: true,
            slow: false,
            sockets: BTreeMap::new(),
            dialling: BTreeSet::new(),
            accepted: 0,
            deadline: None,
        }
    }
}

impl Socket {
    fn new(other: End, arrives: Instant) -> Self {
        Self {
            other,
            received: BytesMut::new(),
            context: Context::default(),
            queued: 0,
            hung: false,
            arrives,
        }
    }
}
