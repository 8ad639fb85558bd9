//! Sessions as a peer sees them.

use std::time::Duration;

use manx_bgp::wire::{Cease, Message, Notification, Open};
use manx_bgp::{Config, ConnId, Input, PeerConfig, State};

use crate::rig::{ASN, Rig, address, announcement, config, graceful_open, internal, key, open, path, prefix};

fn graceful(id: u8) -> PeerConfig {
    PeerConfig {
        graceful_restart: Some(Duration::from_secs(60)),
        ..internal(id)
    }
}

/// RFC 4486 §4 (5): an unknown source is told that it is one.
/// nasty case 38
#[test]
fn an_unknown_source_is_rejected_before_it_has_said_a_word() {
    let mut rig = Rig::new(config());
    let conn = rig.accept(2);
    assert_eq!(rig.notified(conn), Some((6, 5)));
    assert_eq!(rig.closed, [conn]);
}

/// RFC 4271 §6.2 (as): 2/2.
/// RFC 4271 §6.2 (identifier): 2/3.
/// RFC 4271 §4.5: then the connection is closed.
#[test]
fn a_wrong_open_is_refused_with_the_reason() {
    let table = [
        (open(2, 65_000), (2, 2)),
        (
            Open {
                router_id: address(1),
                ..open(2, ASN)
            },
            (2, 3),
        ),
    ];
    for (open, told) in table {
        let mut rig = Rig::new(config());
        rig.input(Input::SetPeer(Box::new(internal(2))));
        let conn = rig.accept(2);
        rig.receive(conn, Message::Open(open));
        assert_eq!(rig.notified(conn), Some(told));
        assert_eq!(rig.closed, [conn]);
        assert!(
            rig.peer(2)
                .last_error
                .is_some_and(|error| error.contains("OPEN error"))
        );
    }
}

/// RFC 6608 §4: 5/3 for an OPEN in Established.
/// nasty case 10
#[test]
fn a_message_out_of_place_ends_the_session() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    rig.sent(conn);
    rig.receive(conn, Message::Open(open(2, ASN)));
    assert_eq!(rig.notified(conn), Some((5, 3)));
    assert_ne!(rig.peer(2).state, State::Established);
}

/// RFC 4271 §4.4: a KEEPALIVE each third of the hold time.
/// RFC 4271 §6.5: 4/0 after the hold time.
#[test]
fn keepalives_hold_a_session_and_silence_ends_it() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    for _ in 0..20 {
        rig.wait(Duration::from_secs(80));
        rig.receive(conn, Message::Keepalive);
    }
    let keepalives = rig
        .sent(conn)
        .into_iter()
        .filter(|it| *it == Message::Keepalive)
        .count();
    assert!(
        (53..=75).contains(&keepalives),
        "one per 22.5 to 30 s: {keepalives}"
    );
    rig.wait(Duration::from_secs(91));
    assert_eq!(rig.notified(conn), Some((4, 0)));
}

/// RFC 4271 §4.4 (rate): also where the hold time is the shortest that there is.
#[test]
fn keepalives_are_a_second_apart_at_least() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(PeerConfig {
        hold_time: Duration::from_secs(3),
        ..internal(2)
    });
    rig.sent(conn);
    for _ in 0..30 {
        rig.wait(Duration::from_secs(2));
        rig.receive(conn, Message::Keepalive);
    }
    let keepalives = rig.sent(conn).len();
    assert!((58..=60).contains(&keepalives), "{keepalives} in a minute");
}

/// RFC 4271 §4.4: none without a hold time.
/// nasty case 44
#[test]
fn a_hold_time_of_zero_never_expires() {
    let mut rig = Rig::new(config());
    let peer = PeerConfig {
        hold_time: Duration::ZERO,
        ..internal(2)
    };
    let conn = rig.establish(peer);
    rig.sent(conn);
    rig.wait(Duration::from_secs(100_000));
    assert_eq!(rig.peer(2).state, State::Established);
    assert!(rig.sent(conn).is_empty(), "and needs no keepalives");
}

/// RFC 4271 §8.1.1 (oscillations): damped.
/// nasty case 42
#[test]
fn a_peer_that_resets_every_connection_is_dialled_less_and_less() {
    let mut rig = Rig::new(config());
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        passive: false,
        ..internal(2)
    })));
    let start = rig.now;
    let mut answered = 0;
    while rig.now < start + Duration::from_secs(600) {
        while let Some(&(_, conn, _)) = rig.dialled.get(answered) {
            answered += 1;
            rig.input(Input::Connected {
                conn,
                local: (address(1), 40_000).into(),
            });
            rig.input(Input::Closed { conn });
        }
        rig.wait(Duration::from_millis(50));
    }
    let until = |seconds| {
        rig.dialled
            .iter()
            .filter(|(at, ..)| *at < start + Duration::from_secs(seconds))
            .count()
    };
    assert!((4..=7).contains(&until(10)), "{}", until(10));
    assert!((20..=35).contains(&until(600)), "{}", until(600));
}

