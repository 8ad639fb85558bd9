//! What two OPENs agree on beyond the base protocol, against the programs that have it.
//!
//! The other program gets a configuration of the test's own. Where a route needs a source besides it, that is
//! another speaker of ours, with an address of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use manx_bgpd::bgp::wire::Role;
use manx_bgpd::bgp::{AddPathConfig, Family, Features, PathSnapshot, PeerConfig, PeerKey, RoleConfig};
use manx_tests::binaries::program;
use manx_tests::foreign;
use serde_json::Value;

use crate::net::{Cable, Ends, FIRST, SOON, becomes, eventually, run};
use crate::ours::{self, Ours};
use crate::router::{Base, EXTERNAL, Process, Program};
use crate::{bird, frr, gobgp};

pub(crate) const OUR_V4: Ipv4Addr = FIRST.ours;
const OUR_V6: Ipv6Addr = FIRST.ours_v6;
pub(crate) const THEIR_V4: Ipv4Addr = FIRST.theirs;
const THEIR_V6: Ipv6Addr = FIRST.theirs_v6;
pub(crate) const OUR_ASN: u32 = EXTERNAL.our_asn;
pub(crate) const THEIR_ASN: u32 = EXTERNAL.their_asn;

/// Speakers beside the two in question, with their ASes.
const SOURCES: [(Ipv4Addr, u32); 2] = [
    (Ipv4Addr::new(192, 0, 2, 3), 65003),
    (Ipv4Addr::new(192, 0, 2, 4), 65004),
];

/// What every source announces.
pub(crate) const SHARED: &str = "10.9.0.0/24";

/// The tests, by name.
pub(crate) const TESTS: [(&str, fn()); 8] = [
    ("features::add_path_with_bird", add_path_with_bird),
    ("features::add_path_with_frr", add_path_with_frr),
    ("features::add_path_with_gobgp", add_path_with_gobgp),
    (
        "features::extended_messages_with_bird",
        extended_messages_with_bird,
    ),
    ("features::enhanced_refresh_with_bird", enhanced_refresh_with_bird),
    ("features::enhanced_refresh_with_frr", enhanced_refresh_with_frr),
    ("features::roles_with_bird", roles_with_bird),
    ("features::roles_with_frr", roles_with_frr),
];

/// A running program.
pub(crate) struct Other {
    pub(crate) base: Base,
    /// The last is the one that speaks BGP.
    pub(crate) processes: Vec<Process>,
}

impl Other {
    /// BIRD with these protocols.
    pub(crate) fn bird(cable: &Cable, protocols: &str) -> Self {
        let base = Base::new(&cable.theirs, EXTERNAL, &[FIRST]);
        let log = base.path("log");
        let text = format!(
            "log \"{}\" all;\nrouter id {THEIR_V4};\nprotocol device {{}}\n{protocols}",
            log.display()
        );
        base.write("bird.conf", text);
        let process = foreign::bird(&base, false);
        Self {
            base,
            processes: vec![process],
        }
    }

    /// bgpd and zebra with this configuration of bgpd's.
    pub(crate) fn frr(cable: &Cable, text: &str) -> Self {
        let base = Base::new(&cable.theirs, EXTERNAL, &[FIRST]);
        let mut processes = vec![foreign::zebra(&base)];
        base.write("bgpd.conf", text);
        processes.push(foreign::bgpd(&base, base.session.fib));
        Self { base, processes }
    }

    /// GoBGP with this configuration.
    pub(crate) fn gobgp(cable: &Cable, text: &str) -> Self {
        let base = Base::new(&cable.theirs, EXTERNAL, &[FIRST]);
        base.write("gobgp.toml", text);
        let process = foreign::gobgp(&base, "debug", false);
        Self {
            base,
            processes: vec![process],
        }
    }

    pub(crate) fn birdc(&self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        bird::birdc(&self.base, &words)
    }

    pub(crate) fn vtysh(&self, commands: &[&str]) -> String {
        frr::vtysh(&self.base, commands)
    }

