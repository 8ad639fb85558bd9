//! A speaker, and the hands that play its peers and its kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use manx_bgp::wire::{
    self, AsPath, Attributes, Capability, Context, GracefulRestart, Message, NextHop, Nlri, Notification,
    Open, Reach, Segment, Update,
};
use manx_bgp::{
    Config, ConnId, Family, Gateway, Input, Output, PathSnapshot, PeerConfig, PeerKey, PeerSnapshot, Prefix,
    SessionEnd, Speaker, State,
};

/// Our AS.
pub(crate) const ASN: u32 = 64_512;

/// A speaker with what it has asked for so far.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) speaker: Speaker,
    pub(crate) now: Instant,
    /// What was sent on each connection and not looked at yet.
    sent: BTreeMap<ConnId, Vec<Message>>,
    /// The octets of all that was sent on each connection and not taken yet.
    octets: BTreeMap<ConnId, BytesMut>,
    contexts: BTreeMap<ConnId, Context>,
    pub(crate) closed: Vec<ConnId>,
    pub(crate) dialled: Vec<(Instant, ConnId, SocketAddr)>,
    pub(crate) selected: BTreeMap<Prefix, Vec<Gateway>>,
    /// With which metric it was.
    pub(crate) priorities: BTreeMap<Prefix, u32>,
    /// How often the kernel was told something.
    pub(crate) changes: usize,
    pub(crate) converged: bool,
    /// How sessions ended.
    pub(crate) ends: Vec<SessionEnd>,
    /// How often all peers were said to be drained.
    pub(crate) drained: usize,
    /// Ranges that turned a peer away.
    pub(crate) full: Vec<Prefix>,
    /// Connections that take nothing, and the bytes that wait there.
    pub(crate) stalled: BTreeMap<ConnId, usize>,
    /// The same, as they were sent.
    pub(crate) waiting: BTreeMap<ConnId, Vec<Bytes>>,
    accepted: u64,
}

/// The address of peer number `id`; we are number 1.
pub(crate) fn address(id: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, id)
}

pub(crate) fn key(id: u8) -> PeerKey {
    PeerKey {
        address: IpAddr::V4(address(id)),
        scope: 0,
    }
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn config() -> Config {
    Config {
        asn: ASN,
        router_id: address(1),
        cluster_id: None,
        restarted: false,
        deferral: Duration::from_secs(10),
        farewell: String::new(),
        interfaces: [].into(),
        seed: 1,
        max_paths: 4,
    }
}

/// A peer of our AS.
pub(crate) fn internal(id: u8) -> PeerConfig {
    PeerConfig {
        passive: true,
        ..PeerConfig::new(key(id), ASN)
    }
}

/// A peer of another AS.
pub(crate) fn external(id: u8) -> PeerConfig {
    PeerConfig {
        asn: 65_000 + u32::from(id),
        ..internal(id)
    }
}

/// The OPEN of peer number `id`.
pub(crate) fn open(id: u8, asn: u32) -> Open {
    Open {
        asn,
        hold_time: 90,
        router_id: address(id),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast),
            Capability::RouteRefresh,
            Capability::FourOctetAs(asn),
        ],
    }
}

/// An OPEN that offers graceful restart, with the N bit.
pub(crate) fn graceful_open(id: u8) -> Open {
    let mut open = open(id, ASN);
    open.capabilities
        .push(Capability::GracefulRestart(GracefulRestart {
            restarting: false,
            notification: true,
            restart_time: 60,
            families: vec![(Family::Ipv4Unicast, true)],
        }));
    open
}

/// Attributes with this AS_PATH.
pub(crate) fn path(asns: &[u32]) -> Attributes {
    Attributes {
        as_path: AsPath {
            segments: [Segment::Sequence(asns.to_vec())].into(),
        },
        ..Attributes::default()
    }
}

/// An UPDATE of peer number `id` that announces `prefix` through itself.
pub(crate) fn announcement(id: u8, prefix: Prefix, attributes: Attributes) -> Update {
    let nlri = vec![Nlri {
        path_id: None,
        prefix,
    }];
    Update {
        reach: vec![Reach {
            next_hop: NextHop::V4(address(id)),
            nlri,
        }],
        attributes,
        ..Update::default()
    }
}

