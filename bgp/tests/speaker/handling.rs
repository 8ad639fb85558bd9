//! How routes are handled beside filters: AS numbers, preferences, limits.

use std::time::Duration;

use manx_bgp::wire::{AsPath, Attributes, Message, Notification, Segment};
use manx_bgp::{
    ConnId, Family, Handling, Input, LimitAction, LimitState, PathLimit, PeerConfig, Prefix, State,
};

use crate::rig::{ASN, Rig, announcement, config, external, internal, open, path, prefix, withdrawal};

const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;

fn handled(peer: PeerConfig, handling: Handling) -> PeerConfig {
    PeerConfig { handling, ..peer }
}

fn target() -> Prefix {
    prefix("10.1.0.0/26")
}

fn reason(rig: &Rig) -> Option<String> {
    rig.paths(target())[0].reason.clone()
}

/// What a peer was told of the target last.
fn heard(rig: &mut Rig, conn: ConnId) -> Option<Attributes> {
    let told = rig.sent(conn).into_iter().filter_map(|message| {
        if let Message::Update(update) = message {
            let has = |it: &manx_bgp::wire::Reach| it.nlri.iter().any(|it| it.prefix == target());
            update.reach.iter().any(has).then_some(update.attributes)
        } else {
            None
        }
    });
    told.last()
}

/// RFC 4271 §9.1.2: our own AS in AS_PATH is a loop, unless we were told to expect it so often.
#[test]
fn our_own_as_is_let_in_as_often_as_allowed() {
    let mut rig = Rig::new(config());
    let allowed = |allowed_own_as| Handling {
        allowed_own_as,
        ..Handling::default()
    };
    let conn = rig.establish(handled(external(2), allowed(1)));
    rig.update(conn, announcement(2, target(), path(&[65_002, ASN, 7])));
    assert_eq!(rig.selected(target()), [2]);
    rig.update(conn, announcement(2, target(), path(&[65_002, ASN, ASN])));
    assert_eq!(reason(&rig).as_deref(), Some("our own AS is in its AS_PATH"));
    rig.input(Input::SetPeer(Box::new(handled(external(2), allowed(2)))));
    assert_eq!(rig.selected(target()), [2], "judged again as it came");
    rig.input(Input::SetPeer(Box::new(external(2))));
    assert_eq!(rig.selected(target()), []);
    assert!(rig.closed.is_empty());
}

/// RFC 4271 §6.3: the leftmost AS of what an external peer sends may be checked to be the peer's.
#[test]
fn the_first_as_has_to_be_the_peers_where_that_is_asked_for() {
    let mut rig = Rig::new(config());
    let strict = Handling {
        enforce_first_as: true,
        ..Handling::default()
    };
    let conn = rig.establish(external(2));
    rig.update(conn, announcement(2, target(), path(&[7, 65_002])));
    assert_eq!(rig.selected(target()), [2], "a route server's path");
    rig.input(Input::SetPeer(Box::new(handled(external(2), strict.clone()))));
    assert_eq!(
        reason(&rig).as_deref(),
        Some("the first AS in its AS_PATH is not the peer's")
    );
    rig.update(conn, announcement(2, target(), path(&[65_002, 7])));
    assert_eq!(rig.selected(target()), [2]);
    let inside = rig.establish(handled(internal(3), strict));
    rig.update(inside, announcement(3, prefix("10.2.0.0/26"), path(&[7])));
    assert_eq!(
        rig.selected(prefix("10.2.0.0/26")),
        [3],
        "iBGP names no AS of its own"
    );
}

/// RFC 8326 §4.1: what is marked with GRACEFUL_SHUTDOWN is used only where there is nothing else.
#[test]
fn a_leaving_neighbours_routes_give_way_to_any_other() {
    let mut rig = Rig::new(config());
    let (leaving, other) = (rig.establish(external(2)), rig.establish(external(3)));
    let inside = rig.establish(internal(4));
    rig.update(leaving, announcement(2, target(), path(&[65_002])));
    rig.update(other, announcement(3, target(), path(&[65_003, 7, 8])));
    assert_eq!(rig.selected(target()), [2]);
    let marked = Attributes {
        communities: [GRACEFUL_SHUTDOWN].into(),
        ..path(&[65_002])
    };
    rig.update(leaving, announcement(2, target(), marked.clone()));
    assert_eq!(rig.selected(target()), [3]);
    rig.update(other, withdrawal(target()));
    assert_eq!(rig.selected(target()), [2]);
    let told = heard(&mut rig, inside).unwrap();
    assert_eq!(
        (told.local_pref, told.communities),
        (Some(0), [GRACEFUL_SHUTDOWN].into())
    );
}