    /// Waits until the log has all of these.
    fn logs(&self, words: &[&str]) {
        for word in words {
            eventually(&format!("'{word}' in the log"), SOON, || {
                self.base.log().contains(word)
            });
        }
    }
}

/// Our settings for a peer, with features.
pub(crate) fn peer(address: impl Into<IpAddr>, asn: u32, features: Features) -> PeerConfig {
    PeerConfig {
        key: PeerKey {
            address: address.into(),
            scope: 0,
        },
        asn,
        features,
        ..ours::peer(EXTERNAL, FIRST)
    }
}

/// A speaker of ours among these peers.
pub(crate) fn speaker(cable: &Cable, peers: Vec<PeerConfig>, prefixes: &[&str]) -> Ours {
    let ours = Ours::launch(&cable.ours, ours::EVERYWHERE, FIRST, OUR_ASN, false);
    for prefix in prefixes {
        ours.announce(prefix);
    }
    for peer in peers {
        ours.configure(peer);
    }
    ours
}

/// Speakers beside ours, without a listener, that announce [`SHARED`] to `to`.
pub(crate) fn sources(cable: &Cable, to: Ipv4Addr, asn: u32) -> Vec<Ours> {
    let start = |(address, own)| {
        let network = format!("{address}/24");
        run(cable
            .ours
            .command("ip")
            .args(["address", "add", &network, "dev", "eth0"]));
        let ends = Ends {
            ours: address,
            theirs: to,
            ..FIRST
        };
        let source = Ours::launch(&cable.ours, None, ends, own, false);
        source.announce(SHARED);
        source.configure(PeerConfig {
            local_address: Some(address.into()),
            next_hop_v4: Some(address),
            ..peer(to, asn, Features::default())
        });
        source
    };
    SOURCES.into_iter().map(start).collect()
}

/// The AS paths by which we know [`SHARED`] from the other program, with their identifiers.
fn known(ours: &Ours) -> (BTreeSet<u32>, BTreeSet<String>) {
    let paths = ours.paths();
    let shared = |path: &&PathSnapshot| path.prefix.to_string() == SHARED;
    let shared: Vec<&PathSnapshot> = paths.iter().filter(shared).collect();
    (
        shared.iter().filter_map(|path| path.path_id).collect(),
        shared
            .iter()
            .map(|path| path.attributes.as_path.to_string())
            .collect(),
    )
}

fn several_paths() -> Features {
    Features {
        add_path: vec![AddPathConfig {
            family: Family::Ipv4Unicast,
            receive: true,
            send: usize::MAX,
        }],
        ..Features::default()
    }
}

/// RFC 7911 §3, we receive: the program's paths from two sources reach us side by side, and go one by one.
fn their_paths_reach_us(start: fn(&Cable) -> Other) {
    let cable = Cable::new();
    let _other = start(&cable);
    let ours = speaker(&cable, vec![peer(THEIR_V4, THEIR_ASN, several_paths())], &[]);
    let mut sources = sources(&cable, THEIR_V4, THEIR_ASN);
    let through =
        |asns: &[u32]| -> BTreeSet<String> { asns.iter().map(|asn| format!("{THEIR_ASN} {asn}")).collect() };
    becomes("both paths", &(2, through(&[65003, 65004])), || {
        let (ids, paths) = known(&ours);
        (ids.len(), paths)
    });
    sources[0].withdraw(SHARED);
    becomes("the other path", &through(&[65004]), || known(&ours).1);
    sources.remove(1).shutdown();
    becomes("none", &BTreeSet::new(), || known(&ours).1);
}

/// RFC 7911 §3, we send: our paths from two sources reach the program side by side, and go one by one.
fn our_paths_reach_them(start: fn(&Cable) -> Other, held: fn(&Other) -> usize) {
    let cable = Cable::new();
    let other = start(&cable);
    let mut peers = vec![peer(THEIR_V4, THEIR_ASN, several_paths())];
    peers.extend(SOURCES.map(|(address, asn)| peer(address, asn, Features::default())));
    let ours = speaker(&cable, peers, &[]);
    let mut sources = sources(&cable, OUR_V4, OUR_ASN);
    becomes("both paths", &2, || held(&other));
    sources[0].withdraw(SHARED);
    becomes("the other path", &1, || held(&other));
    sources.remove(1).shutdown();
    becomes("none", &0, || held(&other));
    drop(ours);
}

