//! Two speakers of the same history. One is sent an UPDATE of the fuzzer's, the other what an honest peer would have said
//! instead: of an UPDATE that was wrong (RFC 7606 §2), the withdrawal of all that it names; of any other, the same in this
//! speaker's own words. Both then hold the same paths, and told their observers the same, in a bounded number of octets;
//! the same UPDATE once more changes nothing, and all that was announced can be withdrawn.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use manx_bgp::wire::{
    self, Action, AddPath, Attributes, Capability, Context, Message, NextHop, Nlri, Notification, Open,
    Reach, Update,
};
use manx_bgp::{
    AddPathConfig, Config, ConnId, Family, Features, Input, Output, PathSnapshot, PeerConfig, PeerKey,
    Prefix, Speaker, State,
};

const ASN: u32 = 64_512;

/// The Partial bit of an attribute's flags.
const PARTIAL: u8 = 0x20;

/// Who sends, and who watches: of another AS, and of ours.
const PEER: u8 = 2;
const OBSERVERS: [u8; 2] = [3, 4];

/// What peer 2 announced before: one prefix of each family that the corpus often names, one that it seldom does.
const BEFORE: [&str; 4] = [
    "10.1.0.0/16",
    "192.0.2.0/24",
    "2001:db8:1::/48",
    "2001:db8:ffff::/48",
];

/// What a prefix is known by: itself and its path identifier.
type Name = (Prefix, Option<u32>);

/// What somebody was told of a prefix.
type Known = BTreeMap<Name, (NextHop, Attributes)>;

/// How the session with the peer is, by the bits of an octet.
#[derive(Clone, Copy)]
struct Session {
    external: bool,
    four_octet_as: bool,
    add_path: bool,
    foreign_next_hops: bool,
}

/// A speaker and what it said.
struct Twin {
    speaker: Speaker,
    now: Instant,
    contexts: BTreeMap<ConnId, Context>,
    said: BTreeMap<ConnId, BytesMut>,
    /// How much of it was said before the UPDATE.
    before: BTreeMap<ConnId, usize>,
}

/// The body of the target: an octet for the session, then the body of an UPDATE.
pub fn twins(data: &[u8]) {
    let Some((bits, body)) = data.split_first() else {
        return;
    };
    let body = &body[..body.len().min(4_077)];
    let session = Session::of(*bits);
    let now = Instant::now();
    let mut ours = Twin::new(session, now);
    let context = ours.contexts[&conn(PEER)].clone();
    let frame = framed(body);
    let decoded = wire::decode_update(&frame, &context);
    ours.hear(wire::decode(&frame, &context).map_err(Notification::from));
    ours.check_bounds(body);
    match decoded {
        Err(_) => ours.check_end(),
        Ok((update, problems)) => {
            let mut other = Twin::new(session, now);
            if problems.iter().any(|(_, action)| *action == Action::Withdraw) {
                other.hear_withdrawal(named(body, &context), &context);
            } else {
                other.hear_again(&update, &context);
            }
            assert_eq!(ours.peers(), other.peers());
            assert_eq!(ours.paths(), other.paths());
            for observer in OBSERVERS {
                assert_eq!(ours.known(observer), other.known(observer), "observer {observer}");
            }
            ours.check_silence(&frame, &context);
            ours.clear_away(body, &context);
        }
    }
}

impl Session {
    fn of(bits: u8) -> Self {
        let bit = |place: u8| bits >> place & 1 == 1;
        Self {
            external: bit(1),
            four_octet_as: !bit(0),
            add_path: bit(4),
            foreign_next_hops: bit(7),
        }
    }

    fn asn(self) -> u32 {
        if self.external { 65_002 } else { ASN }
    }

    fn config(self) -> PeerConfig {
        let add_path = |family| AddPathConfig {
            family,
            receive: self.add_path,
            send: 0,
        };
        let features = Features {
            extended_messages: false,
            extended_next_hop: Some(self.foreign_next_hops),
            add_path: Family::ALL.map(add_path).to_vec(),
            role: None,
        };
        PeerConfig {
            features,
            ..observer(PEER, self.asn())
        }
    }

