//! What a peer can make the speaker keep, say and wait for.

use std::net::Ipv4Addr;
use std::time::Duration;

use manx_bgp::speaker::SEND_QUEUE;
use manx_bgp::wire::{Capability, Message, RouteRefresh, UnknownAttribute};
use manx_bgp::{ConnId, Family, Input, PeerConfig, Prefix, State};

use crate::rig::{ASN, Rig, announcement, config, external, internal, open, path, prefix, withdrawal};

const V4: Family = Family::Ipv4Unicast;

fn mark(subtype: u8) -> Message {
    Message::RouteRefresh(RouteRefresh {
        family: Some(V4),
        subtype,
    })
}

/// A session with peer number 2 that marks its refreshes.
fn refreshing(rig: &mut Rig) -> ConnId {
    let mut open = open(2, ASN);
    open.capabilities.push(Capability::EnhancedRouteRefresh);
    rig.establish_with(internal(2), 2, open)
}

/// RFC 7313 §4 (bound): what was not repeated goes after six minutes.
#[test]
fn a_refresh_that_never_ends_is_ended() {
    let mut rig = Rig::new(config());
    let conn = refreshing(&mut rig);
    let [kept, gone] = ["10.1.0.0/26", "10.2.0.0/26"].map(prefix);
    for target in [kept, gone] {
        rig.update(conn, announcement(2, target, path(&[])));
    }
    rig.receive(conn, mark(RouteRefresh::BEGIN));
    rig.update(conn, announcement(2, kept, path(&[])));
    let alive = |rig: &mut Rig, minutes| {
        for _ in 0..minutes {
            rig.wait(Duration::from_secs(60));
            rig.receive(conn, Message::Keepalive);
        }
    };
    alive(&mut rig, 5);
    assert_eq!((rig.selected(kept), rig.selected(gone)), (vec![2], vec![2]));
    alive(&mut rig, 1);
    assert_eq!((rig.selected(kept), rig.selected(gone)), (vec![2], vec![]));
    // An end that comes late finds nothing to drop.
    rig.receive(conn, mark(RouteRefresh::END));
    alive(&mut rig, 7);
    assert_eq!((rig.selected(kept), rig.peer(2).received), (vec![2], 1));
}

/// RFC 7313 §4 (bound): nothing goes later where the end came in time, or the session ended before it.
#[test]
fn an_ended_refresh_costs_nothing_later() {
    let mut rig = Rig::new(config());
    let conn = refreshing(&mut rig);
    let target = prefix("10.1.0.0/26");
    rig.receive(conn, mark(RouteRefresh::BEGIN));
    rig.update(conn, announcement(2, target, path(&[])));
    rig.receive(conn, mark(RouteRefresh::END));
    rig.receive(conn, mark(RouteRefresh::BEGIN));
    rig.input(Input::Closed { conn });
    let conn = rig.accept(2);
    rig.receive(conn, Message::Open(open(2, ASN)));
    rig.receive(conn, Message::Keepalive);
    rig.update(conn, announcement(2, target, path(&[])));
    for _ in 0..7 {
        rig.wait(Duration::from_secs(60));
        rig.receive(conn, Message::Keepalive);
    }
    assert_eq!(rig.selected(target), [2], "the refresh went with its session");
}

/// Announces `count` prefixes from peer number 2 with attributes of about `octets`, each with its own or all with the same.
fn announce_heavily(rig: &mut Rig, conn: ConnId, count: u32, octets: usize, own: bool) {
    for n in 0..count {
        let mut attributes = path(&[65_002]);
        let mut value = if own { n } else { 0 }.to_be_bytes().to_vec();
        value.resize(octets, 0);
        attributes.unknown.push(UnknownAttribute {
            flags: 0xc0,
            code: 99,
            value: value.into(),
        });
        let target = Prefix::v4(Ipv4Addr::from(0x1400_0000 + (n << 8)), 24).unwrap();
        rig.speaker.handle(
            rig.now,
            Input::Received {
                conn,
                message: Ok(Message::Update(announcement(2, target, attributes))),
            },
        );
    }
    rig.perform();
}