/// BIRD between us and the sources.
fn bird_with_paths(cable: &Cable) -> Other {
    let mut protocols = format!(
        "protocol bgp manx {{ local {THEIR_V4} as {THEIR_ASN}; neighbor {OUR_V4} as {OUR_ASN};
  connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export all; add paths on; }}; }}\n"
    );
    for (address, asn) in SOURCES {
        write!(
            protocols,
            "protocol bgp source{asn} {{ local {THEIR_V4} as {THEIR_ASN}; neighbor {address} as {asn}; passive on; multihop;
  ipv4 {{ import all; export none; }}; }}\n"
        )
        .expect("a string can be written to");
    }
    Other::bird(cable, &protocols)
}

fn add_path_with_bird() {
    if bird::PROGRAM.installed() {
        their_paths_reach_us(bird_with_paths);
        our_paths_reach_them(bird_with_paths, |other| {
            other.birdc("show route protocol manx").matches("[manx ").count()
        });
    }
}

fn frr_with_paths(cable: &Cable) -> Other {
    let mut text = format!(
        "router bgp {THEIR_ASN}
 bgp router-id {THEIR_V4}
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp bestpath as-path multipath-relax
 neighbor {OUR_V4} remote-as {OUR_ASN}
 neighbor {OUR_V4} timers connect 1
 neighbor {OUR_V4} advertisement-interval 0
"
    );
    for (address, asn) in SOURCES {
        writeln!(
            text,
            " neighbor {address} remote-as {asn}\n neighbor {address} passive"
        )
        .and_then(|()| writeln!(text, " neighbor {address} disable-connected-check"))
        .expect("a string can be written to");
    }
    text += &format!(" address-family ipv4 unicast\n  neighbor {OUR_V4} addpath-tx-all-paths\n");
    Other::frr(cable, &text)
}

fn add_path_with_frr() {
    if frr::PROGRAM.installed() {
        their_paths_reach_us(frr_with_paths);
        our_paths_reach_them(frr_with_paths, |other| {
            let table = other.vtysh(&["show bgp ipv4 unicast json"]);
            let table: Value = serde_json::from_str(&table).unwrap_or_default();
            let paths = table["routes"][SHARED].as_array().cloned().unwrap_or_default();
            let ours = |path: &&Value| path["peerId"] == OUR_V4.to_string();
            paths.iter().filter(ours).count()
        });
    }
}

fn gobgp_with_paths(cable: &Cable) -> Other {
    let mut text = format!("[global.config]\nas = {THEIR_ASN}\nrouter-id = \"{THEIR_V4}\"\n");
    let us = (OUR_V4, OUR_ASN);
    for (address, asn) in SOURCES.into_iter().chain([us]) {
        write!(
            text,
            "[[neighbors]]
[neighbors.config]
neighbor-address = \"{address}\"
peer-as = {asn}
[neighbors.timers.config]
connect-retry = 1
idle-hold-time-after-reset = 1
[neighbors.transport.config]
local-address = \"{THEIR_V4}\"
passive-mode = true
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = \"ipv4-unicast\"
[neighbors.afi-safis.add-paths.config]
receive = {several}
send-max = {max}
",
            several = address == OUR_V4,
            max = if address == OUR_V4 { 8 } else { 0 },
        )
        .expect("a string can be written to");
    }
    Other::gobgp(cable, &text)
}

