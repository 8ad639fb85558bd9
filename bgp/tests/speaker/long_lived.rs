//! Long-lived graceful restart: routes of a peer that stays away (RFC 9494).

use std::sync::Arc;
use std::time::Duration;

use manx_bgp::filter::{Action, Chain, Filter, Match, Operation, Rule};
use manx_bgp::wire::{
    Attributes, Capability, GracefulRestart, LongLivedRestart, Message, Notification, Open, Update,
};
use manx_bgp::{ConnId, Family, Input, PeerConfig, Policy, Prefix, RangeConfig};

use crate::rig::{Rig, announcement, config, external, open, path, prefix};

const V4: Family = Family::Ipv4Unicast;
const LLGR_STALE: u32 = 0xffff_0006;
const NO_LLGR: u32 = 0xffff_0007;

/// The peer's restart time and its long-lived stale time, in seconds; ours is longer.
const RESTART: u64 = 60;
const STALE: u64 = 600;

/// A peer of another AS, with which sessions never expire.
fn peer(id: u8) -> PeerConfig {
    PeerConfig {
        hold_time: Duration::ZERO,
        graceful_restart: Some(Duration::from_secs(60)),
        long_lived_graceful_restart: Some(Duration::from_secs(3600)),
        ..external(id)
    }
}

/// Its OPEN, with the restart time, and the long-lived stale time with its F bit, where it has one.
fn offer(id: u8, restart_time: u64, long_lived: Option<(u64, bool)>) -> Open {
    let mut open = open(id, external(id).asn);
    open.capabilities
        .push(Capability::GracefulRestart(GracefulRestart {
            restarting: false,
            notification: false,
            restart_time: u16::try_from(restart_time).unwrap(),
            families: vec![(V4, true)],
        }));
    let entry = |(stale_time, forwarding)| LongLivedRestart {
        family: V4,
        forwarding,
        stale_time: u32::try_from(stale_time).unwrap(),
    };
    let long_lived = long_lived.map(|it| Capability::LongLivedGracefulRestart(vec![entry(it)]));
    open.capabilities.extend(long_lived);
    open
}

fn usual(id: u8) -> Open {
    offer(id, RESTART, Some((STALE, true)))
}

fn up(rig: &mut Rig, id: u8, open: Open) -> ConnId {
    rig.establish_with(peer(id), id, open)
}

/// The peer's next session.
fn again(rig: &mut Rig, id: u8, open: Open) -> ConnId {
    let conn = rig.accept(id);
    rig.receive(conn, Message::Open(open));
    rig.receive(conn, Message::Keepalive);
    conn
}

fn marked(id: u8, communities: &[u32]) -> Attributes {
    Attributes {
        communities: communities.to_vec().into(),
        ..path(&[external(id).asn])
    }
}

fn end_of_rib() -> Update {
    Update {
        end_of_rib: Some(V4),
        ..Update::default()
    }
}

