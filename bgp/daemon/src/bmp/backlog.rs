//! What a collector has not been told yet: names, of which octets are made when it takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use manx_bgp::wire::bmp::{self, Subject};
use manx_bgp::wire::{Attributes, Context, NextHop, Nlri, update};
use manx_bgp::{PeerKey, Place, ReceivedRoute, Speaker};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Session;

/// Octets that a collector gets at once, give or take a step's.
pub(super) const CHUNK: usize = 64 * 1024;

/// Changed routes and sessions that wait for a collector, at most.
pub(super) const LIMIT: usize = 65_536;

/// Prefixes that are looked at in one step.
const STEP: usize = 256;

/// The longest message of all (RFC 8654 §2), for attributes that fill one of the session's.
const LONGEST_MESSAGE: usize = 65_535;

/// What octets are made of.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) speaker: &'a Speaker,
    pub(super) sessions: &'a BTreeMap<PeerKey, Session>,
    /// Unix time.
    pub(super) time: Duration,
}

/// What one connection's collector knows, and does not.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Who waits for octets.
    reply: Option<oneshot::Sender<Bytes>>,
    /// Drops the connection.
    behind: CancellationToken,
    /// Peers that it knows to be up.
    known: BTreeSet<PeerKey>,
    /// Peers whose session has come or gone: the Peer Down that comes first, where it knew of an earlier one.
    peers: BTreeMap<PeerKey, Option<Bytes>>,
    /// Where the walk through the table goes on, while it lasts.
    walk: Option<usize>,
    /// The walk begins anew when it is over.
    again: bool,
    /// Known peers whose routes it has not been told the end of.
    unended: BTreeSet<PeerKey>,
    changes: Changes,
    /// Known peers whose statistics are due.
    uncounted: BTreeSet<PeerKey>,
    /// How often they are, and when next.
    interval: Option<Duration>,
    count_at: Option<Instant>,
}

/// Places whose routes have changed, and when (Unix time).
#[derive(Debug, Default)]
struct Changes {
    of: BTreeMap<PeerKey, BTreeMap<Nlri, Duration>>,
    len: usize,
}

impl Changes {
    fn insert(&mut self, Place { peer, nlri }: Place, at: Duration) {
        let earlier = self.of.entry(peer).or_default().insert(nlri, at);
        self.len += usize::from(earlier.is_none());
    }

    fn forget(&mut self, peer: PeerKey) {
        self.len -= self.of.remove(&peer).map_or(0, |places| places.len());
    }

    fn retain(&mut self, keep: impl Fn(Place) -> bool) {
        for (&peer, places) in &mut self.of {
            places.retain(|&nlri, _| keep(Place { peer, nlri }));
        }
        self.of.retain(|_, places| !places.is_empty());
        self.len = self.of.values().map(BTreeMap::len).sum();
    }

    /// Takes up to `count` places of one peer.
    fn take(&mut self, count: usize) -> Option<(PeerKey, Vec<(Nlri, Duration)>)> {
        let mut entry = self.of.first_entry()?;
        let (peer, places) = (*entry.key(), entry.get_mut());
        let taken: Vec<_> = std::iter::from_fn(|| places.pop_first()).take(count).collect();
        if places.is_empty() {
            entry.remove();
        }
        self.len -= taken.len();
        Some((peer, taken))
    }
}

/// A route to be told, or its end.
struct News {
    nlri: Nlri,
    /// Unix time, zero where it is unknown.
    at: Duration,
    route: Option<ReceivedRoute>,
}

impl News {
    /// What the routes of one UPDATE have in common.
    fn kind(&self) -> (Duration, Option<(NextHop, *const Attributes)>) {
        let route = self.route.as_ref();
        let kind = route.map(|route| (route.next_hop, Arc::as_ptr(&route.attributes)));
        (self.at, kind)
    }
}

impl Backlog {
    /// That of a collector that knows nothing of these peers, who are up.
    pub(super) fn new(
        peers: impl Iterator<Item = PeerKey>,
        behind: CancellationToken,
        interval: Option<Duration>,
    ) -> Self {
        Self {
            reply: None,
            behind,
            known: BTreeSet::new(),
            peers: peers.map(|peer| (peer, None)).collect(),
            walk: Some(0),
            again: false,
            unended: BTreeSet::new(),
            changes: Changes::default(),
            uncounted: BTreeSet::new(),
            interval,
            count_at: interval.map(|interval| Instant::now() + interval),
        }
    }

