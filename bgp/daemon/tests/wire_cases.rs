//! The most telling of the wire cases (`bgp/tests/data/wire-cases.txt`) over TCP: whatever way the octets arrive in, the
//! session and the routes end as the table says.

#[path = "../../tests/wire_cases/mod.rs"]
mod cases;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cases::{Case, Observed, WATCHERS};
use manx_bgp::wire::{self, Context, Message};
use manx_bgp::{Config, Family, PathSnapshot, PeerConfig, PeerKey, Prefix};
use manx_bgpd::{Events, Handle, Options, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// For anything that should be quick.
const SOON: Duration = Duration::from_secs(30);

const ASN: u32 = 64_512;

/// What is announced when the speaker has done what it had to: a prefix of our own after the case, for the observers.
const DONE: &str = "10.99.0.0/16";

/// What the session is tried with after the case.
const SEQUEL: &str = "10.10.10.0/24";

/// The cases, by name.
const TELLING: [&str; 24] = [
    "marker with a zero last",
    "length 18",
    "length 4097",
    "UPDATE of 65535 octets",
    "type 6",
    "KEEPALIVE with a body",
    "two messages in one write",
    "attributes longer than the message",
    "last attribute overruns the total, NLRI follows",
    "overrun, no NLRI",
    "ORIGIN 3",
    "bad ORIGIN, all four fields with routes",
    "LOCAL_PREF of 3 octets from outside",
    "MP_REACH_NLRI twice",
    "MP_REACH_NLRI with a next hop of 4 octets",
    "unknown well-known",
    "unknown optional transitive of 300 octets",
    "one message bad, the next good",
    "path identifier cut short",
    "HTTP in place of an OPEN",
    "version 3",
    "UPDATE in OpenConfirm",
    "NOTIFICATION and then more",
    "nothing is read behind what ends the session",
];

/// How the octets arrive.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    /// Octet by octet.
    Torn,
    /// The case in one piece, with half a message behind it whose rest comes later.
    WithMore,
    /// From the first octet of the OPEN on, all in one piece.
    AtOnce,
}

fn address(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 20, network, host)
}

fn key(network: u8, host: u8) -> PeerKey {
    PeerKey {
        address: IpAddr::V4(address(network, host)),
        scope: 0,
    }
}

/// A speaker of an address of its own.
fn speaker(network: u8) -> (Handle, Events) {
    let config = Config {
        asn: ASN,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        cluster_id: None,
        restarted: false,
        deferral: Duration::from_secs(5),
        farewell: String::new(),
        seed: network.into(),
        max_paths: 1,
        interfaces: [].into(),
    };
    let listen = vec![(address(network, 1), 0).into()];
    start(Options { config, listen }).expect("the address is on loopback and the port free")
}

/// A connection that a test plays one end of, with what came on it and was not taken yet.
struct Player {
    stream: TcpStream,
    received: BytesMut,
}

impl Player {
    async fn connect(from: Ipv4Addr, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind((from, 0).into())
            .expect("loopback addresses are free");
        let stream = socket.connect(to).await.expect("the speaker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self {
            stream,
            received: BytesMut::new(),
        }
    }

    /// Writes; that nobody listens any more is no error here.
    async fn say(&mut self, octets: &[u8]) {
        let _gone = self.stream.write_all(octets).await;
    }

    async fn say_torn(&mut self, octets: &[u8]) {
        for octet in octets {
            self.say(&[*octet]).await;
            tokio::task::yield_now().await;
        }
    }

    /// Reads on; whether the connection is still there.
    async fn hear(&mut self) -> bool {
        self.stream
            .read_buf(&mut self.received)
            .await
            .is_ok_and(|read| read > 0)
    }

    /// Reads until what was received, all of it whole messages, is as wanted; then takes it.
    async fn hear_until(&mut self, context: &Context, wanted: impl Fn(&Message) -> bool) -> Vec<u8> {
        let heard = async {
            loop {
                if cases::messages(&self.received, context).iter().any(&wanted) {
                    return self.received.split().to_vec();
                }
                assert!(self.hear().await, "the session lives");
            }
        };
        timeout(SOON, heard).await.expect("it comes")
    }
}

fn announces(message: &Message, text: &str) -> bool {
    let prefix: Prefix = text.parse().expect("a prefix");
    match message {
        Message::Update(update) => {
            let announced = update.reach.iter().flat_map(|reach| &reach.nlri);
            announced.into_iter().any(|nlri| nlri.prefix == prefix)
        }
        Message::Open(_) | Message::Notification(_) | Message::Keepalive | Message::RouteRefresh(_) => false,
    }
}

/// An observer with its session up.
async fn watch(network: u8, id: u8, handle: &Handle) -> Player {
    let peer = PeerConfig {
        asn: cases::asn(id, ASN),
        passive: true,
        families: Family::ALL.to_vec(),
        route_reflector_client: id == 4,
        next_hop_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        ..PeerConfig::new(key(network, id), ASN)
    };
    handle.set_peer(peer).await;
    let mut player = Player::connect(address(network, id), handle.listening()[0]).await;
    for message in [Message::Open(cases::open(id, ASN)), Message::Keepalive] {
        player.say(&wire::encode(&message, &Context::default())).await;
    }
    let up = |message: &Message| *message == Message::Keepalive;
    player.hear_until(&cases::context(id), up).await;
    player
}

