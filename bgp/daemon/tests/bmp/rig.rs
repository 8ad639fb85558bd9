//! A speaker on loopback, a peer that the test plays, and a monitoring station.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgpkit_parser::Elementor;
use bgpkit_parser::models::ElemType;
use bgpkit_parser::parse_bmp_msg;
use bgpkit_parser::parser::bmp::messages::{BmpMessage, BmpMessageBody};
use bytes::{Bytes, BytesMut};
use manx_bgp::wire::{self, Capability, Context, Message, Nlri, Open, Update};
use manx_bgp::{Config, Family, PeerConfig, PeerKey, State};
use manx_bgpd::config::Collector;
use manx_bgpd::{Events, Handle, Options, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// For anything that should be quick.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) const ASN: u32 = 64_512;

/// A speaker at `address`.
pub(crate) fn speaker(address: Ipv4Addr) -> (Handle, Events) {
    let config = Config {
        asn: ASN,
        router_id: address,
        cluster_id: None,
        restarted: false,
        deferral: Duration::from_secs(5),
        farewell: String::new(),
        seed: 1,
        max_paths: 1,
        interfaces: [].into(),
    };
    let listen = vec![(address, 0).into()];
    start(Options { config, listen }).expect("the address is on loopback and the port free")
}

/// A peer that the test plays.
pub(crate) fn played(address: Ipv4Addr) -> PeerConfig {
    PeerConfig {
        passive: true,
        families: Family::ALL.to_vec(),
        ..PeerConfig::new(PeerKey::of(address.into(), 0), ASN)
    }
}

pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The played end of a session.
pub(crate) struct Peer {
    stream: TcpStream,
    pub(crate) address: SocketAddr,
    /// The OPENs as they were on the wire: the speaker's and the peer's.
    pub(crate) opens: [Bytes; 2],
}

impl Peer {
    /// Opens a session that carries both families, as any peer would.
    pub(crate) async fn play(from: Ipv4Addr, to: &Handle, more: &[Capability]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("a free port");
        let at = to.listening()[0];
        let mut stream = socket.connect(at).await.expect("the speaker listens");
        let mut capabilities = Family::ALL.map(Capability::Multiprotocol).to_vec();
        capabilities.push(Capability::FourOctetAs(ASN));
        capabilities.extend_from_slice(more);
        let open = Message::Open(Open {
            asn: ASN,
            hold_time: 90,
            router_id: from,
            capabilities,
        });
        let ours = wire::encode(&open, &Context::default());
        stream.write_all(&ours).await.expect("the speaker reads");
        let mut buffer = BytesMut::new();
        let theirs = loop {
            if let Some(frame) = wire::frame(&mut buffer, wire::MAX_MESSAGE).expect("whole messages") {
                break frame;
            }
            stream.read_buf(&mut buffer).await.expect("the connection lives");
        };
        let address = stream.local_addr().expect("connected");
        let mut peer = Self {
            stream,
            address,
            opens: [theirs, ours],
        };
        peer.send(&Message::Keepalive).await;
        eventually("the session is up", || async {
            let peers = to.peers().await;
            let up = |peer: &manx_bgp::PeerSnapshot| peer.state == State::Established;
            peers.iter().any(|peer| peer.key.address == from && up(peer))
        })
        .await;
        peer
    }

    pub(crate) async fn send(&mut self, message: &Message) {
        self.write(&wire::encode(message, &Context::default())).await;
    }

    pub(crate) async fn update(&mut self, update: Update) {
        let context = Context {
            four_octet_as: true,
            ..Context::default()
        };
        self.write(&wire::encode(&Message::Update(update), &context))
            .await;
    }

    pub(crate) async fn write(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).await.expect("the speaker reads");
    }
}

/// A monitoring station.
pub(crate) struct Station(TcpListener);