/// An UPDATE that withdraws `prefix`.
pub(crate) fn withdrawal(prefix: Prefix) -> Update {
    Update {
        withdrawn: vec![Nlri {
            path_id: None,
            prefix,
        }],
        ..Update::default()
    }
}

impl Rig {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            speaker: Speaker::new(config),
            now: Instant::now(),
            sent: BTreeMap::new(),
            octets: BTreeMap::new(),
            contexts: BTreeMap::new(),
            closed: Vec::new(),
            dialled: Vec::new(),
            selected: BTreeMap::new(),
            priorities: BTreeMap::new(),
            changes: 0,
            converged: false,
            ends: Vec::new(),
            drained: 0,
            full: Vec::new(),
            stalled: BTreeMap::new(),
            waiting: BTreeMap::new(),
            accepted: 0,
        }
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.speaker.handle(self.now, input);
        self.perform();
    }

    /// Does what the speaker asks for; what it sends is taken at once.
    pub(crate) fn perform(&mut self) {
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Dial { conn, remote, .. } => self.dialled.push((self.now, conn, remote)),
                Output::Decode { conn, context } => {
                    self.contexts.insert(conn, context);
                }
                Output::Send { conn, bytes } if self.stalled.contains_key(&conn) => {
                    *self.stalled.entry(conn).or_default() += bytes.len();
                    self.waiting.entry(conn).or_default().push(bytes);
                }
                Output::Send { conn, bytes } => {
                    self.octets.entry(conn).or_default().extend_from_slice(&bytes);
                    self.decode(conn, BytesMut::from(bytes));
                    self.speaker.handle(self.now, Input::Drained { conn });
                }
                Output::Close { conn } => self.closed.push(conn),
                Output::Selected { prefix, choice } => {
                    self.changes += 1;
                    self.selected.insert(prefix, choice.next_hops);
                    self.priorities.insert(prefix, choice.priority);
                }
                Output::Converged => self.converged = true,
                Output::Drained => self.drained += 1,
                Output::RangeFull(range) => self.full.push(range),
                Output::Session { end, .. } => self.ends.extend(end),
            }
        }
    }

    /// A stalled connection takes what waits there, and goes on.
    pub(crate) fn resume(&mut self, conn: ConnId) {
        self.stalled.remove(&conn);
        for bytes in self.waiting.remove(&conn).unwrap_or_default() {
            self.decode(conn, BytesMut::from(bytes));
        }
        self.input(Input::Drained { conn });
    }

    fn decode(&mut self, conn: ConnId, mut bytes: BytesMut) {
        let ours = self.contexts.get(&conn).cloned().unwrap_or_default();
        // What the speaker sends, the peer receives.
        let context = Context {
            add_path_receive: ours.add_path_send.clone(),
            ..ours
        };
        while let Some(frame) = wire::frame(&mut bytes, context.max_message).unwrap() {
            self.sent
                .entry(conn)
                .or_default()
                .push(wire::decode(&frame, &context).unwrap());
        }
    }

    /// Lets time pass, with ticks where the speaker wants them.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.speaker.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Tick);
        }
        self.now = end;
    }

    /// A connection from peer number `id`.
    pub(crate) fn accept(&mut self, id: u8) -> ConnId {
        self.accepted += 1;
        let conn = ConnId(1 << 63 | self.accepted);
        let local = SocketAddr::new(address(1).into(), 179);
        let remote = SocketAddr::new(address(id).into(), 40_000);
        self.input(Input::Accepted {
            conn,
            local,
            remote,
            scope: 0,
        });
        conn
    }

    pub(crate) fn receive(&mut self, conn: ConnId, message: Message) {
        self.input(Input::Received {
            conn,
            message: Ok(message),
        });
    }

    /// The octets of one message, read as the speaker asked for.
    pub(crate) fn receive_octets(&mut self, conn: ConnId, octets: &[u8]) {
        let context = self.contexts.get(&conn).cloned().unwrap_or_default();
        let frame = Bytes::copy_from_slice(octets);
        let message = wire::decode(&frame, &context).map_err(Notification::from);
        self.input(Input::Received { conn, message });
    }

    /// The octets of a stream, read as a driver does: up to the first message that ends the session.
    pub(crate) fn receive_stream(&mut self, conn: ConnId, octets: &[u8]) {
        let mut stream = BytesMut::from(octets);
        while !self.closed.contains(&conn) {
            let context = self.contexts.get(&conn).cloned().unwrap_or_default();
            let message = match wire::frame(&mut stream, context.max_message) {
                Ok(Some(frame)) => wire::decode(&frame, &context),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let message = message.map_err(Notification::from);
            self.input(Input::Received { conn, message });
        }
    }

    /// The octets sent on a connection since they were taken last.
    pub(crate) fn octets(&mut self, conn: ConnId) -> BytesMut {
        self.octets.remove(&conn).unwrap_or_default()
    }

    pub(crate) fn update(&mut self, conn: ConnId, update: Update) {
        self.receive(conn, Message::Update(update));
    }

    /// Configures a peer and brings its session up.
    pub(crate) fn establish(&mut self, peer: PeerConfig) -> ConnId {
        let [.., id] = match peer.key.address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => panic!("peers have IPv4 addresses here"),
        };
        let open = open(id, peer.asn);
        self.establish_with(peer, id, open)
    }

    /// Configures a peer and brings its session up with an OPEN of its own.
    pub(crate) fn establish_with(&mut self, peer: PeerConfig, id: u8, open: Open) -> ConnId {
        self.input(Input::SetPeer(Box::new(peer)));
        let conn = self.accept(id);
        self.receive(conn, Message::Open(open));
        self.receive(conn, Message::Keepalive);
        assert_eq!(self.peer(id).state, State::Established);
        conn
    }

    /// What was sent on a connection since this was asked last.
    pub(crate) fn sent(&mut self, conn: ConnId) -> Vec<Message> {
        self.sent.remove(&conn).unwrap_or_default()
    }

    /// The UPDATEs sent on a connection since it was asked last.
    pub(crate) fn updates(&mut self, conn: ConnId) -> Vec<Update> {
        let update = |message| match message {
            Message::Update(update) => Some(update),
            Message::Open(_) | Message::Notification(_) | Message::Keepalive | Message::RouteRefresh(_) => {
                None
            }
        };
        self.sent(conn).into_iter().filter_map(update).collect()
    }

    /// The prefixes announced and withdrawn on a connection since it was asked last.
    pub(crate) fn told(&mut self, conn: ConnId) -> (Vec<Prefix>, Vec<Prefix>) {
        let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
        for message in self.sent(conn) {
            if let Message::Update(update) = message {
                withdrawn.extend(update.withdrawn.iter().map(|nlri| nlri.prefix));
                announced.extend(
                    update
                        .reach
                        .iter()
                        .flat_map(|reach| &reach.nlri)
                        .map(|nlri| nlri.prefix),
                );
            }
        }
        (announced, withdrawn)
    }

    /// The code and subcode of the NOTIFICATION sent on a connection.
    pub(crate) fn notified(&mut self, conn: ConnId) -> Option<(u8, u8)> {
        self.sent(conn).into_iter().find_map(|message| match message {
            Message::Notification(Notification { code, subcode, .. }) => Some((code, subcode)),
            Message::Open(_) | Message::Update(_) | Message::Keepalive | Message::RouteRefresh(_) => None,
        })
    }

    pub(crate) fn peer(&self, id: u8) -> PeerSnapshot {
        self.speaker
            .peers()
            .into_iter()
            .find(|peer| peer.key == key(id))
            .unwrap()
    }

    /// The paths to a prefix, the best first.
    pub(crate) fn paths(&self, prefix: Prefix) -> Vec<PathSnapshot> {
        self.speaker
            .paths()
            .into_iter()
            .filter(|path| path.prefix == prefix)
            .collect()
    }

    /// The next hops in the kernel, as peer numbers.
    pub(crate) fn selected(&self, prefix: Prefix) -> Vec<u8> {
        let number = |gateway: &Gateway| match gateway.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => panic!("next hops are IPv4 here"),
        };
        self.selected
            .get(&prefix)
            .into_iter()
            .flatten()
            .map(number)
            .collect()
    }
}