    /// The exporter waits for octets.
    pub(super) fn asked(&mut self, reply: oneshot::Sender<Bytes>) {
        self.reply = Some(reply);
    }

    /// A session has come.
    pub(super) fn up(&mut self, peer: PeerKey) {
        self.peers.entry(peer).or_default();
    }

    /// A session has gone, and its routes with it.
    pub(super) fn down(&mut self, peer: PeerKey, message: &Bytes) {
        let known = self.known.remove(&peer);
        self.peers
            .entry(peer)
            .or_insert_with(|| known.then(|| message.clone()));
        self.changes.forget(peer);
        self.unended.remove(&peer);
        self.uncounted.remove(&peer);
    }

    /// Routes have changed. Those of a session that has ended since went with it.
    pub(super) fn changed(&mut self, places: &[Place], view: &View<'_>) {
        for &place in places.iter().filter(|it| view.sessions.contains_key(&it.peer)) {
            self.changes.insert(place, view.time);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.count_at
    }

    /// Gives whoever waits the next octets, if there are any. False: the collector is too far behind.
    pub(super) fn turn(&mut self, view: &View<'_>) -> bool {
        if self.count_at.is_some_and(|at| at <= Instant::now()) {
            self.count_at = self.interval.map(|interval| Instant::now() + interval);
            self.uncounted.clone_from(&self.known);
        }
        if !self.keep_bound(view.speaker) {
            self.behind.cancel();
            return false;
        }
        if self.reply.is_some()
            && let Some(octets) = self.next(view)
            && let Some(reply) = self.reply.take()
            && reply.send(octets).is_err()
        {
            tracing::debug!("a monitoring station went away");
        }
        true
    }

    /// Where there are too many changes, another walk tells of what is there; what is gone has to be kept.
    fn keep_bound(&mut self, speaker: &Speaker) -> bool {
        if self.changes.len + self.peers.len() <= LIMIT {
            return true;
        }
        self.changes.retain(|place| speaker.received_at(place).is_none());
        self.again = self.walk.is_some();
        self.walk.get_or_insert(0);
        // Less than before by far, or the next changes would lead here again.
        self.changes.len + self.peers.len() <= LIMIT / 2
    }

    fn next(&mut self, view: &View<'_>) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while out.len() < CHUNK && self.step(view, &mut out) {}
        (!out.is_empty()).then(|| out.freeze())
    }

    /// The next thing to tell; false where there is none. A peer is up before its routes come.
    fn step(&mut self, view: &View<'_>, out: &mut BytesMut) -> bool {
        if let Some((peer, down)) = self.peers.pop_first() {
            out.put_slice(&down.unwrap_or_default());
            if let Some(session) = view.sessions.get(&peer) {
                out.put_slice(&session.peer_up);
                self.known.insert(peer);
                self.unended.insert(peer);
            }
        } else if let Some(from) = self.walk {
            self.walk(from, view, out);
        } else if let Some(peer) = self.unended.pop_first() {
            if let Some(session) = view.sessions.get(&peer) {
                put_end(session, out);
            }
        } else if let Some((peer, places)) = self.changes.take(STEP) {
            let news = places.into_iter().map(|(nlri, at)| News {
                nlri,
                at,
                route: view.speaker.received_at(Place { peer, nlri }),
            });
            put_news(view, peer, news.collect(), out);
        } else if let Some(peer) = self.uncounted.pop_first() {
            if let (Some(session), Some(statistics)) =
                (view.sessions.get(&peer), view.speaker.statistics(peer))
            {
                let subject = at(view.time, session);
                out.put_slice(&bmp::statistics(&subject, &statistics));
            }
        } else {
            return false;
        }
        true
    }

    /// A step through the table. When a route came is not kept.
    fn walk(&mut self, from: usize, view: &View<'_>, out: &mut BytesMut) {
        let (routes, next) = view.speaker.received(from, STEP);
        self.walk = next.or_else(|| std::mem::take(&mut self.again).then_some(0));
        let mut of: BTreeMap<PeerKey, Vec<News>> = BTreeMap::new();
        for (Place { peer, nlri }, route) in routes {
            of.entry(peer).or_default().push(News {
                nlri,
                at: Duration::ZERO,
                route: Some(route),
            });
        }
        for (peer, news) in of {
            put_news(view, peer, news, out);
        }
    }
}

fn at(time: Duration, session: &Session) -> Subject {
    Subject {
        at: time,
        ..session.subject
    }
}

/// All routes have been told (RFC 7854 §5).
fn put_end(session: &Session, out: &mut BytesMut) {
    for family in &session.context.families {
        let end = update::end_of_rib(*family);
        out.put_slice(&bmp::route_monitoring(&at(Duration::ZERO, session), &end));
    }
}

/// Routes of a peer, in as few UPDATEs as hold them.
fn put_news(view: &View<'_>, peer: PeerKey, mut news: Vec<News>, out: &mut BytesMut) {
    let Some(session) = view.sessions.get(&peer) else {
        return;
    };
    news.sort_by_key(News::kind);
    for alike in news.chunk_by(|a, b| a.kind() == b.kind()) {
        let nlri: Vec<Nlri> = alike.iter().map(|news| news.nlri).collect();
        let [News { at: time, route, .. }, ..] = alike else {
            continue;
        };
        let updates = match route {
            Some(route) => announced(route, &nlri, &session.context),
            None => update::pack_withdrawn(&nlri, &session.context),
        };
        out.put_slice(&bmp::route_monitoring(&at(*time, session), &updates));
    }
}

/// The UPDATEs that announce a route. With AS numbers of four octets it may be longer than it was in the session.
fn announced(
    ReceivedRoute { next_hop, attributes }: &ReceivedRoute,
    nlri: &[Nlri],
    context: &Context,
) -> Bytes {
    let longer = || Context {
        max_message: LONGEST_MESSAGE,
        ..context.clone()
    };
    update::pack(attributes, *next_hop, nlri, context)
        .or_else(|_| update::pack(attributes, *next_hop, nlri, &longer()))
        .unwrap_or_else(|error| {
            tracing::debug!(%error, "a route cannot be monitored");
            update::pack_withdrawn(nlri, context)
        })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use manx_bgp::wire::{AsPath, Capability, Message, Open, Reach, Segment, Update};
    use manx_bgp::{Config, ConnId, Family, Input, PeerConfig};

    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const CONN: ConnId = ConnId(1 << 63);

    fn key() -> PeerKey {
        PeerKey::of(PEER.into(), 0)
    }

    /// A speaker that is monitored, and whose one session is up.
    fn speaker() -> Speaker {
        let mut speaker = Speaker::new(Config {
            asn: 64_512,
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            cluster_id: None,
            restarted: false,
            deferral: Duration::ZERO,
            farewell: String::new(),
            seed: 1,
            max_paths: 1,
            interfaces: [].into(),
        });
        speaker.monitor(true);
        let peer = PeerConfig {
            passive: true,
            ..PeerConfig::new(key(), 64_512)
        };
        let open = Open {
            asn: 64_512,
            hold_time: 0,
            router_id: PEER,
            capabilities: vec![Capability::Multiprotocol(Family::Ipv4Unicast)],
        };
        take(&mut speaker, Input::SetPeer(Box::new(peer)));
        let accepted = Input::Accepted {
            conn: CONN,
            local: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 179),
            remote: SocketAddr::new(PEER.into(), 40_000),
            scope: 0,
        };
        take(&mut speaker, accepted);
        for message in [Message::Open(open), Message::Keepalive] {
            receive(&mut speaker, message);
        }
        speaker
    }

