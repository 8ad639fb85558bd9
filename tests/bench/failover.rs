//! A router is lost under 100,000 routes through one group: how long our own work takes until the group's other members are
//! sent, and how long the kernel's, with and without `net.ipv4.nexthop_compat_mode`; and how long it would take to write
//! every route instead.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_linux::link::{LinkSocket, Veth, VethEnd};
use manx_linux::{Netns, RouteSocket, sysctl};
use manx_routes::{Found, Hop, METRIC, Reconciler, Route, Source, Target, Update};
use manx_tests::sample::Sample;

const ROUTES: u32 = 100_000;
const ROUNDS: usize = 5;

/// Changes that are made at once.
const BATCH: usize = 4096;

/// What the routers share with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn router(self, number: u8) -> Hop {
        let gateway = match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into())),
        };
        Hop {
            gateway,
            device: None,
        }
    }

    fn prefix(self, number: u32) -> IpNetwork {
        let prefix = match self {
            Self::V4 => {
                let address = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number * 64);
                IpNetwork::new(address.into(), 26)
            }
            Self::V6 => {
                let address = Ipv6Addr::from_bits((0xfd10 << 112) + (u128::from(number) << 64));
                IpNetwork::new(address.into(), 64)
            }
        };
        prefix.expect("a length that there is")
    }
}

/// All routes, each via these routers or else via that one.
fn updates(family: Family, via: &[u8], backup: Option<u8>) -> impl Iterator<Item = Update> {
    let target = Target::Via(via.iter().map(|number| family.router(*number)).collect());
    (0..ROUTES).map(move |number| {
        Update::Set(Route {
            prefix: family.prefix(number),
            target: target.clone(),
            backup: backup.map(|number| family.router(number)),
            source: Source::Bgp,
            metric: METRIC,
        })
    })
}

/// Makes all changes that are due; how many there were.
fn drain(reconciler: &mut Reconciler, socket: &mut RouteSocket) -> usize {
    let mut made = 0;
    loop {
        let changes = reconciler.changes(BATCH);
        if changes.is_empty() {
            return made;
        }
        made += changes.len();
        for (change, outcome) in changes.iter().zip(socket.commit(&changes).expect("netlink")) {
            outcome.expect("taken");
            reconciler.committed(change, Ok(()));
        }
    }
}

/// What a loss takes.
#[derive(Debug, Default)]
struct Loss {
    /// Until the change is sent.
    own: Sample,
    /// Until the kernel has made it.
    kernel: Sample,
    /// Until the routes ask for what they have by then.
    books: Sample,
    /// To write each route instead, as routes that name their routers are.
    each: Sample,
}

impl Loss {
    fn round(&mut self, socket: &mut RouteSocket, family: Family, (via, backup): (&[u8], Option<u8>)) {
        let mut grouped = Reconciler::with_groups();
        grouped.resync(&Found::default());
        updates(family, via, backup).for_each(|update| grouped.apply(update));
        drain(&mut grouped, socket);

        let begun = Instant::now();
        grouped.lose(&[family.router(1)]);
        let changes = grouped.changes(BATCH);
        self.own.push(begun.elapsed());
        let begun = Instant::now();
        let outcomes = socket.commit(&changes).expect("netlink");
        self.kernel.push(begun.elapsed());
        for (change, outcome) in changes.iter().zip(outcomes) {
            outcome.expect("taken");
            grouped.committed(change, Ok(()));
        }
        let begun = Instant::now();
        updates(family, &[2], None).for_each(|update| grouped.apply(update));
        grouped.find(&[family.router(1)]);
        assert_eq!(
            drain(&mut grouped, socket),
            0,
            "what is there is not written again"
        );
        self.books.push(begun.elapsed());
        clear(&mut grouped, socket, family);

        let mut named = Reconciler::new();
        updates(family, via, None).for_each(|update| named.apply(update));
        drain(&mut named, socket);
        let begun = Instant::now();
        updates(family, &[2], None).for_each(|update| named.apply(update));
        drain(&mut named, socket);
        self.each.push(begun.elapsed());
        clear(&mut named, socket, family);
    }
}

fn clear(reconciler: &mut Reconciler, socket: &mut RouteSocket, family: Family) {
    for number in 0..ROUTES {
        reconciler.apply(Update::Remove {
            prefix: family.prefix(number),
            source: Source::Bgp,
        });
    }
    drain(reconciler, socket);
}

/// A node with a link to its routers.
fn network(folder: &Path) -> Netns {
    let [node, router] =
        ["node", "router"].map(|name| Netns::create(folder.join(name)).expect("a namespace"));
    let mut links = LinkSocket::open_in(&node).expect("netlink");
    let end = VethEnd::named("e0");
    let peer = VethEnd {
        netns: Some(&router),
        ..end
    };
    links.create_veth(&Veth { end, peer }).expect("a link");
    let mut others = LinkSocket::open_in(&router).expect("netlink");
    for links in [&mut links, &mut others] {
        let index = links.get("e0").expect("netlink").expect("just made").index;
        links.set_up(index).expect("up");
    }
    let index = links.get("e0").expect("netlink").expect("just made").index;
    for address in ["192.0.2.100/24", "fd00::100/64"] {
        links
            .add_address(index, address.parse().expect("an address"))
            .expect("added");
    }
    links.wait_until_ready("e0").expect("ready");
    node
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = network(folder.path());
    let mut socket = RouteSocket::open_in(&node).expect("netlink");
    println!("{ROUTES} routes through one group lose a router, median of {ROUNDS} rounds");
    for tells in [true, false] {
        node.run(|| sysctl::set_nexthop_compat_mode(tells))
            .expect("entered")
            .expect("set");
        for family in [Family::V4, Family::V6] {
            for (what, way) in [
                ("one of two", (&[1, 2][..], None)),
                ("the only one, with a backup", (&[1][..], Some(2))),
            ] {
                let mut loss = Loss::default();
                for _ in 0..ROUNDS {
                    loss.round(&mut socket, family, way);
                }
                let shown = |sample: Sample| milliseconds(sample.median());
                println!(
                    "compat mode {}, {family:?}, {what:<27}: ours {:>7} ms, the kernel's {:>7} ms, \
                     the books after it {:>5} ms; every route instead {:>5} ms",
                    u8::from(tells),
                    shown(loss.own),
                    shown(loss.kernel),
                    shown(loss.books),
                    shown(loss.each)
                );
            }
        }
    }
    drop(socket);
    for name in ["node", "router"] {
        Netns::delete(folder.path().join(name)).expect("deleted");
    }
}

fn milliseconds(took: Duration) -> String {
    format!("{:.3}", took.as_secs_f64() * 1000.0)
}
