//! BFD over real links between two of our speakers: every kind of address, a link that is pulled, and packets from beyond
//! the link.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use manx_bgp::bfd::{Diagnostic, Packet, SOURCE_PORTS, State};
use manx_bgp::{BfdConfig, PeerConfig, PeerKey};
use manx_linux::{LinkSocket, Netns};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::{TestNetns, eventually};
use crate::security::{ASN, Speaker, ip};

const SOON: Duration = Duration::from_secs(30);

/// Three intervals of 100 ms.
const DETECTION: Duration = Duration::from_millis(300);

/// What a busy machine may add to it. Far less than the hold time of 90 s.
const SLACK: Duration = Duration::from_millis(1500);

/// Our address and theirs, of every kind.
const KINDS: [[&str; 2]; 3] = [
    ["10.9.0.1", "10.9.0.2"],
    ["2001:db8::1", "2001:db8::2"],
    ["fe80::1", "fe80::2"],
];

/// Two speakers at the ends of a link, in session between two addresses, and watching the path.
struct Watched {
    speakers: [Speaker; 2],
    netns: [TestNetns; 2],
    addresses: [IpAddr; 2],
}

impl Watched {
    fn new(kind: [&str; 2]) -> Self {
        let netns = [TestNetns::new("ours"), TestNetns::new("theirs")];
        let all = |end: usize| {
            KINDS.map(|kind| {
                format!("{}/64", kind[end])
                    .replace(".1/64", ".1/16")
                    .replace(".2/64", ".2/16")
            })
        };
        let [ours, theirs] = [all(0), all(1)];
        netns[0].connect(
            &netns[1],
            "eth0",
            [
                &ours.each_ref().map(String::as_str),
                &theirs.each_ref().map(String::as_str),
            ],
        );
        let speakers = [0, 1].map(|end| {
            let router_id = Ipv4Addr::new(10, 9, 0, if end == 0 { 1 } else { 2 });
            let speaker = Speaker::start(&netns[end], router_id, false);
            speaker.set(peer(&netns[end], kind[1 - end], kind[end]));
            speaker
        });
        speakers[1].originate("198.51.100.0/24".parse().unwrap());
        let watched = Self {
            speakers,
            netns,
            addresses: kind.map(ip),
        };
        assert!(
            eventually(SOON, || watched.up() && watched.speakers[0].learned() == 1),
            "{kind:?}: {:?}",
            watched.speakers[0].bfd()
        );
        watched
    }

    /// Whether BGP and BFD are up at both ends.
    fn up(&self) -> bool {
        let watches = |speaker: &Speaker| {
            let sessions = speaker.bfd();
            sessions.len() == 1
                && sessions
                    .iter()
                    .all(|it| (it.state, it.remote_state) == (State::Up, Some(State::Up)))
        };
        let [ours, theirs] = self.addresses;
        self.speakers[0].up(theirs) && self.speakers[1].up(ours) && self.speakers.iter().all(watches)
    }
}

/// Settings for the peer at `address`; graceful restart would keep its routes for a minute.
fn peer(netns: &Netns, address: &str, local: &str) -> PeerConfig {
    let index = LinkSocket::open_in(netns)
        .unwrap()
        .get("eth0")
        .unwrap()
        .unwrap()
        .index;
    PeerConfig {
        local_address: Some(ip(local)),
        next_hop_v4: Some(Ipv4Addr::new(198, 18, 0, 1)),
        graceful_restart: Some(Duration::from_secs(60)),
        bfd: Some(BfdConfig {
            multihop: false,
            min_tx: DETECTION / 3,
            min_rx: DETECTION / 3,
            multiplier: NonZeroU8::new(3).unwrap(),
        }),
        ..PeerConfig::new(PeerKey::of(ip(address), index), ASN)
    }
}

/// RFC 5882 §4.2: a path that fails takes the session down with its routes, whatever graceful restart would have kept; over
/// IPv4, IPv6 and link-local addresses.
/// RFC 5881 §2: each is a session of its own, of its link.
/// nasty case 51
#[test]
fn a_pulled_link_ends_the_session_within_the_detection_time() {
    for kind in KINDS {
        let watched = Watched::new(kind);
        let [ours, _] = &watched.speakers;
        watched.netns[1].ip("link set eth0 down");
        let pulled = Instant::now();
        assert!(
            eventually(DETECTION + SLACK, || !ours.up(watched.addresses[1])),
            "{kind:?}"
        );
        eprintln!("{kind:?}: down after {:?}", pulled.elapsed());
        assert_eq!(ours.learned(), 0, "{kind:?}: no route stays");
    }
}

/// A packet by which the neighbour at `from` would take its session down, with a TTL of choice.
fn send_down(netns: &Netns, from: IpAddr, to: IpAddr, ttl: u32) {
    let packet = Packet {
        diagnostic: Diagnostic::None,
        state: State::Down,
        poll: false,
        finish: false,
        control_plane_independent: false,
        demand: false,
        multiplier: NonZeroU8::new(3).unwrap(),
        my_discriminator: NonZeroU32::new(666).unwrap(),
        your_discriminator: None,
        desired_min_tx: Duration::from_secs(1),
        required_min_rx: Duration::from_secs(1),
        required_min_echo_rx: Duration::ZERO,
    };
    let send = || {
        let socket = Socket::new(Domain::for_address((from, 0).into()), Type::DGRAM, None).unwrap();
        if from.is_ipv4() {
            socket.set_ttl_v4(ttl).unwrap();
        } else {
            socket.set_unicast_hops_v6(ttl).unwrap();
        }
        let port = SOURCE_PORTS.clone().find(|port| {
            let address = SockAddr::from(SocketAddr::new(from, *port));
            socket.bind(&address).is_ok()
        });
        assert!(port.is_some(), "a port is free");
        socket
            .send_to(&packet.encode(), &SocketAddr::new(to, 3784).into())
            .unwrap();
    };
    netns.run(send).unwrap();
}

/// How many packets the kernel has dropped before they were read, at the port for one hop.
fn dropped(netns: &Netns, file: &str) -> u32 {
    let output = netns.command("cat").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // 3784 is 0EC8; the last column counts.
    let line = text.lines().find(|line| {
        line.split_whitespace()
            .nth(1)
            .is_some_and(|at| at.ends_with(":0EC8"))
    });
    line.and_then(|line| line.split_whitespace().last()?.parse().ok())
        .expect("the speaker listens")
}

/// RFC 5881 §5: what comes with a TTL below 255 has been forwarded, and does not count: the kernel drops it, where the same
/// packet with 255 takes the session down.
#[test]
fn a_packet_from_beyond_the_link_does_not_count() {
    for (kind, file) in KINDS.into_iter().zip(["/proc/net/udp", "/proc/net/udp6"]) {
        let watched = Watched::new(kind);
        let [ours, theirs] = watched.addresses;
        for ttl in [254, 64, 1] {
            for _ in 0..5 {
                send_down(&watched.netns[1], theirs, ours, ttl);
            }
        }
        assert!(
            eventually(SOON, || dropped(&watched.netns[0], file) == 15),
            "{kind:?}"
        );
        std::thread::sleep(2 * DETECTION);
        assert!(watched.up(), "{kind:?}");
        send_down(&watched.netns[1], theirs, ours, 255);
        assert!(eventually(SOON, || !watched.speakers[0].up(theirs)), "{kind:?}");
    }
}