#[test]
fn preference_med_and_prepending_are_a_peers_own() {
    let mut rig = Rig::new(config());
    let preferring = Handling {
        local_preference: Some(250),
        ..Handling::default()
    };
    let shaping = Handling {
        med: Some(30),
        prepend: 2,
        ..Handling::default()
    };
    let from = rig.establish(handled(external(2), preferring));
    let (inside, plain) = (rig.establish(internal(3)), rig.establish(external(4)));
    let shaped = rig.establish(handled(external(5), shaping));
    rig.update(from, announcement(2, target(), path(&[65_002])));
    assert_eq!(heard(&mut rig, inside).unwrap().local_pref, Some(250));
    assert_eq!(heard(&mut rig, plain).unwrap(), path(&[ASN, 65_002]));
    let expected = Attributes {
        med: Some(30),
        ..path(&[ASN, ASN, ASN, 65_002])
    };
    assert_eq!(heard(&mut rig, shaped).unwrap(), expected);
}

#[test]
fn paths_to_another_as_lose_private_numbers_and_the_peers_own() {
    let mut rig = Rig::new(config());
    let clean = Handling {
        remove_private_as: true,
        ..Handling::default()
    };
    let overriding = Handling {
        as_override: true,
        ..Handling::default()
    };
    let from = rig.establish(external(2));
    let public = rig.establish(handled(external(3), clean));
    let site = rig.establish(handled(external(4), overriding));
    rig.update(from, announcement(2, target(), path(&[65_002, 65_004, 7])));
    assert_eq!(heard(&mut rig, public).unwrap().as_path, path(&[ASN, 7]).as_path);
    let overridden = AsPath {
        segments: [Segment::Sequence(vec![ASN, 65_002, ASN, 7])].into(),
    };
    assert_eq!(heard(&mut rig, site).unwrap().as_path, overridden);
}

/// RFC 4360 §6: non-transitive extended communities stay within the AS.
#[test]
fn extended_communities_that_are_not_transitive_stay_within_the_as() {
    let mut rig = Rig::new(config());
    let from = rig.establish(external(2));
    let (inside, outside) = (rig.establish(internal(3)), rig.establish(external(4)));
    let (transitive, local) = ([0, 2, 0, 1, 0, 0, 0, 1], [0x40, 4, 0, 1, 0, 0, 0, 1]);
    let attributes = Attributes {
        extended_communities: [transitive, local].into(),
        ..path(&[65_002])
    };
    rig.update(from, announcement(2, target(), attributes));
    assert_eq!(
        heard(&mut rig, inside).unwrap().extended_communities,
        [transitive, local]
    );
    assert_eq!(
        heard(&mut rig, outside).unwrap().extended_communities,
        [transitive]
    );
}

#[test]
fn another_as_of_ours_is_stated_in_open_and_in_paths() {
    let mut rig = Rig::new(config());
    let migrating = Handling {
        local_as: Some(64_999),
        ..Handling::default()
    };
    // Of our AS, were it not for the other one of ours.
    let conn = rig.establish_with(handled(internal(2), migrating), 2, open(2, ASN));
    let sent = rig.sent(conn);
    assert!(
        sent.iter()
            .any(|it| matches!(it, Message::Open(open) if open.asn == 64_999))
    );
    rig.input(Input::Originate(target()));
    assert_eq!(heard(&mut rig, conn).unwrap(), path(&[64_999]));
    let other = prefix("10.2.0.0/26");
    rig.update(conn, announcement(2, other, path(&[ASN, 64_999])));
    assert_eq!(rig.selected(other), [], "both ASes are ours");
    rig.input(Input::SetPeer(Box::new(internal(2))));
    assert_eq!(rig.notified(conn), Some((6, 6)), "the OPEN has to say so");
}

