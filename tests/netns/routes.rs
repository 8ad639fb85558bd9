//! Routes in the kernel's table.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_linux::routes::CommitError;
use manx_linux::sync::Syncer;
use manx_linux::watch::{Event, Watcher};
use manx_linux::{LinkSocket, RouteSocket};
use manx_routes::{Actual, Change, Hop, METRIC, Observed, Route, Source, Target, Update, plan};

use crate::harness::TestNetns;

/// A node with a link to a router, which has addresses that can be gateways.
fn node() -> (TestNetns, TestNetns) {
    let (node, router) = (TestNetns::new("node"), TestNetns::new("router"));
    let routers = ["192.0.2.1/24", "192.0.2.2/24", "fd00::1/64", "fd00::2/64"];
    node.connect(&router, "up0", [&["192.0.2.100/24", "fd00::100/64"], &routers]);
    (node, router)
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn via(gateways: &[&str]) -> Target {
    Target::Via(
        gateways
            .iter()
            .map(|g| Hop {
                gateway: g.parse().unwrap(),
                device: None,
            })
            .collect(),
    )
}

fn learned(prefix: IpNetwork, target: Target) -> Route {
    Route {
        prefix,
        target,
        backup: None,
        source: Source::Bgp,
        metric: METRIC,
    }
}

/// `count` prefixes of both families, some with two gateways.
fn many(count: u32) -> Vec<Route> {
    (0..count)
        .map(|i| {
            let [_, a, b, c] = i.to_be_bytes();
            match i % 4 {
                0 => learned(net(&format!("10.{b}.{c}.0/24")), via(&["192.0.2.1"])),
                1 => learned(net(&format!("fd10:{a:x}:{b:x}:{c:x}::/64")), via(&["fd00::1"])),
                2 => learned(net(&format!("11.{b}.{c}.0/24")), via(&["192.0.2.1", "192.0.2.2"])),
                _ => learned(
                    net(&format!("fd11:{a:x}:{b:x}:{c:x}::/64")),
                    via(&["fd00::1", "fd00::2"]),
                ),
            }
        })
        .collect()
}

fn commit(socket: &mut RouteSocket, changes: &[Change]) -> Vec<CommitError> {
    socket
        .commit(changes)
        .unwrap()
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

fn deletion(route: &Actual) -> Change {
    Change::Delete {
        prefix: route.prefix,
        protocol: route.protocol,
        metric: route.metric,
    }
}

#[test]
fn ten_thousand_routes_enter_and_leave_in_batches() {
    let (node, _router) = node();
    let mut socket = RouteSocket::open_in(&node).unwrap();
    let routes = many(10_000);
    let wanted = routes.iter().map(|route| (route.prefix, route.clone())).collect();
    let changes = plan(&wanted, &socket.dump().unwrap());
    assert_eq!(changes.len(), routes.len());
    assert_eq!(commit(&mut socket, &changes), []);

    let found = socket.dump().unwrap();
    assert_eq!(found.len(), routes.len());
    assert_eq!(plan(&wanted, &found), [], "what was asked for is what is there");

    let deletions: Vec<Change> = found.iter().map(deletion).collect();
    assert_eq!(commit(&mut socket, &deletions), []);
    assert_eq!(socket.dump().unwrap(), []);
    assert_eq!(commit(&mut socket, &deletions[..10]), [], "gone already is gone");
}

#[test]
fn a_refused_route_harms_none_of_its_batch_and_is_told_apart() {
    let (node, _router) = node();
    let mut socket = RouteSocket::open_in(&node).unwrap();
    let mut changes: Vec<Change> = many(2_000).into_iter().map(Change::Add).collect();
    let nowhere = learned(net("10.250.0.0/16"), via(&["198.51.100.1"]));
    changes.insert(1_000, Change::Add(nowhere));
    changes.insert(1_500, changes[0].clone());
    let outcomes = socket.commit(&changes).unwrap();
    assert!(
        matches!(outcomes[1_000], Err(CommitError::Unreachable(_))),
        "{:?}",
        outcomes[1_000]
    );
    assert_eq!(outcomes[1_500], Err(CommitError::Occupied(METRIC)));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 2);
    assert_eq!(socket.dump().unwrap().len(), 2_000);
}

/// RFC 4271 §9.1.2.1: a next hop to which only the route itself, or a default route, leads is none.
/// nasty case 63
#[test]
fn a_route_through_itself_is_refused_every_time() {
    let (node, _router) = node();
    let mut socket = RouteSocket::open_in(&node).unwrap();
    let default = learned(net("0.0.0.0/0"), via(&["192.0.2.1"]));
    assert_eq!(socket.commit(&[Change::Add(default)]).unwrap(), [Ok(())]);
    let circular = learned(net("10.250.0.0/16"), via(&["10.250.0.1"]));
    for _ in 0..3 {
        let outcomes = socket.commit(&[Change::Add(circular.clone())]).unwrap();
        assert!(
            matches!(outcomes[..], [Err(CommitError::Unreachable(_))]),
            "{outcomes:?}"
        );
        assert_eq!(socket.dump().unwrap().len(), 1);
    }
}

#[test]
fn a_route_changes_its_kind_in_one_step() {
    let (node, _router) = node();
    let mut socket = RouteSocket::open_in(&node).unwrap();
    let device = LinkSocket::open_in(&node)
        .unwrap()
        .get("up0")
        .unwrap()
        .unwrap()
        .index;
    for (prefix, one, other) in [
        ("10.0.0.0/24", "192.0.2.1", "192.0.2.2"),
        ("fd10::/64", "fd00::1", "fd00::2"),
    ] {
        let kinds = [
            via(&[one]),
            via(&[one, other]),
            Target::Unreachable,
            via(&[other, one]),
            Target::Device(device),
            via(&[other]),
            Target::Unreachable,
            Target::Device(device),
            Target::Unreachable,
        ];
        for from in &kinds {
            for to in &kinds {
                let route = |target: &Target| learned(net(prefix), target.clone());
                assert_eq!(commit(&mut socket, &[Change::Replace(route(from))]), []);
                assert_eq!(commit(&mut socket, &[Change::Replace(route(to))]), []);
                let found = socket.dump().unwrap();
                assert!(
                    found.len() == 1 && found[0].meets(&route(to)),
                    "{from} to {to}: {found:?}"
                );
            }
        }
        let found = socket.dump().unwrap();
        assert_eq!(commit(&mut socket, &[deletion(&found[0])]), []);
    }
}

#[test]
fn a_default_route_is_a_route() {
    let (node, _router) = node();
    let mut socket = RouteSocket::open_in(&node).unwrap();
    let routes = [
        learned(net("0.0.0.0/0"), via(&["192.0.2.1"])),
        learned(net("::/0"), via(&["fd00::1"])),
    ];
    let wanted = routes.iter().map(|route| (route.prefix, route.clone())).collect();
    assert_eq!(commit(&mut socket, &plan(&wanted, &[])), []);
    assert_eq!(plan(&wanted, &socket.dump().unwrap()), []);
}

/// RFC 8950 §3: in the kernel.
#[test]
fn an_ipv4_prefix_goes_via_an_ipv6_router() {
    let (node, _router) = node();
    let mut socket = RouteSocket::open_in(&node).unwrap();
    for gateways in [&["fd00::1"][..], &["fd00::1", "192.0.2.2"]] {
        let route = learned(net("10.0.0.0/24"), via(gateways));
        assert_eq!(commit(&mut socket, &[Change::Replace(route.clone())]), []);
        let found = socket.dump().unwrap();
        assert!(found.len() == 1 && found[0].meets(&route), "{found:?}");
    }
}

#[test]
fn foreign_routes_are_never_touched() {
    let (node, _router) = node();
    let foreign = [
        "route add 10.0.0.0/24 via 192.0.2.2",
        "route add 10.0.1.0/24 via 192.0.2.2 proto static metric 1024",
        "route add 10.0.2.0/24 via 192.0.2.2 proto bird metric 1025",
        "route add 10.9.0.0/24 via 192.0.2.2 proto 179 table 77",
        "-6 route add fd10:0::/64 via fd00::2",
        "-6 route add fd10:1::/64 via fd00::2 proto static metric 1024",
        "-6 route add fd10:2::/64 via fd00::2 proto bird metric 1025",
        "-6 route add fd10:9::/64 via fd00::2 proto 179 table 77",
    ];
    for command in foreign {
        node.ip(command);
    }
    // Not the addresses' own routes, which come in the kernel's own time.
    let theirs = || {
        let all = node.ip("-4 route show table all") + &node.ip("-6 route show table all");
        all.lines()
            .filter(|line| line.contains(" via "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(theirs().len(), foreign.len());
    let before = theirs();

    let mut socket = RouteSocket::open_in(&node).unwrap();
    assert_eq!(socket.dump().unwrap(), [], "another table is not ours");
    let wanted = (0..4)
        .flat_map(|i| {
            let v4 = learned(net(&format!("10.0.{i}.0/24")), via(&["192.0.2.1"]));
            [v4, learned(net(&format!("fd10:{i}::/64")), via(&["fd00::1"]))]
        })
        .map(|route| (route.prefix, route))
        .collect();
    let changes = plan(&wanted, &socket.dump_all().unwrap());
    let errors = commit(&mut socket, &changes);
    assert_eq!(
        errors,
        [CommitError::Occupied(METRIC), CommitError::Occupied(METRIC)],
        "of our metric: theirs stays"
    );
    assert_eq!(socket.dump().unwrap().len(), 6, "of any other metric: both stand");

    let deletions = wanted.values().map(|route| Change::Delete {
        prefix: route.prefix,
        protocol: route.source.protocol(),
        metric: METRIC,
    });
    assert_eq!(commit(&mut socket, &deletions.collect::<Vec<_>>()), []);
    assert_eq!(theirs(), before);
}

/// Does what a route task does, until the condition holds or `limit` is over; returns whether it holds.
async fn serve(syncer: &mut Syncer, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        while syncer.flush().unwrap() {}
        if done() || Instant::now() > end {
            return done();
        }
        if let Ok(changed) = tokio::time::timeout(Duration::from_millis(5), syncer.changed()).await {
            changed.unwrap();
        }
    }
}

/// Everything that a watcher was told so far.
fn told(watcher: &mut Watcher) -> Vec<Event> {
    std::iter::from_fn(|| watcher.try_next().unwrap()).collect()
}

const SECOND: Duration = Duration::from_secs(1);

fn wants(prefix: &str, target: Target, source: Source) -> Update {
    Update::Set(Route {
        prefix: net(prefix),
        target,
        backup: None,
        source,
        metric: METRIC,
    })
}

#[tokio::test]
async fn what_is_deleted_or_changed_by_hand_comes_back_within_a_second() {
    let (node, _router) = node();
    let mut reader = RouteSocket::open_in(&node).unwrap();
    let mut syncer = Syncer::start_in(&node).unwrap();
    syncer.apply(wants("10.0.0.0/24", via(&["192.0.2.1"]), Source::Bgp));
    syncer.apply(wants(
        "10.0.1.0/24",
        via(&["192.0.2.1", "192.0.2.2"]),
        Source::Bgp,
    ));
    syncer.apply(wants("10.0.2.0/26", Target::Unreachable, Source::Block));
    syncer.apply(wants("fd10::/64", via(&["fd00::1"]), Source::Bgp));
    syncer.apply(wants("fd11::/64", via(&["fd00::1", "fd00::2"]), Source::Bgp));
    let full = syncer.status().map(|(route, _)| (route.prefix, route)).collect();
    let mut whole = || plan(&full, &reader.dump().unwrap()).is_empty();
    assert!(serve(&mut syncer, SECOND, &mut whole).await);
    for by_hand in [
        "route del 10.0.0.0/24",
        "route del 10.0.1.0/24",
        "route del unreachable 10.0.2.0/26",
        "route change 10.0.0.0/24 via 192.0.2.2 proto 179 metric 1025",
        "-6 route del fd10::/64",
        "-6 route del fd11::/64 via fd00::1",
        "-6 route del fd11::/64",
        "-6 route change fd10::/64 via fd00::2 proto 179 metric 1025",
        "-6 route append fd10::/64 via fd00::2 proto 179 metric 1025",
    ] {
        node.ip(by_hand);
        assert!(!whole(), "{by_hand} changed nothing");
        assert!(serve(&mut syncer, SECOND, &mut whole).await, "after {by_hand}");
    }
}

#[tokio::test]
async fn ours_takes_over_when_a_foreign_route_of_our_metric_goes() {
    let (node, _router) = node();
    let mut reader = RouteSocket::open_in(&node).unwrap();
    node.ip("route add 10.0.0.0/24 via 192.0.2.2 metric 1025");
    let mut syncer = Syncer::start_in(&node).unwrap();
    syncer.apply(wants("10.0.0.0/24", via(&["192.0.2.1"]), Source::Bgp));
    serve(&mut syncer, SECOND / 10, || false).await;
    let (_, state) = syncer.status().next().unwrap();
    assert!(
        matches!(state, manx_routes::State::Failed(ref why) if why.contains("another owner")),
        "{state:?}"
    );
    node.ip("route del 10.0.0.0/24 via 192.0.2.2 metric 1025");
    assert!(serve(&mut syncer, SECOND, || reader.dump().unwrap().len() == 1).await);
}

#[tokio::test]
async fn routes_return_with_their_interface_though_the_kernel_drops_them_silently() {
    let (node, router) = node();
    let mut reader = RouteSocket::open_in(&node).unwrap();
    node.connect(&router, "mx000000000aa", [&[], &[]]);
    let pod = LinkSocket::open_in(&node)
        .unwrap()
        .get("mx000000000aa")
        .unwrap()
        .unwrap()
        .index;
    let mut syncer = Syncer::start_in(&node).unwrap();
    syncer.apply(wants("10.0.0.0/24", via(&["192.0.2.1"]), Source::Bgp));
    syncer.apply(wants("fd10::/64", via(&["fd00::1"]), Source::Bgp));
    syncer.apply(wants("10.0.1.7/32", Target::Device(pod), Source::Pod));
    assert!(serve(&mut syncer, SECOND, || reader.dump().unwrap().len() == 3).await);
    for device in ["up0", "mx000000000aa"] {
        node.ip(&format!("link set {device} down"));
        assert!(reader.dump().unwrap().len() < 3);
        serve(&mut syncer, SECOND / 10, || false).await;
        node.ip(&format!("link set {device} up"));
        // The kernel takes IPv6 addresses away with the link.
        LinkSocket::open_in(&node)
            .unwrap()
            .get("up0")
            .and_then(|up0| LinkSocket::open_in(&node)?.add_address(up0.unwrap().index, net("fd00::100/64")))
            .unwrap();
        assert!(
            serve(&mut syncer, SECOND * 3, || reader.dump().unwrap().len() == 3).await,
            "{device}"
        );
    }
}

#[tokio::test]
async fn a_restart_changes_no_route_and_then_sweeps_what_nobody_wants() {
    let (node, _router) = node();
    let mut reader = RouteSocket::open_in(&node).unwrap();
    let mut first = Syncer::start_in(&node).unwrap();
    for route in many(1_000) {
        first.apply(Update::Set(route));
    }
    first.apply(wants("10.99.0.0/26", Target::Unreachable, Source::Block));
    assert!(serve(&mut first, SECOND * 5, || reader.dump().unwrap().len() == 1_001).await);
    drop(first);

    let mut watcher = Watcher::open_in(&node, None).unwrap();
    let mut second = Syncer::start_in(&node).unwrap();
    serve(&mut second, SECOND / 10, || false).await;
    second.settle(Source::Pod);
    for route in many(1_000).into_iter().take(900) {
        second.apply(Update::Set(route));
    }
    second.apply(wants("10.99.0.0/26", Target::Unreachable, Source::Block));
    second.settle(Source::Block);
    serve(&mut second, SECOND / 10, || false).await;
    let is_route = |event: &Event| matches!(event, Event::Route(_));
    assert!(!told(&mut watcher).iter().any(is_route), "nothing flapped");

    second.settle(Source::Bgp);
    assert!(serve(&mut second, SECOND, || reader.dump().unwrap().len() == 901).await);
    let deleted = |event: &Event| matches!(event, Event::Route(Observed::Absent(_)));
    assert_eq!(
        told(&mut watcher).iter().filter(|event| deleted(event)).count(),
        100
    );
}

#[tokio::test]
async fn a_watcher_hears_of_others_and_not_of_its_own_socket() {
    let (node, _router) = node();
    let mut own = RouteSocket::open_in(&node).unwrap();
    let mut other = RouteSocket::open_in(&node).unwrap();
    let mut watcher = Watcher::open_in(&node, Some(own.port())).unwrap();
    let routes = many(8);
    commit(
        &mut own,
        &routes[..4].iter().cloned().map(Change::Add).collect::<Vec<_>>(),
    );
    commit(
        &mut other,
        &routes[4..].iter().cloned().map(Change::Add).collect::<Vec<_>>(),
    );
    let routes_told: Vec<Actual> = told(&mut watcher)
        .into_iter()
        .filter_map(|event| {
            if let Event::Route(Observed::Present(route)) = event {
                Some(route)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(routes_told.len(), 4);
    assert!(
        routes_told
            .iter()
            .zip(&routes[4..])
            .all(|(told, route)| told.meets(route)),
        "{routes_told:?}"
    );

    node.ip("link add name extra type bridge");
    node.ip("addr add 198.51.100.1/24 dev extra");
    node.ip("link del extra");
    let told = told(&mut watcher);
    let address = net("198.51.100.1/24");
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Link(link) if link.name == "extra"))
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Address(_, found) if *found == address))
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::AddressGone(_, found) if *found == address))
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::LinkGone(link) if link.name == "extra"))
    );
}

