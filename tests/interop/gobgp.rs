//! GoBGP.

use std::collections::BTreeSet;
use std::fs;

use manx_linux::Netns;
use serde_json::Value;

use crate::net::{OUR_V4, SOON, THEIR_V4, THEIR_V6, eventually, run};
use crate::router::{Base, Process, Router, Session};

pub(crate) const PROGRAM: &str = "/usr/bin/gobgpd";

pub(crate) struct Gobgp {
    base: Base,
    process: Process,
}

impl Gobgp {
    pub(crate) fn start(namespace: &Netns, session: Session) -> Self {
        let base = Base::new(namespace, session);
        fs::write(base.path("gobgp.toml"), configuration(session)).expect("the configuration can be written");
        let process = launch(&base, false);
        Self { base, process }
    }

    fn gobgp(&self, command: &str) -> String {
        gobgp(&self.base, command)
    }

    /// Paths of one family in the global RIB that came from us.
    fn paths(&self, family: &str) -> Vec<String> {
        let text = self.gobgp(&format!("global rib -a {family} -j"));
        let rib: Value = serde_json::from_str(&text).unwrap_or_default();
        let ours = |paths: &Value| {
            let mut sources = paths
                .as_array()
                .into_iter()
                .flatten()
                .map(|path| &path["neighbor-ip"]);
            sources.any(|source| *source == OUR_V4.to_string())
        };
        let prefixes = rib.as_object().into_iter().flatten();
        prefixes
            .filter(|(_, paths)| ours(paths))
            .map(|(prefix, _)| prefix.clone())
            .collect()
    }

    fn rib(&self, action: &str, prefix: &str) {
        let (family, next_hop) = if prefix.contains(':') {
            ("ipv6", THEIR_V6.to_string())
        } else {
            ("ipv4", THEIR_V4.to_string())
        };
        self.gobgp(&format!(
            "global rib {action} {prefix} -a {family} nexthop {next_hop}"
        ));
    }
}

fn gobgp(base: &Base, command: &str) -> String {
    run(base
        .namespace
        .command("/usr/bin/gobgp")
        .args(["-p", "50051"])
        .args(command.split(' ')))
}

fn launch(base: &Base, restart: bool) -> Process {
    let mut command = base.namespace.command(PROGRAM);
    command.arg("-f").arg(base.path("gobgp.toml")).args([
        "-t",
        "toml",
        "-l",
        "debug",
        "--log-plain",
        "--pprof-disable",
    ]);
    command.args(["--api-hosts", "127.0.0.1:50051"]);
    if restart {
        command.arg("-r");
    }
    let process = Process::spawn(&mut command, &base.path("log"));
    eventually("GoBGP answers", SOON, || {
        base.namespace
            .command("/usr/bin/gobgp")
            .args(["-p", "50051", "global"])
            .output()
            .is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"AS"))
    });
    process
}

fn configuration(session: Session) -> String {
    let Session {
        our_asn,
        their_asn,
        they_wait,
        hold_time,
        graceful_restart,
        ..
    } = session;
    let keepalive = hold_time / 3;
    let restart = graceful_restart.map_or_else(String::new, |seconds| {
        format!("[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {seconds}\n")
    });
    let families: String = ["ipv4", "ipv6"]
        .iter()
        .map(|family| {
            format!(
                "[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = \"{family}-unicast\"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = {}
",
                graceful_restart.is_some()
            )
        })
        .collect();
    format!(
        "[global.config]
as = {their_asn}
router-id = \"{THEIR_V4}\"
[[neighbors]]
[neighbors.config]
neighbor-address = \"{OUR_V4}\"
peer-as = {our_asn}
[neighbors.timers.config]
hold-time = {hold_time}
keepalive-interval = {keepalive}
connect-retry = 1
idle-hold-time-after-reset = 1
[neighbors.transport.config]
local-address = \"{THEIR_V4}\"
passive-mode = {they_wait}
{restart}{families}"
    )
}

impl Router for Gobgp {
    fn name(&self) -> &'static str {
        "GoBGP"
    }

    fn established(&self) -> bool {
        self.gobgp(&format!("neighbor {OUR_V4}"))
            .to_lowercase()
            .contains("bgp state = established")
    }

    fn learned(&self) -> BTreeSet<String> {
        ["ipv4", "ipv6"]
            .iter()
            .flat_map(|family| self.paths(family))
            .collect()
    }

    fn announce(&mut self, prefix: &str) {
        self.base.announced.insert(prefix.to_owned());
        self.rib("add", prefix);
    }

    fn withdraw(&mut self, prefix: &str) {
        self.base.announced.remove(prefix);
        self.rib("del", prefix);
    }

    fn last_notification(&self) -> Option<String> {
        let log = self.base.log();
        let received = log
            .lines()
            .rev()
            .find(|line| line.to_lowercase().contains("received notification"))?;
        let field = |name: &str| {
            let (_, rest) = received.split_once(&format!("{name}="))?;
            rest.split_whitespace().next()
        };
        Some(format!("{}/{}", field("Code")?, field("Subcode")?))
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn restart(&mut self, kept: &[&str]) {
        self.base.set_announced(kept);
        // It knows its routes before it meets us, as the others do from their files.
        let us = format!("{OUR_V4}/32");
        run(self
            .base
            .namespace
            .command("ip")
            .args(["route", "add", "blackhole", &us]));
        self.process = launch(&self.base, true);
        for prefix in &self.base.announced {
            self.rib("add", prefix);
        }
        run(self
            .base
            .namespace
            .command("ip")
            .args(["route", "delete", "blackhole", &us]));
    }

    fn freeze(&self) {
        self.process.signal("STOP");
    }
}
