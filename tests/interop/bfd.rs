//! BFD against FRR's bfdd and BIRD: a link that fails takes our session and the routes down at once; FRR's operator
//! who takes its BFD session down does not. What they make of our AdminDown is not measured here.

use std::time::{Duration, Instant};

use manx_bgpd::bgp::bfd::State;

use crate::cases::meet;
use crate::frr::{self, Frr};
use crate::net::{Cable, SOON, always, eventually, ip};
use crate::ours::Ours;
use crate::router::{EXTERNAL, Hops, INTERNAL, Program, Router as _, Session};

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

/// Both sides' BFD sessions are up, ours says.
fn watching(ours: &Ours) -> bool {
    ours.bfd() == [(State::Up, Some(State::Up))]
}

fn cut(program: &Program, session: Session) {
    let cable = Cable::new();
    let (ours, _router) = meet(&cable, program, session);
    eventually("BFD is up", SOON, || watching(&ours));
    always("nothing flaps", Duration::from_secs(2), || {
        watching(&ours) && ours.established()
    });
    ip(&cable.theirs, "link set eth0 down");
    let cut = Instant::now();
    eventually("the session is down", DETECTION + SLACK, || !ours.established());
    eprintln!("down after {:?}", cut.elapsed());
    assert!(ours.learned().is_empty(), "graceful restart keeps no route");
    ip(&cable.theirs, "link set eth0 up");
    eventually("BFD and BGP return", SOON, || {
        watching(&ours) && ours.established()
    });
}

/// RFC 9384 §3: within the detection time.
/// nasty case 51
pub(crate) fn a_dead_link_ends_the_session_at_once(program: &Program) {
    let several = Session {
        bfd: Some(Hops::Several),
        ..WATCHED
    };
    cut(program, WATCHED);
    cut(program, several);
}

/// RFC 5882 §3.2: AdminDown from the neighbour is no failure of the path.
pub(crate) fn a_session_that_their_operator_takes_down_leaves_bgp_alone() {
    if !frr::PROGRAM.installed() {
        return;
    }
    let cable = Cable::new();
    let session = Session {
        graceful_restart: None,
        their_asn: INTERNAL.their_asn,
        ..WATCHED
    };
    let frr = Frr::start(&cable.theirs, session, &[cable.ends]);
    let ours = Ours::start(&cable, session, false, &[]);
    eventually("BFD and BGP are up", SOON, || {
        watching(&ours) && ours.established() && frr.established() == 1
    });
    let shown = frr.shut_bfd();
    eventually("BFD is down", SOON, || {
        ours.bfd() == [(State::Down, Some(State::AdminDown))]
    });
    let stays = || ours.established() && frr.established() == 1;
    always(&format!("BGP stays: {shown}"), Duration::from_secs(4), stays);
    assert_eq!(cable.connections(), 1);
}
