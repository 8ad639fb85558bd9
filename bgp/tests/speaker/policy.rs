//! Changed settings: what they touch, and what they leave alone.

use std::time::Duration;

use manx_bgp::{Input, PeerConfig, Policy, State};

use crate::rig::{Rig, announcement, config, graceful_open, internal, key, path, prefix};

fn within(range: &str) -> Policy {
    Policy::Within([prefix(range)].into())
}

#[test]
fn an_import_policy_takes_effect_on_what_has_come_already() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    let (inside, outside) = (prefix("10.1.0.0/26"), prefix("10.2.0.0/26"));
    rig.update(conn, announcement(2, inside, path(&[])));
    rig.update(conn, announcement(2, outside, path(&[])));
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        import: within("10.1.0.0/16"),
        ..internal(2)
    })));
    assert_eq!((rig.selected(inside), rig.selected(outside)), (vec![2], vec![]));
    assert_eq!((rig.peer(2).received, rig.peer(2).accepted), (2, 1));
    let reason = rig.paths(outside)[0].reason.clone();
    assert_eq!(reason.as_deref(), Some("the import policy refuses the prefix"));
    rig.input(Input::SetPeer(Box::new(internal(2))));
    assert_eq!(rig.selected(outside), [2]);
    assert!(rig.closed.is_empty(), "the session stood all the while");
}

#[test]
fn an_export_policy_takes_effect_on_what_was_announced_already() {
    let mut rig = Rig::new(config());
    let (inside, outside) = (prefix("10.1.0.0/26"), prefix("10.2.0.0/26"));
    rig.input(Input::Originate(inside));
    rig.input(Input::Originate(outside));
    let conn = rig.establish(internal(2));
    rig.sent(conn);
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        export: within("10.1.0.0/16"),
        ..internal(2)
    })));
    assert_eq!(rig.told(conn), (vec![], vec![outside]));
    rig.input(Input::SetPeer(Box::new(internal(2))));
    assert_eq!(rig.told(conn), (vec![outside], vec![]));
}

#[test]
fn becoming_a_client_needs_no_new_session() {
    let mut rig = Rig::new(config());
    let (from, to) = (rig.establish(internal(2)), rig.establish(internal(3)));
    let target = prefix("10.1.0.0/26");
    rig.update(from, announcement(2, target, path(&[])));
    rig.sent(to);
    let client = |id| PeerConfig {
        route_reflector_client: true,
        ..internal(id)
    };
    rig.input(Input::SetPeer(Box::new(client(2))));
    assert_eq!(rig.told(to), (vec![target], vec![]));
    rig.input(Input::SetPeer(Box::new(internal(2))));
    assert_eq!(rig.told(to), (vec![], vec![target]));
    assert!(rig.closed.is_empty());
}

#[test]
fn equal_settings_change_nothing() {
    let mut rig = Rig::new(config());
    rig.input(Input::Originate(prefix("10.1.0.0/26")));
    let conn = rig.establish(internal(2));
    rig.sent(conn);
    rig.input(Input::SetPeer(Box::new(internal(2))));
    assert!(rig.sent(conn).is_empty() && rig.closed.is_empty());
}

/// RFC 4486 §4 (6): the peer is told.
#[test]
fn settings_of_the_session_reset_this_session_only() {
    let mut rig = Rig::new(config());
    let (changed, other) = (rig.establish(internal(2)), rig.establish(internal(3)));
    rig.sent(changed);
    let hold_time = Duration::from_secs(30);
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        hold_time,
        ..internal(2)
    })));
    assert_eq!(rig.notified(changed), Some((6, 6)));
    assert_eq!(rig.closed, [changed]);
    assert_eq!(rig.peer(3).state, State::Established);
    assert!(!rig.closed.contains(&other));
}

/// RFC 4486 §4 (3): the peer is told.
#[test]
fn a_removed_peer_is_told_so_and_its_routes_go() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    rig.sent(conn);
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(2, target, path(&[])));
    rig.input(Input::RemovePeer(key(2)));
    assert_eq!(rig.notified(conn), Some((6, 3)));
    assert_eq!(rig.closed, [conn]);
    assert_eq!(rig.selected(target), []);
    assert!(rig.speaker.peers().is_empty() && rig.speaker.paths().is_empty());
    assert_eq!(
        rig.accept(2),
        *rig.closed.last().unwrap(),
        "its next connection is closed"
    );
}

/// RFC 8538 §3.1: in a hard reset.
#[test]
fn a_removed_peer_with_graceful_restart_is_told_that_it_is_for_good() {
    let mut rig = Rig::new(config());
    let peer = PeerConfig {
        graceful_restart: Some(Duration::from_secs(60)),
        ..internal(2)
    };
    let conn = rig.establish_with(peer, 2, graceful_open(2));
    rig.sent(conn);
    rig.input(Input::RemovePeer(key(2)));
    assert_eq!(rig.notified(conn), Some((6, 9)), "a hard reset (RFC 8538)");
}

#[test]
fn a_peer_of_another_as_now_loses_the_routes_of_the_old_one() {
    let mut rig = Rig::new(config());
    let peer = PeerConfig {
        graceful_restart: Some(Duration::from_secs(60)),
        ..internal(2)
    };
    let conn = rig.establish_with(peer.clone(), 2, graceful_open(2));
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(2, target, path(&[])));
    let hold_time = Duration::from_secs(30);
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        hold_time,
        ..peer.clone()
    })));
    assert_eq!(rig.selected(target), [2], "a reset keeps routes");
    assert!(rig.paths(target)[0].stale);
    rig.input(Input::SetPeer(Box::new(PeerConfig { asn: 65_002, ..peer })));
    assert_eq!(rig.selected(target), []);
}