/// RFC 4486 §4 (2): the peer is told.
/// RFC 9003 §2 (send): in the operator's words.
#[test]
fn shutdown_says_so_or_leaves_in_silence_where_that_keeps_our_routes() {
    let mut rig = Rig::new(Config {
        farewell: "lunch".to_owned(),
        ..config()
    });
    let (plain, graceful) = (
        rig.establish(internal(2)),
        rig.establish_with(graceful(3), 3, graceful_open(3)),
    );
    let target = prefix("10.1.0.0/26");
    rig.update(plain, announcement(2, target, path(&[])));
    rig.sent(plain);
    rig.sent(graceful);
    rig.input(Input::Shutdown);
    let told = Notification::cease(Cease::AdministrativeShutdown).saying("lunch");
    assert_eq!(rig.sent(plain), [Message::Notification(told)]);
    assert!(rig.sent(graceful).is_empty());
    assert_eq!(rig.closed, [plain, graceful]);
    assert_eq!(rig.selected(target), [2], "forwarding goes on");
    assert_eq!(rig.speaker.deadline(), None);
    assert_eq!(rig.accept(2), *rig.closed.last().unwrap());
}

/// RFC 8538 §4: unless it is a hard reset.
#[test]
fn a_notification_keeps_routes_where_both_sides_said_so() {
    for (reason, kept) in [(Cease::AdministrativeReset, true), (Cease::HardReset, false)] {
        let mut rig = Rig::new(config());
        let conn = rig.establish_with(graceful(2), 2, graceful_open(2));
        let target = prefix("10.1.0.0/26");
        rig.update(conn, announcement(2, target, path(&[])));
        rig.receive(conn, Message::Notification(Notification::cease(reason)));
        assert_eq!(rig.selected(target).is_empty(), !kept);
        rig.wait(Duration::from_secs(61));
        assert_eq!(rig.selected(target), [], "for the restart time only");
    }
}

/// RFC 9384 §3: the peer is told.
/// RFC 8538 §3.1: in a hard reset where it would keep our routes otherwise.
/// nasty case 51
#[test]
fn a_path_that_fails_ends_the_session_and_keeps_no_route() {
    for (peer, hello, told) in [
        (internal(2), open(2, ASN), (6, 10)),
        (graceful(2), graceful_open(2), (6, 9)),
    ] {
        let mut rig = Rig::new(config());
        let conn = rig.establish_with(peer.clone(), 2, hello.clone());
        let other = rig.establish(internal(3));
        let target = prefix("10.1.0.0/26");
        rig.update(conn, announcement(2, target, path(&[])));
        rig.sent(conn);
        rig.input(Input::PathDown(key(2)));
        assert_eq!(rig.notified(conn), Some(told));
        assert_eq!(rig.closed, [conn]);
        assert_eq!(rig.selected(target), []);
        assert_eq!(rig.peer(3).state, State::Established);
        assert_ne!(conn, other);
        // The path being down stops no attempt, and what comes back is a session like any other.
        let again = rig.establish_with(peer, 2, hello);
        rig.update(again, announcement(2, target, path(&[])));
        assert_eq!(rig.selected(target), [2]);
    }
}

#[test]
fn a_path_that_fails_without_a_session_changes_nothing() {
    let mut rig = Rig::new(config());
    rig.input(Input::PathDown(key(2)));
    rig.input(Input::SetPeer(Box::new(internal(2))));
    let conn = rig.accept(2);
    rig.input(Input::PathDown(key(2)));
    assert!(!rig.closed.contains(&conn));
}

/// RFC 4724 §4.2 (twice): stale routes are not kept again.
#[test]
fn a_second_restart_in_a_row_drops_what_was_stale() {
    let mut rig = Rig::new(config());
    let conn = rig.establish_with(graceful(2), 2, graceful_open(2));
    let (twice, once) = (prefix("10.1.0.0/26"), prefix("10.2.0.0/26"));
    rig.update(conn, announcement(2, twice, path(&[])));
    rig.update(conn, announcement(2, once, path(&[])));
    rig.input(Input::Closed { conn });
    assert_eq!((rig.selected(twice), rig.selected(once)), (vec![2], vec![2]));
    let conn = rig.establish_with(graceful(2), 2, graceful_open(2));
    rig.update(conn, announcement(2, twice, path(&[])));
    rig.input(Input::Closed { conn });
    assert_eq!((rig.selected(twice), rig.selected(once)), (vec![2], vec![]));
}

