//! The messages, each by itself.

use std::net::Ipv4Addr;
use std::time::Duration;

use bgpkit_parser::models::{BgpMessage, ElemType};
use bgpkit_parser::parser::bmp::messages::{
    BmpMessage, BmpMessageBody, BmpMsgType, BmpPeerType, InitiationTlvType, PeerDownReason, StatType,
    StatsData, TerminationReason, TerminationTlvValue,
};
use bgpkit_parser::{Elementor, parse_bmp_msg};
use bytes::Bytes;
use manx_bgp::wire::bmp::{self, Subject};
use manx_bgp::wire::{
    self, AsPath, Attributes, Capability, Cease, Context, Message, NextHop, Nlri, Notification, Open,
    Segment, update,
};
use manx_bgp::{Family, PeerKey, SessionEnd, Statistics};

fn subject(address: &str) -> Subject {
    Subject {
        key: PeerKey::of(address.parse().expect("an address"), 0),
        asn: 4_200_000_001,
        router_id: Ipv4Addr::new(198, 51, 100, 7),
        at: Duration::new(1_800_000_000, 250_000_000),
    }
}

/// Every message of a stream; nothing may be left over.
fn read(mut stream: Bytes) -> Vec<BmpMessage> {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        messages.push(parse_bmp_msg(&mut stream).expect("a message"));
    }
    messages
}

fn one(stream: Bytes) -> BmpMessage {
    let mut messages = read(stream);
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

fn open(router_id: Ipv4Addr, hold_time: u16) -> Bytes {
    let open = Open {
        asn: 4_200_000_001,
        hold_time,
        router_id,
        capabilities: vec![Capability::FourOctetAs(4_200_000_001)],
    };
    wire::encode(&Message::Open(open), &Context::default())
}

/// RFC 7854 §4.3: Initiation has sysDescr and sysName.
/// RFC 7854 §4.5: Termination says why.
#[test]
fn a_connection_begins_with_who_speaks_and_ends_with_why() {
    let begin = one(bmp::initiation("node-1", "Manx"));
    assert_eq!(begin.common_header.msg_type, BmpMsgType::InitiationMessage);
    let BmpMessageBody::InitiationMessage(begin) = begin.message_body else {
        panic!("{begin:?}");
    };
    let told: Vec<_> = begin
        .tlvs
        .iter()
        .map(|it| (it.info_type, it.info.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (InitiationTlvType::SysDescr, "Manx"),
            (InitiationTlvType::SysName, "node-1")
        ]
    );
    let BmpMessageBody::TerminationMessage(end) = one(bmp::termination()).message_body else {
        panic!("no Termination");
    };
    let reasons: Vec<_> = end.tlvs.into_iter().map(|it| it.info_value).collect();
    assert_eq!(
        reasons,
        [TerminationTlvValue::Reason(
            TerminationReason::AdministrativelyClosed
        )]
    );
}

/// RFC 7854 §4.2: whom a message is about, and since when it holds.
/// RFC 7854 §4.10: Peer Up has both ends and both OPENs, ours first.
#[test]
fn peer_up_has_both_ends_and_both_opens() {
    for (peer, local) in [
        ("192.0.2.2", "192.0.2.1:179"),
        ("2001:db8::2", "[2001:db8::1]:179"),
    ] {
        let (ours, theirs) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));
        let local = local.parse().expect("an address and port");
        let message = one(bmp::peer_up(
            &subject(peer),
            local,
            40_000,
            &open(ours, 90),
            &open(theirs, 30),
        ));
        let header = message.per_peer_header.expect("a per-peer header");
        assert_eq!(header.peer_type, BmpPeerType::Global);
        assert_eq!(header.peer_ip.to_string(), peer);
        assert_eq!(header.peer_asn, 4_200_000_001_u32);
        assert_eq!(header.peer_bgp_id, theirs);
        assert!((header.timestamp - 1_800_000_000.25).abs() < 1e-6, "{header:?}");
        let BmpMessageBody::PeerUpNotification(up) = message.message_body else {
            panic!("no Peer Up");
        };
        assert_eq!(
            (up.local_addr, up.local_port, up.remote_port),
            (local.ip(), 179, 40_000)
        );
        let said = [up.sent_open, up.received_open].map(|message| {
            let BgpMessage::Open(open) = message else {
                panic!("no OPEN: {message:?}");
            };
            (open.bgp_identifier, open.hold_time)
        });
        assert_eq!(said, [(ours, 90), (theirs, 30)]);
    }
}

