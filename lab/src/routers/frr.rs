//! FRR: `zebra` for the kernel, `bgpd` for BGP.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{HOLD_TIME, Router, Setup, family};
use crate::plan::{File, Process, Program};

/// A router that runs FRR.
pub(super) fn setup(router: &Router<'_>) -> Setup {
    let dir = router.dir.display().to_string();
    let file = |name: &str| router.dir.join(name).display().to_string();
    let daemon = |name: &str, program| {
        let (conf, pid) = (file(&format!("{name}.conf")), file(&format!("{name}.pid")));
        let api = file("zserv.api");
        let args = [
            "-f",
            &conf,
            "-i",
            &pid,
            "-z",
            &api,
            "--vty_socket",
            &dir,
            "-A",
            "127.0.0.1",
        ];
        Process::new(name, program, &args)
    };
    let zebra = daemon("zebra", Program::Zebra);
    let mut bgpd = daemon("bgpd", Program::FrrBgpd);
    bgpd.needs = Some(router.dir.join("zserv.api"));
    Setup {
        files: vec![
            File::owned("zebra.conf", zebra_configuration(router), "frr"),
            File::owned("bgpd.conf", bgpd_configuration(router), "frr"),
        ],
        processes: vec![zebra, bgpd],
    }
}

fn zebra_configuration(router: &Router<'_>) -> String {
    format!(
        "hostname {}\nlog stdout\nip forwarding\nipv6 forwarding\n",
        router.name
    )
}

fn bgpd_configuration(router: &Router<'_>) -> String {
    let keepalive = HOLD_TIME / 3;
    let mut text = format!(
        "hostname {name}
log stdout
router bgp {asn}
 bgp router-id {id}
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 bgp graceful-restart
 timers bgp {keepalive} {HOLD_TIME}
",
        name = router.name,
        asn = router.asn,
        id = router.id,
    );
    for session in router.sessions {
        let (address, asn) = (session.address, session.asn);
        let _infallible = writeln!(text, " neighbor {address} remote-as {asn}");
        let _infallible = writeln!(text, " neighbor {address} timers connect 2");
    }
    for prefix in router.prefixes() {
        write_family(&mut text, router, prefix.ip(), &prefix.to_string());
    }
    text
}

fn write_family(text: &mut String, router: &Router<'_>, of: IpAddr, prefix: &str) {
    let _infallible = writeln!(text, " address-family {} unicast\n  network {prefix}", family(of));
    for session in router
        .sessions
        .iter()
        .filter(|s| s.address.is_ipv4() == of.is_ipv4())
    {
        let address = session.address;
        let _infallible = writeln!(text, "  neighbor {address} activate");
        if router.is_client(session) {
            let _infallible = writeln!(text, "  neighbor {address} route-reflector-client");
            let _infallible = writeln!(text, "  neighbor {address} next-hop-self");
        }
    }
    text.push_str(" exit-address-family\n");
}
