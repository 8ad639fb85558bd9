//! Long-lived graceful restart against the programs that have it (RFC 9494): they stay away, and we do.

use std::collections::BTreeSet;
use std::time::Duration;

use manx_bgpd::bgp::{Features, PeerConfig};
use manx_tests::foreign;

use crate::features::{OUR_ASN, OUR_V4, Other, THEIR_ASN, THEIR_V4, peer, speaker};
use crate::net::{Cable, SOON, always, eventually, ip};
use crate::ours::{self, Ours};
use crate::router::Process;
use crate::{bird, frr, gobgp};

/// LLGR_STALE.
const STALE: u32 = 0xffff_0006;

/// Our prefix, and theirs.
const OUR_PREFIX: &str = "10.1.0.0/24";
const THEIR_PREFIX: &str = "10.2.0.0/24";

/// Every restart time is one second, every stale time a minute.
const RESTART_TIME: u64 = 1;
const STALE_TIME: u64 = 60;

/// The tests, by name.
pub(crate) const TESTS: [(&str, fn()); 6] = [
    ("long_lived::bird_stays_away", || they_stay_away(&BIRD)),
    ("long_lived::frr_stays_away", || they_stay_away(&FRR)),
    ("long_lived::gobgp_stays_away", || they_stay_away(&GOBGP)),
    ("long_lived::we_stay_away_from_bird", || we_stay_away(&BIRD)),
    ("long_lived::we_stay_away_from_frr", || we_stay_away(&FRR)),
    ("long_lived::we_stay_away_from_gobgp", || we_stay_away(&GOBGP)),
];

/// A program that has it.
struct Subject {
    installed: fn() -> bool,
    start: fn(&Cable) -> Other,
    /// Again, gracefully, after a kill.
    restart: fn(&Other) -> Process,
    /// What it shows of our prefix.
    shown: fn(&Other) -> String,
    /// How it writes LLGR_STALE.
    stale: &'static str,
}

const BIRD: Subject = Subject {
    installed: || bird::PROGRAM.installed(),
    start: |cable| {
        Other::bird(
            cable,
            &format!(
                "protocol static originated {{ ipv4; route {THEIR_PREFIX} blackhole; }}
protocol bgp manx {{ local {THEIR_V4} as {THEIR_ASN}; neighbor {OUR_V4} as {OUR_ASN};
  connect retry time 1; error wait time 1, 1;
  graceful restart on; graceful restart time {RESTART_TIME};
  long lived graceful restart on; long lived stale time {STALE_TIME};
  ipv4 {{ import all; export where source = RTS_STATIC; }}; }}
"
            ),
        )
    },
    restart: |bird| foreign::bird(&bird.base, true),
    shown: |bird| bird.birdc(&format!("show route for {OUR_PREFIX} all")),
    stale: "(65535,6)",
};

const FRR: Subject = Subject {
    installed: || frr::PROGRAM.installed(),
    start: |cable| {
        Other::frr(
            cable,
            &format!(
                "router bgp {THEIR_ASN}
 bgp router-id {THEIR_V4}
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart restart-time {RESTART_TIME}
 bgp graceful-restart preserve-fw-state
 bgp long-lived-graceful-restart stale-time {STALE_TIME}
 neighbor {OUR_V4} remote-as {OUR_ASN}
 neighbor {OUR_V4} timers connect 1
 neighbor {OUR_V4} advertisement-interval 0
 address-family ipv4 unicast
  network {THEIR_PREFIX}
"
            ),
        )
    },
    restart: |frr| foreign::bgpd(&frr.base, frr.base.session.fib),
    shown: |frr| frr.vtysh(&[&format!("show bgp ipv4 unicast {OUR_PREFIX}")]),
    stale: "llgr-stale",
};

