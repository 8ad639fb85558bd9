//! What operators ask for: drains (RFC 8326) and resets (RFC 4486).

use std::time::Duration;

use manx_bgp::wire::{Attributes, Capability, Message, Notification, Open, RouteRefresh, Update};
use manx_bgp::{ConnId, DrainPhase, Family, Input, PeerConfig, Prefix, RangeConfig, State};

use crate::rig::{
    ASN, Rig, announcement, config, external, graceful_open, internal, key, open, path, prefix,
};

const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
const TIME: Duration = Duration::from_secs(20);

/// Sessions with it never expire.
fn lasting(peer: PeerConfig) -> PeerConfig {
    PeerConfig {
        hold_time: Duration::ZERO,
        ..peer
    }
}

fn drain(rig: &mut Rig, id: Option<u8>) {
    rig.input(Input::Drain {
        peer: id.map(key),
        time: TIME,
        words: "moving racks".to_owned(),
    });
}

fn undrain(rig: &mut Rig, id: Option<u8>) {
    rig.input(Input::Undrain(id.map(key)));
}

/// What a peer hears of a prefix: its attributes, or none when it is withdrawn; in order.
fn heard(rig: &mut Rig, conn: ConnId, target: Prefix) -> Vec<Option<Attributes>> {
    let mut heard = Vec::new();
    for update in rig.updates(conn) {
        if update.withdrawn.iter().any(|nlri| nlri.prefix == target) {
            heard.push(None);
        }
        let mut announced = update.reach.iter().flat_map(|reach| &reach.nlri);
        if announced.any(|nlri| nlri.prefix == target) {
            heard.push(Some(update.attributes));
        }
    }
    heard
}

fn notifications(rig: &mut Rig, conn: ConnId) -> Vec<Notification> {
    let only = |message| match message {
        Message::Notification(it) => Some(it),
        Message::Open(_) | Message::Update(_) | Message::Keepalive | Message::RouteRefresh(_) => None,
    };
    rig.sent(conn).into_iter().filter_map(only).collect()
}

/// RFC 8326 §4.2: before a planned end, routes are announced again with GRACEFUL_SHUTDOWN; then they are withdrawn, and
/// the session ends.
/// RFC 4486 §4 (2): 6/2.
/// RFC 9003 §2 (send): with the operator's words.
#[test]
fn a_drain_marks_routes_then_withdraws_them_then_ends_the_session() {
    let mut rig = Rig::new(config());
    let target = prefix("10.1.0.0/26");
    rig.input(Input::Originate(target));
    let (leaving, other) = (
        rig.establish(lasting(external(2))),
        rig.establish(lasting(external(3))),
    );
    rig.sent(leaving);
    rig.sent(other);
    drain(&mut rig, Some(2));
    let marked = heard(&mut rig, leaving, target);
    let [Some(attributes)] = &marked[..] else {
        panic!("{marked:?}")
    };
    assert_eq!(attributes.communities, [GRACEFUL_SHUTDOWN]);
    assert!(matches!(rig.peer(2).drain, Some(DrainPhase::Marked { .. })));
    rig.wait(TIME - Duration::from_secs(1));
    assert!(rig.sent(leaving).is_empty());
    rig.wait(Duration::from_secs(1));
    let said = rig.sent(leaving);
    let [
        Message::Update(Update { withdrawn, .. }),
        Message::Notification(last),
    ] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!(withdrawn[0].prefix, target);
    assert_eq!(
        *last,
        Notification::cease(manx_bgp::wire::Cease::AdministrativeShutdown).saying("moving racks")
    );
    assert_eq!(rig.closed, [leaving]);
    assert_eq!(rig.peer(2).drain, Some(DrainPhase::Down));
    assert!(rig.sent(other).is_empty(), "another peer notices nothing");
    assert_eq!(rig.drained, 0);
}

