//! GoBGP, with BIRD as its hand in the kernel.
//!
//! GoBGP installs routes only through FRR's `zebra`, and the two as Debian 12 ships them (3.10 and 8.4) do not
//! fit: GoBGP misreads zebra's first interface message and panics, whatever `software-name` says. So GoBGP
//! speaks with nodes and routers, and gives what it selects over the loopback to a BIRD that does nothing
//! but put it into the kernel.

use std::fmt::Write as _;

use super::{HOLD_TIME, Router, Session, Setup, bird, family};
use crate::plan::{File, Process, Program};

/// Where the router's BIRD waits for the router's GoBGP.
const HAND_PORT: u16 = 1790;

/// A router that runs GoBGP.
pub(super) fn setup(router: &Router<'_>) -> Setup {
    let mut setup = bird::hand(router, HAND_PORT);
    let file = router.dir.join("gobgp.toml").display().to_string();
    let args = [
        "-f",
        &file,
        "-t",
        "toml",
        "-l",
        "info",
        "--api-hosts",
        "127.0.0.1:50051",
    ];
    setup.files.push(File::new("gobgp.toml", configuration(router)));
    setup
        .processes
        .push(Process::new("gobgpd", Program::Gobgpd, &args));
    setup
}

fn configuration(router: &Router<'_>) -> String {
    let mut text = format!(
        "[global.config]
  as = {asn}
  router-id = \"{id}\"
[global.apply-policy.config]
  export-policy-list = [\"to-nodes\"]
  default-export-policy = \"accept-route\"
  default-import-policy = \"accept-route\"
",
        asn = router.asn,
        id = router.id,
    );
    write_policy(&mut text, router);
    let families: Vec<&str> = router.rack.iter().map(|n| family(n.ip())).collect();
    write_hand(&mut text, router, &families);
    for session in router.sessions {
        write_session(&mut text, router, session);
    }
    text
}

/// Towards nodes: ourselves as next hop of what came from other racks, and not the rack's own prefix.
fn write_policy(text: &mut String, router: &Router<'_>) {
    let nodes: Vec<String> = router
        .sessions
        .iter()
        .filter(|session| router.is_client(session))
        .map(|session| format!("\"{}\"", session.address))
        .collect();
    let _infallible = write!(
        text,
        "[[defined-sets.neighbor-sets]]
  neighbor-set-name = \"nodes\"
  neighbor-info-list = [{}]
",
        nodes.join(", ")
    );
    let mut statements = statement("next-hop-self", "accept-route");
    statements.push_str(
        "    [policy-definitions.statements.conditions.bgp-conditions]
      route-type = \"external\"
    [policy-definitions.statements.actions.bgp-actions]
      set-next-hop = \"self\"
",
    );
    for prefix in router.prefixes() {
        let name = format!("rack-{}", family(prefix.ip()));
        let _infallible = write!(
            text,
            "[[defined-sets.prefix-sets]]
  prefix-set-name = \"{name}\"
  [[defined-sets.prefix-sets.prefix-list]]
    ip-prefix = \"{prefix}\"
"
        );
        statements.push_str(&statement(&name, "reject-route"));
        let _infallible = write!(
            statements,
            "    [policy-definitions.statements.conditions.match-prefix-set]
      prefix-set = \"{name}\"
"
        );
    }
    let _infallible = write!(
        text,
        "[[policy-definitions]]\n  name = \"to-nodes\"\n{statements}"
    );
}

fn statement(name: &str, disposition: &str) -> String {
    format!(
        "  [[policy-definitions.statements]]
    name = \"{name}\"
    [policy-definitions.statements.actions]
      route-disposition = \"{disposition}\"
    [policy-definitions.statements.conditions.match-neighbor-set]
      neighbor-set = \"nodes\"
"
    )
}

fn write_hand(text: &mut String, router: &Router<'_>, families: &[&str]) {
    write_neighbor(text, "127.0.0.1", router.asn);
    write_reflector(text, router);
    let _infallible = write!(
        text,
        "  [neighbors.transport.config]
    remote-port = {HAND_PORT}
    local-address = \"127.0.0.1\"
"
    );
    families.iter().for_each(|family| write_family(text, family));
}

fn write_session(text: &mut String, router: &Router<'_>, session: &Session) {
    write_neighbor(text, &session.address.to_string(), session.asn);
    if router.is_client(session) {
        write_reflector(text, router);
    }
    write_family(text, family(session.address));
}

fn write_neighbor(text: &mut String, address: &str, asn: u32) {
    let keepalive = HOLD_TIME / 3;
    let _infallible = write!(
        text,
        "[[neighbors]]
  [neighbors.config]
    neighbor-address = \"{address}\"
    peer-as = {asn}
  [neighbors.timers.config]
    hold-time = {HOLD_TIME}
    keepalive-interval = {keepalive}
    connect-retry = 5
    idle-hold-time-after-reset = 1
  [neighbors.graceful-restart.config]
    enabled = true
    restart-time = 120
"
    );
}

fn write_reflector(text: &mut String, router: &Router<'_>) {
    let _infallible = write!(
        text,
        "  [neighbors.route-reflector.config]
    route-reflector-client = true
    route-reflector-cluster-id = \"{}\"
",
        router.id
    );
}

fn write_family(text: &mut String, family: &str) {
    let _infallible = write!(
        text,
        "  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = \"{family}-unicast\"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = true
"
    );
}