const GOBGP: Subject = Subject {
    installed: || gobgp::PROGRAM.installed(),
    start: |cable| {
        let gobgp = Other::gobgp(
            cable,
            &format!(
                "[global.config]
as = {THEIR_ASN}
router-id = \"{THEIR_V4}\"
[[neighbors]]
[neighbors.config]
neighbor-address = \"{OUR_V4}\"
peer-as = {OUR_ASN}
[neighbors.timers.config]
connect-retry = 1
idle-hold-time-after-reset = 1
[neighbors.transport.config]
local-address = \"{THEIR_V4}\"
[neighbors.graceful-restart.config]
enabled = true
restart-time = {RESTART_TIME}
long-lived-enabled = true
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = \"ipv4-unicast\"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = true
[neighbors.afi-safis.long-lived-graceful-restart.config]
enabled = true
restart-time = {STALE_TIME}
"
            ),
        );
        announce(&gobgp);
        gobgp
    },
    restart: |gobgp| {
        // Its route is told to it, and must be before its session is up: it says that it has told all else.
        let cable = |state| ip(&gobgp.base.namespace, &format!("link set eth0 {state}"));
        cable("down");
        let process = foreign::gobgp(&gobgp.base, "debug", true);
        announce(gobgp);
        cable("up");
        process
    },
    shown: |other| gobgp::gobgp(&other.base, "global rib -a ipv4"),
    stale: "llgr-stale",
};

fn announce(gobgp: &Other) {
    gobgp::gobgp(
        &gobgp.base,
        &format!("global rib add {THEIR_PREFIX} origin igp -a ipv4"),
    );
}

fn settings() -> PeerConfig {
    PeerConfig {
        graceful_restart: Some(Duration::from_secs(RESTART_TIME)),
        long_lived_graceful_restart: Some(Duration::from_secs(STALE_TIME)),
        ..peer(THEIR_V4, THEIR_ASN, Features::default())
    }
}

/// Both sides have the other's prefix.
fn meet(subject: &Subject, cable: &Cable) -> (Ours, Other) {
    let other = (subject.start)(cable);
    let ours = speaker(cable, vec![settings()], &[OUR_PREFIX]);
    eventually("routes both ways", SOON, || {
        ours.learned().contains(THEIR_PREFIX) && (subject.shown)(&other).contains(&OUR_ASN.to_string())
    });
    (ours, other)
}

/// What we have of theirs, and whether it is marked.
fn theirs(ours: &Ours) -> BTreeSet<(String, bool)> {
    let shown = |path: &manx_bgpd::bgp::PathSnapshot| {
        (
            path.prefix.to_string(),
            path.attributes.communities.contains(&STALE),
        )
    };
    ours.paths().iter().filter(|path| path.best).map(shown).collect()
}

fn they_stay_away(subject: &Subject) {
    if !(subject.installed)() {
        return;
    }
    let cable = Cable::new();
    let (ours, mut other) = meet(subject, &cable);
    let is = |stale| BTreeSet::from([(THEIR_PREFIX.to_owned(), stale)]);
    assert_eq!(theirs(&ours), is(false));
    other.processes.pop().expect("it runs").kill();
    eventually("their route is marked after the restart time", SOON, || {
        theirs(&ours) == is(true)
    });
    always("it stays", Duration::from_secs(2), || theirs(&ours) == is(true));
    let again = (subject.restart)(&other);
    other.processes.push(again);
    eventually("it is as before when they are back", SOON, || {
        let now = theirs(&ours);
        assert!(!now.is_empty(), "it is gone meanwhile");
        now == is(false) && ours.stale().is_empty()
    });
}

fn we_stay_away(subject: &Subject) {
    if !(subject.installed)() {
        return;
    }
    let cable = Cable::new();
    let (ours, other) = meet(subject, &cable);
    let shown = || (subject.shown)(&other);
    assert!(!shown().contains(subject.stale), "{}", shown());
    ours.crash();
    eventually("our route is marked after the restart time", SOON, || {
        shown().contains(subject.stale)
    });
    let has_it = || shown().contains(&OUR_ASN.to_string());
    always("it stays", Duration::from_secs(2), has_it);
    let ours = Ours::launch(&cable.ours, ours::EVERYWHERE, cable.ends, OUR_ASN, true);
    ours.announce(OUR_PREFIX);
    ours.configure(settings());
    eventually("it is as before when we are back", SOON, || {
        let shown = shown();
        assert!(
            shown.contains(&OUR_ASN.to_string()),
            "it is gone meanwhile: {shown}"
        );
        !shown.contains(subject.stale)
    });
}
