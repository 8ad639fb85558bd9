//! Filters on the way in and out: what they change, whom they touch, and that no session notices.

use std::sync::Arc;

use manx_bgp::filter::{Action, Chain, Community, Filter, Match, Operation, Operator, Range, Rule};
use manx_bgp::{Input, Interface, PeerConfig, Policy, Prefix};

use crate::rig::{Rig, announcement, config, external, internal, path, prefix};

fn inside(range: &str) -> Match {
    Match {
        range: Range::new(Operator::In, prefix(range), None, None).ok(),
        ..Match::default()
    }
}

fn rule(when: Match, then: Action) -> Rule {
    Rule { when, then }
}

fn filtered(rules: Vec<Rule>, otherwise: Policy) -> Policy {
    let filter = Filter {
        name: "f".into(),
        v4: rules,
        v6: Vec::new(),
    };
    Policy::Filtered(Arc::new(Chain::new(&[filter], otherwise)))
}

fn importing(id: u8, import: Policy) -> PeerConfig {
    PeerConfig {
        import,
        ..internal(id)
    }
}

fn community(text: &str) -> Community {
    text.parse().unwrap()
}

fn set(rig: &mut Rig, peer: PeerConfig) {
    rig.input(Input::SetPeer(Box::new(peer)));
}

#[test]
fn what_came_is_judged_again_as_it_came_when_a_filter_changes() {
    let mut rig = Rig::new(config());
    let target = prefix("10.1.0.0/26");
    let raise = |value| {
        let operations = vec![
            Operation::SetLocalPreference(value),
            Operation::AddCommunity(community("1:1")),
        ];
        filtered(
            vec![rule(Match::default(), Action::Accept(operations))],
            Policy::Accept,
        )
    };
    let conn = rig.establish(importing(2, raise(200)));
    rig.update(conn, announcement(2, target, path(&[])));
    let seen = |rig: &Rig| {
        let paths = rig.paths(target);
        (
            paths[0].attributes.local_pref,
            paths[0].attributes.communities.clone(),
        )
    };
    assert_eq!(seen(&rig), (Some(200), [0x1_0001].into()));
    set(&mut rig, importing(2, raise(300)));
    assert_eq!(seen(&rig), (Some(300), [0x1_0001].into()));
    let only_marked = Match {
        communities: vec![community("1:1")],
        ..Match::default()
    };
    set(
        &mut rig,
        importing(
            2,
            filtered(vec![rule(only_marked, Action::Reject)], Policy::Accept),
        ),
    );
    assert_eq!(seen(&rig), (None, [].into()), "the mark was ours, not the peer's");
    assert!(rig.closed.is_empty() && rig.sent(conn).iter().all(|it| !is_refresh(it)));
}

fn is_refresh(message: &manx_bgp::wire::Message) -> bool {
    matches!(message, manx_bgp::wire::Message::RouteRefresh(_))
}

#[test]
fn the_first_matching_rule_decides_before_the_safe_default() {
    let mut rig = Rig::new(config());
    let pools = || Policy::Within([prefix("10.1.0.0/16")].into());
    let rules = vec![
        rule(inside("10.1.9.0/24"), Action::Reject),
        rule(inside("192.0.2.0/24"), Action::Accept(vec![])),
        rule(inside("192.0.2.0/25"), Action::Reject),
    ];
    let conn = rig.establish(importing(2, filtered(rules, pools())));
    for (target, passes) in [
        ("10.1.0.0/26", true),
        ("10.1.9.0/26", false),
        ("192.0.2.0/26", true),
        ("0.0.0.0/0", false),
    ] {
        rig.update(conn, announcement(2, prefix(target), path(&[])));
        assert_eq!(!rig.selected(prefix(target)).is_empty(), passes, "{target}");
    }
}