/// RFC 8326 §4.2 (both ways): within the AS the preference is the lowest, too, and what came over the session is passed on
/// as the last to be taken.
#[test]
fn a_drained_sessions_routes_are_the_last_to_be_taken_on_both_sides() {
    let mut rig = Rig::new(config());
    let client = |id| PeerConfig {
        route_reflector_client: true,
        ..lasting(internal(id))
    };
    let (leaving, other) = (rig.establish(client(2)), rig.establish(client(3)));
    let [theirs, ours] = ["10.1.0.0/26", "10.2.0.0/26"].map(prefix);
    rig.input(Input::Originate(ours));
    let better = Attributes {
        local_pref: Some(200),
        ..Attributes::default()
    };
    rig.update(leaving, announcement(2, theirs, better));
    rig.update(other, announcement(3, theirs, path(&[])));
    assert_eq!(rig.selected(theirs), [2]);
    rig.sent(leaving);
    rig.sent(other);
    drain(&mut rig, Some(2));
    assert_eq!(rig.selected(theirs), [3]);
    let to_leaving = heard(&mut rig, leaving, ours);
    let [Some(attributes)] = &to_leaving[..] else {
        panic!("{to_leaving:?}")
    };
    assert_eq!(
        (attributes.local_pref, &attributes.communities[..]),
        (Some(0), &[GRACEFUL_SHUTDOWN][..])
    );
    let from_leaving = rig.paths(theirs)[1].attributes.clone();
    assert_eq!(from_leaving.local_pref, Some(0));
    assert_eq!(from_leaving.communities, [GRACEFUL_SHUTDOWN]);
    undrain(&mut rig, Some(2));
    assert_eq!(rig.selected(theirs), [2], "all is as it was");
    let restored = heard(&mut rig, leaving, ours);
    let [Some(attributes)] = &restored[..] else {
        panic!("{restored:?}")
    };
    assert_eq!(attributes.local_pref, Some(100));
    assert!(attributes.communities.is_empty());
    assert_eq!(rig.peer(2).drain, None);
    rig.wait(TIME);
    assert_eq!(rig.peer(2).state, State::Established);
}

#[test]
fn a_drained_peer_stays_away_until_it_is_asked_back() {
    let mut rig = Rig::new(config());
    let dialling = PeerConfig {
        passive: false,
        ..lasting(internal(2))
    };
    let conn = rig.establish(dialling.clone());
    drain(&mut rig, Some(2));
    rig.wait(TIME);
    assert_eq!(rig.closed.last(), Some(&conn));
    let dials = rig.dialled.len();
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        hold_time: Duration::from_secs(30),
        ..dialling
    })));
    rig.input(Input::Reset {
        peer: key(2),
        words: String::new(),
    });
    rig.wait(Duration::from_secs(86_400));
    assert_eq!(
        rig.dialled.len(),
        dials,
        "neither time nor settings bring it back"
    );
    let refused = rig.accept(2);
    assert_eq!(rig.notified(refused), Some((6, 5)));
    undrain(&mut rig, Some(2));
    rig.wait(Duration::from_secs(10));
    assert!(rig.dialled.len() > dials);
    let back = rig.accept(2);
    rig.receive(back, Message::Open(open(2, ASN)));
    rig.receive(back, Message::Keepalive);
    assert_eq!(rig.peer(2).state, State::Established);
    assert_eq!(rig.peer(2).hold_time, Duration::from_secs(30));
}

#[test]
fn a_drain_of_all_holds_for_new_peers_too_and_is_told_once() {
    let mut rig = Rig::new(config());
    rig.input(Input::SetRange(Box::new(RangeConfig {
        range: prefix("10.0.0.0/24"),
        limit: 9,
        template: lasting(internal(9)),
    })));
    let conn = rig.establish(lasting(internal(2)));
    rig.input(Input::SetPeer(Box::new(internal(3))));
    drain(&mut rig, None);
    assert_eq!(
        rig.peer(3).drain,
        Some(DrainPhase::Down),
        "it has nothing to lose"
    );
    assert_eq!(rig.drained, 0);
    rig.wait(TIME);
    assert_eq!((rig.notified(conn), rig.drained), (Some((6, 2)), 1));
    rig.input(Input::SetPeer(Box::new(PeerConfig {
        passive: false,
        ..internal(4)
    })));
    let strangers = rig.accept(5);
    assert_eq!(rig.notified(strangers), Some((6, 5)));
    rig.wait(TIME);
    assert_eq!(rig.peer(4).state, State::Idle);
    undrain(&mut rig, None);
    assert!(rig.speaker.peers().iter().all(|peer| peer.drain.is_none()));
    rig.wait(TIME);
    assert_eq!(rig.peer(4).state, State::Connect);
    assert_eq!(rig.drained, 1);
}

