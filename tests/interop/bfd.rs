//! BFD against FRR's bfdd and BIRD: a link that fails takes our session and the routes down at once; FRR's operator
//! who takes its BFD session down does not. What they make of our AdminDown is not measured here.

use std::time::{Duration, Instant};

use manx_bgpd::bgp::bfd::State;
use manx_linux::Netns;

use crate::bird::{self, Bird};
use crate::cases::{EXTERNAL, INTERNAL, Start, meet};
use crate::frr::{self, Frr};
use crate::net::{Cable, SOON, always, eventually, run};
use crate::ours::Ours;
use crate::router::{Hops, Router, Session, installed};

/// Three intervals of 300 ms.
const DETECTION: Duration = Duration::from_millis(900);

/// What a busy machine may add to it. Far less than the hold time.
const SLACK: Duration = Duration::from_millis(1100);

/// Without BFD, BGP would take 90 s to notice, and keep the routes for another 60.
const WATCHED: Session = Session {
    hold_time: 90,
    graceful_restart: Some(60),
    bfd: Some(Hops::One),
    ..EXTERNAL
};

fn start_bird(namespace: &Netns, session: Session) -> Box<dyn Router> {
    Box::new(Bird::start(namespace, session))
}

fn start_frr(namespace: &Netns, session: Session) -> Box<dyn Router> {
    Box::new(Frr::start(namespace, session))
}

/// Both sides' BFD sessions are up, ours says.
fn watching(ours: &Ours) -> bool {
    ours.bfd() == [(State::Up, Some(State::Up))]
}

fn a_dead_link_takes_the_session_and_the_routes_down_at_once(start: Start, session: Session) {
    let cable = Cable::new();
    let (ours, _router) = meet(&cable, start, session);
    eventually("BFD is up", SOON, || watching(&ours));
    always("nothing flaps", Duration::from_secs(2), || {
        watching(&ours) && ours.established()
    });
    run(cable.theirs.command("ip").args(["link", "set", "eth0", "down"]));
    let cut = Instant::now();
    eventually("the session is down", DETECTION + SLACK, || !ours.established());
    eprintln!("down after {:?}", cut.elapsed());
    assert!(ours.learned().is_empty(), "graceful restart keeps no route");
    run(cable.theirs.command("ip").args(["link", "set", "eth0", "up"]));
    eventually("BFD and BGP return", SOON, || {
        watching(&ours) && ours.established()
    });
}

fn table(program: &str, package: &str, start: Start) {
    if !installed(program, package) {
        return;
    }
    let several = Session {
        bfd: Some(Hops::Several),
        ..WATCHED
    };
    a_dead_link_takes_the_session_and_the_routes_down_at_once(start, WATCHED);
    a_dead_link_takes_the_session_and_the_routes_down_at_once(start, several);
}

/// RFC 9384 §3: within the detection time.
/// nasty case 51
#[test]
fn bfd_with_bird() {
    table(bird::PROGRAM, "bird2", start_bird);
}

#[test]
fn bfd_with_frr() {
    table(frr::PROGRAM, "frr", start_frr);
}

/// RFC 5882 §3.2: AdminDown from the neighbour is no failure of the path.
#[test]
fn a_session_that_their_operator_takes_down_leaves_bgp_alone() {
    if !installed(frr::PROGRAM, "frr") {
        return;
    }
    let cable = Cable::new();
    let session = Session {
        graceful_restart: None,
        their_asn: INTERNAL.their_asn,
        ..WATCHED
    };
    let frr = Frr::start(&cable.theirs, session);
    let ours = Ours::start(&cable, session, false, &[]);
    eventually("BFD and BGP are up", SOON, || {
        watching(&ours) && ours.established() && frr.established()
    });
    let shown = frr.shut_bfd();
    eventually("BFD is down", SOON, || {
        ours.bfd() == [(State::Down, Some(State::AdminDown))]
    });
    let stays = || ours.established() && frr.established();
    always(&format!("BGP stays: {shown}"), Duration::from_secs(4), stays);
    assert_eq!(cable.connections(), 1);
}
