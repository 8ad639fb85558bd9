//! Drains against BIRD, by a policy of its own, and FRR, which has one built in (RFC 8326): two speakers of ours
//! announce one prefix, and the better one leaves.

use std::time::Duration;

use serde_json::Value;

use crate::features::{Other, SHARED, THEIR_ASN, THEIR_V4, sources};
use crate::net::{Cable, SOON, always, eventually};
use crate::{bird, frr};

/// The tests, by name.
pub(crate) const TESTS: [(&str, fn()); 2] = [
    ("drain::bird_takes_the_other_way", bird_takes_the_other_way),
    ("drain::frr_takes_the_other_way", frr_takes_the_other_way),
];

/// The speakers' ASes: the better one's is the first.
const LEAVING: u32 = 65003;
const STAYING: u32 = 65004;

/// For how long routes are marked.
const TIME: Duration = Duration::from_secs(2);

/// What a program has of the prefix.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The AS of each path, the best first.
    paths: Vec<u32>,
    /// The path of the speaker that leaves is marked.
    marked: bool,
}

/// The prefix is there all the while: first both ways, then the other one before the first has gone.
fn the_other_way_is_taken(start: fn(&Cable) -> Other, seen: fn(&Other) -> Seen) {
    let cable = Cable::new();
    let other = start(&cable);
    let speakers = sources(&cable, THEIR_V4, THEIR_ASN);
    let is = |paths: &[u32], marked| {
        let paths = paths.to_vec();
        Seen { paths, marked }
    };
    let before = is(&[LEAVING, STAYING], false);
    eventually("both ways", SOON, || seen(&other) == before);
    speakers[0].drain(TIME);
    eventually("the better one is marked, and the other one taken", SOON, || {
        let now = seen(&other);
        assert!(
            now.paths.contains(&LEAVING),
            "the first way goes before the other is taken"
        );
        now == is(&[STAYING, LEAVING], true)
    });
    eventually("the first way goes", SOON, || {
        let now = seen(&other);
        assert!(now.paths.contains(&STAYING), "no way is left");
        now == is(&[STAYING], false)
    });
    always("it stays away", Duration::from_secs(3), || {
        seen(&other) == is(&[STAYING], false)
    });
    speakers[0].undrain();
    eventually("all is as it was", SOON, || seen(&other) == before);
}

fn bird_takes_the_other_way() {
    fn start(cable: &Cable) -> Other {
        let session = |number, asn| {
            format!(
                "protocol bgp source{asn} {{ local {THEIR_V4} as {THEIR_ASN}; neighbor 192.0.2.{number} as {asn};
  passive on; ipv4 {{ import filter honour; export none; }}; }}
"
            )
        };
        let filter = "filter honour {
  if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
  accept;
}
";
        Other::bird(
            cable,
            &[filter, &session(3, LEAVING), &session(4, STAYING)].concat(),
        )
    }
    fn seen(bird: &Other) -> Seen {
        let shown = bird.birdc(&format!("show route for {SHARED} all"));
        let path = |line: &str| line.trim().strip_prefix("BGP.as_path: ")?.trim().parse().ok();
        Seen {
            paths: shown.lines().filter_map(path).collect(),
            marked: shown.contains("(65535,0)"),
        }
    }
    if bird::PROGRAM.installed() {
        the_other_way_is_taken(start, seen);
    }
}

fn frr_takes_the_other_way() {
    fn start(cable: &Cable) -> Other {
        let session = |number, asn| {
            format!(
                " neighbor 192.0.2.{number} remote-as {asn}\n neighbor 192.0.2.{number} passive
 neighbor 192.0.2.{number} advertisement-interval 0\n"
            )
        };
        let bgp = format!(
            "router bgp {THEIR_ASN}\n bgp router-id {THEIR_V4}\n no bgp ebgp-requires-policy\n bgp bestpath compare-routerid\n"
        );
        Other::frr(cable, &[bgp, session(3, LEAVING), session(4, STAYING)].concat())
    }
    fn seen(frr: &Other) -> Seen {
        let shown = frr.vtysh(&[&format!("show bgp ipv4 unicast {SHARED} json")]);
        let shown: Value = serde_json::from_str(&shown).unwrap_or_default();
        let paths = || shown["paths"].as_array().into_iter().flatten();
        let asn = |path: &Value| path["aspath"]["string"].as_str()?.parse().ok();
        let is_best = |path: &&Value| path["bestpath"]["overall"] == true;
        let marked = |path: &Value| path["community"]["string"] == "graceful-shutdown";
        let others = paths().filter(|path| !is_best(path));
        Seen {
            paths: paths().filter(is_best).chain(others).filter_map(asn).collect(),
            marked: paths().any(marked),
        }
    }
    if frr::PROGRAM.installed() {
        the_other_way_is_taken(start, seen);
    }
}
