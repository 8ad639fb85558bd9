//! Filters and the handling of AS numbers, judged by what the other programs announce and see.
//!
//! Every change is made on a session that stands, and has to leave it standing.

use std::collections::BTreeSet;
use std::sync::Arc;

use manx_bgpd::bgp::filter::{Action, Chain, Filter, Match, Operation, Operator, Range, Rule};
use manx_bgpd::bgp::wire::Role;
use manx_bgpd::bgp::{Features, Handling, PathSnapshot, PeerConfig, Policy, RoleConfig};

use crate::bird;
use crate::cases::start;
use crate::features::Other;
use crate::net::{Cable, FIRST, SECOND, SOON, becomes, eventually};
use crate::ours::{self, Ours};
use crate::router::{Attributes, EXTERNAL, Extras, INTERNAL, Program, Router, Session};

/// A rule for prefixes inside a network, of these lengths.
fn inside(network: &str, lengths: Option<[u8; 2]>) -> Match {
    let [min, max] = lengths.map_or([None, None], |[min, max]| [Some(min), Some(max)]);
    Match {
        range: Range::new(Operator::In, ours::parse(network), min, max).ok(),
        ..Match::default()
    }
}

fn with_community(text: &str) -> Match {
    Match {
        communities: vec![text.parse().expect("a community")],
        ..Match::default()
    }
}

fn reject(when: Match) -> Rule {
    Rule {
        when,
        then: Action::Reject,
    }
}

fn accept(when: Match, operations: &[Operation]) -> Rule {
    Rule {
        when,
        then: Action::Accept(operations.to_vec()),
    }
}

fn add(community: &str) -> Operation {
    Operation::AddCommunity(community.parse().expect("a community"))
}

/// These rules, and what none of them matches passes.
fn filtered(v4: Vec<Rule>, v6: Vec<Rule>) -> Policy {
    let filter = Filter {
        name: "interop".into(),
        v4,
        v6,
    };
    Policy::Filtered(Arc::new(Chain::new(&[filter], Policy::Accept)))
}

fn set(prefixes: &[&str]) -> BTreeSet<String> {
    prefixes.iter().map(|prefix| (*prefix).to_owned()).collect()
}

/// A speaker of ours in session with a program, and what keeps the session in view.
struct Meeting {
    ours: Ours,
    router: Box<dyn Router>,
    settings: PeerConfig,
}

impl Meeting {
    fn new(
        cable: &Cable,
        program: &Program,
        session: Session,
        prefixes: &[&str],
        settings: PeerConfig,
    ) -> Self {
        let router = start(program, cable, session);
        let ours = Ours::launch(&cable.ours, ours::EVERYWHERE, cable.ends, session.our_asn, false);
        prefixes.iter().for_each(|prefix| ours.announce(prefix));
        ours.configure(settings.clone());
        eventually("a session", SOON, || {
            ours.established() && router.established() == 1
        });
        Self {
            ours,
            router,
            settings,
        }
    }

    /// Changes our settings for the peer, and runs checks; the session stands all the while.
    fn change(&mut self, change: impl FnOnce(&mut PeerConfig), check: impl FnOnce(&Self)) {
        let before = self.ours.peer().established_since;
        change(&mut self.settings);
        self.ours.configure(self.settings.clone());
        check(self);
        assert_eq!(self.ours.peer().established_since, before, "no session was reset");
        assert_eq!(self.router.established(), 1);
    }

    /// A path of theirs.
    fn path(&self, prefix: &str) -> PathSnapshot {
        let mut paths = self.ours.paths().into_iter();
        let found = paths.find(|path| path.prefix.to_string() == prefix);
        found.unwrap_or_else(|| panic!("{prefix} has come"))
    }
}

/// No route with certain communities or of certain lengths; and one that is changed in every way.
fn import_rules() -> Policy {
    let their_asn = EXTERNAL.their_asn;
    filtered(
        vec![
            reject(with_community(&format!("{their_asn}:666"))),
            reject(with_community(&format!("{their_asn}:4000000000:6"))),
            reject(inside("10.2.0.0/16", Some([25, 32]))),
            accept(
                inside("10.2.3.0/24", None),
                &[
                    add("65001:10"),
                    add("65001:1:2"),
                    Operation::PrependAsPath(vec![65077, 65078]),
                    Operation::SetLocalPreference(300),
                    Operation::SetMed(5),
                ],
            ),
        ],
        vec![reject(inside("2001:db8:2::/48", Some([64, 64])))],
    )
}

