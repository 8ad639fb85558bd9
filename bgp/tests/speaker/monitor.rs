//! Adj-RIBs-In and sessions as monitoring sees them.

use std::time::Duration;

use manx_bgp::wire::{Action, Cease, Message, Nlri, Notification, Role};
use manx_bgp::{ConnId, Fault, Features, Input, PeerConfig, Place, Policy, Prefix, RoleConfig, SessionEnd};

use crate::rig::{
    Rig, announcement, config, external, graceful_open, internal, key, path, prefix, withdrawal,
};

fn place(id: u8, prefix: Prefix) -> Place {
    let nlri = Nlri {
        path_id: None,
        prefix,
    };
    Place { peer: key(id), nlri }
}

/// RFC 7854 §5 (pre-policy): what policy refuses, or our role marks, is monitored as it came.
#[test]
fn routes_are_monitored_as_they_came() {
    let mut rig = Rig::new(config());
    let customer = RoleConfig {
        role: Role::Customer,
        strict: false,
    };
    let provider = PeerConfig {
        features: Features {
            role: Some(customer),
            ..Features::default()
        },
        ..external(3)
    };
    let refused = PeerConfig {
        import: Policy::Reject,
        ..external(2)
    };
    let to = prefix("10.2.0.0/16");
    for (id, peer) in [(2, refused), (3, provider)] {
        let sent = path(&[peer.asn, 7]);
        let conn = rig.establish(peer);
        rig.update(conn, announcement(id, to, sent.clone()));
        let found = rig.speaker.received_at(place(id, to)).expect("it is there");
        assert_eq!(*found.attributes, sent);
    }
    assert_eq!(rig.selected(to), [3]);
    assert_eq!(rig.paths(to)[0].attributes.only_to_customer, Some(65_003));
}

#[test]
fn the_table_is_walked_in_steps() {
    let mut rig = Rig::new(config());
    let conns = [2, 3].map(|id| (id, rig.establish(internal(id))));
    let all = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(prefix);
    for (id, conn) in conns {
        for to in all {
            rig.update(conn, announcement(id, to, path(&[7])));
        }
    }
    let (mut found, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let (routes, next) = rig.speaker.received(at, 2);
        found.extend(routes.into_iter().map(|(place, _)| place));
        from = next;
    }
    found.sort_unstable();
    let expected = [2, 3].map(|id| all.map(|to| place(id, to)));
    assert_eq!(found, expected.concat());
}

#[test]
fn changes_are_named_once_and_only_to_whoever_asked() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    let [first, second] = ["10.1.0.0/16", "10.2.0.0/16"].map(prefix);
    rig.update(conn, announcement(2, first, path(&[7])));
    assert_eq!(rig.speaker.received_changes(), [], "nobody asked");
    rig.speaker.monitor(true);
    rig.update(conn, announcement(2, second, path(&[7])));
    rig.update(conn, announcement(2, second, path(&[8])));
    rig.update(conn, withdrawal(first));
    let both = [place(2, first), place(2, second)];
    assert_eq!(rig.speaker.received_changes(), both);
    let [gone, there] = both.map(|place| rig.speaker.received_at(place));
    assert_eq!(gone, None);
    assert_eq!(there.expect("announced").attributes.as_path, path(&[8]).as_path);
    assert_eq!(rig.speaker.received_changes(), [], "taken");
    // Neither a repetition nor another policy is a change of what the peer announces.
    rig.update(conn, announcement(2, second, path(&[8])));
    let refusing = PeerConfig {
        import: Policy::Reject,
        ..internal(2)
    };
    rig.input(Input::SetPeer(Box::new(refusing)));
    assert_eq!(rig.selected(second), [0; 0]);
    assert_eq!(rig.speaker.received_changes(), []);
}

/// RFC 4724 §4.2: what outlives a session stays in use; monitoring has heard that the peer is down, and hears of a
/// route again when it is announced again.
#[test]
fn what_outlives_its_session_is_not_monitored() {
    let mut rig = Rig::new(config());
    let graceful = PeerConfig {
        graceful_restart: Some(Duration::from_secs(60)),
        ..internal(2)
    };
    let conn = rig.establish_with(graceful.clone(), 2, graceful_open(2));
    let [kept, dropped] = ["10.1.0.0/16", "10.2.0.0/16"].map(prefix);
    for to in [kept, dropped] {
        rig.update(conn, announcement(2, to, path(&[7])));
    }
    rig.speaker.monitor(true);
    rig.input(Input::Closed { conn });
    assert_eq!(rig.paths(kept).len(), 1);
    assert_eq!(rig.speaker.received(0, 10).0, []);
    let conn = rig.establish_with(graceful, 2, graceful_open(2));
    rig.update(conn, announcement(2, kept, path(&[7])));
    rig.wait(Duration::from_secs(400));
    assert_eq!(rig.paths(dropped), [], "swept");
    assert_eq!(rig.speaker.received_changes(), [place(2, kept)]);
}

/// What ends a session.
type End<'a> = &'a dyn Fn(&mut Rig, ConnId);

/// RFC 7854 §4.9: who ended a session, and with which NOTIFICATION, if with any.
#[test]
fn a_sessions_end_says_who_ended_it_and_how() {
    let told = Notification::cease(Cease::AdministrativeReset);
    let ends: [(End<'_>, SessionEnd); 4] = [
        (&|rig, conn| rig.input(Input::Closed { conn }), SessionEnd::Closed),
        (
            &|rig, conn| rig.receive(conn, Message::Notification(told.clone())),
            SessionEnd::Received(told.clone()),
        ),
        (
            &|rig, _| rig.wait(Duration::from_secs(100)),
            SessionEnd::Sent(Notification::hold_timer_expired()),
        ),
        (
            &|rig, _| rig.input(Input::RemovePeer(key(2))),
            SessionEnd::Sent(Notification::cease(Cease::PeerDeconfigured)),
        ),
    ];
    for (end, expected) in ends {
        let mut rig = Rig::new(config());
        let conn = rig.establish(internal(2));
        rig.update(conn, announcement(2, prefix("10.1.0.0/16"), path(&[7])));
        rig.speaker.monitor(true);
        let up = rig.speaker.established(key(2)).expect("it is up");
        assert_eq!((up.conn, up.since), (conn, rig.now));
        end(&mut rig, conn);
        assert_eq!(rig.speaker.established(key(2)), None);
        assert_eq!(rig.ends, [expected]);
        assert_eq!(rig.speaker.received_changes(), [], "the session's end says it");
    }
}

/// RFC 7854 §4.8: what a peer announces, by family, and UPDATEs that were treated as withdrawals, each once.
#[test]
fn what_is_counted_of_a_peer() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(external(2));
    rig.update(conn, announcement(2, prefix("10.1.0.0/16"), path(&[65_002])));
    let fault = |attribute, action| Fault { attribute, action };
    let (withdrawn, dropped) = (Action::Withdraw, Action::Discard);
    for faults in [
        vec![fault(Some(1), withdrawn), fault(Some(2), withdrawn)],
        vec![fault(None, dropped)],
    ] {
        rig.input(Input::Faulty { conn, faults });
    }
    let counted = rig.speaker.statistics(key(2)).expect("a peer");
    assert_eq!((counted.received, counted.treated_as_withdraw), ([1, 0], 1));
}
