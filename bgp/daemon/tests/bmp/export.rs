//! The exporter over real sockets.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use bgpkit_parser::parser::bmp::messages::{BmpMessageBody, PeerDownReason, StatsData};
use manx_bgp::wire::{
    self, AddPath, AsPath, Attributes, Capability, Cease, Context, Message, NextHop, Nlri, Notification,
    Reach, Segment, Update,
};
use manx_bgp::{AddPathConfig, Family, Features, PeerConfig, Policy};

use crate::rig::{ASN, Peer, Station, Told, eventually, gone, nlri, played, route, speaker};

/// Addresses of test number `net`: the speaker's and its peer's.
fn addresses(net: u8) -> [Ipv4Addr; 2] {
    [1, 2].map(|host| Ipv4Addr::new(127, 1, net, host))
}

fn announced(path: &[u32], next_hop: NextHop, nlri: Vec<Nlri>) -> Update {
    let attributes = Attributes {
        as_path: AsPath {
            segments: [Segment::Sequence(path.to_vec())].into(),
        },
        local_pref: Some(100),
        ..Attributes::default()
    };
    Update {
        reach: vec![Reach { next_hop, nlri }],
        attributes,
        ..Update::default()
    }
}

const NEXT_HOP: NextHop = NextHop::V4(Ipv4Addr::new(198, 18, 0, 2));

fn announce(prefix: &str, path: &[u32]) -> Update {
    announced(path, NEXT_HOP, vec![nlri(prefix)])
}

fn announce_v6(prefix: &str, path: &[u32]) -> Update {
    let next_hop = NextHop::V6 {
        global: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
        link_local: None,
    };
    announced(path, next_hop, vec![nlri(prefix)])
}

fn withdraw(prefix: &str) -> Update {
    Update {
        withdrawn: vec![nlri(prefix)],
        ..Update::default()
    }
}

/// RFC 7854 §5: all that peers have announced, before policy, up to an End-of-RIB per family; then what changes.
/// RFC 7854 §3.3: Initiation comes first.
/// RFC 7854 §4.9: a peer that says why it leaves.
#[tokio::test]
async fn a_station_is_told_what_there_is_and_then_what_changes() {
    let [us, them] = addresses(1);
    let (handle, _events) = speaker(us);
    let refused = PeerConfig {
        import: Policy::Reject,
        ..played(them)
    };
    handle.set_peer(refused).await;
    let mut peer = Peer::play(them, &handle, &[]).await;
    peer.update(announce("10.1.0.0/16", &[7, 8])).await;
    peer.update(announce_v6("2001:db8:1::/48", &[7])).await;
    eventually("both routes are in", || async {
        handle.peers().await[0].received == 2
    })
    .await;

    let station = Station::new();
    handle.monitor(vec![station.collector()]).await;
    let (mut feed, told) = station.accept_dump(Family::ALL.len()).await;
    let expected = [
        Told::Begin,
        Told::Up(them.to_string()),
        route("10.1.0.0/16", "7 8"),
        route("2001:db8:1::/48", "7"),
        Told::End,
        Told::End,
    ];
    assert_eq!(told, expected);

    peer.update(announce("10.1.0.0/16", &[9])).await;
    assert_eq!(feed.told().await, Some(vec![route("10.1.0.0/16", "9")]));
    peer.update(withdraw("2001:db8:1::/48")).await;
    assert_eq!(feed.told().await, Some(vec![gone("2001:db8:1::/48")]));
    let reset = Notification::cease(Cease::AdministrativeReset);
    peer.send(&Message::Notification(reset.clone())).await;
    let Some(BmpMessageBody::PeerDownNotification(down)) = feed.next().await.map(|it| it.message_body) else {
        panic!("no Peer Down");
    };
    let octets = wire::encode(&Message::Notification(reset), &Context::default());
    let reason = PeerDownReason::RemoteSystemClosedNotificationPduFollows;
    assert_eq!((down.reason, down.data.as_deref()), (reason, Some(&octets[..])));
}

