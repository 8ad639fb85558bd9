//! Sessions over a link that has link-local addresses only, and the packets of both families that pass there.

use manx_tests::binaries::program as our_program;

use manx_tests::foreign;

use crate::frr;
use crate::net::{Cable, FIRST, SOON, eventually, ip, run};
use crate::router::{Base, EXTERNAL, Process, Program, Session};

const OURS: &str = "fe80::1";
const THEIRS: &str = "fe80::2";

/// Their hosts, each of which is a prefix that they announce; ours are inside what we announce.
const THEIR_HOSTS: [&str; 2] = ["10.2.0.1", "2001:db8:2::1"];
const OUR_HOSTS: [&str; 2] = ["10.1.0.1", "2001:db8:1::1"];

/// RFC 8950 §4: IPv4 prefixes have link-local next hops, which both kernels take.
/// RFC 2545 §3 (link-local): IPv6 prefixes do, too.
pub(crate) fn packets_pass(program: &Program) {
    let cable = Cable::new();
    for (end, address, hosts) in [
        (&cable.ours, OURS, OUR_HOSTS),
        (&cable.theirs, THEIRS, THEIR_HOSTS),
    ] {
        ip(end, "address flush dev eth0");
        ip(end, &format!("address add {address}/64 dev eth0 nodad"));
        ip(end, &format!("address add {}/32 dev lo", hosts[0]));
        ip(end, &format!("address add {}/128 dev lo", hosts[1]));
        ip(end, "link set lo up");
    }
    let base = Base::new(
        &cable.theirs,
        Session {
            fib: true,
            ..EXTERNAL
        },
        &[FIRST],
    );
    let _theirs = if program.name == frr::PROGRAM.name {
        unnumbered_frr(&base)
    } else {
        bird_at_an_address(&base)
    };
    let file = base.write(
        "speaker.yaml",
        format!(
            "asn: {}\nrouterId: {}\nfib: true\nroutes: [10.1.0.1/32, '2001:db8:1::1/128']\n\
             neighbors: [{{interface: eth0, asn: external, import: accept, export: accept}}]\n",
            EXTERNAL.our_asn, FIRST.ours
        ),
    );
    let mut command = cable.ours.command(our_program("manx-bgpd"));
    let _ours = Process::spawn(command.arg("--config").arg(&file), &base.path("manx.log"));
    for (end, [v4, v6], gateway) in [
        (&cable.ours, THEIR_HOSTS, THEIRS),
        (&cable.theirs, OUR_HOSTS, OURS),
    ] {
        eventually(&format!("routes of both families via {gateway}"), SOON, || {
            ip(end, &format!("route show {v4}")).contains(&format!("via inet6 {gateway} dev eth0"))
                && ip(end, &format!("-6 route show {v6}")).contains(&format!("via {gateway} dev eth0"))
        });
    }
    for (from, to) in OUR_HOSTS.into_iter().zip(THEIR_HOSTS) {
        run(cable
            .ours
            .command("ping")
            .args(["-c", "1", "-W", "5", "-I", from, to]));
    }
}

/// FRR finds us as we find it.
fn unnumbered_frr(base: &Base) -> Vec<Process> {
    let zebra = foreign::zebra(base);
    let families = [("ipv4", "10.2.0.1/32"), ("ipv6", "2001:db8:2::1/128")].map(|(family, prefix)| {
        format!(" address-family {family} unicast\n  neighbor eth0 activate\n  network {prefix}\n exit-address-family\n")
    });
    base.write(
        "bgpd.conf",
        format!(
            "router bgp {}
 bgp router-id {}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor eth0 interface remote-as external
 neighbor eth0 timers connect 1
 neighbor eth0 advertisement-interval 0
{}",
            EXTERNAL.their_asn,
            FIRST.theirs,
            families.concat()
        ),
    );
    vec![zebra, foreign::bgpd(base, base.session.fib)]
}

/// BIRD wants our address, sends no advertisements, and is found when it connects.
fn bird_at_an_address(base: &Base) -> Vec<Process> {
    let families = [
        ("ipv4", "10.2.0.1/32", "extended next hop on;"),
        ("ipv6", "2001:db8:2::1/128", ""),
    ]
    .map(|(family, prefix, more)| {
        let kernel =
            format!("protocol kernel {{ {family} {{ import none; export where source = RTS_BGP; }}; }}\n");
        let originated = format!("protocol static {{ {family}; route {prefix} blackhole; }}\n");
        let channel = format!("  {family} {{ import all; export where source = RTS_STATIC; {more} }};\n");
        (kernel + &originated, channel)
    });
    let [(v4, v4_channel), (v6, v6_channel)] = families;
    base.write(
        "bird.conf",
        format!(
            "log \"{}\" all;\nrouter id {};\nprotocol device {{}}\n{v4}{v6}\
             protocol bgp manx {{ local {THEIRS} as {}; neighbor {OURS}%eth0 as {};\n  \
             connect retry time 1; connect delay time 1; error wait time 1, 1;\n{v4_channel}{v6_channel}}}\n",
            base.path("log").display(),
            FIRST.theirs,
            EXTERNAL.their_asn,
            EXTERNAL.our_asn
        ),
    );
    vec![foreign::bird(base, false)]
}
