//! What must hold with every program, and the table that applies it to each.

use std::collections::BTreeSet;
use std::time::Duration;

use manx_linux::Netns;

use crate::net::{Cable, SOON, always, becomes, eventually, run};
use crate::ours::Ours;
use crate::router::{Router, Session};

/// Starts a program in a namespace.
pub(crate) type Start = fn(&Netns, Session) -> Box<dyn Router>;

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

pub(crate) const EXTERNAL: Session = Session {
    our_asn: 65001,
    their_asn: 65002,
    we_wait: false,
    they_wait: false,
    hold_time: 9,
    graceful_restart: None,
    bfd: None,
};

pub(crate) const INTERNAL: Session = Session {
    their_asn: 65001,
    ..EXTERNAL
};

fn set(prefixes: &[&str]) -> BTreeSet<String> {
    prefixes.iter().map(|prefix| (*prefix).to_owned()).collect()
}

/// Both sides with their prefixes announced, in session, and each holding the other's.
pub(crate) fn meet(cable: &Cable, start: Start, session: Session) -> (Ours, Box<dyn Router>) {
    let mut router = start(&cable.theirs, session);
    let ours = Ours::start(cable, session, false, &OUR_PREFIXES);
    eventually(&format!("a session with {}", router.name()), SOON, || {
        ours.established() && router.established()
    });
    for prefix in THEIR_PREFIXES {
        router.announce(prefix);
    }
    becomes("they hold our prefixes", &set(&OUR_PREFIXES), || router.learned());
    becomes("we hold their prefixes", &set(&THEIR_PREFIXES), || ours.learned());
    (ours, router)
}

fn routes_come_and_go_both_ways(start: Start, session: Session) {
    let cable = Cable::new();
    let (ours, mut router) = meet(&cable, start, session);
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
    router.announce(THEIR_PREFIXES[0]);
    eventually("they learn it again", SOON, || {
        router.learned().contains(OUR_PREFIXES[0])
    });
    eventually("we learn it again", SOON, || {
        ours.learned().contains(THEIR_PREFIXES[0])
    });
}

fn a_dead_peers_routes_go_at_hold_expiry(start: Start) {
    let cable = Cable::new();
    let (ours, router) = meet(
        &cable,
        start,
        Session {
            hold_time: 3,
            ..EXTERNAL
        },
    );
    router.freeze();
    always("a silent peer has its hold time", Duration::from_secs(1), || {
        !ours.learned().is_empty()
    });
    eventually("its routes are gone", SOON, || ours.learned().is_empty());
    assert!(!ours.established());
}