fn limited(max: u32, action: LimitAction) -> PeerConfig {
    let limit = PathLimit {
        family: Family::Ipv4Unicast,
        max,
        warn_percent: 75,
        action,
    };
    handled(
        external(2),
        Handling {
            limits: vec![limit],
            ..Handling::default()
        },
    )
}

fn announce(rig: &mut Rig, conn: ConnId, count: u8) {
    for i in 0..count {
        rig.update(
            conn,
            announcement(2, prefix(&format!("10.{i}.0.0/16")), path(&[65_002])),
        );
    }
}

/// RFC 4271 §6.7: a peer that announces more prefixes than it may is told so and its session ends.
/// RFC 4486 §4 (1): with the family and the limit.
#[test]
fn too_many_prefixes_end_the_session_until_the_settings_change() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(limited(4, LimitAction::Down));
    announce(&mut rig, conn, 4);
    let snapshot = rig.peer(2);
    assert_eq!(
        (
            snapshot.state,
            snapshot.limits[0].received,
            snapshot.limits[0].state
        ),
        (State::Established, 4, LimitState::Near)
    );
    rig.sent(conn);
    announce(&mut rig, conn, 5);
    let notification = rig.sent(conn).into_iter().find_map(|message| {
        if let Message::Notification(it) = message {
            Some(it)
        } else {
            None
        }
    });
    assert_eq!(
        notification,
        Some(Notification {
            code: 6,
            subcode: 1,
            data: vec![0, 1, 1, 0, 0, 0, 4].into()
        })
    );
    assert!(rig.speaker.paths().is_empty(), "its routes are gone");
    assert!(rig.peer(2).last_error.unwrap().to_lowercase().contains("prefix"));
    rig.wait(Duration::from_secs(86_400));
    assert_eq!(rig.peer(2).state, State::Idle);
    let refused = rig.accept(2);
    assert_eq!(rig.closed.last(), Some(&refused));
    let conn = rig.establish(limited(5, LimitAction::Down));
    announce(&mut rig, conn, 5);
    assert_eq!(rig.peer(2).accepted, 5);
}

#[test]
fn a_session_over_its_limit_comes_back_after_the_pause() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(limited(1, LimitAction::Restart(Duration::from_secs(60))));
    announce(&mut rig, conn, 2);
    assert_eq!(rig.notified(conn), Some((6, 1)));
    rig.wait(Duration::from_secs(59));
    let early = rig.accept(2);
    assert_eq!(rig.closed.last(), Some(&early));
    rig.wait(Duration::from_secs(2));
    let conn = rig.accept(2);
    rig.receive(conn, Message::Open(open(2, 65_002)));
    rig.receive(conn, Message::Keepalive);
    assert_eq!(rig.peer(2).state, State::Established);
}

#[test]
fn a_warning_leaves_the_session_alone() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(limited(1, LimitAction::Warn));
    announce(&mut rig, conn, 3);
    assert_eq!(
        (rig.peer(2).accepted, rig.peer(2).limits[0].state),
        (3, LimitState::Over)
    );
}

#[test]
fn refused_paths_count_and_withdrawn_ones_do_not() {
    let mut rig = Rig::new(config());
    let peer = PeerConfig {
        import: manx_bgp::Policy::Reject,
        ..limited(2, LimitAction::Down)
    };
    let conn = rig.establish(peer);
    for i in 0..9 {
        let prefix = prefix(&format!("10.{i}.0.0/16"));
        rig.update(conn, announcement(2, prefix, path(&[65_002])));
        rig.update(conn, withdrawal(prefix));
    }
    announce(&mut rig, conn, 2);
    assert_eq!(rig.peer(2).state, State::Established);
    announce(&mut rig, conn, 3);
    assert_eq!(rig.notified(conn), Some((6, 1)));
}

#[test]
fn a_lower_limit_counts_for_what_is_there() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(external(2));
    announce(&mut rig, conn, 3);
    rig.input(Input::SetPeer(Box::new(limited(2, LimitAction::Down))));
    assert_eq!(rig.notified(conn), Some((6, 1)));
}