fn add_path_with_gobgp() {
    if gobgp::PROGRAM.installed() {
        their_paths_reach_us(gobgp_with_paths);
        our_paths_reach_them(gobgp_with_paths, |other| {
            let rib = gobgp::gobgp(&other.base, "global rib -a ipv4 -j");
            let rib: Value = serde_json::from_str(&rib).unwrap_or_default();
            let paths = rib[SHARED].as_array().cloned().unwrap_or_default();
            let ours = |path: &&Value| path["neighbor-ip"] == OUR_V4.to_string();
            paths.iter().filter(ours).count()
        });
    }
}

/// RFC 8654 §4: attributes of 4,800 octets come from one BIRD and go to another.
fn extended_messages_with_bird() {
    if !bird::PROGRAM.installed() {
        return;
    }
    let bird = |cable: &Cable, asn: u32, import: &str, export: &str| {
        let Ends { ours, theirs, .. } = cable.ends;
        Other::bird(
            cable,
            &format!(
                "protocol static originated {{ ipv4 {{ import {export}; }}; route {SHARED} blackhole; }}
protocol bgp manx {{ local {theirs} as {asn}; neighbor {ours} as {OUR_ASN};
  connect retry time 1; error wait time 1, 1; enable extended messages on;
  ipv4 {{ import {import}; export {export}; }}; }}
"
            ),
        )
    };
    let first = Cable::new();
    let second = first.beside();
    let communities: String = (0..400)
        .map(|number| format!(" bgp_large_community.add(({THEIR_ASN}, 1, {number}));"))
        .collect();
    let _from = bird(
        &first,
        THEIR_ASN,
        "none",
        &format!("filter {{{communities} accept; }}"),
    );
    let (_, asn) = SOURCES[0];
    let to = bird(&second, asn, "all", "none");
    let far = PeerConfig {
        local_address: Some(second.ends.ours.into()),
        next_hop_v4: Some(second.ends.ours),
        ..peer(second.ends.theirs, asn, Features::default())
    };
    let near = peer(THEIR_V4, THEIR_ASN, Features::default());
    let ours = speaker(&first, vec![near, far], &[]);
    becomes("all communities arrive", &Some(400), || {
        let path = ours.paths().pop()?;
        Some(path.attributes.large_communities.len())
    });
    becomes("and go on", &400, || {
        let shown = to.birdc("show route protocol manx all");
        shown.matches(&format!("({THEIR_ASN}, 1, ")).count()
    });
}

/// RFC 7313 §4: BIRD asks and is answered between marks; what it repeats of itself between marks stays.
fn enhanced_refresh_with_bird() {
    if !bird::PROGRAM.installed() {
        return;
    }
    let cable = Cable::new();
    let bird = Other::bird(
        &cable,
        &format!(
            "protocol static originated {{ ipv4; route 10.2.0.0/24 blackhole; }}
protocol bgp manx {{ debug {{ packets }}; local {THEIR_V4} as {THEIR_ASN}; neighbor {OUR_V4} as {OUR_ASN};
  connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export where source = RTS_STATIC; }}; }}
"
        ),
    );
    let ours = speaker(
        &cable,
        vec![peer(THEIR_V4, THEIR_ASN, Features::default())],
        &["10.1.0.0/24"],
    );
    let both = || ours.learned().contains("10.2.0.0/24") && bird.birdc("show route").contains("10.1.0.0/24");
    eventually("routes both ways", SOON, both);
    bird.birdc("reload in manx");
    bird.logs(&["Sending ROUTE-REFRESH", "Got BEGIN-OF-RR", "Got END-OF-RR"]);
    bird.birdc("reload out manx");
    bird.logs(&["Sending BEGIN-OF-RR", "Sending END-OF-RR"]);
    ours.announce("10.1.1.0/24");
    eventually("the session goes on", SOON, || {
        bird.birdc("show route").contains("10.1.1.0/24")
    });
    let (learned, told) = (ours.learned(), bird.birdc("show route"));
    assert!(
        learned.contains("10.2.0.0/24"),
        "what BIRD repeated is gone: {learned:?}"
    );
    assert!(told.contains("10.1.0.0/24"), "what we repeated is gone: {told}");
}

