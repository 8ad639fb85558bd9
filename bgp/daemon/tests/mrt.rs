//! Table dumps, as an independent reader (bgpkit-parser) reads them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgpkit_parser::BgpkitParser;
use bgpkit_parser::models::{BgpElem, ElemType, MrtMessage, RibEntry, TableDumpV2Message};
use bytes::Bytes;
use manx_bgp::wire::mrt::{Viewpoint, table_dump};
use manx_bgp::wire::{AsPath, Attributes, NextHop, Segment, UnknownAttribute};
use manx_bgp::{PathSnapshot, PeerKey, PeerSnapshot, State};

const UNIX_TIME: u32 = 1_800_000_000;

fn key(address: &str) -> PeerKey {
    PeerKey::of(address.parse().expect("an address"), 0)
}

fn peer(address: &str, asn: u32, up: Instant) -> PeerSnapshot {
    PeerSnapshot {
        key: key(address),
        asn,
        router_id: Some(Ipv4Addr::new(198, 51, 100, 7)),
        state: State::Established,
        established_since: Some(up),
        received: 0,
        accepted: 0,
        advertised: 0,
        drain: None,
        limits: Vec::new(),
        hold_time: Duration::ZERO,
        last_error: None,
        faults: std::collections::BTreeMap::new(),
    }
}

fn path(prefix: &str, from: Option<&str>, id: Option<u32>, next_hop: Option<NextHop>) -> PathSnapshot {
    let attributes = Attributes {
        as_path: AsPath {
            segments: [Segment::Sequence(vec![65_001, 4_200_000_000])].into(),
        },
        med: Some(7),
        local_pref: Some(300),
        communities: [(65_001 << 16) | 100].into(),
        large_communities: [[65_001, 1, 2]].into(),
        unknown: [UnknownAttribute {
            flags: 0xc0,
            code: 200,
            value: vec![1, 2, 3].into(),
        }]
        .into(),
        ..Attributes::default()
    };
    PathSnapshot {
        prefix: prefix.parse().expect("a prefix"),
        next_hop,
        peer: from.map(key),
        path_id: id,
        attributes: Arc::new(attributes),
        priority: 1025,
        best: true,
        multipath: false,
        stale: false,
        reason: None,
    }
}

fn dump(peers: &[PeerSnapshot], paths: &[PathSnapshot], now: Instant) -> Bytes {
    let from = Viewpoint {
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        asn: 64_512,
        now,
        unix_time: UNIX_TIME,
    };
    table_dump(from, peers, paths)
}

fn read(file: &Bytes) -> Vec<BgpElem> {
    BgpkitParser::from_reader(&file[..])
        .disable_warnings()
        .into_elem_iter()
        .collect()
}

/// The first path of each record after the index.
fn first_entries(file: &Bytes) -> Vec<RibEntry> {
    let records = BgpkitParser::from_reader(&file[..]).into_record_iter().skip(1);
    let entries = records.map(|record| {
        let MrtMessage::TableDumpV2Message(TableDumpV2Message::RibAfi(rib)) = record.message else {
            panic!("{record:?} is no record of paths");
        };
        rib.rib_entries[0].clone()
    });
    entries.collect()
}

/// RFC 6396 §4.3: the peer index table, and one record per prefix with all its paths.
/// RFC 8050 §4.1: paths with an identifier have records of their own.
#[test]
fn a_dump_says_of_every_path_whose_it_is_and_what_it_carries() {
    let now = Instant::now() + Duration::from_secs(1000);
    let peers = [
        peer("192.0.2.2", 65_001, now - Duration::from_secs(100)),
        peer("2001:db8::3", 4_200_000_001, now),
    ];
    let v4 = NextHop::V4(Ipv4Addr::new(192, 0, 2, 2));
    let v6 = NextHop::V6 {
        global: "2001:db8::3".parse().expect("an address"),
        link_local: None,
    };
    let paths = [
        path("10.0.0.0/8", Some("192.0.2.2"), None, Some(v4)),
        path("10.0.0.0/8", Some("2001:db8::3"), Some(7), Some(v6)),
        path("10.1.2.128/25", None, None, None),
        path("10.9.0.0/16", Some("192.0.2.99"), None, Some(v4)),
        path("2001:db8:1::/48", Some("2001:db8::3"), None, Some(v6)),
    ];
    let file = dump(&peers, &paths, now);
    let ids: Vec<_> = first_entries(&file).iter().map(|entry| entry.path_id).collect();
    assert_eq!(ids, [None, Some(7), None, None]);
    let found = read(&file);
    let shown: Vec<String> = found
        .iter()
        .map(|elem| {
            let next_hop = elem.next_hop.expect("every path has one");
            format!(
                "{} from {} AS{} via {next_hop}",
                elem.prefix, elem.peer_ip, elem.peer_asn
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "10.0.0.0/8 from 192.0.2.2 AS65001 via 192.0.2.2",
            "10.0.0.0/8 from 2001:db8::3 AS4200000001 via 2001:db8::3",
            "10.1.2.128/25 from 192.0.2.1 AS64512 via 0.0.0.0",
            "2001:db8:1::/48 from 2001:db8::3 AS4200000001 via 2001:db8::3",
        ]
    );
    for elem in &found {
        assert_eq!(elem.elem_type, ElemType::ANNOUNCE);
        let as_path = elem.as_path.as_ref().expect("an AS_PATH").to_string();
        assert_eq!(as_path, "65001 4200000000");
        assert_eq!((elem.med, elem.local_pref), (Some(7), Some(300)));
        let communities = elem.communities.as_ref().expect("communities");
        assert_eq!(communities.len(), 2, "{communities:?}");
        let unknown = elem.unknown.as_ref().expect("the unknown attribute");
        assert_eq!(unknown[0].bytes[..], [1, 2, 3]);
    }
}

#[test]
fn paths_came_no_earlier_than_their_session() {
    let now = Instant::now() + Duration::from_secs(1000);
    let v4 = NextHop::V4(Ipv4Addr::new(192, 0, 2, 2));
    let peers = [peer("192.0.2.2", 65_001, now - Duration::from_secs(100))];
    let path = path("10.0.0.0/8", Some("192.0.2.2"), None, Some(v4));
    let entries = first_entries(&dump(&peers, &[path], now));
    assert_eq!(entries[0].originated_time, UNIX_TIME - 100);
}

#[test]
fn an_empty_table_is_a_file_with_an_index() {
    assert_eq!(read(&dump(&[], &[], Instant::now())), []);
}