#[tokio::test]
async fn an_overrun_is_told_and_one_reading_repairs_what_was_missed() {
    let (node, _router) = node();
    let mut syncer = Syncer::start_in(&node).unwrap();
    syncer.apply(wants("10.0.0.0/24", via(&["192.0.2.1"]), Source::Bgp));
    while syncer.flush().unwrap() {}
    let mut watcher = Watcher::open_in(&node, None).unwrap();
    let mut other = RouteSocket::open_in(&node).unwrap();
    let noise: Vec<Change> = many(16_384).into_iter().map(Change::Add).collect();
    for _ in 0..4 {
        commit(&mut other, &noise);
        let back: Vec<Change> = other.dump().unwrap().iter().map(deletion).collect();
        commit(&mut other, &back);
    }
    let overrun = told(&mut watcher).contains(&Event::Resync);
    assert!(overrun, "the queue was never full");
    assert!(serve(&mut syncer, SECOND, || other.dump().unwrap().len() == 1).await);
}

#[test]
fn sockets_stay_in_their_namespace() {
    let (node, _router) = node();
    let mut socket = RouteSocket::open_in(&node).unwrap();
    let other = TestNetns::new("other");
    other
        .run(|| {
            commit(
                &mut socket,
                &[Change::Add(learned(net("10.0.0.0/24"), via(&["192.0.2.1"])))],
            )
        })
        .unwrap();
    assert!(node.ip("route show").contains("10.0.0.0/24"));
    let gateway: IpAddr = "192.0.2.1".parse().unwrap();
    assert!(!other.ip("route show").contains(&gateway.to_string()));
}