/// RFC 7854 §4.10: both OPENs are octet for octet those of the session, between its ends.
#[tokio::test]
async fn peer_up_has_the_opens_of_the_wire() {
    let [us, them] = addresses(2);
    let (handle, _events) = speaker(us);
    let station = Station::new();
    handle.monitor(vec![station.collector()]).await;
    let mut feed = station.accept().await;
    feed.frame().await.expect("Initiation");
    handle.set_peer(played(them)).await;
    // What no reader of capabilities knows is there, too.
    let odd = Capability::Unknown {
        code: 200,
        value: vec![1, 2, 3].into(),
    };
    let peer = Peer::play(them, &handle, &[odd]).await;
    let frame = feed.frame().await.expect("Peer Up");
    let [theirs, ours] = &peer.opens;
    let (head, opens) = frame.split_at(frame.len() - theirs.len() - ours.len());
    assert_eq!(opens, [&theirs[..], ours].concat());
    // Our address and port, and the peer's port.
    let end = |port: u16| port.to_be_bytes();
    let ports = [end(handle.listening()[0].port()), end(peer.address.port())].concat();
    assert!(head.ends_with(&[&us.octets()[..], &ports].concat()), "{head:?}");
    assert_eq!(feed.told().await, Some(vec![Told::End]));
}

/// RFC 7854 §4.9: how sessions end that we end, and those that just end.
#[tokio::test]
async fn peer_down_tells_who_ended_the_session() {
    let [us, them] = addresses(3);
    let (handle, _events) = speaker(us);
    let station = Station::new();
    handle.monitor(vec![station.collector()]).await;
    let mut feed = station.accept().await;
    let mut down = async || loop {
        if let BmpMessageBody::PeerDownNotification(down) = feed.next().await.expect("more").message_body {
            return (down.reason, down.data.unwrap_or_default());
        }
    };
    handle.set_peer(played(them)).await;
    drop(Peer::play(them, &handle, &[]).await);
    let closed = (PeerDownReason::RemoteSystemsClosedNoData, Vec::new());
    assert_eq!(down().await, closed);

    let _peer = Peer::play(them, &handle, &[]).await;
    handle.remove_peer(played(them).key).await;
    let cease = Message::Notification(Notification::cease(Cease::PeerDeconfigured));
    let octets = wire::encode(&cease, &Context::default()).to_vec();
    let reason = PeerDownReason::LocalSystemClosedNotificationPduFollows;
    assert_eq!(down().await, (reason, octets));
}

/// RFC 7911 §3: what a peer sends with path identifiers is told with them, as its OPENs say.
#[tokio::test]
async fn path_identifiers_are_told_where_the_session_has_them() {
    let [us, them] = addresses(4);
    let (handle, _events) = speaker(us);
    let receiving = PeerConfig {
        features: Features {
            add_path: vec![AddPathConfig {
                family: Family::Ipv4Unicast,
                receive: true,
                send: 0,
            }],
            ..Features::default()
        },
        ..played(them)
    };
    handle.set_peer(receiving).await;
    let sends = Capability::AddPath(vec![AddPath {
        family: Family::Ipv4Unicast,
        receive: false,
        send: true,
    }]);
    let mut peer = Peer::play(them, &handle, &[sends]).await;
    let station = Station::new();
    handle.monitor(vec![station.collector()]).await;
    let (mut feed, _) = station.accept_dump(Family::ALL.len()).await;
    let context = Context {
        four_octet_as: true,
        families: Family::ALL.to_vec(),
        add_path_send: vec![Family::Ipv4Unicast],
        add_path_receive: vec![Family::Ipv4Unicast],
        ..Context::default()
    };
    let both = [4, 5].map(|id| Nlri {
        path_id: Some(id),
        ..nlri("10.1.0.0/16")
    });
    let sent = Message::Update(announced(&[7], NEXT_HOP, both.to_vec()));
    peer.write(&wire::encode(&sent, &context)).await;
    // After the common header and the per-peer header there is the UPDATE.
    let update = feed.frame().await.expect("Route Monitoring").slice(6 + 42..);
    assert_eq!(wire::decode(&update, &context), Ok(sent));
}

/// RFC 7854 §4.8: as often as asked for.
#[tokio::test]
async fn statistics_are_reported_at_an_interval() {
    let [us, them] = addresses(5);
    let (handle, _events) = speaker(us);
    handle.set_peer(played(them)).await;
    let mut peer = Peer::play(them, &handle, &[]).await;
    peer.update(announce("10.1.0.0/16", &[7])).await;
    eventually("the route is in", || async {
        handle.peers().await[0].received == 1
    })
    .await;
    let station = Station::new();
    let mut collector = station.collector();
    collector.statistics_interval = 1;
    handle.monitor(vec![collector]).await;
    let mut feed = station.accept().await;
    for _ in 0..2 {
        let report = loop {
            if let BmpMessageBody::StatsReport(report) = feed.next().await.expect("more").message_body {
                break report;
            }
        };
        let data: Vec<_> = report.counters.into_iter().map(|it| it.stat_data).collect();
        let of = |afi, paths| StatsData::AfiSafiGauge(afi, 1, paths);
        assert_eq!(
            data,
            [StatsData::Gauge(1), StatsData::Counter(0), of(1, 1), of(2, 0)]
        );
    }
}

