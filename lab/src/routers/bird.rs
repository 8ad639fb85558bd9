//! BIRD 2.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::{HOLD_TIME, Router, Session, Setup, family};
use crate::plan::{File, Process, Program};

/// A router that runs BIRD alone.
pub(super) fn setup(router: &Router<'_>) -> Setup {
    let mut text = base(router.id);
    for session in router.sessions {
        write_session(&mut text, router, session);
    }
    finish(router, text)
}

/// What every BIRD of a lab says: routes that BGP brings go into the kernel.
pub(super) fn base(id: Ipv4Addr) -> String {
    format!(
        "log stderr all;
router id {id};
protocol device {{}}
protocol direct {{ ipv4; ipv6; }}
protocol kernel kernel4 {{ merge paths on; ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol kernel kernel6 {{ merge paths on; ipv6 {{ import none; export where source = RTS_BGP; }}; }}
"
    )
}

/// BIRD with this configuration.
pub(super) fn finish(router: &Router<'_>, text: String) -> Setup {
    let file = |name: &str| router.dir.join(name).display().to_string();
    let args = [
        "-f",
        "-c",
        &file("bird.conf"),
        "-s",
        &file("bird.ctl"),
        "-P",
        &file("bird.pid"),
    ];
    Setup {
        files: vec![File::new("bird.conf", text)],
        processes: vec![Process::new("bird", Program::Bird, &args)],
    }
}

fn write_session(text: &mut String, router: &Router<'_>, session: &Session) {
    let Session { name, address, asn } = session;
    let suffix = if address.is_ipv4() { "" } else { "_v6" };
    let rack = router
        .rack_of(*address)
        .map(|(prefix, _)| prefix.to_string())
        .unwrap_or_default();
    let (role, next_hop, export) = if router.is_client(session) {
        (
            "rr client; ",
            "next hop self ebgp; ",
            "source = RTS_BGP".to_owned(),
        )
    } else {
        ("", "", format!("source = RTS_BGP || net = {rack}"))
    };
    let channel = family(*address);
    let _infallible = write!(
        text,
        "protocol bgp {name}{suffix} {{
  local as {local};
  neighbor {address} as {asn};
  {role}hold time {HOLD_TIME}; graceful restart on;
  connect delay time 1; connect retry time 2; error wait time 1, 5;
  {channel} {{ import all; export where {export}; {next_hop}}};
}}
",
        local = router.asn,
    );
}

/// A session over the loopback with a speaker on the same router, which knows the routes that belong in the
/// kernel and has no hand there. BIRD in turn announces the rack.
pub(super) fn hand(router: &Router<'_>, port: u16) -> Setup {
    let mut channels = String::new();
    for address in router.rack.iter().map(ipnetwork::IpNetwork::ip) {
        if let Some((prefix, own)) = router.rack_of(address) {
            let name = family(address);
            let _infallible = writeln!(
                channels,
                "  {name} {{ import all; export where net = {prefix}; next hop address {own}; }};"
            );
        }
    }
    // Two speakers of one AS must not share an identifier; the rack's address is free.
    let id = router.rack.iter().find_map(|network| match network.ip() {
        IpAddr::V4(id) => Some(id),
        IpAddr::V6(_) => None,
    });
    let mut text = base(id.unwrap_or(router.id));
    let _infallible = write!(
        text,
        "protocol bgp speaker {{
  local 127.0.0.1 port {port} as {asn};
  neighbor 127.0.0.1 as {asn};
  passive; strict bind; hold time {HOLD_TIME};
{channels}}}
",
        asn = router.asn,
    );
    finish(router, text)
}