/// The communities of each announcement of a prefix on a connection since it was asked last; none for a withdrawal.
fn heard(rig: &mut Rig, conn: ConnId, target: Prefix) -> Vec<Option<Vec<u32>>> {
    let mut heard = Vec::new();
    for update in rig.updates(conn) {
        let is_it = |nlri: &manx_bgp::wire::Nlri| nlri.prefix == target;
        if update.withdrawn.iter().any(is_it) {
            heard.push(None);
        }
        if update.reach.iter().flat_map(|reach| &reach.nlri).any(is_it) {
            heard.push(Some(update.attributes.communities.to_vec()));
        }
    }
    heard
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// RFC 9494 §4.2: routes get LLGR_STALE after the restart time and stay for the stale time; those with NO_LLGR go.
/// RFC 9494 §4.3 (advertisement): who announced the capability hears of it, who did not has the route withdrawn.
#[test]
fn routes_of_a_peer_that_stays_away_stay_as_a_last_resort() {
    let mut rig = Rig::new(config());
    let lost = up(&mut rig, 2, usual(2));
    let knowing = up(&mut rig, 3, usual(3));
    let unknowing = up(&mut rig, 4, offer(4, RESTART, None));
    let [kept, unwilling] = ["10.1.0.0/26", "10.2.0.0/26"].map(prefix);
    rig.update(lost, announcement(2, kept, marked(2, &[7])));
    rig.update(lost, announcement(2, unwilling, marked(2, &[NO_LLGR])));
    assert_eq!(heard(&mut rig, knowing, kept), [Some(vec![7])]);
    assert_eq!(heard(&mut rig, unknowing, kept), [Some(vec![7])]);
    rig.input(Input::Closed { conn: lost });
    rig.wait(seconds(RESTART - 1));
    assert_eq!((rig.selected(kept), rig.selected(unwilling)), (vec![2], vec![2]));
    assert!(rig.updates(knowing).is_empty() && rig.updates(unknowing).is_empty());
    rig.wait(seconds(1));
    assert_eq!((rig.selected(kept), rig.selected(unwilling)), (vec![2], vec![]));
    assert!(rig.paths(kept)[0].stale);
    assert_eq!(heard(&mut rig, knowing, kept), [Some(vec![7, LLGR_STALE])]);
    assert_eq!(heard(&mut rig, unknowing, kept), [None]);
    let explanation = rig.speaker.explain(kept).unwrap();
    let reason = explanation.peers[2].reason.clone().unwrap();
    assert!(reason.starts_with("it is long-lived stale"), "{reason}");
    rig.wait(seconds(STALE - 1));
    assert_eq!(rig.selected(kept), [2]);
    rig.wait(seconds(1));
    assert_eq!(rig.selected(kept), []);
    assert_eq!(heard(&mut rig, knowing, kept), [None]);
    assert!(rig.paths(kept).is_empty() && rig.peer(2).received == 0);
}

/// RFC 9494 §4.2 (intervals): without a restart time the stale time begins at once.
/// RFC 9494 §4.3: any other path is better.
/// RFC 9494 §4.4: among stale ones the usual steps decide.
#[test]
fn without_a_restart_time_routes_are_stale_at_once_and_least_preferred() {
    let mut rig = Rig::new(config());
    let lost = up(&mut rig, 2, offer(2, 0, Some((STALE, true))));
    let other = up(&mut rig, 3, usual(3));
    let target = prefix("10.1.0.0/26");
    rig.update(lost, announcement(2, target, path(&[65_002])));
    rig.update(other, announcement(3, target, path(&[65_003, 1, 2, 3])));
    assert_eq!(rig.selected(target), [2]);
    rig.input(Input::Closed { conn: lost });
    assert_eq!(rig.selected(target), [3]);
    let reason = rig.paths(target)[1].reason.clone();
    assert_eq!(
        reason.as_deref(),
        Some("it is long-lived stale (llgr-stale), and another path is not")
    );
    rig.input(Input::Closed { conn: other });
    rig.wait(seconds(RESTART));
    assert_eq!(rig.selected(target), [2], "of two that are stale, the better one");
}

/// RFC 9494 §4.3: also where another speaker marked it.
/// RFC 9494 §4.3 (advertisement): the mark stays on.
#[test]
fn a_route_that_comes_with_the_mark_is_preferred_least() {
    let mut rig = Rig::new(config());
    let [stale, fresh] = [2, 3].map(|id| up(&mut rig, id, usual(id)));
    let (knowing, unknowing) = (up(&mut rig, 4, usual(4)), up(&mut rig, 5, offer(5, 0, None)));
    let target = prefix("10.1.0.0/26");
    rig.update(stale, announcement(2, target, marked(2, &[LLGR_STALE])));
    assert_eq!(rig.selected(target), [2]);
    assert_eq!(heard(&mut rig, knowing, target), [Some(vec![LLGR_STALE])]);
    assert_eq!(heard(&mut rig, unknowing, target), []);
    rig.update(fresh, announcement(3, target, path(&[65_003, 1, 2, 3])));
    assert_eq!(rig.selected(target), [3]);
    assert_eq!(heard(&mut rig, unknowing, target), [Some(vec![])]);
}

/// RFC 9494 §4.2 (timer): it runs on while the peer repeats its routes, and End-of-RIB ends it.
#[test]
fn a_peer_that_is_back_freshens_its_routes_until_end_of_rib() {
    let mut rig = Rig::new(config());
    let lost = up(&mut rig, 2, usual(2));
    let [repeated, gone] = ["10.1.0.0/26", "10.2.0.0/26"].map(prefix);
    for target in [repeated, gone] {
        rig.update(lost, announcement(2, target, path(&[65_002])));
    }
    rig.input(Input::Closed { conn: lost });
    rig.wait(seconds(RESTART + 10));
    let back = again(&mut rig, 2, usual(2));
    rig.update(back, announcement(2, repeated, path(&[65_002])));
    let mut stale = [repeated, gone].map(|it| rig.paths(it)[0].stale);
    assert_eq!(stale, [false, true]);
    // It is lost and back before it has said all: what it did not repeat stays, on the same clock.
    rig.input(Input::Closed { conn: back });
    rig.wait(seconds(5));
    let back = again(&mut rig, 2, usual(2));
    stale = [repeated, gone].map(|it| rig.paths(it)[0].stale);
    assert_eq!(stale, [true, true]);
    rig.update(back, announcement(2, repeated, path(&[65_002])));
    rig.update(back, end_of_rib());
    assert_eq!((rig.selected(repeated), rig.selected(gone)), (vec![2], vec![]));
    rig.wait(seconds(STALE));
    assert_eq!(rig.selected(repeated), [2]);
}

/// RFC 9494 §4.2 (expiry): during the repetition the time is up for what has not been repeated.
#[test]
fn the_stale_time_also_ends_while_the_peer_repeats_its_routes() {
    let mut rig = Rig::new(config());
    let lost = up(&mut rig, 2, usual(2));
    let [repeated, gone] = ["10.1.0.0/26", "10.2.0.0/26"].map(prefix);
    for target in [repeated, gone] {
        rig.update(lost, announcement(2, target, path(&[65_002])));
    }
    rig.input(Input::Closed { conn: lost });
    rig.wait(seconds(RESTART + STALE - 10));
    let back = again(&mut rig, 2, usual(2));
    rig.update(back, announcement(2, repeated, path(&[65_002])));
    rig.wait(seconds(10));
    assert_eq!((rig.selected(repeated), rig.selected(gone)), (vec![2], vec![]));
    rig.input(Input::Closed { conn: back });
    assert_eq!(rig.selected(repeated), [], "it was never synchronized");
}

/// RFC 9494 §4.2 (forwarding): without the F bit, the family or the capability in the new OPEN, stale routes go at once.
#[test]
fn a_peer_that_is_back_without_its_forwarding_state_loses_its_routes() {
    let target = prefix("10.1.0.0/26");
    for (long_lived, kept) in [
        (Some((STALE, true)), true),
        (Some((STALE, false)), false),
        (None, false),
    ] {
        let mut rig = Rig::new(config());
        let lost = up(&mut rig, 2, usual(2));
        rig.update(lost, announcement(2, target, path(&[65_002])));
        rig.input(Input::Closed { conn: lost });
        rig.wait(seconds(RESTART));
        again(&mut rig, 2, offer(2, RESTART, long_lived));
        assert_eq!(!rig.selected(target).is_empty(), kept, "{long_lived:?}");
    }
}

/// RFC 9494 §4.2 (policy): an import filter may say that a route is not to outlive the restart time.
#[test]
fn a_filter_may_say_that_a_route_is_not_kept() {
    let unwilling = Filter {
        name: "f".into(),
        v4: vec![Rule {
            when: Match::default(),
            then: Action::Accept(vec![Operation::AddCommunity("no-llgr".parse().unwrap())]),
        }],
        v6: Vec::new(),
    };
    let mut rig = Rig::new(config());
    let filtered = PeerConfig {
        import: Policy::Filtered(Arc::new(Chain::new(&[unwilling], Policy::Accept))),
        ..peer(2)
    };
    let lost = rig.establish_with(filtered, 2, usual(2));
    let target = prefix("10.1.0.0/26");
    rig.update(lost, announcement(2, target, path(&[65_002])));
    rig.input(Input::Closed { conn: lost });
    rig.wait(seconds(RESTART - 1));
    assert_eq!(rig.selected(target), [2]);
    rig.wait(seconds(1));
    assert_eq!(rig.selected(target), []);
}

/// RFC 9494 §4.2: the mark stays on when stale paths are judged anew.
#[test]
fn settings_that_change_meanwhile_leave_the_mark_on() {
    let mut rig = Rig::new(config());
    let lost = up(&mut rig, 2, usual(2));
    let target = prefix("10.1.0.0/26");
    rig.update(lost, announcement(2, target, path(&[65_002])));
    rig.input(Input::Closed { conn: lost });
    rig.wait(seconds(RESTART));
    again(&mut rig, 2, usual(2));
    let mut preferring = peer(2);
    preferring.handling.local_preference = Some(200);
    rig.input(Input::SetPeer(Box::new(preferring)));
    let attributes = rig.paths(target)[0].attributes.clone();
    assert_eq!(attributes.local_pref, Some(200));
    assert_eq!(attributes.communities, [LLGR_STALE]);
}

/// A hard reset keeps nothing, however long the stale time is (RFC 8538 §4).
#[test]
fn who_goes_for_good_leaves_no_stale_routes() {
    let mut rig = Rig::new(config());
    let lost = up(&mut rig, 2, usual(2));
    let target = prefix("10.1.0.0/26");
    rig.update(lost, announcement(2, target, path(&[65_002])));
    rig.receive(
        lost,
        Message::Notification(Notification::cease(manx_bgp::wire::Cease::PeerDeconfigured)),
    );
    assert_eq!(rig.selected(target), []);
}

/// A dynamic neighbour stays known as long as a route of it is left, and no longer.
#[test]
fn a_dynamic_neighbour_is_known_as_long_as_its_stale_routes() {
    let mut rig = Rig::new(config());
    rig.input(Input::SetRange(Box::new(RangeConfig {
        range: prefix("10.0.0.0/24"),
        limit: 1,
        template: peer(2),
    })));
    let lost = again(&mut rig, 2, usual(2));
    let target = prefix("10.1.0.0/26");
    rig.update(lost, announcement(2, target, path(&[65_002])));
    rig.input(Input::Closed { conn: lost });
    rig.wait(seconds(RESTART + STALE - 1));
    assert_eq!(rig.selected(target), [2]);
    rig.wait(seconds(1));
    assert_eq!(rig.selected(target), []);
    assert!(rig.speaker.peers().is_empty());
}
