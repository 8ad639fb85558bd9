//! BFD against FRR's bfdd and BIRD: a link that fails takes our session and the routes down at once, over addresses of any
//! kind; FRR's operator who takes its BFD session down does not. What they make of our AdminDown is not measured here.

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use manx_bgpd::bgp::bfd::State;
use manx_bgpd::bgp::{BfdConfig, PeerConfig, PeerKey};
use manx_tests::foreign;

use crate::bird;
use crate::cases::meet;
use crate::frr::{self, Frr};
use crate::net::{Cable, SOON, always, eventually, ip};
use crate::ours::Ours;
use crate::router::{Base, EXTERNAL, Hops, INTERNAL, Process, Program, Router as _, Session};

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

/// Our address and theirs: of the network, and of the link.
const SIX: [[&str; 2]; 2] = [["2001:db8::1", "2001:db8::2"], ["fe80::1", "fe80::2"]];

/// Watches both kinds of path to a program that `start` starts, until the link goes.
fn watch_six(program: &Program, start: fn(&Base) -> Vec<Process>) {
    if !program.installed() {
        return;
    }
    let cable = Cable::new();
    for (end, host) in [(&cable.ours, 1), (&cable.theirs, 2)] {
        ip(end, &format!("address add fe80::{host}/64 dev eth0 nodad"));
    }
    let base = Base::new(&cable.theirs, EXTERNAL, &[cable.ends]);
    let _processes = start(&base);
    let ours = Ours::launch(&cable.ours, None, cable.ends, EXTERNAL.our_asn, false);
    let shown = ip(&cable.ours, "-o link show eth0");
    let index = shown
        .split(':')
        .next()
        .and_then(|index| index.trim().parse().ok());
    let index = index.expect("the interface's number comes first");
    for [local, remote] in SIX {
        let key = PeerKey::of(remote.parse().expect("an address"), index);
        ours.configure(PeerConfig {
            local_address: local.parse().ok(),
            bfd: Some(BfdConfig {
                multihop: false,
                min_tx: DETECTION / 3,
                min_rx: DETECTION / 3,
                multiplier: NonZeroU8::MIN.saturating_add(2),
            }),
            ..PeerConfig::new(key, EXTERNAL.their_asn)
        });
    }
    let up = || ours.bfd() == [(State::Up, Some(State::Up)); 2];
    eventually(&format!("both paths are up: {}", base.log()), SOON, up);
    always("nothing flaps", Duration::from_secs(2), up);
    ip(&cable.theirs, "link set eth0 down");
    eventually("both paths are down", DETECTION + SLACK, || {
        ours.bfd().iter().all(|(state, _)| *state == State::Down)
    });
}

/// RFC 5881 §2: with FRR, over IPv6 and link-local addresses, a session each.
pub(crate) fn frr_watches_ipv6_and_link_local_paths() {
    watch_six(&frr::PROGRAM, |base| {
        let peer = |[ours, theirs]: [&str; 2]| {
            format!(
                " peer {ours} local-address {theirs} interface eth0\n  detect-multiplier 3\n  receive-interval 300\n  \
                 transmit-interval 300\n  no shutdown\n exit\n"
            )
        };
        let zebra = foreign::zebra(base);
        let configuration = format!("bfd\n{}exit\n", SIX.map(peer).concat());
        vec![zebra, foreign::bfdd(base, &configuration)]
    });
}

/// RFC 5881 §2: with BIRD, over IPv6 and link-local addresses, a session each.
pub(crate) fn bird_watches_ipv6_and_link_local_paths() {
    watch_six(&bird::PROGRAM, |base| {
        let neighbor =
            |[ours, theirs]: [&str; 2]| format!("  neighbor {ours} dev \"eth0\" local {theirs};\n");
        let configuration = format!(
            "router id 192.0.2.2;\nprotocol device {{}}\nprotocol bfd {{\n  interface \"eth0\" {{ interval 300 ms; multiplier 3; \
             }};\n{}}}\n",
            SIX.map(neighbor).concat()
        );
        base.write("bird.conf", configuration);
        vec![foreign::bird(base, false)]
    });
}