/// nasty case 45
#[test]
fn events_of_forgotten_connections_mean_nothing() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    let stranger = ConnId(77);
    rig.input(Input::Connected {
        conn: stranger,
        local: (address(1), 1).into(),
    });
    rig.receive(stranger, Message::Keepalive);
    rig.input(Input::Drained { conn: stranger });
    rig.input(Input::Closed { conn: stranger });
    rig.input(Input::ConnectFailed { conn: stranger });
    assert_eq!(rig.peer(2).state, State::Established);
    assert!(rig.sent(stranger).is_empty() && !rig.closed.contains(&conn));
}

/// RFC 4271 §8.2.1: the peer's connection gets an OPEN of its own.
/// RFC 4271 §6.8: the one stays that the greater identifier, the peer's, dialled.
/// RFC 4486 §4 (7): the other one is told.
#[test]
fn the_loser_of_a_collision_is_told() {
    let mut rig = Rig::new(config());
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        passive: false,
        ..internal(2)
    })));
    let ours = rig.dialled[0].1;
    rig.input(Input::Connected {
        conn: ours,
        local: (address(1), 40_000).into(),
    });
    let theirs = rig.accept(2);
    for conn in [ours, theirs] {
        assert!(matches!(rig.sent(conn)[..], [Message::Open(_)]));
        rig.receive(conn, Message::Open(open(2, ASN)));
    }
    assert_eq!(rig.notified(ours), Some((6, 7)));
    assert_eq!(rig.closed, [ours]);
    rig.receive(theirs, Message::Keepalive);
    assert_eq!(rig.peer(2).state, State::Established);
}

/// RFC 4271 §8.1.1 (passive): nothing is dialled, before a session or after.
#[test]
fn a_passive_peer_is_never_dialled() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    rig.input(Input::Closed { conn });
    rig.wait(Duration::from_secs(1_000));
    assert_eq!(rig.dialled, []);
    assert_eq!(rig.peer(2).state, State::Active);
}

/// RFC 4271 §8.2.2 (OpenSent): a connection that fails before the OPEN is followed by another attempt.
/// RFC 4271 §6.5: a peer that connects and says nothing is told so after 4 minutes.
#[test]
fn a_connection_without_an_open_is_given_up() {
    let mut rig = Rig::new(config());
    rig.input(Input::SetPeer(Box::new(internal(2))));
    let gone = rig.accept(2);
    rig.input(Input::Closed { conn: gone });
    let silent = rig.accept(2);
    rig.wait(Duration::from_secs(239));
    assert_eq!((rig.notified(silent), rig.closed.clone()), (None, vec![]));
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.closed, [silent]);
    assert_eq!(rig.peer(2).state, State::Active);
}

/// RFC 4486 §4 (5): also who was a peer until just now.
/// nasty case 32
#[test]
fn a_connection_for_a_peer_that_is_gone_is_rejected_in_every_state_that_it_had() {
    for messages in 0..=2 {
        let mut rig = Rig::new(config());
        rig.input(Input::SetPeer(Box::new(internal(2))));
        let conn = rig.accept(2);
        for message in [Message::Open(open(2, ASN)), Message::Keepalive]
            .into_iter()
            .take(messages)
        {
            rig.receive(conn, message);
        }
        rig.sent(conn);
        rig.input(Input::RemovePeer(key(2)));
        assert_eq!(rig.notified(conn), Some((6, 3)));
        let late = rig.accept(2);
        rig.receive(late, Message::Open(open(2, ASN)));
        rig.receive(conn, Message::Keepalive);
        assert_eq!(rig.notified(late), Some((6, 5)));
        assert_eq!(rig.closed, [conn, late]);
        assert!(rig.sent(conn).is_empty() && rig.speaker.peers().is_empty());
    }
}

/// RFC 4760 §8: without a capability IPv4 is carried.
/// RFC 5492 §4: no parameter is as good as an empty one.
#[test]
fn an_open_without_a_single_parameter_is_enough() {
    let mut rig = Rig::new(config());
    let silent = Open {
        capabilities: vec![],
        ..open(2, ASN)
    };
    let conn = rig.establish_with(internal(2), 2, silent);
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(2, target, path(&[])));
    assert_eq!(rig.selected(target), [2]);
}