    fn open(self) -> Open {
        let add_path = |family| AddPath {
            family,
            send: true,
            receive: false,
        };
        let optional = [
            (self.four_octet_as, Capability::FourOctetAs(self.asn())),
            (
                self.add_path,
                Capability::AddPath(Family::ALL.map(add_path).to_vec()),
            ),
            (
                self.foreign_next_hops,
                Capability::ExtendedNextHop(vec![Family::Ipv4Unicast]),
            ),
        ];
        let mut open = open(PEER, self.asn());
        open.capabilities.pop();
        open.capabilities.extend(
            optional
                .into_iter()
                .filter_map(|(has, capability)| has.then_some(capability)),
        );
        open
    }
}

fn conn(peer: u8) -> ConnId {
    ConnId(1 << 63 | u64::from(peer))
}

fn address(peer: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, peer).into()
}

fn key(peer: u8) -> PeerKey {
    PeerKey {
        address: address(peer),
        scope: 0,
    }
}

fn observer(peer: u8, asn: u32) -> PeerConfig {
    PeerConfig {
        passive: true,
        families: Family::ALL.to_vec(),
        route_reflector_client: peer == 4,
        next_hop_v6: Some(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped()),
        ..PeerConfig::new(key(peer), asn)
    }
}

/// The OPEN of a peer of this number; its four-octet AS comes last.
fn open(peer: u8, asn: u32) -> Open {
    let mut capabilities = Family::ALL.map(Capability::Multiprotocol).to_vec();
    capabilities.push(Capability::FourOctetAs(asn));
    Open {
        asn,
        hold_time: 90,
        router_id: Ipv4Addr::new(10, 0, 0, peer),
        capabilities,
    }
}

fn framed(body: &[u8]) -> Bytes {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    [&[0xff; 16][..], &length.to_be_bytes(), &[2], body]
        .concat()
        .into()
}

impl Twin {
    /// A speaker with its sessions up and the peer's first routes in.
    fn new(session: Session, now: Instant) -> Self {
        let config = Config {
            asn: ASN,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            cluster_id: None,
            restarted: false,
            deferral: Duration::from_secs(10),
            farewell: String::new(),
            seed: 1,
            max_paths: 4,
            interfaces: [].into(),
        };
        let mut twin = Self {
            speaker: Speaker::new(config),
            now,
            contexts: BTreeMap::new(),
            said: BTreeMap::new(),
            before: BTreeMap::new(),
        };
        twin.open(3, observer(3, 65_003), open(3, 65_003));
        twin.open(4, observer(4, ASN), open(4, ASN));
        twin.open(PEER, session.config(), session.open());
        let context = twin.contexts[&conn(PEER)].clone();
        for prefix in BEFORE.map(|text| text.parse().expect("a prefix")) {
            twin.announce(prefix, session, &context);
        }
        let said = twin.said.iter();
        twin.before = said.map(|(conn, said)| (*conn, said.len())).collect();
        twin
    }

    fn open(&mut self, peer: u8, config: PeerConfig, open: Open) {
        let conn = conn(peer);
        let accepted = Input::Accepted {
            conn,
            local: SocketAddr::new(address(1), 179),
            remote: SocketAddr::new(address(peer), 40_000),
            scope: 0,
        };
        self.input(Input::SetPeer(Box::new(config)));
        self.input(accepted);
        for message in [Message::Open(open), Message::Keepalive] {
            let message = Ok(message);
            self.input(Input::Received { conn, message });
        }
    }

    fn announce(&mut self, prefix: Prefix, session: Session, context: &Context) {
        let path_id = session.add_path.then_some(1);
        let next_hop = match prefix.family() {
            Family::Ipv4Unicast => NextHop::V4(Ipv4Addr::new(10, 0, 0, PEER)),
            Family::Ipv6Unicast => NextHop::V6 {
                global: (0x2001_0db8 << 96 | u128::from(PEER)).into(),
                link_local: None,
            },
        };
        let mut attributes = Attributes::default();
        if session.external {
            attributes.as_path.segments = [wire::Segment::Sequence(vec![session.asn()])].into();
        }
        let nlri = vec![Nlri { path_id, prefix }];
        let update = Update {
            reach: vec![Reach { next_hop, nlri }],
            attributes,
            ..Update::default()
        };
        self.hear_again(&update, context);
    }

