//! What must hold with every program.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use manx_bgpd::bgp::{Family, LimitAction, PathLimit};

use crate::net::{Cable, Ends, SECOND, SOON, always, becomes, eventually, run};
use crate::ours::{self, Ours};
use crate::router::{Attributes, EXTERNAL, Extras, INTERNAL, Program, Router, Session, Side};

const OUR_PREFIXES: [&str; 4] = [
    "10.1.0.0/24",
    "10.1.1.0/24",
    "2001:db8:1::/64",
    "2001:db8:1:1::/64",
];
const THEIR_PREFIXES: [&str; 4] = [
    "10.2.0.0/24",
    "10.2.1.0/24",
    "2001:db8:2::/64",
    "2001:db8:2:1::/64",
];

fn set(prefixes: &[&str]) -> BTreeSet<String> {
    prefixes.iter().map(|prefix| (*prefix).to_owned()).collect()
}

/// The program in its namespace.
pub(crate) fn start(program: &Program, cable: &Cable, session: Session) -> Box<dyn Router> {
    (program.start)(&cable.theirs, session, &[cable.ends])
}

/// Both sides with their prefixes announced, in session, and each holding the other's.
pub(crate) fn meet(cable: &Cable, program: &Program, session: Session) -> (Ours, Box<dyn Router>) {
    let mut router = start(program, cable, session);
    let ours = Ours::start(cable, session, false, &OUR_PREFIXES);
    eventually("a session", SOON, || {
        ours.established() && router.established() == 1
    });
    for prefix in THEIR_PREFIXES {
        router.announce(prefix, Extras::default());
    }
    becomes("they hold our prefixes", &set(&OUR_PREFIXES), || router.learned());
    becomes("we hold their prefixes", &set(&THEIR_PREFIXES), || ours.learned());
    (ours, router)
}

pub(crate) fn they_dial(program: &Program) {
    let session = Session {
        we_wait: true,
        ..INTERNAL
    };
    routes_come_and_go_both_ways(program, session);
}

pub(crate) fn we_dial(program: &Program) {
    let session = Session {
        they_wait: true,
        ..EXTERNAL
    };
    routes_come_and_go_both_ways(program, session);
}

fn routes_come_and_go_both_ways(program: &Program, session: Session) {
    let cable = Cable::new();
    let (ours, mut router) = meet(&cable, program, session);
    assert_eq!(cable.connections(), 1, "both families share one connection");
    for index in [0, 2] {
        ours.withdraw(OUR_PREFIXES[index]);
        router.withdraw(THEIR_PREFIXES[index]);
    }
    let rest = |prefixes: [&str; 4]| set(&[prefixes[1], prefixes[3]]);
    becomes("they forget what we withdrew", &rest(OUR_PREFIXES), || {
        router.learned()
    });
    becomes("we forget what they withdrew", &rest(THEIR_PREFIXES), || {
        ours.learned()
    });
    ours.announce(OUR_PREFIXES[0]);
    router.announce(THEIR_PREFIXES[0], Extras::default());
    eventually("they learn it again", SOON, || {
        router.learned().contains(OUR_PREFIXES[0])
    });
    eventually("we learn it again", SOON, || {
        ours.learned().contains(THEIR_PREFIXES[0])
    });
}