/// RFC 7313 §4: FRR asks and is answered between marks, and keeps what is repeated.
fn enhanced_refresh_with_frr() {
    if !frr::PROGRAM.installed() {
        return;
    }
    let cable = Cable::new();
    let frr = Other::frr(
        &cable,
        &format!(
            "debug bgp neighbor-events
router bgp {THEIR_ASN}
 bgp router-id {THEIR_V4}
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor {OUR_V4} remote-as {OUR_ASN}
 neighbor {OUR_V4} timers connect 1
 neighbor {OUR_V4} advertisement-interval 0
 address-family ipv4 unicast
  network 10.2.0.0/24
"
        ),
    );
    let ours = speaker(
        &cable,
        vec![peer(THEIR_V4, THEIR_ASN, Features::default())],
        &["10.1.0.0/24"],
    );
    let theirs = |frr: &Other| {
        frr.vtysh(&["show bgp ipv4 unicast json"])
            .contains("\"10.1.0.0/24\"")
    };
    let both = || ours.learned().contains("10.2.0.0/24") && theirs(&frr);
    eventually("routes both ways", SOON, both);
    frr.vtysh(&[&format!("clear bgp ipv4 unicast {OUR_V4} soft in")]);
    frr.logs(&["rcvd route-refresh (BoRR)", "rcvd route-refresh (EoRR)"]);
    assert!(!frr.base.log().contains("before EoR"), "{}", frr.base.log());
    assert!(both(), "nothing that was repeated is gone");
}

