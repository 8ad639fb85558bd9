//! BIRD 2.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use manx_linux::Netns;

use crate::net::{OUR_V4, SOON, THEIR_V4, eventually, run};
use crate::router::{Base, Hops, Process, Router, Session, prefixes};

pub(crate) const PROGRAM: &str = "/usr/sbin/bird";

pub(crate) struct Bird {
    base: Base,
    process: Process,
}

impl Bird {
    pub(crate) fn start(namespace: &Netns, session: Session) -> Self {
        let base = Base::new(namespace, session);
        let process = launch(&base, false);
        Self { base, process }
    }

    fn birdc(&self, command: &str) -> String {
        let socket = self.base.path("bird.ctl");
        let words = command.split(' ');
        run(self
            .base
            .namespace
            .command("/usr/sbin/birdc")
            .arg("-s")
            .arg(socket)
            .args(words))
    }

    /// Reads the configuration anew, with the routes originated by now.
    fn configure(&self) {
        let file = configuration(&self.base);
        let answer = self.birdc(&format!("configure \"{}\"", file.display()));
        assert!(
            answer.contains("Reconfigured") || answer.contains("in progress"),
            "{answer}"
        );
    }
}

fn launch(base: &Base, restart: bool) -> Process {
    let file = configuration(base);
    let mut command = base.namespace.command(PROGRAM);
    command
        .arg("-f")
        .arg("-c")
        .arg(file)
        .arg("-s")
        .arg(base.path("bird.ctl"))
        .arg("-P")
        .arg(base.path("bird.pid"));
    if restart {
        command.arg("-R");
    }
    let process = Process::spawn(&mut command, &base.path("log"));
    base.wait_for("bird.ctl");
    process
}

/// The BFD protocol, and what asks for it in BGP's.
fn watching(bfd: Option<Hops>) -> (&'static str, &'static str) {
    let protocol = "protocol bfd watch {
  interface \"*\" { interval 300 ms; multiplier 3; };
  multihop { interval 300 ms; multiplier 3; };
}
";
    match bfd {
        Some(Hops::One) => (protocol, "bfd on;"),
        Some(Hops::Several) => (protocol, "multihop; bfd on;"),
        None => ("", "bfd off;"),
    }
}

fn configuration(base: &Base) -> PathBuf {
    let Session {
        our_asn,
        their_asn,
        they_wait,
        hold_time,
        graceful_restart,
        bfd,
        ..
    } = base.session;
    let statics = |family: &str, colon: bool| {
        let mine = base
            .announced
            .iter()
            .filter(|prefix| prefix.contains(':') == colon);
        let routes: String = mine.map(|prefix| format!(" route {prefix} blackhole;")).collect();
        format!("protocol static originated_{family} {{ {family};{routes} }}\n")
    };
    let restart = match graceful_restart {
        Some(seconds) => format!("graceful restart on; graceful restart time {seconds};"),
        None => "graceful restart off;".to_owned(),
    };
    let (watch, bfd) = watching(bfd);
    let channel = "{ import all; export where source = RTS_STATIC; }";
    let text = format!(
        "log \"{log}\" all;
router id {THEIR_V4};
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; ipv6; }}
{watch}{v4}{v6}protocol bgp manx {{
  debug {{ states, events }};
  local {THEIR_V4} as {their_asn};
  neighbor {OUR_V4} as {our_asn};
  passive {passive};
  hold time {hold_time};
  connect delay time 1; connect retry time 1; error wait time 1, 1;
  {restart}
  {bfd}
  ipv4 {channel};
  ipv6 {channel};
}}
",
        log = base.path("log").display(),
        v4 = statics("ipv4", false),
        v6 = statics("ipv6", true),
        passive = if they_wait { "on" } else { "off" },
    );
    let file = base.path("bird.conf");
    fs::write(&file, text).expect("the configuration can be written");
    file
}

impl Router for Bird {
    fn name(&self) -> &'static str {
        "BIRD"
    }

    fn established(&self) -> bool {
        self.birdc("show protocols manx").contains("Established")
    }

    fn learned(&self) -> BTreeSet<String> {
        prefixes(&self.birdc("show route protocol manx"))
    }

    fn announce(&mut self, prefix: &str) {
        self.base.announced.insert(prefix.to_owned());
        self.configure();
    }

    fn withdraw(&mut self, prefix: &str) {
        self.base.announced.remove(prefix);
        self.configure();
    }

    fn last_notification(&self) -> Option<String> {
        let known = [("Administrative shutdown", "6/2"), ("Peer de-configured", "6/3")];
        let log = self.base.log();
        let received = log.lines().rev().find(|line| line.contains("manx: Received: "))?;
        known
            .iter()
            .find(|(text, _)| received.contains(text))
            .map(|(_, code)| (*code).to_owned())
    }

    fn kill(&mut self) {
        self.process.kill();
        fs::remove_file(self.base.path("bird.ctl")).expect("the socket of a killed BIRD stays");
    }

    fn restart(&mut self, kept: &[&str]) {
        self.base.set_announced(kept);
        self.process = launch(&self.base, true);
        eventually("BIRD answers", SOON, || {
            self.birdc("show status").contains("BIRD")
        });
    }

    fn freeze(&self) {
        self.process.signal("STOP");
    }
}
