//! Routes into the kernel's table and out again: `RouteSocket` beside a bare loop over the same system calls
//! with the messages laid out beforehand, in one network namespace, in one run, in turn.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_linux::link::{LinkSocket, Veth, VethEnd};
use manx_linux::{Netns, RouteSocket};
use manx_routes::{Change, Hop, METRIC, PROTOCOL_BGP, Route, Source, Target};
use manx_tests::sample::Sample;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sockopt};

const ROUTES: u32 = 100_000;
const ROUNDS: usize = 5;

/// Bytes that the bare loop sends at once, and those of one of its messages.
const DATAGRAM: usize = 32 * 1024;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE_EXCLUSIVE: u16 = 0x600;

fn prefix(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number * 64)
}

fn gateway() -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 2)
}

/// The same request as ours, laid out by hand.
fn bare_message(number: u32, kind: u16, flags: u16) -> Vec<u8> {
    let (scope, route_type) = if kind == NEW_ROUTE { (0, 1) } else { (255, 0) };
    let mut message = vec![0; 16];
    message.extend([2, 26, 0, 0, 254, PROTOCOL_BGP, scope, route_type, 0, 0, 0, 0]);
    let mut attribute = |kind: u16, value: [u8; 4]| {
        message.extend(8_u16.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(value);
    };
    attribute(1, prefix(number).octets());
    if kind == NEW_ROUTE {
        attribute(5, gateway().octets());
    }
    attribute(6, METRIC.to_ne_bytes());
    let length = u32::try_from(message.len()).expect("a few bytes");
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
    message[8..12].copy_from_slice(&number.to_ne_bytes());
    message
}

/// Datagrams of as many messages as fit; the last message of each is acknowledged, or every one.
fn bare_datagrams(kind: u16, flags: u16, every: bool) -> Vec<(Vec<u8>, usize)> {
    let per_datagram = DATAGRAM / bare_message(0, kind, flags).len();
    let numbers: Vec<u32> = (0..ROUTES).collect();
    numbers
        .chunks(per_datagram)
        .map(|chunk| {
            let last = chunk[chunk.len() - 1];
            let ack = |number| if every || number == last { ACKNOWLEDGE } else { 0 };
            let bytes = chunk
                .iter()
                .flat_map(|number| bare_message(*number, kind, flags | ack(*number)));
            (bytes.collect(), if every { chunk.len() } else { 1 })
        })
        .collect()
}

/// Sends prepared datagrams and reads their acknowledgements; panics at the first failure.
fn bare_run(socket: &OwnedFd, datagrams: &[(Vec<u8>, usize)]) -> Duration {
    let started = Instant::now();
    let mut answer = [0; 512];
    for (datagram, acknowledgements) in datagrams {
        socket::send(socket.as_raw_fd(), datagram, MsgFlags::empty()).expect("sent");
        for _ in 0..*acknowledgements {
            socket::recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("answered");
            assert_eq!(answer[16..20], [0; 4], "refused");
        }
    }
    started.elapsed()
}

fn our_run(socket: &mut RouteSocket, changes: &[Change]) -> Duration {
    let started = Instant::now();
    let outcomes = socket.commit(changes).expect("committed");
    let took = started.elapsed();
    assert!(outcomes.iter().all(Result::is_ok), "refused");
    took
}

fn report(what: &str, into: Sample, out: Sample, bare: Option<(Duration, Duration)>) {
    let rate = |took: Duration| f64::from(ROUTES) / took.as_secs_f64();
    let (into, out) = (into.median(), out.median());
    let ratio = bare.map_or_else(String::new, |(bare_in, bare_out)| {
        let ratio = |bare: Duration, took: Duration| bare.as_secs_f64() / took.as_secs_f64();
        format!(
            "   {:.2} and {:.2} of the bare loop",
            ratio(bare_in, into),
            ratio(bare_out, out)
        )
    });
    println!(
        "{what:<28} in {:>9.0}/s   out {:>9.0}/s{ratio}",
        rate(into),
        rate(out)
    );
}

/// A node with a link to its router, whose address can be a gateway; and that link's socket.
fn network(folder: &Path) -> (Netns, LinkSocket) {
    let [node, router] =
        ["node", "router"].map(|name| Netns::create(folder.join(name)).expect("a namespace"));
    let mut links = LinkSocket::open_in(&node).expect("netlink");
    let end = VethEnd::named("e0");
    let peer = VethEnd {
        netns: Some(&router),
        ..end
    };
    links.create_veth(&Veth { end, peer }).expect("a link");
    let index = links.get("e0").expect("netlink").expect("just made").index;
    links.set_up(index).expect("up");
    let address = IpNetwork::new(Ipv4Addr::new(192, 0, 2, 1).into(), 24).expect("24 bits");
    links.add_address(index, address).expect("an address");
    (node, links)
}

/// The changes that put every route in, and those that take it out.
fn changes() -> (Vec<Change>, Vec<Change>) {
    let target = Target::Via(vec![Hop {
        gateway: gateway().into(),
        device: None,
    }]);
    let route = |number| Route {
        prefix: IpNetwork::new(prefix(number).into(), 26).expect("26 bits"),
        target: target.clone(),
        backup: None,
        source: Source::Bgp,
        metric: METRIC,
    };
    let adds: Vec<Change> = (0..ROUTES).map(|number| Change::Add(route(number))).collect();
    let deletes: Vec<Change> = adds
        .iter()
        .map(|add| Change::Delete {
            prefix: add.prefix().expect("it is a route's"),
            protocol: PROTOCOL_BGP,
            metric: METRIC,
        })
        .collect();
    (adds, deletes)
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, links) = network(folder.path());
    let (adds, deletes) = changes();
    let [batched, each] = [false, true].map(|every| {
        [
            bare_datagrams(NEW_ROUTE, CREATE_EXCLUSIVE, every),
            bare_datagrams(DELETE_ROUTE, 0, every),
        ]
    });

    let mut ours = RouteSocket::open_in(&node).expect("netlink");
    let bare = node
        .run(|| {
            socket::socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::empty(),
                SockProtocol::NetlinkRoute,
            )
        })
        .expect("entered")
        .expect("netlink");
    // Room for an answer to each message of a datagram.
    socket::setsockopt(&bare, sockopt::RcvBufForce, &(4 << 20)).expect("a larger queue");
    let mut samples: [Sample; 6] = Default::default();
    for _ in 0..ROUNDS {
        let [a, b, c, d, e, f] = &mut samples;
        a.push(our_run(&mut ours, &adds));
        b.push(our_run(&mut ours, &deletes));
        c.push(bare_run(&bare, &batched[0]));
        d.push(bare_run(&bare, &batched[1]));
        e.push(bare_run(&bare, &each[0]));
        f.push(bare_run(&bare, &each[1]));
    }
    let [ours_in, ours_out, bare_in, bare_out, each_in, each_out] = samples;
    println!("{ROUTES} routes via one gateway, median of {ROUNDS} rounds");
    let reference = (bare_in.median(), bare_out.median());
    report("RouteSocket", ours_in, ours_out, Some(reference));
    report("bare loop", bare_in, bare_out, None);
    report("bare loop, every one acked", each_in, each_out, Some(reference));
    drop((links, ours, bare));
    for name in ["node", "router"] {
        Netns::delete(folder.path().join(name)).expect("deleted");
    }
}
