//! Peers that nobody named: whoever connects from a range.

use std::time::Duration;

use manx_bgp::wire::Message;
use manx_bgp::{ANY_EXTERNAL_AS, ConnId, Input, PeerConfig, RangeConfig, State};

use crate::rig::{
    ASN, Rig, announcement, config, external, graceful_open, internal, key, open, path, prefix,
};

fn range(text: &str, limit: usize, template: PeerConfig) -> RangeConfig {
    RangeConfig {
        range: prefix(text),
        limit,
        template,
    }
}

fn rig(limit: usize, template: PeerConfig) -> Rig {
    let mut rig = Rig::new(config());
    rig.input(Input::SetRange(Box::new(range("10.0.0.0/28", limit, template))));
    rig
}

fn come(rig: &mut Rig, id: u8, asn: u32) -> ConnId {
    let conn = rig.accept(id);
    rig.receive(conn, Message::Open(open(id, asn)));
    rig.receive(conn, Message::Keepalive);
    conn
}

fn members(rig: &Rig) -> (usize, u64) {
    let range = &rig.speaker.ranges()[0];
    (range.peers.len(), range.refused)
}

/// nasty case 38
#[test]
fn whoever_comes_from_the_range_is_a_peer_and_nobody_else_is_heard() {
    let mut rig = rig(9, internal(0));
    come(&mut rig, 2, ASN);
    assert_eq!(rig.peer(2).state, State::Established);
    let stranger = rig.accept(20);
    assert_eq!(rig.closed, [stranger]);
    assert_eq!(rig.notified(stranger), Some((6, 5)));
    rig.receive(stranger, Message::Open(open(20, ASN)));
    assert!(rig.sent(stranger).is_empty());
    assert_eq!(rig.speaker.peers().len(), 1);
}

#[test]
fn a_peer_that_leaves_leaves_nothing() {
    let mut rig = rig(9, internal(0));
    let conn = come(&mut rig, 2, ASN);
    let route = prefix("192.0.2.0/24");
    rig.receive(conn, Message::Update(announcement(2, route, path(&[7]))));
    assert_eq!(rig.selected[&route].len(), 1);
    rig.input(Input::Closed { conn });
    assert_eq!(rig.selected[&route], []);
    assert!(rig.speaker.peers().is_empty() && rig.speaker.paths().is_empty());
    assert_eq!(members(&rig), (0, 0));
}

/// RFC 4724 §4.2: the routes of a peer that restarts stay for as long as it asked.
#[test]
fn a_peer_that_restarts_is_remembered_for_its_restart_time() {
    let mut rig = rig(
        9,
        PeerConfig {
            graceful_restart: Some(Duration::from_secs(60)),
            ..internal(0)
        },
    );
    let conn = rig.accept(2);
    rig.receive(conn, Message::Open(graceful_open(2)));
    rig.receive(conn, Message::Keepalive);
    let route = prefix("192.0.2.0/24");
    rig.receive(conn, Message::Update(announcement(2, route, path(&[7]))));
    rig.input(Input::Closed { conn });
    assert_eq!((rig.selected[&route].len(), members(&rig).0), (1, 1));
    rig.wait(Duration::from_secs(61));
    assert_eq!((rig.selected[&route].len(), members(&rig).0), (0, 0));
}

#[test]
fn the_limit_turns_away_and_says_so_once_until_there_is_room() {
    let mut rig = rig(2, internal(0));
    let first = come(&mut rig, 2, ASN);
    come(&mut rig, 3, ASN);
    for refused in 1..=3 {
        let conn = rig.accept(4);
        assert_eq!(rig.closed.last(), Some(&conn));
        assert_eq!(members(&rig), (2, refused));
    }
    assert_eq!(rig.full, [prefix("10.0.0.0/28")]);
    rig.input(Input::Closed { conn: first });
    come(&mut rig, 4, ASN);
    assert_eq!(rig.peer(4).state, State::Established);
    rig.accept(5);
    assert_eq!(rig.full.len(), 2);
}

#[test]
fn a_peer_of_any_other_as_is_of_the_one_that_it_names() {
    let mut rig = rig(
        9,
        PeerConfig {
            asn: ANY_EXTERNAL_AS,
            ..internal(0)
        },
    );
    for (id, asn) in [(2, 65_002), (3, 4_200_000_000)] {
        come(&mut rig, id, asn);
        let peer = rig.peer(id);
        assert_eq!((peer.state, peer.asn), (State::Established, asn));
    }
    let ours = rig.accept(4);
    rig.receive(ours, Message::Open(open(4, ASN)));
    assert_eq!(rig.notified(ours), Some((2, 2)), "our AS is no other");
    let settings = PeerConfig {
        asn: ANY_EXTERNAL_AS,
        export: manx_bgp::Policy::Reject,
        ..internal(0)
    };
    rig.input(Input::SetRange(Box::new(range("10.0.0.0/28", 9, settings))));
    assert_eq!(rig.peer(2).state, State::Established, "the AS is still the one");
}

#[test]
fn the_longest_range_counts_and_a_peers_own_settings_before_any() {
    let mut rig = rig(9, internal(0));
    rig.input(Input::SetRange(Box::new(range("10.0.0.4/30", 9, external(4)))));
    rig.input(Input::SetPeer(Box::new(external(5))));
    come(&mut rig, 2, ASN);
    come(&mut rig, 4, 65_004);
    come(&mut rig, 5, 65_005);
    for id in [2, 4, 5] {
        assert_eq!(rig.peer(id).state, State::Established, "{id}");
    }
    rig.input(Input::RemoveRange(prefix("10.0.0.4/30")));
    let left: Vec<_> = rig.speaker.peers().iter().map(|peer| peer.key).collect();
    assert_eq!(left, [key(2), key(5)]);
}