/// RFC 7854 §4.9: a reason, and the NOTIFICATION of the side that sent one.
#[test]
fn peer_down_says_who_ended_the_session_and_how() {
    let cease = Notification::cease(Cease::PeerDeconfigured);
    let octets = wire::encode(&Message::Notification(cease.clone()), &Context::default());
    for (end, reason, data) in [
        (
            SessionEnd::Sent(cease.clone()),
            PeerDownReason::LocalSystemClosedNotificationPduFollows,
            octets.to_vec(),
        ),
        (
            SessionEnd::Silent(23),
            PeerDownReason::LocalSystemClosedFsmEvenFollows,
            vec![0, 23],
        ),
        (
            SessionEnd::Received(cease),
            PeerDownReason::RemoteSystemClosedNotificationPduFollows,
            octets.to_vec(),
        ),
        (
            SessionEnd::Closed,
            PeerDownReason::RemoteSystemsClosedNoData,
            Vec::new(),
        ),
    ] {
        let message = one(bmp::peer_down(&subject("192.0.2.2"), &end));
        let BmpMessageBody::PeerDownNotification(found) = message.message_body else {
            panic!("no Peer Down");
        };
        assert_eq!(found.reason, reason, "{end:?}");
        assert_eq!(found.data.unwrap_or_default(), data, "{end:?}");
    }
}

/// RFC 7854 §4.2 (distinguisher): peers with one link-local address on several interfaces are told apart.
#[test]
fn the_interface_of_a_link_local_peer_is_its_instance() {
    let mut on_link = subject("fe80::2");
    on_link.key.scope = 7;
    let message = one(bmp::statistics(&on_link, &Statistics::default()));
    let header = message.per_peer_header.expect("a per-peer header");
    assert_eq!(
        (header.peer_type, header.peer_distinguisher),
        (BmpPeerType::Local, 7)
    );
}

/// RFC 7854 §4.6: each UPDATE is a Route Monitoring message of its own.
#[test]
fn each_update_is_a_message_of_its_own() {
    let context = Context {
        four_octet_as: true,
        ..Context::default()
    };
    let attributes = Attributes {
        as_path: AsPath {
            segments: [Segment::Sequence(vec![4_200_000_001])].into(),
        },
        ..Attributes::default()
    };
    let nlri: Vec<Nlri> = (0..=u16::MAX)
        .step_by(32)
        .map(|network| {
            let [high, low] = network.to_be_bytes();
            Nlri {
                path_id: None,
                prefix: format!("10.{high}.{low}.0/24").parse().expect("a prefix"),
            }
        })
        .collect();
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 2));
    let mut updates = update::pack(&attributes, next_hop, &nlri, &context)
        .expect("sendable")
        .to_vec();
    updates.extend(update::pack_withdrawn(&nlri[..1], &context));
    for family in Family::ALL {
        updates.extend(update::end_of_rib(family));
    }
    let messages = read(bmp::route_monitoring(&subject("192.0.2.2"), &updates.into()));
    let (mut announced, mut withdrawn, mut ends) = (0, 0, 0);
    for message in messages {
        let BmpMessageBody::RouteMonitoring(monitored) = message.message_body else {
            panic!("no Route Monitoring");
        };
        ends += usize::from(monitored.is_end_of_rib());
        let header = message.per_peer_header.expect("a per-peer header");
        let elems = Elementor::bgp_to_elems(
            monitored.bgp_message,
            header.timestamp,
            &header.peer_ip,
            &header.peer_asn,
        );
        for elem in elems {
            match elem.elem_type {
                ElemType::ANNOUNCE => {
                    announced += 1;
                    assert_eq!(elem.as_path.expect("an AS_PATH").to_string(), "4200000001");
                }
                ElemType::WITHDRAW => withdrawn += 1,
            }
        }
    }
    assert_eq!((announced, withdrawn, ends), (nlri.len(), 1, Family::ALL.len()));
}

/// RFC 7854 §4.8: gauges have 8 octets, those of a family 11, counters 4.
#[test]
fn statistics_say_how_a_peer_stands() {
    let statistics = Statistics {
        received: [1 << 40, 2],
        treated_as_withdraw: (1 << 32) + 3,
    };
    let message = one(bmp::statistics(&subject("192.0.2.2"), &statistics));
    let BmpMessageBody::StatsReport(report) = message.message_body else {
        panic!("no Statistics Report");
    };
    assert_eq!(report.stats_count, 4);
    let found: Vec<_> = report
        .counters
        .into_iter()
        .map(|it| (it.stat_type, it.stat_data))
        .collect();
    let of_family = StatType::RoutesInPerAfiSafiAdjRibIn;
    let expected = [
        (StatType::RoutesInAdjRibsIn, StatsData::Gauge((1 << 40) + 2)),
        (StatType::UpdatesSubjectedToTreatAsWithdraw, StatsData::Counter(3)),
        (of_family, StatsData::AfiSafiGauge(1, 1, 1 << 40)),
        (of_family, StatsData::AfiSafiGauge(2, 1, 2)),
    ];
    assert_eq!(found, expected);
}
