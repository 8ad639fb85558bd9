//! OpenBGPD.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use manx_linux::Netns;
use manx_tests::foreign;
use serde_json::Value;

use crate::matrix::Feature;
use crate::net::{Ends, SOON, eventually, ip, run};
use crate::router::{
    Attributes, Base, Extras, FAMILIES, Process, Program, Protection, Router, Session, Side, numbers,
};

pub(crate) const PROGRAM: Program = Program {
    name: "OpenBGPD",
    binary: foreign::OPENBGPD,
    version: "-V",
    package: "openbgpd",
    start: |namespace, session, sessions| Box::new(OpenBgpd::start(namespace, session, sessions)),
    lacks: &[
        (Feature::ExtendedNextHop, "has none"),
        (Feature::Unnumbered, "puts no routes into Linux"),
        (
            Feature::Md5,
            "its listener has no key on Linux; it signs what it dials",
        ),
        (Feature::WeRestartUnderTraffic, "puts no routes into Linux"),
        (Feature::TheyRestartUnderTraffic, "puts no routes into Linux"),
        (Feature::AsPathLoop, "puts no AS but its own into a path"),
        (Feature::PathFilters, "puts no AS but its own into a path"),
        (Feature::AllowedOwnAs, "puts no AS but its own into a path"),
        (
            Feature::TheyRestart,
            "helps, but never restarts gracefully itself",
        ),
        (Feature::Bfd, "has none"),
    ],
};

pub(crate) struct OpenBgpd {
    base: Base,
    process: Process,
}

impl OpenBgpd {
    pub(crate) fn start(namespace: &Netns, session: Session, sessions: &[Ends]) -> Self {
        let base = Base::new(namespace, session, sessions);
        // The next hop of its IPv6 routes over IPv4 is, on Linux, the first address of the loopback interface.
        ip(namespace, "address delete ::1/128 dev lo");
        ip(
            namespace,
            &format!("address add {}/128 dev lo", base.ends().theirs_v6),
        );
        let process = launch(&base);
        Self { base, process }
    }

    fn bgpctl(&self, words: &[&str]) -> String {
        let mut bgpctl = self.base.namespace.command("/usr/sbin/bgpctl");
        run(bgpctl.arg("-s").arg(self.base.path("control")).args(words))
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.bgpctl(&[&["-j"], words].concat())).unwrap_or_default()
    }

    /// What it holds from us on the first session.
    fn rib(&self) -> Vec<Value> {
        let ours = self.base.ends().ours.to_string();
        let shown = self.json(&["show", "rib", "detail"]);
        let paths = shown["rib"].as_array().into_iter().flatten();
        paths
            .filter(|path| path["neighbor"]["remote_addr"] == ours)
            .cloned()
            .collect()
    }

    /// Reads the configuration anew, with the routes originated by now.
    fn configure(&self) {
        write(&self.base);
        eventually("no other reload is under way", SOON, || {
            self.bgpctl(&["reload"]).contains("request processed")
        });
    }
}

fn launch(base: &Base) -> Process {
    write(base);
    foreign::openbgpd(base)
}

/// The configuration file, which nobody else may read.
fn write(base: &Base) {
    let file = base.write("bgpd.conf", configuration(base));
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(file, private).expect("the file is ours");
}

fn configuration(base: &Base) -> String {
    let Session {
        their_asn, their_id, ..
    } = base.session;
    let network = |(prefix, extras): (&str, Extras)| {
        let standard = extras.community.map(|[a, b]| format!("community {a}:{b} "));
        let large = extras.large_community;
        let large = large.map(|[a, b, c]| format!("large-community {a}:{b}:{c} "));
        let set: String = standard.into_iter().chain(large).collect();
        let set = if set.is_empty() {
            set
        } else {
            format!(" set {{ {set}}}")
        };
        format!("network {prefix}{set}\n")
    };
    let networks = FAMILIES
        .iter()
        .flat_map(|family| base.announced(family))
        .map(network);
    let networks: String = networks.collect();
    let sessions: String = base
        .sessions
        .iter()
        .map(|ends| neighbor(*ends, base.session))
        .collect();
    format!(
        "AS {their_asn}
router-id {their_id}
fib-update no
connect-retry 1
socket \"{socket}\"
{networks}{sessions}allow from any
allow to any
",
        socket = base.path("control").display(),
    )
}