/// A speaker, its peer and its observers.
struct Bench {
    handle: Handle,
    _events: Events,
    network: u8,
    peer: Player,
    watchers: Vec<(u8, Player)>,
}

impl Bench {
    async fn new(network: u8, case: &Case) -> Self {
        let (handle, events) = speaker(network);
        let mut watchers = Vec::new();
        for id in WATCHERS {
            watchers.push((id, watch(network, id, &handle).await));
        }
        handle.set_peer(case.session.config(key(network, 2), ASN)).await;
        let peer = Player::connect(address(network, 2), handle.listening()[0]).await;
        Self {
            handle,
            _events: events,
            network,
            peer,
            watchers,
        }
    }

    /// Whether the peer announced a prefix.
    async fn has(&self, text: &str) -> bool {
        let prefix: Prefix = text.parse().expect("a prefix");
        self.paths().await.iter().any(|path| path.prefix == prefix)
    }

    /// The peer's paths.
    async fn paths(&self) -> Vec<PathSnapshot> {
        let mut paths = self.handle.paths().await;
        paths.retain(|path| path.peer == Some(key(self.network, 2)));
        paths
    }

    async fn eventually_has(&self, text: &str) {
        let start = Instant::now();
        while !self.has(text).await {
            assert!(start.elapsed() < SOON, "{text} was announced");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for the sequel to be taken, or for the connection to end; tells which.
    async fn goes_on(&mut self) -> bool {
        let start = Instant::now();
        while !self.has(SEQUEL).await {
            assert!(start.elapsed() < SOON, "the session goes on or ends");
            if timeout(Duration::from_millis(2), self.peer.hear()).await == Ok(false) {
                return false;
            }
        }
        true
    }

    /// What the observers were told up to now.
    async fn told(&mut self, mark: &str) -> Vec<Vec<u8>> {
        self.handle.originate(mark.parse().expect("a prefix")).await;
        let mut told = Vec::new();
        for (id, player) in &mut self.watchers {
            let done = |message: &Message| announces(message, mark);
            told.push(player.hear_until(&cases::context(*id), done).await);
        }
        told
    }

    /// The session is where the case begins; what the observers were told of it.
    async fn begin(&mut self, case: &Case) -> Vec<Vec<u8>> {
        for (number, octets) in case.session.preludes().iter().enumerate() {
            if number > 0 {
                self.peer = Player::connect(address(self.network, 2), self.handle.listening()[0]).await;
            }
            self.peer.say_torn(octets).await;
            if let Some(last) = case.session.last_before() {
                self.eventually_has(last).await;
            }
        }
        self.told("10.98.0.0/16").await
    }
}

/// What becomes of a case.
async fn observe(case: &Case, arrival: Arrival, network: u8) -> Observed {
    let mut bench = Bench::new(network, case).await;
    let sequel = case.session.sequel();
    let (now, later) = sequel.split_at(20);
    let before = match arrival {
        Arrival::Torn => {
            let before = bench.begin(case).await;
            bench.peer.say_torn(&case.octets).await;
            before
        }
        Arrival::WithMore => {
            let before = bench.begin(case).await;
            bench.peer.say(&[&case.octets, now].concat()).await;
            before
        }
        Arrival::AtOnce => {
            let before = case.session.preludes().concat();
            let all = [&before, &case.octets, &sequel].map(Vec::as_slice).concat();
            bench.peer.say(&all).await;
            vec![Vec::new(); WATCHERS.len()]
        }
    };
    let rest = match arrival {
        Arrival::Torn => &*sequel,
        Arrival::WithMore => later,
        Arrival::AtOnce => &[],
    };
    bench.peer.say(rest).await;
    let goes_on = bench.goes_on().await;
    let since = bench.told(DONE).await;
    let said = cases::messages(&bench.peer.received, &Context::default());
    Observed {
        closed: !goes_on,
        goes_on,
        last_words: cases::last_words(said),
        paths: bench.paths().await,
        told: WATCHERS.into_iter().zip(before.into_iter().zip(since)).collect(),
    }
}

async fn all_end_as_the_table_says(arrival: Arrival, networks: u8) {
    let all = cases::cases();
    let mut wrong = Vec::new();
    for (network, name) in (networks..).zip(TELLING) {
        let case = all
            .iter()
            .find(|case| case.name == name)
            .expect("a case of the table");
        wrong.extend(observe(case, arrival, network).await.complaint(case));
    }
    assert!(wrong.is_empty(), "{arrival:?}: {}", wrong.join("\n"));
}

/// RFC 4271 §6: octets that arrive one by one end as those that arrive in messages.
#[tokio::test]
async fn octet_by_octet() {
    all_end_as_the_table_says(Arrival::Torn, 0).await;
}

/// RFC 4271 §6: half a message behind a case changes nothing of it, and is read on where the session goes on.
#[tokio::test]
async fn with_half_of_the_next_message() {
    all_end_as_the_table_says(Arrival::WithMore, 50).await;
}

/// RFC 4271 §6: what comes before the OPEN was answered is read when it is, and what follows an end is not.
#[tokio::test]
async fn from_the_first_octet_on_at_once() {
    all_end_as_the_table_says(Arrival::AtOnce, 100).await;
}
