//! Our own `manx-bgpd`, as a router and as a route reflector.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use super::{HOLD_TIME, Router, Session, Setup, family};
use crate::plan::{File, Process, Program};

/// A router that runs `manx-bgpd`.
pub(super) fn router(router: &Router<'_>) -> Setup {
    let mut text = format!(
        "asn: {}\nrouterId: {}\nfib: true\nroutes:\n",
        router.asn, router.id
    );
    for prefix in router.prefixes() {
        let _infallible = writeln!(text, "  - {prefix}");
    }
    text.push_str("neighbors:\n");
    for session in router.sessions {
        write_neighbor(&mut text, session);
        let _infallible = writeln!(text, "    families: [{}]", family(session.address));
        // Nodes know no way to other routers; within the rack, this takes packets past the router, too.
        text.push_str(if router.is_client(session) {
            "    routeReflectorClient: true\n    nextHopSelf: true\n"
        } else {
            "    import: accept\n    export: accept\n"
        });
    }
    setup(text, router.dir)
}

/// A reflector: it reflects, and forwards nothing.
pub(crate) fn reflector(asn: u32, id: Ipv4Addr, clients: &[Session], dir: &Path) -> Setup {
    let mut text = format!("asn: {asn}\nrouterId: {id}\nneighbors:\n");
    for session in clients {
        write_neighbor(&mut text, session);
        text.push_str("    routeReflectorClient: true\n    passive: true\n");
    }
    setup(text, dir)
}

fn write_neighbor(text: &mut String, session: &Session) {
    let Session { name, address, asn } = session;
    let _infallible = write!(
        text,
        "  # {name}\n  - address: \"{address}\"\n    asn: {asn}\n    holdTime: {HOLD_TIME}\n"
    );
}

fn setup(text: String, dir: &Path) -> Setup {
    let file = dir.join("bgpd.yaml").display().to_string();
    Setup {
        files: vec![File::new("bgpd.yaml", text)],
        processes: vec![Process::new("manx-bgpd", Program::ManxBgpd, &["--config", &file])],
    }
}