    fn take(speaker: &mut Speaker, input: Input) {
        speaker.handle(Instant::now(), input);
        while speaker.poll().is_some() {}
    }

    fn receive(speaker: &mut Speaker, message: Message) {
        let message = Ok(message);
        take(speaker, Input::Received { conn: CONN, message });
    }

    /// So many prefixes of the peer.
    fn prefixes(count: usize) -> Vec<Nlri> {
        let networks =
            (0..u32::try_from(count).unwrap()).map(|number| Ipv4Addr::from(10 << 24 | number << 4));
        let prefix = |network: Ipv4Addr| format!("{network}/28").parse().unwrap();
        let nlri = |network| Nlri {
            path_id: None,
            prefix: prefix(network),
        };
        networks.map(nlri).collect()
    }

    fn announce(speaker: &mut Speaker, nlri: Vec<Nlri>) {
        let next_hop = NextHop::V4(PEER);
        let update = Update {
            reach: vec![Reach { next_hop, nlri }],
            attributes: Attributes {
                as_path: AsPath {
                    segments: [Segment::Sequence(vec![7])].into(),
                },
                ..Attributes::default()
            },
            ..Update::default()
        };
        receive(speaker, Message::Update(update));
    }

    fn withdraw(speaker: &mut Speaker, withdrawn: Vec<Nlri>) {
        let update = Update {
            withdrawn,
            ..Update::default()
        };
        receive(speaker, Message::Update(update));
    }