/// nasty case 41: whatever attributes others make us pass on, little waits for who takes nothing; the refreshes that he
/// asks for, and withdrawals, wait as numbers.
#[test]
fn what_waits_for_a_peer_that_reads_nothing_is_bounded() {
    let sizes = [8, 500, 3_900, 4_000];
    for (octets, own) in sizes
        .into_iter()
        .flat_map(|octets| [(octets, true), (octets, false)])
    {
        let mut rig = Rig::new(config());
        let source = rig.establish(external(2));
        let stalled = rig.establish(internal(3));
        let reader = rig.establish(internal(4));
        rig.stalled.insert(stalled, 0);
        announce_heavily(&mut rig, source, 3_000, octets, own);
        for _ in 0..100 {
            rig.receive(stalled, mark(RouteRefresh::REQUEST));
        }
        for n in 0..1_000 {
            let target = Prefix::v4(Ipv4Addr::from(0x1400_0000 + (n << 8)), 24).unwrap();
            rig.update(source, withdrawal(target));
        }
        let waiting = rig.stalled[&stalled];
        assert!(
            waiting > 0 && waiting <= SEND_QUEUE,
            "{waiting} octets of attributes of {octets}"
        );
        let (announced, withdrawn) = rig.told(reader);
        assert_eq!(
            (announced.len(), withdrawn.len()),
            (3_000, 1_000),
            "others are told all"
        );
    }
}

/// Octets that a peer with prefixes at hand is told after it asked for them to be repeated `requests` times.
fn told_after(requests: usize) -> usize {
    let mut rig = Rig::new(config());
    for n in 0..1_000_u32 {
        rig.input(Input::Originate(
            Prefix::v4(Ipv4Addr::from(0x1400_0000 + (n << 8)), 24).unwrap(),
        ));
    }
    let conn = rig.establish(internal(2));
    rig.sent(conn);
    for _ in 0..requests {
        let message = Ok(mark(RouteRefresh::REQUEST));
        rig.speaker.handle(rig.now, Input::Received { conn, message });
    }
    rig.perform();
    rig.told(conn).0.len()
}

/// Requests that come before the first is answered are answered together.
#[test]
fn a_flood_of_refreshes_is_answered_once() {
    assert_eq!((told_after(1), told_after(1_000)), (1_000, 1_000));
}

/// Who agrees to a session without hold time and never confirms it does not stay for ever, with or without a place of a range.
#[test]
fn a_session_without_hold_time_has_to_be_confirmed() {
    let mut rig = Rig::new(config());
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        hold_time: Duration::ZERO,
        ..internal(2)
    })));
    let conn = rig.accept(2);
    rig.receive(conn, Message::Open(open(2, ASN)));
    rig.wait(Duration::from_secs(239));
    assert_eq!(rig.peer(2).state, State::OpenConfirm);
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.notified(conn), Some((4, 0)));
    let conn = rig.accept(2);
    rig.receive(conn, Message::Open(open(2, ASN)));
    rig.receive(conn, Message::Keepalive);
    rig.wait(Duration::from_secs(24 * 3600));
    assert_eq!(rig.peer(2).state, State::Established);
}

/// RFC 9687 §3.1: a peer that takes nothing is told so, though it says KEEPALIVE, and its connection is closed.
/// RFC 9687 §3.2: after twice the hold time, eight minutes at least.
/// nasty case 41
#[test]
fn a_stalled_peer_is_given_up_after_the_send_hold_time() {
    for (hold_time, limit) in [(0, 480), (3, 480), (90, 480), (600, 1_200)] {
        let mut rig = Rig::new(config());
        let peer = PeerConfig {
            hold_time: Duration::from_secs(hold_time),
            ..internal(2)
        };
        let mut open = open(2, ASN);
        open.hold_time = 600;
        let conn = rig.establish_with(peer, 2, open);
        rig.stalled.insert(conn, 0);
        rig.input(Input::Originate(prefix("10.1.0.0/26")));
        for _ in 1..limit {
            rig.wait(Duration::from_secs(1));
            rig.receive(conn, Message::Keepalive);
        }
        assert_eq!(rig.peer(2).state, State::Established, "hold time {hold_time}");
        rig.stalled.remove(&conn);
        rig.wait(Duration::from_secs(2));
        assert_eq!(rig.notified(conn), Some((8, 0)), "hold time {hold_time}");
        assert_eq!(rig.closed, [conn]);
    }
}