/// RFC 4271 §6.8: answers to dials are held back until both sides dial, and OPENs until both connections of each
/// pair of addresses stand, before either side knows whom it talks to.
/// nasty case 43
pub(crate) fn collision(program: &Program) {
    const TIMES: u8 = 100;
    let cable = Cable::new();
    let pairs = cable.pairs(TIMES);
    let answers = Held::new(&cable, ["SYN,ACK", "SYN,ACK"]);
    let opens = Held::new(&cable, ["PSH", "PSH"]);
    let router = (program.start)(&cable.theirs, EXTERNAL, &pairs);
    let ours = Ours::start(&cable, EXTERNAL, false, &OUR_PREFIXES);
    ours.remove_peer();
    for ends in &pairs {
        ours.set_peer(EXTERNAL, *ends);
        // OpenBGPD lets five connections wait to be accepted; more of them would be lost in its kernel.
        std::thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    let wait = |most: Duration, enough: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !enough() && begun.elapsed() < most {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait(Duration::from_secs(8), &|| cable.dials() >= 2 * pairs.len());
    assert!(cable.dials() > pairs.len() * 3 / 2, "they do not dial");
    drop(answers);
    wait(Duration::from_secs(3), &|| cable.connections() >= 2 * pairs.len());
    let collided = cable.connections().saturating_sub(pairs.len());
    drop(opens);
    let since = || {
        let peers = ours.peers().into_iter();
        peers
            .filter_map(|peer| peer.established_since)
            .collect::<Vec<_>>()
    };
    let shown = || (since().len(), router.established(), cable.connections());
    let one_each = (pairs.len(), pairs.len(), pairs.len());
    becomes(
        "one session of each pair: ours, theirs, connections",
        &one_each,
        shown,
    );
    eprintln!(
        "{}: {collided} of {TIMES} collided, one session each after {:?}",
        program.name,
        begun.elapsed()
    );
    let before = since();
    becomes("routes flow", &set(&OUR_PREFIXES), || router.learned());
    always("every session stays", Duration::from_secs(2), || {
        since() == before && shown() == one_each
    });
}

/// Segments that a cable drops for as long as this lives: those with certain flags, of which some are set.
struct Held<'a> {
    cable: &'a Cable,
    flags: [&'static str; 2],
}

impl<'a> Held<'a> {
    fn new(cable: &'a Cable, flags: [&'static str; 2]) -> Self {
        let held = Self { cable, flags };
        held.rules("-I");
        held
    }

    fn rules(&self, action: &str) {
        for chain in ["INPUT", "OUTPUT"] {
            let mut iptables = self.cable.ours.command("iptables");
            let rule = ["-w", action, chain, "-p", "tcp", "--tcp-flags"];
            run(iptables.args(rule).args(self.flags).args(["-j", "DROP"]));
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.rules("-D");
    }
}

/// RFC 4271 §6.5: against all of them.
pub(crate) fn hold_time(program: &Program) {
    let session = Session {
        hold_time: 3,
        ..EXTERNAL
    };
    let cable = Cable::new();
    let (ours, router) = meet(&cable, program, session);
    router.freeze();
    always("a silent peer has its hold time", Duration::from_secs(1), || {
        !ours.learned().is_empty()
    });
    eventually("its routes are gone", SOON, || ours.learned().is_empty());
    assert!(!ours.established());
}

fn last_error_has(ours: &Ours, text: &str) -> bool {
    ours.peer().last_error.is_some_and(|error| error.contains(text))
}

/// RFC 4271 §6.2 (as): and they read it so.
pub(crate) fn we_refuse_their_as(program: &Program) {
    let cable = Cable::new();
    let router = start(program, &cable, EXTERNAL);
    let expecting = Session {
        their_asn: 65099,
        ..EXTERNAL
    };
    let ours = Ours::start(&cable, expecting, false, &[]);
    eventually("we refuse their AS", SOON, || {
        last_error_has(&ours, "we sent OPEN error: bad peer AS (2/2)")
    });
    eventually("they are told", SOON, || router.was_told("2/2"));
}

pub(crate) fn they_refuse_our_as(program: &Program) {
    let cable = Cable::new();
    let expecting = Session {
        our_asn: 65099,
        ..EXTERNAL
    };
    let router = start(program, &cable, expecting);
    let ours = Ours::start(&cable, EXTERNAL, false, &[]);
    eventually("they refuse our AS, and we show it", SOON, || {
        last_error_has(&ours, "the peer sent OPEN error: bad peer AS (2/2)")
    });
    assert_eq!(router.established(), 0);
}

/// RFC 6286 §2.1: with all of them.
pub(crate) fn identifier_clash(program: &Program) {
    let cable = Cable::new();
    let within = Session {
        their_id: cable.ends.ours,
        ..INTERNAL
    };
    let router = start(program, &cable, within);
    let ours = Ours::start(&cable, within, false, &[]);
    eventually("one side refuses the other's identifier", SOON, || {
        assert!(!ours.established());
        last_error_has(&ours, "bad BGP identifier (2/3)")
    });
    drop((ours, router));
    let cable = Cable::new();
    let between = Session {
        their_id: cable.ends.ours,
        ..EXTERNAL
    };
    meet(&cable, program, between);
}

/// RFC 4486 §4 (2): as they read it.
/// RFC 4486 §4 (3): as they read it.
pub(crate) fn our_notification(program: &Program) {
    let cable = Cable::new();
    let (ours, router) = meet(&cable, program, EXTERNAL);
    ours.remove_peer();
    eventually("peer de-configured", SOON, || router.was_told("6/3"));
    eventually("their side is down", SOON, || router.established() == 0);
    eventually("they drop our routes", SOON, || router.learned().is_empty());
    ours.crash();
    let ours = Ours::start(&cable, EXTERNAL, false, &OUR_PREFIXES);
    eventually("a new session", SOON, || {
        ours.established() && router.established() == 1
    });
    ours.shutdown();
    eventually("administrative shutdown", SOON, || router.was_told("6/2"));
}

/// RFC 9003 §2 (receive): from all that say something.
pub(crate) fn their_shutdown(program: &Program) {
    let cable = Cable::new();
    let (ours, router) = meet(&cable, program, EXTERNAL);
    router.shut_down("back at noon");
    eventually("we show what they said", SOON, || {
        last_error_has(
            &ours,
            "the peer sent cease: administrative shutdown (6/2), \"back at noon\"",
        )
    });
    eventually("their routes are gone", SOON, || ours.learned().is_empty());
}

/// RFC 4486 §4 (1): as they read it.
pub(crate) fn we_limit(program: &Program) {
    let cable = Cable::new();
    let (ours, mut router) = meet(&cable, program, EXTERNAL);
    let limited = |max| {
        let mut peer = ours::peer(EXTERNAL, cable.ends);
        peer.handling.limits = vec![PathLimit {
            family: Family::Ipv4Unicast,
            max,
            warn_percent: 75,
            action: LimitAction::Down,
        }];
        ours.configure(peer);
    };
    // FRR also sends our own two back.
    limited(4);
    assert!(ours.established(), "what they announce by now, they may");
    for prefix in ["10.2.2.0/24", "10.2.3.0/24", "10.2.4.0/24"] {
        router.announce(prefix, Extras::default());
    }
    eventually("maximum number of prefixes", SOON, || router.was_told("6/1"));
    eventually("their routes are gone", SOON, || ours.learned().is_empty());
    let is_away = || !ours.established();
    always("the session stays away", Duration::from_secs(2), is_away);
    limited(7);
    eventually("it comes back with the settings", SOON, || {
        ours.learned().contains("10.2.4.0/24")
    });
}

pub(crate) fn they_limit(program: &Program) {
    // OpenBGPD counts both families together.
    let most = 5;
    let session = Session {
        at_most: Some(most),
        ..EXTERNAL
    };
    let cable = Cable::new();
    let (ours, router) = meet(&cable, program, session);
    for third in 0..=most {
        ours.announce(&format!("10.3.{third}.0/24"));
    }
    eventually("we show why they have gone", SOON, || {
        last_error_has(
            &ours,
            "the peer sent cease: maximum number of prefixes reached (6/1)",
        )
    });
    eventually("their routes are gone", SOON, || ours.learned().is_empty());
    eventually("and ours", SOON, || router.learned().is_empty());
}

/// RFC 6793 §4.1: with all of them.
pub(crate) fn four_octet_as(program: &Program) {
    let session = Session {
        our_asn: 4_200_000_001,
        their_asn: 4_200_000_002,
        ..EXTERNAL
    };
    let cable = Cable::new();
    let (ours, router) = meet(&cable, program, session);
    let expected = Attributes {
        as_path: vec![session.our_asn],
        ..Attributes::default()
    };
    for prefix in OUR_PREFIXES {
        becomes("they see our AS", &Some(expected.clone()), || {
            router.attributes(prefix)
        });
    }
    for path in ours.paths().iter().filter(|path| path.best) {
        assert_eq!(path.attributes.as_path.to_string(), session.their_asn.to_string());
    }
}

/// nasty case 37
pub(crate) fn as_path_loop(program: &Program) {
    let cable = Cable::new();
    let (ours, mut router) = meet(&cable, program, EXTERNAL);
    let looped = Extras {
        our_as: true,
        ..Extras::default()
    };
    for index in [0, 2] {
        router.announce(THEIR_PREFIXES[index], looped);
    }
    let rest = set(&[THEIR_PREFIXES[1], THEIR_PREFIXES[3]]);
    becomes("what has been with us is not taken", &rest, || ours.learned());
    router.announce(THEIR_PREFIXES[0], Extras::default());
    eventually("without our AS it is", SOON, || {
        ours.learned().contains(THEIR_PREFIXES[0])
    });
}

/// Two of theirs with us between them.
fn line(program: &Program, sessions: [Session; 2]) -> ([Cable; 2], Ours, [Box<dyn Router>; 2]) {
    let near = Cable::new();
    let far = near.beside();
    let ours = Ours::start(&near, sessions[0], false, &[]);
    ours.set_peer(sessions[1], far.ends);
    let routers = [
        start(program, &near, sessions[0]),
        start(program, &far, sessions[1]),
    ];
    eventually("both sessions", SOON, || {
        routers.iter().all(|router| router.established() == 1)
            && ours.peers().iter().all(|peer| peer.established_since.is_some())
    });
    ([near, far], ours, routers)
}

pub(crate) fn large_communities(program: &Program) {
    let far = Session {
        their_asn: 65003,
        their_id: SECOND.theirs,
        ..EXTERNAL
    };
    let (_cables, ours, [mut origin, receiver]) = line(program, [EXTERNAL, far]);
    let community = [EXTERNAL.their_asn, 4_000_000_000, 7];
    let extras = Extras {
        large_community: Some(community),
        ..Extras::default()
    };
    let expected = Attributes {
        as_path: vec![far.our_asn, EXTERNAL.their_asn],
        large_communities: vec![format!("{}:{}:{}", community[0], community[1], community[2])],
        ..Attributes::default()
    };
    for index in [0, 2] {
        let prefix = THEIR_PREFIXES[index];
        origin.announce(prefix, extras);
        becomes("it arrives as it left", &Some(expected.clone()), || {
            receiver.attributes(prefix)
        });
    }
    for path in ours.paths() {
        assert_eq!(path.attributes.large_communities, [community]);
    }
}

/// RFC 4456 §8 (originator), §8 (cluster): as they read it.
/// RFC 4456 §6 (client): between two of theirs.
pub(crate) fn we_reflect(program: &Program) {
    let near = Session {
        reflector: Some(Side::Ours),
        ..INTERNAL
    };
    let far = Session {
        their_id: SECOND.theirs,
        ..near
    };
    let (cables, _ours, [mut origin, receiver]) = line(program, [near, far]);
    let expected = Attributes {
        originator: Some(near.their_id),
        clusters: vec![cables[0].ends.ours],
        local_pref: Some(100),
        ..Attributes::default()
    };
    for index in [0, 2] {
        let prefix = THEIR_PREFIXES[index];
        origin.announce(prefix, Extras::default());
        becomes("it is reflected", &Some(expected.clone()), || {
            receiver.attributes(prefix)
        });
    }
    assert!(origin.learned().is_empty(), "and not to where it comes from");
    origin.withdraw(THEIR_PREFIXES[0]);
    becomes("so is its end", &set(&[THEIR_PREFIXES[2]]), || receiver.learned());
}

/// RFC 4456 §8 (originator): what we originate comes back to us, and is not taken.
pub(crate) fn they_reflect(program: &Program) {
    let session = Session {
        reflector: Some(Side::Theirs),
        ..INTERNAL
    };
    let cable = Cable::new();
    let sessions = [cable.ends, cable.another_of_ours(3)];
    let router = (program.start)(&cable.theirs, session, &sessions);
    let [origin, receiver] = sessions.map(|ends| {
        let ours = Ours::alone(&cable.ours, ends, session.our_asn);
        ours.set_peer(session, ends);
        ours
    });
    eventually("both sessions", SOON, || router.established() == 2);
    OUR_PREFIXES.iter().for_each(|prefix| origin.announce(prefix));
    becomes("we learn our own by reflection", &set(&OUR_PREFIXES), || {
        receiver.learned()
    });
    for path in receiver.paths() {
        assert_eq!(path.attributes.originator_id, Some(sessions[0].ours));
        assert_eq!(path.attributes.cluster_list, [session.their_id]);
    }
    assert!(origin.learned().is_empty(), "what we originate, we do not take");
    origin.withdraw(OUR_PREFIXES[0]);
    becomes("its end is reflected too", &set(&OUR_PREFIXES[1..]), || {
        receiver.learned()
    });
}

/// Two of ours give the same prefixes to one of theirs, which reflects both paths to a third of ours.
pub(crate) fn they_send_paths(program: &Program) {
    let session = Session {
        reflector: Some(Side::Theirs),
        add_path: true,
        ..INTERNAL
    };
    let cable = Cable::new();
    let sessions = [cable.ends, cable.another_of_ours(3), cable.another_of_ours(4)];
    let router = (program.start)(&cable.theirs, session, &sessions);
    let [one, other, receiver] = sessions.map(|ends| {
        let ours = Ours::alone(&cable.ours, ends, session.our_asn);
        ours.set_peer(session, ends);
        ours
    });
    eventually("all sessions", SOON, || router.established() == 3);
    for prefix in OUR_PREFIXES {
        one.announce(prefix);
        other.announce(prefix);
    }
    let paths = || receiver.paths().len();
    becomes("both paths of each prefix", &(2 * OUR_PREFIXES.len()), paths);
    other.withdraw(OUR_PREFIXES[0]);
    becomes("one path less", &(2 * OUR_PREFIXES.len() - 1), paths);
    assert_eq!(receiver.learned(), set(&OUR_PREFIXES));
}

/// One of ours reflects the same prefixes of two others to one of theirs.
pub(crate) fn we_send_paths(program: &Program) {
    let session = Session {
        reflector: Some(Side::Ours),
        add_path: true,
        ..INTERNAL
    };
    let cable = Cable::new();
    let router = start(program, &cable, session);
    let reflector = Ours::alone(&cable.ours, cable.ends, session.our_asn);
    reflector.set_peer(session, cable.ends);
    let [_one, other] = [3, 4].map(|host| {
        let ends = Ends {
            theirs: cable.ends.ours,
            ..cable.another_of_ours(host)
        };
        let client = Ours::alone(&cable.ours, ends, session.our_asn);
        client.set_peer(INTERNAL, ends);
        OUR_PREFIXES.iter().for_each(|prefix| client.announce(prefix));
        let ends = Ends {
            theirs: ends.ours,
            ..cable.ends
        };
        reflector.set_peer(session, ends);
        client
    });
    for prefix in OUR_PREFIXES {
        becomes("they hold both paths", &2, || router.paths(prefix));
    }
    other.withdraw(OUR_PREFIXES[0]);
    becomes("one path less", &1, || router.paths(OUR_PREFIXES[0]));
    assert_eq!(router.learned(), set(&OUR_PREFIXES));
}

/// RFC 2918 §4: when they ask.
pub(crate) fn route_refresh(program: &Program) {
    let cable = Cable::new();
    let (ours, router) = meet(&cable, program, EXTERNAL);
    let quiet = || {
        let mut before = None;
        eventually("nothing more comes", SOON, || {
            let now = Some(router.updates());
            std::thread::sleep(Duration::from_millis(300));
            std::mem::replace(&mut before, now) == now
        });
        before.unwrap_or_default()
    };
    let before = quiet();
    router.request_refresh();
    eventually("both families come again", SOON, || {
        router.updates() >= before + 2
    });
    assert_eq!(router.learned(), set(&OUR_PREFIXES));
    assert!(ours.established());
}

/// RFC 4724 §4.1 (bits): they believe them. The kept prefixes never leave the peer, the others leave with our
/// End-of-RIB.
pub(crate) fn we_restart(program: &Program) {
    let session = Session {
        graceful_restart: Some(30),
        ..EXTERNAL
    };
    let cable = Cable::new();
    let (ours, router) = meet(&cable, program, session);
    let kept = [OUR_PREFIXES[0], OUR_PREFIXES[2]];
    let keeps_all = || router.learned() == set(&OUR_PREFIXES);
    let keeps = || router.learned().is_superset(&set(&kept));
    ours.crash();
    always("they keep our routes", Duration::from_secs(1), keeps_all);
    let ours = Ours::start(&cable, session, true, &kept);
    eventually("our End-of-RIB ends what we no longer announce", SOON, || {
        assert!(keeps(), "a route that we announce again was withdrawn meanwhile");
        router.learned() == set(&kept)
    });
    becomes("we have their routes again", &set(&THEIR_PREFIXES), || {
        ours.learned()
    });
    always("nothing flaps afterwards", Duration::from_millis(500), || {
        keeps() && ours.established()
    });
}

/// RFC 4724 §4.2 (stale): of theirs.
pub(crate) fn they_restart(program: &Program) {
    let session = Session {
        graceful_restart: Some(30),
        ..EXTERNAL
    };
    let cable = Cable::new();
    let (ours, mut router) = meet(&cable, program, session);
    router.kill();
    becomes("we notice", &set(&THEIR_PREFIXES), || ours.stale());
    always("we keep its routes", Duration::from_secs(1), || {
        ours.learned() == set(&THEIR_PREFIXES)
    });
    let kept = [THEIR_PREFIXES[0], THEIR_PREFIXES[2]];
    router.restart(&kept);
    eventually("its End-of-RIB ends what it no longer announces", SOON, || {
        let learned = ours.learned();
        assert!(
            learned.is_superset(&set(&kept)),
            "a route that it announces again was withdrawn meanwhile"
        );
        learned == set(&kept) && ours.stale().is_empty()
    });
    becomes("it has our routes again", &set(&OUR_PREFIXES), || {
        router.learned()
    });
}