/// A drain ends for good: graceful restart keeps none of the routes, on neither side.
/// RFC 8538 §4: 6/2 in a hard reset.
#[test]
fn graceful_restart_keeps_no_route_of_a_drained_session() {
    let mut rig = Rig::new(config());
    let graceful = PeerConfig {
        graceful_restart: Some(Duration::from_secs(60)),
        ..lasting(internal(2))
    };
    let conn = rig.establish_with(graceful, 2, graceful_open(2));
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(2, target, path(&[])));
    rig.sent(conn);
    drain(&mut rig, Some(2));
    rig.wait(TIME);
    let told = notifications(&mut rig, conn);
    assert_eq!(
        (told[0].code, told[0].subcode, &told[0].data[..2]),
        (6, 9, &[6, 2][..])
    );
    assert_eq!(rig.selected(target), []);
}

/// What ends the session meanwhile ends the drain.
#[test]
fn a_session_that_is_lost_while_it_is_drained_stays_away() {
    let mut rig = Rig::new(config());
    let graceful = PeerConfig {
        graceful_restart: Some(Duration::from_secs(60)),
        passive: false,
        ..lasting(internal(2))
    };
    let conn = rig.establish_with(graceful, 2, graceful_open(2));
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(2, target, path(&[])));
    drain(&mut rig, Some(2));
    let dials = rig.dialled.len();
    rig.input(Input::Closed { conn });
    assert_eq!(rig.peer(2).drain, Some(DrainPhase::Down));
    assert_eq!(rig.selected(target), []);
    rig.wait(Duration::from_secs(3600));
    assert_eq!(rig.dialled.len(), dials);
}

/// RFC 4486 §4 (4): 6/4.
/// RFC 9003 §2 (send): with the operator's words.
#[test]
fn a_reset_ends_the_session_and_a_new_one_may_come() {
    let mut rig = Rig::new(config());
    let (conn, other) = (
        rig.establish(lasting(internal(2))),
        rig.establish(lasting(internal(3))),
    );
    rig.sent(conn);
    rig.input(Input::Reset {
        peer: key(2),
        words: "again".to_owned(),
    });
    let told = notifications(&mut rig, conn);
    assert_eq!(
        told,
        [Notification::cease(manx_bgp::wire::Cease::AdministrativeReset).saying("again")]
    );
    assert_eq!(rig.closed, [conn]);
    let back = rig.accept(2);
    rig.receive(back, Message::Open(open(2, ASN)));
    rig.receive(back, Message::Keepalive);
    assert_eq!(rig.peer(2).state, State::Established);
    assert!(!rig.closed.contains(&other));
}

/// RFC 2918 §4 (ask): only of who takes such requests.
#[test]
fn a_refresh_asks_for_all_routes_and_sends_ours_again() {
    let table: [(Vec<Capability>, bool); 2] = [(vec![Capability::RouteRefresh], true), (vec![], false)];
    for (capabilities, asks) in table {
        let mut rig = Rig::new(config());
        let target = prefix("10.1.0.0/26");
        rig.input(Input::Originate(target));
        let open = Open {
            capabilities,
            ..open(2, ASN)
        };
        let conn = rig.establish_with(lasting(internal(2)), 2, open);
        rig.sent(conn);
        rig.input(Input::Refresh(key(2)));
        let said = rig.sent(conn);
        let request = Message::RouteRefresh(RouteRefresh {
            family: Some(Family::Ipv4Unicast),
            subtype: RouteRefresh::REQUEST,
        });
        assert_eq!(said.contains(&request), asks);
        let again = said.iter().any(|message| {
            matches!(message, Message::Update(update) if update.reach.iter().any(|it| it.nlri[0].prefix == target))
        });
        assert!(again, "{said:?}");
        assert_eq!(rig.peer(2).state, State::Established);
    }
}

/// Whoever is not there can be asked for nothing.
#[test]
fn what_is_asked_of_unknown_peers_is_nothing() {
    let mut rig = Rig::new(config());
    drain(&mut rig, Some(2));
    undrain(&mut rig, Some(2));
    rig.input(Input::Refresh(key(2)));
    rig.input(Input::Reset {
        peer: key(2),
        words: String::new(),
    });
    assert!(rig.speaker.peers().is_empty());
}