/// One session.
fn neighbor(ends: Ends, session: Session) -> String {
    let Session {
        our_asn,
        they_wait,
        hold_time,
        graceful_restart,
        reflector,
        protection,
        add_path,
        at_most,
        ..
    } = session;
    let protection = match protection {
        Some(Protection::Password(text)) => format!("  tcp md5sig password \"{text}\"\n"),
        Some(Protection::Near) => "  ttl-security yes\n".to_owned(),
        None => String::new(),
    };
    let Ends { ours, theirs, .. } = ends;
    let restart = if graceful_restart.is_some() { "yes" } else { "no" };
    let passive = if they_wait { "  passive\n" } else { "" };
    let add_path = if add_path {
        "  announce add-path recv yes\n  announce add-path send all\n"
    } else {
        ""
    };
    let client = if reflector == Some(Side::Theirs) {
        "  route-reflector\n"
    } else {
        ""
    };
    let limit = at_most.map(|most| format!("  max-prefix {most}\n"));
    let limit = limit.unwrap_or_default();
    format!(
        "neighbor {ours} {{
  remote-as {our_asn}
  local-address {theirs}
  holdtime {hold_time}
  announce IPv4 unicast
  announce IPv6 unicast
  announce restart {restart}
{passive}{client}{protection}{add_path}{limit}}}
"
    )
}

impl Router for OpenBgpd {
    fn established(&self) -> usize {
        let shown = self.json(&["show", "neighbor"]);
        let neighbors = shown["neighbors"].as_array().into_iter().flatten();
        neighbors.filter(|it| it["state"] == "Established").count()
    }

    fn learned(&self) -> BTreeSet<String> {
        let paths = self.rib();
        let prefixes = paths.iter().filter_map(|path| path["prefix"].as_str());
        prefixes.map(str::to_owned).collect()
    }

    fn paths(&self, prefix: &str) -> usize {
        self.rib().iter().filter(|path| path["prefix"] == prefix).count()
    }

    fn attributes(&self, prefix: &str) -> Option<Attributes> {
        let path = self.rib().into_iter().find(|path| path["prefix"] == prefix)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| {
            value
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect::<Vec<_>>()
        };
        let more = |name: &str| {
            let mut others = path["attributes"].as_array().into_iter().flatten();
            others.find_map(|it| it.get(name)).cloned().unwrap_or_default()
        };
        let number = |value: &Value| value.as_u64().and_then(|it| u32::try_from(it).ok());
        let (local_pref, med) = self
            .base
            .session
            .metrics(number(&path["localpref"]), number(&path["metric"]));
        Some(Attributes {
            communities: list(&path["communities"]),
            med,
            local_pref,
            as_path: numbers(&text(&path["aspath"])),
            large_communities: list(&path["large_communities"]),
            originator: text(&more("originator")).parse().ok(),
            clusters: list(&more("cluster_list"))
                .iter()
                .filter_map(|it| it.parse().ok())
                .collect(),
        })
    }

    fn announce(&mut self, prefix: &str, extras: Extras) {
        self.base.announced.insert(prefix.to_owned(), extras);
        self.configure();
    }

    fn withdraw(&mut self, prefix: &str) {
        self.base.announced.remove(prefix);
        self.configure();
    }

    fn request_refresh(&self) {
        self.bgpctl(&["neighbor", &self.base.ends().ours.to_string(), "refresh"]);
    }

    fn updates(&self) -> u64 {
        let shown = self.json(&["show", "neighbor", &self.base.ends().ours.to_string()]);
        let received = &shown["neighbors"][0]["stats"]["update"]["received"]["updates"];
        received.as_u64().unwrap_or_default()
    }

    fn shut_down(&self, message: &str) {
        self.bgpctl(&["neighbor", &self.base.ends().ours.to_string(), "down", message]);
    }

    fn was_told(&self, code: &str) -> bool {
        let known = [
            ("AS unacceptable", "2/2"),
            ("max-prefix exceeded", "6/1"),
            ("administratively down", "6/2"),
            ("peer unconfigured", "6/3"),
        ];
        let log = self.base.log();
        let received: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("received notification"))
            .collect();
        let said = known.iter().filter(|(_, known)| *known == code);
        said.into_iter()
            .any(|(text, _)| received.iter().any(|line| line.contains(text)))
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn restart(&mut self, kept: &[&str]) {
        self.base.set_announced(kept);
        self.process = launch(&self.base);
    }

    fn freeze(&self) {
        self.process.signal("STOP");
    }
}