/// Their routes by standard and large community, by prefix and length, of both families.
pub(crate) fn import(program: &Program) {
    let cable = Cable::new();
    let their_asn = EXTERNAL.their_asn;
    let settings = PeerConfig {
        import: import_rules(),
        ..ours::peer(EXTERNAL, FIRST)
    };
    let mut meeting = Meeting::new(&cable, program, EXTERNAL, &[], settings);
    let marked = Extras {
        community: Some([their_asn, 666]),
        ..Extras::default()
    };
    let marked_large = Extras {
        large_community: Some([their_asn, 4_000_000_000, 6]),
        ..Extras::default()
    };
    for (prefix, extras) in [
        ("10.2.0.0/24", Extras::default()),
        ("10.2.1.0/24", marked),
        ("10.2.2.0/24", marked_large),
        ("10.2.3.0/24", Extras::default()),
        ("10.2.4.0/25", Extras::default()),
        ("2001:db8:2::/48", Extras::default()),
        ("2001:db8:2:1::/64", Extras::default()),
    ] {
        meeting.router.announce(prefix, extras);
    }
    eventually("all have come", SOON, || meeting.ours.peer().received == 7);
    let passed = set(&["10.2.0.0/24", "10.2.3.0/24", "2001:db8:2::/48"]);
    becomes("what the rules let in is used", &passed, || {
        meeting.ours.learned()
    });
    let changed = meeting.path("10.2.3.0/24").attributes;
    assert_eq!(changed.as_path.to_string(), format!("65077 65078 {their_asn}"));
    assert_eq!((changed.local_pref, changed.med), (Some(300), Some(5)));
    assert_eq!(changed.communities, [(65001 << 16) + 10]);
    assert_eq!(changed.large_communities, [[65001, 1, 2]]);
    let plain = meeting.path("10.2.0.0/24").attributes;
    assert_eq!(plain.as_path.to_string(), their_asn.to_string());

    let only_marked = vec![
        accept(with_community(&format!("{their_asn}:666")), &[]),
        reject(Match::default()),
    ];
    meeting.change(
        |settings| settings.import = filtered(only_marked, Vec::new()),
        |meeting| {
            let now = set(&["10.2.1.0/24", "2001:db8:2::/48", "2001:db8:2:1::/64"]);
            becomes("other rules hold for what came before", &now, || {
                meeting.ours.learned()
            });
            assert_eq!(meeting.ours.peer().received, 7);
        },
    );
}

/// Their routes by the AS behind theirs.
pub(crate) fn import_by_path(program: &Program) {
    let cable = Cable::new();
    let through = |behind| Match {
        as_path_prefix: vec![EXTERNAL.their_asn, behind],
        ..Match::default()
    };
    let settings = PeerConfig {
        import: filtered(vec![reject(through(65010))], vec![reject(through(65010))]),
        ..ours::peer(EXTERNAL, FIRST)
    };
    let mut meeting = Meeting::new(&cable, program, EXTERNAL, &[], settings);
    for (prefix, behind) in [
        ("10.2.0.0/24", 65010),
        ("10.2.1.0/24", 65011),
        ("2001:db8:2::/64", 65010),
        ("2001:db8:2:1::/64", 65011),
    ] {
        let extras = Extras {
            behind: Some(behind),
            ..Extras::default()
        };
        meeting.router.announce(prefix, extras);
    }
    eventually("all have come", SOON, || meeting.ours.peer().received == 4);
    let others = set(&["10.2.1.0/24", "2001:db8:2:1::/64"]);
    becomes("the other paths are used", &others, || meeting.ours.learned());
    meeting.change(
        |settings| settings.import = filtered(vec![reject(through(65011))], vec![]),
        |meeting| {
            let now = set(&["10.2.0.0/24", "2001:db8:2::/64", "2001:db8:2:1::/64"]);
            becomes("by other rules, others", &now, || meeting.ours.learned());
        },
    );
}

/// One route stays, and one is changed in every way.
fn export_rules() -> Policy {
    filtered(
        vec![
            reject(inside("10.1.1.0/24", None)),
            accept(
                inside("10.1.0.0/16", Some([25, 32])),
                &[
                    add("65001:1"),
                    add("65001:2:4000000000"),
                    Operation::PrependAsPath(vec![65077]),
                    Operation::SetMed(77),
                    Operation::SetLocalPreference(300),
                ],
            ),
        ],
        Vec::new(),
    )
}