    fn input(&mut self, input: Input) {
        self.speaker.handle(self.now, input);
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Decode { conn, context } => {
                    self.contexts.insert(conn, context);
                }
                Output::Send { conn, bytes } => {
                    self.said.entry(conn).or_default().extend_from_slice(&bytes);
                    self.speaker.handle(self.now, Input::Drained { conn });
                }
                Output::Dial { .. }
                | Output::Close { .. }
                | Output::Selected { .. }
                | Output::Converged
                | Output::RangeFull(_)
                | Output::Session { .. }
                | Output::Drained => {}
            }
        }
    }

    fn hear(&mut self, message: Result<Message, Notification>) {
        let conn = conn(PEER);
        self.input(Input::Received { conn, message });
    }

    /// The peer says an UPDATE in this speaker's own words.
    fn hear_again(&mut self, update: &Update, context: &Context) {
        let sending = Context {
            add_path_send: context.add_path_receive.clone(),
            ..context.clone()
        };
        let mut stream = BytesMut::from(&wire::encode(&Message::Update(update.clone()), &sending)[..]);
        while let Some(frame) = wire::frame(&mut stream, context.max_message).expect("whole messages") {
            let (update, problems) = wire::decode_update(&frame, context).expect("our own words");
            assert_eq!(problems, [], "our own words");
            self.hear(Ok(Message::Update(update)));
        }
    }

    fn hear_withdrawal(&mut self, withdrawn: Vec<Nlri>, context: &Context) {
        let update = Update {
            withdrawn,
            ..Update::default()
        };
        self.hear_again(&update, context);
    }
}

// What is compared.
impl Twin {
    /// Of each peer: its state, and how many of its paths came, were taken and went out.
    fn peers(&self) -> Vec<(PeerKey, State, u64, u64, u64)> {
        let peers = self.speaker.peers().into_iter();
        peers
            .map(|peer| {
                (
                    peer.key,
                    peer.state,
                    peer.received,
                    peer.accepted,
                    peer.advertised,
                )
            })
            .collect()
    }

    /// All paths; an attribute that nobody knows is Partial for whoever hears it from us (RFC 4271 §5).
    fn paths(&self) -> Vec<PathSnapshot> {
        let mut paths = self.speaker.paths();
        for path in &mut paths {
            for unknown in &mut Arc::make_mut(&mut path.attributes).unknown {
                unknown.flags |= PARTIAL;
            }
        }
        paths
    }

    /// What an observer knows when it has heard everything.
    fn known(&self, observer: u8) -> Known {
        let conn = conn(observer);
        let mut known = Known::new();
        for message in messages(&self.said[&conn], &self.contexts[&conn]) {
            let Message::Update(update) = message else {
                continue;
            };
            for nlri in update.withdrawn {
                known.remove(&name(&nlri));
            }
            for reach in update.reach {
                let told = (reach.next_hop, update.attributes.clone());
                known.extend(reach.nlri.iter().map(|nlri| (name(nlri), told.clone())));
            }
        }
        known
    }

    /// An UPDATE makes few octets: to each observer as many as its attributes and prefixes take, wider and in as many
    /// messages as there are next hops; to the peer a NOTIFICATION.
    fn check_bounds(&self, body: &[u8]) {
        for (conn, said) in &self.said {
            let said = said.len() - self.before.get(conn).copied().unwrap_or_default();
            assert!(said <= 8 * body.len() + 1_024, "{said} octets for {}", body.len());
        }
    }

    /// The same UPDATE once more changes nothing, and nobody hears of it (RFC 4271 §9.2).
    fn check_silence(&mut self, frame: &Bytes, context: &Context) {
        let said = |twin: &Self| OBSERVERS.map(|observer| twin.said[&conn(observer)].len());
        let (peers, before) = (self.peers(), said(self));
        self.hear(wire::decode(frame, context).map_err(Notification::from));
        assert_eq!((self.peers(), said(self)), (peers, before));
    }

    /// The session is over: the peer was told why, and nothing of it is left.
    fn check_end(&self) {
        let said = messages(&self.said[&conn(PEER)], &Context::default());
        assert!(matches!(said.last(), Some(Message::Notification(_))), "{said:?}");
        let state = self.peers().into_iter().find(|peer| peer.0 == key(PEER));
        assert_ne!(state.expect("it is configured").1, State::Established);
        self.check_nothing_left();
    }