    /// A collector's backlog, the token that would drop its connection, and the sessions.
    fn begun(speaker: &Speaker) -> (Backlog, CancellationToken, BTreeMap<PeerKey, Session>) {
        let established = speaker.established(key()).unwrap();
        let subject = Subject {
            key: key(),
            asn: established.asn,
            router_id: established.router_id,
            at: Duration::ZERO,
        };
        let session = Session {
            subject,
            peer_up: Bytes::from_static(b"up"),
            context: established.context,
        };
        let behind = CancellationToken::new();
        let backlog = Backlog::new([key()].into_iter(), behind.clone(), None);
        (backlog, behind, BTreeMap::from([(key(), session)]))
    }

    fn view<'a>(speaker: &'a Speaker, sessions: &'a BTreeMap<PeerKey, Session>) -> View<'a> {
        View {
            speaker,
            sessions,
            time: Duration::ZERO,
        }
    }

    /// All that there is for a collector that takes it.
    fn drain(backlog: &mut Backlog, view: &View<'_>) -> Vec<u8> {
        std::iter::from_fn(|| backlog.next(view)).flatten().collect()
    }

    fn turn(backlog: &mut Backlog, speaker: &mut Speaker, sessions: &BTreeMap<PeerKey, Session>) -> bool {
        let changes = speaker.received_changes();
        let view = view(speaker, sessions);
        backlog.changed(&changes, &view);
        backlog.turn(&view)
    }

    #[test]
    fn more_announcements_than_can_be_named_are_another_walk() {
        let mut speaker = speaker();
        let (mut backlog, behind, sessions) = begun(&speaker);
        drain(&mut backlog, &view(&speaker, &sessions));
        let all = prefixes(LIMIT + 1);
        announce(&mut speaker, all[1..].to_vec());
        assert!(turn(&mut backlog, &mut speaker, &sessions));
        assert_eq!((backlog.changes.len, backlog.walk), (LIMIT, None));
        announce(&mut speaker, all[..1].to_vec());
        withdraw(&mut speaker, all[1..=100].to_vec());
        assert!(turn(&mut backlog, &mut speaker, &sessions));
        let (changes, walk) = (backlog.changes.len, backlog.walk);
        assert_eq!((changes, walk), (100, Some(0)), "what is gone has to be named");
        assert!(!behind.is_cancelled());
        let told = drain(&mut backlog, &view(&speaker, &sessions));
        // A prefix of 28 bits takes five octets.
        assert!(told.len() > (LIMIT - 100) * 5, "{}", told.len());
        assert_eq!((backlog.changes.len, backlog.walk), (0, None));
    }

    #[test]
    fn more_withdrawals_than_can_be_named_drop_the_connection() {
        let mut speaker = speaker();
        let all = prefixes(LIMIT + 1);
        announce(&mut speaker, all.clone());
        let (mut backlog, behind, sessions) = begun(&speaker);
        drain(&mut backlog, &view(&speaker, &sessions));
        speaker.received_changes();
        withdraw(&mut speaker, all[1..].to_vec());
        assert!(turn(&mut backlog, &mut speaker, &sessions));
        assert!(!behind.is_cancelled());
        withdraw(&mut speaker, all[..1].to_vec());
        assert!(!turn(&mut backlog, &mut speaker, &sessions));
        assert!(behind.is_cancelled());
    }

    #[test]
    fn sessions_that_came_and_went_meanwhile_are_passed_over() {
        let mut speaker = speaker();
        let (mut backlog, _, sessions) = begun(&speaker);
        drain(&mut backlog, &view(&speaker, &sessions));
        announce(&mut speaker, prefixes(3));
        turn(&mut backlog, &mut speaker, &sessions);
        for message in ["first", "second"] {
            backlog.down(key(), &Bytes::from(message));
            backlog.up(key());
        }
        assert_eq!(backlog.changes.len, 0, "they went with their session");
        let told = drain(&mut backlog, &view(&speaker, &sessions));
        assert!(told.starts_with(b"firstup"), "{told:?}");
        backlog.down(key(), &Bytes::from("third"));
        assert_eq!(drain(&mut backlog, &view(&speaker, &BTreeMap::new())), b"third");
    }
}