/// They see what the rules leave, and hear of nothing else when these change.
pub(crate) fn export(program: &Program) {
    let cable = Cable::new();
    let own = ["10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/25", "2001:db8:1::/64"];
    let asn = EXTERNAL.our_asn;
    let settings = PeerConfig {
        export: export_rules(),
        ..ours::peer(EXTERNAL, FIRST)
    };
    let mut meeting = Meeting::new(&cable, program, EXTERNAL, &own, settings);
    let told = set(&["10.1.0.0/24", "10.1.2.0/25", "2001:db8:1::/64"]);
    becomes("they hold what the rules let out", &told, || {
        meeting.router.learned()
    });
    let plain = Attributes {
        as_path: vec![asn],
        ..Attributes::default()
    };
    let changed = Attributes {
        as_path: vec![asn, 65077],
        communities: vec!["65001:1".to_owned()],
        large_communities: vec!["65001:2:4000000000".to_owned()],
        med: Some(77),
        ..Attributes::default()
    };
    assert_eq!(meeting.router.attributes("10.1.0.0/24"), Some(plain));
    assert_eq!(meeting.router.attributes("10.1.2.0/25"), Some(changed));

    let heard = meeting.router.updates();
    let other = vec![
        reject(inside("10.1.2.0/25", None)),
        accept(
            inside("10.1.1.0/24", None),
            &[Operation::SetCommunities(vec![
                "65001:9".parse().expect("a community"),
            ])],
        ),
    ];
    meeting.change(
        |settings| settings.export = filtered(other, Vec::new()),
        |meeting| {
            let now = set(&["10.1.0.0/24", "10.1.1.0/24", "2001:db8:1::/64"]);
            becomes("other rules hold at once", &now, || meeting.router.learned());
            let communities = || Some(meeting.router.attributes("10.1.1.0/24")?.communities);
            becomes("as they say", &Some(vec!["65001:9".to_owned()]), communities);
            // Some count what we withdraw as well.
            let told = meeting.router.updates() - heard;
            assert!(
                (1..=2).contains(&told),
                "one came, one went, the others stayed: {told}"
            );
        },
    );
}

/// Within an AS: the preference that a rule sets.
pub(crate) fn preference(program: &Program) {
    let cable = Cable::new();
    let raised = vec![accept(
        inside("10.1.1.0/24", None),
        &[Operation::SetLocalPreference(4_000_000_000)],
    )];
    let settings = PeerConfig {
        export: filtered(raised, Vec::new()),
        ..ours::peer(INTERNAL, FIRST)
    };
    let own = ["10.1.0.0/24", "10.1.1.0/24"];
    let mut meeting = Meeting::new(&cable, program, INTERNAL, &own, settings);
    let seen = |meeting: &Meeting| own.map(|prefix| meeting.router.attributes(prefix)?.local_pref);
    becomes("they see it", &[Some(100), Some(4_000_000_000)], || {
        seen(&meeting)
    });
    meeting.change(
        |settings| settings.export = Policy::Accept,
        |meeting| becomes("and its end", &[Some(100), Some(100)], || seen(meeting)),
    );
}

/// Two of their programs of one AS, with us between them: our AS in the place of theirs, or no private AS but ours.
pub(crate) fn as_numbers(program: &Program) {
    let (near, far) = (Cable::new(), EXTERNAL);
    let far_cable = near.beside();
    let far = Session {
        their_id: SECOND.theirs,
        ..far
    };
    let settings = PeerConfig {
        handling: Handling {
            as_override: true,
            ..Handling::default()
        },
        ..ours::peer(far, far_cable.ends)
    };
    let mut origin = start(program, &near, EXTERNAL);
    let receiver = start(program, &far_cable, far);
    let ours = Ours::launch(&near.ours, ours::EVERYWHERE, near.ends, EXTERNAL.our_asn, false);
    ours.configure(ours::peer(EXTERNAL, FIRST));
    ours.configure(settings.clone());
    eventually("both sessions", SOON, || {
        origin.established() == 1 && receiver.established() == 1
    });
    let since = || {
        ours.peers()
            .iter()
            .map(|peer| peer.established_since)
            .collect::<Vec<_>>()
    };
    let before = since();
    let (prefix, asn) = ("10.2.0.0/24", EXTERNAL.our_asn);
    origin.announce(prefix, Extras::default());
    let path = || Some(receiver.attributes(prefix)?.as_path);
    becomes("our AS is in the place of theirs", &Some(vec![asn, asn]), path);
    ours.configure(PeerConfig {
        handling: Handling {
            remove_private_as: true,
            ..Handling::default()
        },
        ..settings
    });
    becomes("no private AS is left behind ours", &Some(vec![asn]), path);
    assert_eq!(since(), before, "no session was reset");
}