#[test]
fn a_changed_import_filter_withdraws_from_others_what_it_refuses() {
    let mut rig = Rig::new(config());
    let (from, to) = (rig.establish(external(2)), rig.establish(internal(3)));
    let (kept, refused) = (prefix("10.1.0.0/26"), prefix("10.2.0.0/26"));
    rig.update(from, announcement(2, kept, path(&[65_002])));
    rig.update(from, announcement(2, refused, path(&[65_002])));
    rig.sent(to);
    let import = filtered(vec![rule(inside("10.2.0.0/16"), Action::Reject)], Policy::Accept);
    set(
        &mut rig,
        PeerConfig {
            import,
            ..external(2)
        },
    );
    assert_eq!(rig.told(to), (vec![], vec![refused]));
}

#[test]
fn a_filter_that_changes_nothing_says_nothing_to_anybody() {
    let mut rig = Rig::new(config());
    let (from, to) = (rig.establish(external(2)), rig.establish(internal(3)));
    rig.update(from, announcement(2, prefix("10.1.0.0/26"), path(&[65_002])));
    rig.sent(from);
    rig.sent(to);
    let changes = rig.changes;
    let import = filtered(vec![rule(inside("10.2.0.0/16"), Action::Reject)], Policy::Accept);
    set(
        &mut rig,
        PeerConfig {
            import,
            ..external(2)
        },
    );
    assert!(rig.sent(from).is_empty() && rig.sent(to).is_empty());
    assert_eq!(rig.changes, changes);
}

/// AS_PATH, MED, LOCAL_PREF, communities.
type Heard = (String, Option<u32>, Option<u32>, Vec<u32>);

/// What a peer was told of a prefix.
fn heard(rig: &mut Rig, conn: manx_bgp::ConnId, target: Prefix) -> Option<Heard> {
    let update = rig.sent(conn).into_iter().find_map(|message| {
        if let manx_bgp::wire::Message::Update(update) = message {
            let has = |reach: &manx_bgp::wire::Reach| reach.nlri.iter().any(|it| it.prefix == target);
            update.reach.iter().any(has).then_some(update)
        } else {
            None
        }
    })?;
    let it = update.attributes;
    Some((
        it.as_path.to_string(),
        it.med,
        it.local_pref,
        it.communities.to_vec(),
    ))
}

/// RFC 4271 §5.1.4: a MED from one AS is not passed on to another, one that we set is; §5.1.2: our AS comes first.
#[test]
fn an_export_filter_changes_what_one_peer_hears() {
    let mut rig = Rig::new(config());
    let target = prefix("10.1.0.0/26");
    let operations = vec![
        Operation::PrependAsPath(vec![7, 7]),
        Operation::SetMed(50),
        Operation::SetLocalPreference(300),
        Operation::SetCommunities(vec![community("1:2")]),
    ];
    let export = filtered(
        vec![rule(Match::default(), Action::Accept(operations))],
        Policy::Reject,
    );
    let from = rig.establish(external(2));
    let plain = rig.establish(external(3));
    let changed = rig.establish(PeerConfig {
        export: export.clone(),
        ..external(4)
    });
    let inside = rig.establish(PeerConfig {
        export,
        ..internal(5)
    });
    let mut attributes = path(&[65_002]);
    attributes.med = Some(9);
    attributes.communities = [3].into();
    rig.update(from, announcement(2, target, attributes));
    assert_eq!(
        heard(&mut rig, plain, target),
        Some(("64512 65002".into(), None, None, vec![3]))
    );
    assert_eq!(
        heard(&mut rig, changed, target),
        Some(("64512 7 7 65002".into(), Some(50), None, vec![0x1_0002]))
    );
    assert_eq!(
        heard(&mut rig, inside, target),
        Some(("7 7 65002".into(), Some(50), Some(300), vec![0x1_0002]))
    );
}