    fn check_nothing_left(&self) {
        assert_eq!(self.paths(), []);
        for observer in OBSERVERS {
            assert_eq!(self.known(observer), Known::new(), "observer {observer}");
        }
    }

    /// The session goes on: what was announced can be withdrawn.
    fn clear_away(&mut self, body: &[u8], context: &Context) {
        let path_id = |family| context.add_path_receive.contains(&family).then_some(1);
        let before = BEFORE.map(|text| {
            let prefix: Prefix = text.parse().expect("a prefix");
            let path_id = path_id(prefix.family());
            Nlri { path_id, prefix }
        });
        let all = named(body, context).into_iter().chain(before);
        self.hear_withdrawal(all.collect(), context);
        self.check_nothing_left();
    }
}

fn name(nlri: &Nlri) -> Name {
    (nlri.prefix, nlri.path_id)
}

fn messages(octets: &[u8], context: &Context) -> Vec<Message> {
    let mut stream = BytesMut::from(octets);
    let mut messages = Vec::new();
    while let Some(frame) = wire::frame(&mut stream, context.max_message).expect("whole messages") {
        messages.push(wire::decode(&frame, context).expect("messages that mean something"));
    }
    messages
}

/// All that an UPDATE names, announced or withdrawn, read as simply as can be: what is cut short is left out.
fn named(body: &[u8], context: &Context) -> Vec<Nlri> {
    let (withdrawn, rest) = counted(body, 2);
    let (mut attributes, announced) = counted(rest, 2);
    let mut all = [withdrawn, announced]
        .map(|field| prefixes(Family::Ipv4Unicast, field, context))
        .concat();
    while let [flags, code, rest @ ..] = attributes {
        let (value, rest) = counted(rest, if flags & 0x10 == 0 { 1 } else { 2 });
        attributes = rest;
        let [high, low, safi, field @ ..] = value else {
            continue;
        };
        let afi = u16::from_be_bytes([*high, *low]);
        let Some(family) = Family::from_wire(afi, *safi) else {
            continue;
        };
        match code {
            // Behind the next hop and the reserved octet.
            14 => all.extend(prefixes(
                family,
                counted(field, 1).1.get(1..).unwrap_or_default(),
                context,
            )),
            15 => all.extend(prefixes(family, field, context)),
            _ => {}
        }
    }
    all
}

/// As many octets as the first `width` say, and those behind them.
fn counted(octets: &[u8], width: usize) -> (&[u8], &[u8]) {
    let Some((count, rest)) = octets.split_at_checked(width) else {
        return (&[], &[]);
    };
    let count = count
        .iter()
        .fold(0, |count, octet| count << 8 | usize::from(*octet));
    rest.split_at_checked(count).unwrap_or_default()
}

fn prefixes(family: Family, mut field: &[u8], context: &Context) -> Vec<Nlri> {
    let mut all = Vec::new();
    if !context.families.contains(&family) {
        return all;
    }
    let add_path = context.add_path_receive.contains(&family);
    while let Some((path_id, rest)) = field.split_at_checked(if add_path { 4 } else { 0 }) {
        let Some((bits, rest)) = rest.split_first() else {
            break;
        };
        let Some((octets, rest)) = rest.split_at_checked(usize::from(bits.div_ceil(8))) else {
            break;
        };
        field = rest;
        let path_id = path_id.try_into().ok().map(u32::from_be_bytes);
        if let Some(prefix) = prefix(family, octets, *bits) {
            all.push(Nlri { path_id, prefix });
        }
    }
    all
}

fn prefix(family: Family, octets: &[u8], bits: u8) -> Option<Prefix> {
    let mut whole = [0; 16];
    whole.get_mut(..octets.len())?.copy_from_slice(octets);
    let [a, b, c, d, ..] = whole;
    match family {
        Family::Ipv4Unicast => Prefix::v4(Ipv4Addr::new(a, b, c, d), bits),
        Family::Ipv6Unicast => Prefix::v6(whole.into(), bits),
    }
}