/// Another AS of ours towards them: in OPEN, which they check, and in paths.
pub(crate) fn local_as(program: &Program) {
    let cable = Cable::new();
    let theirs = Session {
        our_asn: 4_200_000_007,
        ..EXTERNAL
    };
    let settings = PeerConfig {
        handling: Handling {
            local_as: Some(theirs.our_asn),
            ..Handling::default()
        },
        ..ours::peer(theirs, FIRST)
    };
    let router = start(program, &cable, theirs);
    let ours = Ours::launch(&cable.ours, ours::EVERYWHERE, cable.ends, EXTERNAL.our_asn, false);
    ours.announce("10.1.0.0/24");
    ours.configure(settings);
    eventually("a session", SOON, || ours.established());
    becomes("they see no other AS", &Some(vec![theirs.our_asn]), || {
        Some(router.attributes("10.1.0.0/24")?.as_path)
    });
}

/// Paths with our own AS in them, once we allow one.
pub(crate) fn allowed_own_as(program: &Program) {
    let cable = Cable::new();
    let mut meeting = Meeting::new(&cable, program, EXTERNAL, &[], ours::peer(EXTERNAL, FIRST));
    let extras = Extras {
        our_as: true,
        ..Extras::default()
    };
    let prefixes = ["10.2.0.0/24", "2001:db8:2::/64"];
    prefixes
        .iter()
        .for_each(|prefix| meeting.router.announce(prefix, extras));
    eventually("they have come", SOON, || meeting.ours.peer().received == 2);
    assert!(meeting.ours.learned().is_empty(), "they are loops");
    meeting.change(
        |settings| settings.handling.allowed_own_as = 1,
        |meeting| {
            becomes("allowed, they are used", &set(&prefixes), || {
                meeting.ours.learned()
            })
        },
    );
    meeting.change(
        |settings| settings.handling.allowed_own_as = 0,
        |meeting| becomes("and not any more", &set(&[]), || meeting.ours.learned()),
    );
}

/// RFC 9234 §5: what their customer's filter marks as from above is a leak, and used only by who has no roles.
pub(crate) fn a_leak_of_birds_is_not_used() {
    if !bird::PROGRAM.installed() {
        return;
    }
    let cable = Cable::new();
    let leaking = format!(
        "protocol static originated {{ ipv4; route 10.2.0.0/24 blackhole; route 10.2.1.0/24 blackhole; }}
protocol bgp manx {{ local {theirs} as {their_asn}; neighbor {ours} as {our_asn};
  connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export filter {{ if net = 10.2.1.0/24 then bgp_otc = 65099; accept; }}; }}; }}
",
        theirs = FIRST.theirs,
        ours = FIRST.ours,
        their_asn = EXTERNAL.their_asn,
        our_asn = EXTERNAL.our_asn,
    );
    let _bird = Other::bird(&cable, &leaking);
    let ours = Ours::launch(&cable.ours, ours::EVERYWHERE, FIRST, EXTERNAL.our_asn, false);
    let with = |role: Option<Role>| PeerConfig {
        features: Features {
            role: role.map(|role| RoleConfig { role, strict: false }),
            ..Features::default()
        },
        ..ours::peer(EXTERNAL, FIRST)
    };
    for (role, used) in [
        (Some(Role::Provider), &["10.2.0.0/24"][..]),
        (None, &["10.2.0.0/24", "10.2.1.0/24"]),
        (Some(Role::Customer), &["10.2.0.0/24", "10.2.1.0/24"]),
    ] {
        ours.configure(with(role));
        becomes(&format!("{role:?}"), &(2, set(used)), || {
            (ours.peer().received, ours.learned())
        });
    }
}