/// RFC 4724 §4.1, we restart: the kept prefixes never leave the peer, the others leave with our End-of-RIB.
fn our_crash_leaves_our_routes_with_the_peer(start: Start) {
    let session = Session {
        graceful_restart: Some(30),
        ..EXTERNAL
    };
    let cable = Cable::new();
    let (ours, router) = meet(&cable, start, session);
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

/// RFC 4724 §4.2, the peer restarts.
fn the_peers_crash_leaves_its_routes_with_us(start: Start) {
    let session = Session {
        graceful_restart: Some(30),
        ..EXTERNAL
    };
    let cable = Cable::new();
    let (ours, mut router) = meet(&cable, start, session);
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

/// RFC 4271 §6.8. OPENs are held back on the wire until both connections stand, so that they do collide.
fn simultaneous_dials_end_in_one_session(start: Start, rounds: usize, collides: bool) {
    let session = EXTERNAL;
    let cable = Cable::new();
    let router = start(&cable.theirs, session);
    let mut collisions = 0;
    for round in 0..rounds {
        data(&cable, "-I");
        let ours = Ours::start(&cable, session, false, &OUR_PREFIXES);
        let deadline = std::time::Instant::now() + Duration::from_secs(2);
        while cable.connections() < 2 && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        collisions += usize::from(cable.connections() >= 2);
        data(&cable, "-D");
        let one = || ours.established() && router.established() && cable.connections() == 1;
        eventually(&format!("one session in round {round}"), SOON, one);
        becomes("routes flow in it", &set(&OUR_PREFIXES), || router.learned());
        assert!(one(), "the session was lost in round {round}");
        ours.crash();
    }
    eprintln!(
        "{}: {collisions} of {rounds} rounds had two connections at once",
        router.name()
    );
    assert!(
        !collides || collisions > 0,
        "nothing collided, so nothing was tested"
    );
}

/// Drops (`-I`) or lets pass again (`-D`) what carries data; handshakes pass.
fn data(cable: &Cable, action: &str) {
    for chain in ["INPUT", "OUTPUT"] {
        let mut command = cable.ours.command("iptables");
        run(command.args([
            "-w",
            action,
            chain,
            "-p",
            "tcp",
            "--tcp-flags",
            "PSH",
            "PSH",
            "-j",
            "DROP",
        ]));
    }
}

/// RFC 4486.
fn an_ended_session_says_why(start: Start) {
    let cable = Cable::new();
    let (ours, router) = meet(&cable, start, EXTERNAL);
    ours.remove_peer();
    becomes("peer de-configured", &Some("6/3".to_owned()), || {
        router.last_notification()
    });
    eventually("their side is down", SOON, || !router.established());
    eventually("they drop our routes", SOON, || router.learned().is_empty());
    ours.crash();
    let ours = Ours::start(&cable, EXTERNAL, false, &OUR_PREFIXES);
    eventually("a new session", SOON, || {
        ours.established() && router.established()
    });
    ours.shutdown();
    becomes("administrative shutdown", &Some("6/2".to_owned()), || {
        router.last_notification()
    });
}

/// The cases, once per program.
macro_rules! with {
    ($module:ident, $router:path, $program:expr, $package:literal, rounds: $rounds:literal, collides: $collides:literal) => {
        mod $module {
            use manx_linux::Netns;

            use super::{EXTERNAL, INTERNAL, Session, Start};
            use crate::router::{Router, installed};

            fn check(case: impl FnOnce(Start)) {
                if installed($program, $package) {
                    case(|namespace: &Netns, session| -> Box<dyn Router> {
                        Box::new(<$router>::start(namespace, session))
                    });
                }
            }

            #[test]
            fn routes_come_and_go_within_an_as() {
                check(|start| {
                    super::routes_come_and_go_both_ways(
                        start,
                        Session {
                            we_wait: true,
                            ..INTERNAL
                        },
                    )
                });
            }

            #[test]
            fn routes_come_and_go_between_ases() {
                check(|start| {
                    super::routes_come_and_go_both_ways(
                        start,
                        Session {
                            they_wait: true,
                            ..EXTERNAL
                        },
                    )
                });
            }

            /// RFC 4271 §6.5: against BIRD, FRR and GoBGP.
            #[test]
            fn a_dead_peers_routes_go_at_hold_expiry() {
                check(super::a_dead_peers_routes_go_at_hold_expiry);
            }

            /// RFC 4724 §4.1 (bits): BIRD, FRR and GoBGP believe them.
            #[test]
            fn our_crash_leaves_our_routes_with_the_peer() {
                check(super::our_crash_leaves_our_routes_with_the_peer);
            }

            /// RFC 4724 §4.2 (stale): of BIRD, FRR and GoBGP.
            #[test]
            fn the_peers_crash_leaves_its_routes_with_us() {
                check(super::the_peers_crash_leaves_its_routes_with_us);
            }

            /// RFC 4271 §6.8: with BIRD, FRR and GoBGP.
            /// nasty case 43
            #[test]
            fn simultaneous_dials_end_in_one_session() {
                check(|start| super::simultaneous_dials_end_in_one_session(start, $rounds, $collides));
            }

            /// RFC 4486 §4 (2): as BIRD, FRR and GoBGP read it.
            /// RFC 4486 §4 (3): as BIRD, FRR and GoBGP read it.
            #[test]
            fn an_ended_session_says_why() {
                check(super::an_ended_session_says_why);
            }
        }
    };
}

with!(bird, crate::bird::Bird, crate::bird::PROGRAM, "bird2", rounds: 20, collides: true);
with!(frr, crate::frr::Frr, crate::frr::PROGRAM, "frr", rounds: 20, collides: true);
// GoBGP stops dialling as soon as it has accepted, and takes seconds to begin again.
with!(gobgp, crate::gobgp::Gobgp, crate::gobgp::PROGRAM, "gobgpd", rounds: 4, collides: false);