#[test]
fn an_export_filter_is_one_peers_and_tells_own_routes_from_learned_ones() {
    let mut rig = Rig::new(config());
    let (own, learned) = (prefix("10.1.0.0/26"), prefix("10.2.0.0/26"));
    rig.input(Input::Originate(own));
    let from = rig.establish(external(2));
    let (filtering, other) = (rig.establish(external(3)), rig.establish(external(4)));
    rig.update(from, announcement(2, learned, path(&[65_002])));
    rig.sent(filtering);
    rig.sent(other);
    let remote = Match {
        learned: true,
        ..Match::default()
    };
    set(
        &mut rig,
        PeerConfig {
            export: filtered(vec![rule(remote, Action::Reject)], Policy::Accept),
            ..external(3)
        },
    );
    assert_eq!(rig.told(filtering), (vec![], vec![learned]));
    assert!(rig.sent(other).is_empty());
    set(&mut rig, external(3));
    assert_eq!(rig.told(filtering), (vec![learned], vec![]));
}

#[test]
fn a_priority_goes_to_the_kernel_decides_and_is_found_on_the_way_out() {
    let mut rig = Rig::new(config());
    let target = prefix("10.1.0.0/26");
    let prioritized = |value| {
        let operations = vec![Operation::SetPriority(value)];
        filtered(
            vec![rule(inside("10.1.0.0/16"), Action::Accept(operations))],
            Policy::Accept,
        )
    };
    let only_urgent = Match {
        priority: Some(512),
        ..Match::default()
    };
    let listener = PeerConfig {
        export: filtered(vec![rule(only_urgent, Action::Accept(vec![]))], Policy::Reject),
        ..external(4)
    };
    let to = rig.establish(listener);
    let near = rig.establish(importing(2, Policy::Accept));
    let far = rig.establish(external(3));
    rig.update(near, announcement(2, target, path(&[])));
    rig.update(far, announcement(3, target, path(&[65_002, 7, 8, 9])));
    assert_eq!((rig.selected(target), rig.priorities[&target]), (vec![2], 1025));
    assert_eq!(rig.told(to), (vec![], vec![]));

    let preferred = PeerConfig {
        import: prioritized(512),
        ..external(3)
    };
    set(&mut rig, preferred.clone());
    assert_eq!(
        (rig.selected(target), rig.priorities[&target]),
        (vec![3], 512),
        "whatever its AS_PATH"
    );
    let lost = rig.paths(target).into_iter().find_map(|it| it.reason);
    assert_eq!(
        lost.as_deref(),
        Some("a filter gave another path a lower priority")
    );
    assert_eq!(rig.told(to).0, [target]);

    let changes = rig.changes;
    set(
        &mut rig,
        PeerConfig {
            import: prioritized(513),
            ..preferred
        },
    );
    assert_eq!((rig.priorities[&target], rig.changes), (513, changes + 1));
    assert!(rig.closed.is_empty());
}

#[test]
fn interfaces_are_matched_and_a_change_of_them_judges_again() {
    let mut rig = Rig::new(config());
    let (target, own) = (prefix("10.1.0.0/26"), prefix("10.9.0.0/26"));
    let over = |name: &str| Match {
        interface: name.parse().ok(),
        ..Match::default()
    };
    let listener = PeerConfig {
        export: filtered(vec![rule(over("*"), Action::Accept(vec![]))], Policy::Reject),
        ..external(3)
    };
    let to = rig.establish(listener);
    rig.input(Input::Originate(own));
    let conn = rig.establish(importing(
        2,
        filtered(vec![rule(over("eth*"), Action::Accept(vec![]))], Policy::Reject),
    ));
    rig.update(conn, announcement(2, target, path(&[])));
    assert!(rig.selected(target).is_empty(), "no interface is known");
    let interface = |name: &str| {
        let interface = Interface {
            index: 2,
            name: name.into(),
            addresses: vec!["10.0.0.1/24".parse().unwrap()],
        };
        Input::Interfaces([interface].into())
    };
    rig.input(interface("eth0"));
    assert_eq!(rig.selected(target), [2]);
    assert_eq!(rig.told(to).0, [target], "our own routes lead over none");
    rig.input(interface("uplink"));
    assert!(rig.selected(target).is_empty());
    assert!(rig.closed.is_empty());
}
