//! FRR: zebra, bgpd and, where asked for, bfdd.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use manx_linux::Netns;
use serde_json::Value;

use crate::net::{OUR_V4, SOON, THEIR_V4, eventually, run};
use crate::router::{Base, Hops, Process, Router, Session};

pub(crate) const PROGRAM: &str = "/usr/lib/frr/bgpd";

pub(crate) struct Frr {
    base: Base,
    bgpd: Process,
    /// zebra, which tells bgpd which next hops are reachable, and bfdd.
    _others: Vec<Process>,
}

impl Frr {
    pub(crate) fn start(namespace: &Netns, session: Session) -> Self {
        let base = Base::new(namespace, session);
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(base.folder.path(), open).expect("the folder is ours");
        fs::write(base.path("zebra.conf"), "").expect("the configuration can be written");
        fs::write(base.path("vtysh.conf"), "").expect("the configuration can be written");
        let mut others = vec![daemon(&base, "zebra", &["-A", "127.0.0.1"])];
        if session.bfd.is_some() {
            base.wait_for("zserv.api");
            fs::write(base.path("bfdd.conf"), "").expect("the configuration can be written");
            let control = base.path("bfdd.ctl").display().to_string();
            others.push(daemon(&base, "bfdd", &["-A", "127.0.0.1", "--bfdctl", &control]));
        }
        let bgpd = launch(&base);
        Self {
            base,
            bgpd,
            _others: others,
        }
    }

    /// Takes the BFD session down as an operator does, and gives what bfdd shows then.
    pub(crate) fn shut_bfd(&self) -> String {
        let peer = format!("peer {OUR_V4}");
        self.vtysh(&["configure terminal", "bfd", &peer, "shutdown"]);
        self.vtysh(&["show bfd peers"])
    }

    fn vtysh(&self, commands: &[&str]) -> String {
        let folder = self.base.folder.path();
        let mut command = self.base.namespace.command("/usr/bin/vtysh");
        command
            .arg("--vty_socket")
            .arg(folder)
            .arg("--config_dir")
            .arg(folder);
        run(command.args(commands.iter().flat_map(|line| ["-c", line])))
    }

    fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.vtysh(&[command])).unwrap_or_default()
    }

    fn neighbor(&self) -> Value {
        self.json(&format!("show bgp neighbors {OUR_V4} json"))[OUR_V4.to_string()].take()
    }

    fn network(&self, no: &str, prefix: &str) {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        self.vtysh(&[
            "configure terminal",
            &format!("router bgp {}", self.base.session.their_asn),
            &format!("address-family {family} unicast"),
            &format!("{no}network {prefix}"),
        ]);
    }
}

fn daemon(base: &Base, name: &str, arguments: &[&str]) -> Process {
    let mut command = base.namespace.command(format!("/usr/lib/frr/{name}"));
    command
        .arg("-f")
        .arg(base.path(&format!("{name}.conf")))
        .arg("-i")
        .arg(base.path(&format!("{name}.pid")));
    command
        .arg("-z")
        .arg(base.path("zserv.api"))
        .arg("--vty_socket")
        .arg(base.folder.path());
    let process = Process::spawn(command.args(arguments), &base.path("log"));
    base.wait_for(&format!("{name}.vty"));
    process
}

fn launch(base: &Base) -> Process {
    base.wait_for("zserv.api");
    fs::write(base.path("bgpd.conf"), configuration(base)).expect("the configuration can be written");
    daemon(base, "bgpd", &["-n", "-A", "127.0.0.1", "--log", "stdout"])
}

fn configuration(base: &Base) -> String {
    let Session {
        our_asn,
        their_asn,
        they_wait,
        hold_time,
        graceful_restart,
        bfd,
        ..
    } = base.session;
    let keepalive = hold_time / 3;
    let restart = match graceful_restart {
        Some(seconds) => format!(
            " bgp graceful-restart\n bgp graceful-restart restart-time {seconds}\n bgp graceful-restart preserve-fw-state\n"
        ),
        None => " bgp graceful-restart-disable\n".to_owned(),
    };
    let family = |name: &str, colon: bool| {
        let mine = base
            .announced
            .iter()
            .filter(|prefix| prefix.contains(':') == colon);
        let networks: String = mine.map(|prefix| format!("  network {prefix}\n")).collect();
        format!(
            " address-family {name} unicast\n  neighbor {OUR_V4} activate\n{networks} exit-address-family\n"
        )
    };
    format!(
        "debug bgp neighbor-events
debug bgp graceful-restart
router bgp {their_asn}
 bgp router-id {THEIR_V4}
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
{restart} neighbor {OUR_V4} remote-as {our_asn}
 neighbor {OUR_V4} timers {keepalive} {hold_time}
 neighbor {OUR_V4} timers connect 1
 neighbor {OUR_V4} advertisement-interval 0
{passive}{bfd}{v4}{v6}",
        passive = if they_wait {
            format!(" neighbor {OUR_V4} passive\n")
        } else {
            String::new()
        },
        bfd = match bfd {
            Some(Hops::One) => format!(" neighbor {OUR_V4} bfd\n"),
            Some(Hops::Several) => format!(" neighbor {OUR_V4} ebgp-multihop 8\n neighbor {OUR_V4} bfd\n"),
            None => String::new(),
        },
        v4 = family("ipv4", false),
        v6 = family("ipv6", true),
    )
}

impl Router for Frr {
    fn name(&self) -> &'static str {
        "FRR"
    }

    fn established(&self) -> bool {
        self.neighbor()["bgpState"] == "Established"
    }

    fn learned(&self) -> BTreeSet<String> {
        // By neighbor, FRR shows nothing once it dials a restarting one; the whole table has its stale routes.
        let ours = |paths: &Value| {
            let mut sources = paths.as_array().into_iter().flatten().map(|path| &path["peerId"]);
            sources.any(|source| *source == OUR_V4.to_string())
        };
        let table = |family| self.json(&format!("show bgp {family} unicast json"))["routes"].take();
        let tables = [table("ipv4"), table("ipv6")];
        let routes = tables.iter().filter_map(Value::as_object).flatten();
        routes
            .filter(|(_, paths)| ours(paths))
            .map(|(prefix, _)| prefix.clone())
            .collect()
    }

    fn announce(&mut self, prefix: &str) {
        self.base.announced.insert(prefix.to_owned());
        self.network("", prefix);
    }

    fn withdraw(&mut self, prefix: &str) {
        self.base.announced.remove(prefix);
        self.network("no ", prefix);
    }

    fn last_notification(&self) -> Option<String> {
        let neighbor = self.neighbor();
        // Two octets in hexadecimal: 0602.
        let code = neighbor["lastErrorCodeSubcode"].as_str()?;
        let octet = |digits: &str| u8::from_str_radix(digits, 16).ok();
        Some(format!("{}/{}", octet(code.get(..2)?)?, octet(code.get(2..)?)?))
    }

    fn kill(&mut self) {
        self.bgpd.kill();
        fs::remove_file(self.base.path("bgpd.vty")).expect("the socket of a killed bgpd stays");
    }

    fn restart(&mut self, kept: &[&str]) {
        self.base.set_announced(kept);
        self.bgpd = launch(&self.base);
        eventually("FRR answers", SOON, || {
            self.vtysh(&["show version"]).contains("FRR")
        });
    }

    fn freeze(&self) {
        self.bgpd.signal("STOP");
    }
}