/// RFC 7854 §3.2: a connection that is lost is dialled again, and begins with everything as it stands by then.
/// RFC 7854 §4.5: Termination comes last.
#[tokio::test]
async fn a_station_that_went_away_is_told_everything_again() {
    let [us, them] = addresses(6);
    let (handle, _events) = speaker(us);
    handle.set_peer(played(them)).await;
    let mut peer = Peer::play(them, &handle, &[]).await;
    let station = Station::new();
    handle.monitor(vec![station.collector()]).await;
    let (feed, _) = station.accept_dump(Family::ALL.len()).await;
    drop(feed);
    peer.update(announce("10.1.0.0/16", &[7])).await;
    peer.update(announce("10.2.0.0/16", &[7])).await;
    peer.update(withdraw("10.1.0.0/16")).await;
    eventually("both are in, one is out", || async {
        handle.peers().await[0].received == 1
    })
    .await;
    let (mut feed, told) = station.accept_dump(Family::ALL.len()).await;
    let expected = [
        Told::Begin,
        Told::Up(them.to_string()),
        route("10.2.0.0/16", "7"),
        Told::End,
        Told::End,
    ];
    assert_eq!(told, expected);
    handle.shutdown().await;
    assert_eq!(feed.told().await, Some(vec![Told::Terminated]));
    assert_eq!(feed.told().await, None);
}

/// A list that changes touches what differs: not the sessions, and not the other stations.
#[tokio::test]
async fn stations_come_and_go_by_themselves() {
    let [us, them] = addresses(7);
    let (handle, _events) = speaker(us);
    handle.set_peer(played(them)).await;
    let mut peer = Peer::play(them, &handle, &[]).await;
    let stations = [Station::new(), Station::new(), Station::new()];
    let [stays, goes, comes] = stations.each_ref().map(Station::collector);
    handle.monitor(vec![stays.clone(), goes]).await;
    let (mut stays_on, _) = stations[0].accept_dump(Family::ALL.len()).await;
    let (mut gone_on, _) = stations[1].accept_dump(Family::ALL.len()).await;
    handle.monitor(vec![comes, stays]).await;
    let (mut come_on, _) = stations[2].accept_dump(Family::ALL.len()).await;
    assert_eq!(gone_on.told().await, Some(vec![Told::Terminated]));
    peer.update(announce("10.1.0.0/16", &[7])).await;
    for feed in [&mut stays_on, &mut come_on] {
        assert_eq!(feed.told().await, Some(vec![route("10.1.0.0/16", "7")]));
    }
}

/// RFC 7854 §5 (state compression): a station that does not read delays nobody, and hears of everything as it stands when it reads again.
#[tokio::test]
async fn a_station_that_stalls_delays_nobody() {
    const ROUTES: u16 = 12_000;
    let [us, them] = addresses(8);
    let (handle, _events) = speaker(us);
    handle.set_peer(played(them)).await;
    let mut peer = Peer::play(them, &handle, &[]).await;
    let [stalls, reads] = [Station::new(), Station::new()];
    handle.monitor(vec![stalls.collector(), reads.collector()]).await;
    let mut stalled = stalls.accept().await;
    let (mut feed, _) = reads.accept_dump(Family::ALL.len()).await;
    // Each route has a path of its own that fills a kilobyte, all together more than any socket holds.
    for number in 0..ROUTES {
        let [high, low] = number.to_be_bytes();
        let mut path = vec![ASN + 1; 250];
        path[0] = 1 + u32::from(number);
        peer.update(announce(&format!("10.{high}.{low}.0/24"), &path))
            .await;
    }
    let brief = route("172.16.0.0/16", "7");
    peer.update(announce("172.16.0.0/16", &[7])).await;
    feed.until(&brief).await;
    peer.update(withdraw("172.16.0.0/16")).await;
    feed.until(&gone("172.16.0.0/16")).await;

    // What it takes now is not what there was, but what there is.
    let mut table = BTreeSet::new();
    peer.update(announce("192.168.0.0/16", &[7])).await;
    for told in stalled.until(&route("192.168.0.0/16", "7")).await {
        assert_ne!(told, brief);
        match told {
            Told::Route(prefix, _) => drop(table.insert(prefix)),
            Told::Gone(prefix) => drop(table.remove(&prefix)),
            Told::Begin | Told::Up(_) | Told::End => {}
            Told::Down(_) | Told::Statistics | Told::Terminated => panic!("{told:?}"),
        }
    }
    assert_eq!(table.len(), usize::from(ROUTES) + 1);
}