impl Station {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // A small window: who does not read is soon noticed.
        socket.set_recv_buffer_size(4096).expect("settable");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        Self(socket.listen(8).expect("nobody else does"))
    }

    /// As a file would list it.
    pub(crate) fn collector(&self) -> Collector {
        Collector {
            address: self.0.local_addr().expect("it listens").to_string(),
            name: Some("node-1".to_owned()),
            statistics_interval: 0,
        }
    }

    pub(crate) async fn accept(&self) -> Feed {
        let accepted = timeout(SOON, self.0.accept()).await.expect("a connection");
        Feed {
            stream: accepted.expect("a connection").0,
            buffer: BytesMut::new(),
        }
    }

    /// A connection with all that is told at once: up to the End-of-RIB of `families` families.
    pub(crate) async fn accept_dump(&self, families: usize) -> (Feed, Vec<Told>) {
        let mut feed = self.accept().await;
        let mut told = Vec::new();
        while told.iter().filter(|told| **told == Told::End).count() < families {
            told.extend(feed.told().await.expect("the dump goes on"));
        }
        (feed, told)
    }
}

/// What a station is told, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Begin,
    Up(String),
    Down(String),
    /// To where, and through which ASes.
    Route(String, String),
    Gone(String),
    End,
    Statistics,
    Terminated,
}

pub(crate) fn route(prefix: &str, path: &str) -> Told {
    Told::Route(prefix.to_owned(), path.to_owned())
}

pub(crate) fn gone(prefix: &str) -> Told {
    Told::Gone(prefix.to_owned())
}

/// A connection to the station.
pub(crate) struct Feed {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Feed {
    /// The next message, as it came; none after the last.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<5>() {
                let [_, length @ ..] = *header;
                let length = usize::try_from(u32::from_be_bytes(length)).expect("small");
                if self.buffer.len() >= length {
                    return Some(self.buffer.split_to(length).freeze());
                }
            }
            let read = timeout(SOON, self.stream.read_buf(&mut self.buffer)).await;
            if read.expect("something is told").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Option<BmpMessage> {
        let mut frame = self.frame().await?;
        Some(parse_bmp_msg(&mut frame).expect("a message"))
    }

    /// The next message in short: an UPDATE may say several things.
    pub(crate) async fn told(&mut self) -> Option<Vec<Told>> {
        let BmpMessage {
            per_peer_header,
            message_body,
            ..
        } = self.next().await?;
        let peer = || per_peer_header.as_ref().expect("a peer").peer_ip.to_string();
        Some(match message_body {
            BmpMessageBody::InitiationMessage(_) => vec![Told::Begin],
            BmpMessageBody::PeerUpNotification(_) => vec![Told::Up(peer())],
            BmpMessageBody::PeerDownNotification(_) => vec![Told::Down(peer())],
            BmpMessageBody::StatsReport(_) => vec![Told::Statistics],
            BmpMessageBody::TerminationMessage(_) => vec![Told::Terminated],
            BmpMessageBody::RouteMirroring(_) => panic!("nothing is mirrored"),
            BmpMessageBody::RouteMonitoring(update) if update.is_end_of_rib() => vec![Told::End],
            BmpMessageBody::RouteMonitoring(update) => {
                let header = per_peer_header.as_ref().expect("a peer");
                let (ip, asn) = (header.peer_ip, header.peer_asn);
                let elems = Elementor::bgp_to_elems(update.bgp_message, header.timestamp, &ip, &asn);
                let told = elems.into_iter().map(|elem| match elem.elem_type {
                    ElemType::ANNOUNCE => {
                        let path = elem.as_path.expect("an AS_PATH").to_string();
                        Told::Route(elem.prefix.to_string(), path)
                    }
                    ElemType::WITHDRAW => Told::Gone(elem.prefix.to_string()),
                });
                told.collect()
            }
        })
    }

    /// Everything up to and with the first of these.
    pub(crate) async fn until(&mut self, last: &Told) -> Vec<Told> {
        let mut all = Vec::new();
        while all.last() != Some(last) {
            all.extend(self.told().await.expect("more is told"));
        }
        all
    }
}

pub(crate) fn nlri(prefix: &str) -> Nlri {
    Nlri {
        path_id: None,
        prefix: prefix.parse().expect("a prefix"),
    }
}