/// RFC 8950 §3 and §4 over an IPv6 session: IPv4 prefixes both ways, into the kernel, and a packet there and back.
fn ipv4_flows_over_ipv6(start: fn(&Cable) -> Other, learned: fn(&Other) -> String) {
    let cable = Cable::new();
    let other = start(&cable);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("speaker.yaml");
    let text = format!(
        "asn: {OUR_ASN}\nrouterId: {OUR_V4}\nfib: true\nroutes: [10.1.0.0/24]
neighbors: [{{address: \"{THEIR_V6}\", asn: {THEIR_ASN}, import: accept, export: accept}}]\n"
    );
    fs::write(&file, text).expect("the configuration can be written");
    let mut command = cable.ours.command(program("manx-bgpd"));
    let mut process = Process::spawn(command.arg("--config").arg(&file), &folder.path().join("log"));
    eventually("the kernel has their prefix", SOON, || {
        run(cable.ours.command("ip").args(["route", "show", "10.2.0.0/24"]))
            .contains(&format!("via inet6 {THEIR_V6}"))
    });
    eventually("they have our prefix through our IPv6 address", SOON, || {
        let shown = learned(&other);
        shown.contains("10.1.0.0/24") && shown.contains(&OUR_V6.to_string())
    });
    run(cable
        .theirs
        .command("ip")
        .args(["address", "add", "10.2.0.1/32", "dev", "lo"]));
    run(cable
        .ours
        .command("ping")
        .args(["-c", "1", "-W", "5", "10.2.0.1"]));
    process.kill();
}

fn ipv4_over_ipv6_with_bird(cable: &Cable) -> Other {
    Other::bird(
        cable,
        &format!(
            "protocol static originated {{ ipv4; route 10.2.0.0/24 blackhole; }}
protocol bgp manx {{ local {THEIR_V6} as {THEIR_ASN}; neighbor {OUR_V6} as {OUR_ASN};
  connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export where source = RTS_STATIC; extended next hop on; next hop self; }}; }}
"
        ),
    )
}

fn ipv4_over_ipv6_with_frr(cable: &Cable) -> Other {
    Other::frr(
        cable,
        &format!(
            "router bgp {THEIR_ASN}
 bgp router-id {THEIR_V4}
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor {OUR_V6} remote-as {OUR_ASN}
 neighbor {OUR_V6} timers connect 1
 neighbor {OUR_V6} advertisement-interval 0
 neighbor {OUR_V6} capability extended-nexthop
 address-family ipv4 unicast
  neighbor {OUR_V6} activate
  network 10.2.0.0/24
"
        ),
    )
}

/// GoBGP, which offers it of itself where the session is over IPv6.
fn ipv4_over_ipv6_with_gobgp(cable: &Cable) -> Other {
    let gobgp = Other::gobgp(
        cable,
        &format!(
            "[global.config]
as = {THEIR_ASN}
router-id = \"{THEIR_V4}\"
[[neighbors]]
[neighbors.config]
neighbor-address = \"{OUR_V6}\"
peer-as = {OUR_ASN}
[neighbors.timers.config]
connect-retry = 1
idle-hold-time-after-reset = 1
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = \"ipv4-unicast\"
"
        ),
    );
    gobgp::gobgp(
        &gobgp.base,
        &format!("global rib add 10.2.0.0/24 nexthop {THEIR_V6} -a ipv4"),
    );
    gobgp
}

pub(crate) fn extended_next_hop(program: &Program) {
    match program.name {
        "BIRD" => ipv4_flows_over_ipv6(ipv4_over_ipv6_with_bird, |bird| {
            bird.birdc("show route protocol manx all")
        }),
        "FRR" => ipv4_flows_over_ipv6(ipv4_over_ipv6_with_frr, |frr| {
            frr.vtysh(&["show bgp ipv4 unicast json"])
        }),
        "GoBGP" => ipv4_flows_over_ipv6(ipv4_over_ipv6_with_gobgp, |other| {
            gobgp::gobgp(&other.base, "global rib -a ipv4")
        }),
        other => panic!("{other} is said to have no IPv6 next hops for IPv4"),
    }
}

/// RFC 9234 §4.2 and §5: as their provider we are let in, and our route arrives marked with our AS; as their peer we
/// are not.
fn roles_are_checked(start: fn(&Cable) -> Other, shown: fn(&Other) -> String) {
    let cable = Cable::new();
    let other = start(&cable);
    let with = |role| {
        let role = Some(RoleConfig { role, strict: true });
        peer(
            THEIR_V4,
            THEIR_ASN,
            Features {
                role,
                ..Features::default()
            },
        )
    };
    let ours = speaker(&cable, vec![with(Role::Provider)], &["10.1.0.0/24"]);
    eventually("a session", SOON, || ours.established());
    eventually("a marked route", SOON, || {
        shown(&other).contains(&OUR_ASN.to_string())
    });
    ours.configure(with(Role::Peer));
    eventually("no session, for the role", SOON, || {
        let error = ours.peer().last_error.unwrap_or_default();
        !ours.established() && error.contains("2/11")
    });
}

fn roles_with_bird() {
    fn start(cable: &Cable) -> Other {
        Other::bird(
            cable,
            &format!(
                "protocol bgp manx {{ local {THEIR_V4} as {THEIR_ASN}; neighbor {OUR_V4} as {OUR_ASN};
  connect retry time 1; error wait time 1, 1; local role customer; require roles on;
  ipv4 {{ import all; export none; }}; }}
"
            ),
        )
    }
    if bird::PROGRAM.installed() {
        roles_are_checked(start, |bird| {
            let shown = bird.birdc("show route protocol manx all");
            let otc = shown.lines().find(|line| line.contains("otc"));
            otc.unwrap_or_default().to_owned()
        });
    }
}

fn roles_with_frr() {
    fn start(cable: &Cable) -> Other {
        Other::frr(
            cable,
            &format!(
                "router bgp {THEIR_ASN}
 bgp router-id {THEIR_V4}
 no bgp ebgp-requires-policy
 neighbor {OUR_V4} remote-as {OUR_ASN}
 neighbor {OUR_V4} timers connect 1
 neighbor {OUR_V4} local-role customer strict-mode
"
            ),
        )
    }
    if frr::PROGRAM.installed() {
        roles_are_checked(start, |frr| {
            let shown = frr.vtysh(&["show bgp ipv4 unicast 10.1.0.0/24"]);
            let otc = shown.lines().find(|line| line.contains("otc"));
            otc.unwrap_or_default().to_owned()
        });
    }
}
