//! ExaBGP, which keeps no table: what it hears, it tells a process as JSON, and what it announces is commanded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use manx_linux::Netns;
use serde_json::Value;

use crate::matrix::Feature;
use crate::net::Ends;
use crate::router::{
    Attributes, Base, Extras, FAMILIES, Process, Program, Protection, Router, Session, family,
};

pub(crate) const PROGRAM: Program = Program {
    name: "ExaBGP",
    binary: "/usr/sbin/exabgp",
    version: "--version",
    package: "exabgp",
    start: |namespace, session, sessions| Box::new(ExaBgp::start(namespace, session, sessions)),
    lacks: &[
        (Feature::ExtendedNextHop, "not tried"),
        (Feature::Unnumbered, "puts no routes into the kernel"),
        (Feature::WeRestartUnderTraffic, "puts no routes into the kernel"),
        (Feature::TheyRestartUnderTraffic, "puts no routes into the kernel"),
        (Feature::TheirShutdown, "its teardown sends no message"),
        (Feature::TheyReflect, "passes no routes on"),
        (Feature::TheySendPaths, "passes no routes on"),
        (Feature::WeRestart, "keeps no table"),
        (Feature::TheyLimit, "takes what comes"),
        (Feature::Bfd, "has none"),
        (Feature::Gtsm, "answers a SYN with TTL 64"),
    ],
};

pub(crate) struct ExaBgp {
    base: Base,
    process: Process,
}

/// What it has heard so far, on its first session where not said otherwise.
#[derive(Default)]
struct Heard {
    /// The peers of all sessions that are up.
    up: BTreeSet<String>,
    routes: BTreeMap<String, Attributes>,
    /// Prefixes with the identifiers of their paths, as far as they have any.
    paths: BTreeSet<(String, String)>,
    /// Prefixes announced in this session.
    updates: u64,
    notifications: BTreeSet<String>,
}

impl ExaBgp {
    pub(crate) fn start(namespace: &Netns, session: Session, sessions: &[Ends]) -> Self {
        let base = Base::new(namespace, session, sessions);
        let process = launch(&base);
        Self { base, process }
    }

    fn command(&self, line: &str) {
        let file = fs::OpenOptions::new()
            .append(true)
            .open(self.base.path("commands"));
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.expect("the file of commands is ours");
    }

    fn heard(&self) -> Heard {
        let first = self.base.ends().ours.to_string();
        let mut heard = Heard::default();
        // Some of its lines are no valid JSON, and the last may be half written.
        let text = fs::read_to_string(self.base.path("heard")).unwrap_or_default();
        for event in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            heard.take(&event, &first, self.base.session);
        }
        heard
    }
}

impl Heard {
    fn take(&mut self, event: &Value, first: &str, session: Session) {
        let neighbor = &event["neighbor"];
        let peer = neighbor["address"]["peer"].as_str().unwrap_or_default();
        let is_first = peer == first;
        match event["type"].as_str() {
            Some("state") if neighbor["state"] == "up" => drop(self.up.insert(peer.to_owned())),
            Some("state") if neighbor["state"] == "down" => {
                self.up.remove(peer);
                if is_first {
                    self.routes.clear();
                    self.paths.clear();
                    self.updates = 0;
                }
            }
            Some("update") if is_first => self.update(&neighbor["message"]["update"], session),
            Some("notification") if is_first && neighbor["direction"] == "receive" => {
                let said = &neighbor["notification"];
                let code = format!("{}/{}", said["code"], said["subcode"]);
                self.notifications.insert(code);
            }
            _ => {}
        }
    }

    fn update(&mut self, update: &Value, session: Session) {
        let by_family = |what: &str| update[what].as_object().cloned().unwrap_or_default();
        let prefixes = |routes: &Value| {
            let routes = routes.as_array().cloned().unwrap_or_default();
            let named = routes.iter().filter_map(|it| {
                let path = it["path-information"].as_str().unwrap_or_default();
                Some((it["nlri"].as_str()?.to_owned(), path.to_owned()))
            });
            named.collect::<Vec<_>>()
        };
        for (_, routes) in by_family("withdraw") {
            for path in prefixes(&routes) {
                self.paths.remove(&path);
                self.routes.remove(&path.0);
            }
        }
        for (_, by_next_hop) in by_family("announce") {
            let by_next_hop = by_next_hop.as_object().cloned().unwrap_or_default();
            for path in by_next_hop.values().flat_map(prefixes) {
                self.updates += 1;
                self.routes
                    .insert(path.0.clone(), attributes(session, &update["attribute"]));
                self.paths.insert(path);
            }
        }
    }
}

fn attributes(session: Session, shown: &Value) -> Attributes {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |it: &Value| it.as_u64().and_then(|it| u32::try_from(it).ok());
    let address = |it: &Value| it.as_str().and_then(|it| it.parse().ok());
    let joined = |it: &Value| {
        list(it)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(":")
    };
    let (local_pref, med) = session.metrics(number(&shown["local-preference"]), number(&shown["med"]));
    Attributes {
        as_path: list(&shown["as-path"]).iter().filter_map(number).collect(),
        communities: list(&shown["community"]).iter().map(joined).collect(),
        large_communities: list(&shown["large-community"]).iter().map(joined).collect(),
        med,
        local_pref,
        originator: address(&shown["originator-id"]),
        clusters: list(&shown["cluster-list"]).iter().filter_map(address).collect(),
    }
}

fn launch(base: &Base) -> Process {
    let folder = base.folder.path().display().to_string();
    base.write("commands", "");
    base.write("heard", "");
    let pipe =
        format!("#!/bin/sh\ncd {folder}\ntail -n +1 --pid=$$ -s 0.1 -f commands &\nexec cat >> heard\n");
    let pipe = base.write("pipe", pipe);
    fs::set_permissions(pipe, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let file = base.write("exabgp.conf", configuration(base));
    let mut command = base.namespace.command(PROGRAM.binary);
    let listen: Vec<String> = base.sessions.iter().map(|ends| ends.theirs.to_string()).collect();
    let settings = [
        ("daemon_user", "root"),
        ("daemon_drop", "false"),
        ("tcp_bind", &listen.join(" ")),
        ("tcp_port", "179"),
        ("api_ack", "false"),
        ("api_cli", "false"),
        ("log_level", "DEBUG"),
        ("log_destination", "stderr"),
    ];
    let settings = settings.map(|(name, value)| (format!("exabgp_{name}"), value.to_owned()));
    Process::spawn(command.envs(settings).arg(file), &base.path("log"))
}

fn configuration(base: &Base) -> String {
    let sessions: String = base.sessions.iter().map(|ends| neighbor(base, *ends)).collect();
    format!(
        "process pipe {{
  run {};
  encoder json;
}}
{sessions}",
        base.path("pipe").display(),
    )
}

/// One session.
fn neighbor(base: &Base, ends: Ends) -> String {
    let Session {
        our_asn,
        their_asn,
        their_id,
        they_wait,
        hold_time,
        graceful_restart,
        protection,
        add_path,
        ..
    } = base.session;
    let protection = match protection {
        Some(Protection::Password(text)) => format!("md5-password '{text}'; md5-base64 false;"),
        Some(Protection::Near) => "incoming-ttl 255; outgoing-ttl 255;".to_owned(),
        None => String::new(),
    };
    let Ends { ours, theirs, .. } = ends;
    let restart = graceful_restart.map_or_else(String::new, |seconds| format!("graceful-restart {seconds};"));
    let add_path = if add_path { "add-path send/receive;" } else { "" };
    let routes = FAMILIES.map(|family| {
        let routes = base
            .announced(family)
            .map(|(prefix, extras)| route(base, prefix, extras));
        routes
            .map(|route| format!("    route {route};\n"))
            .collect::<String>()
    });
    format!(
        "neighbor {ours} {{
  router-id {their_id}; local-address {theirs}; local-as {their_asn}; peer-as {our_asn};
  hold-time {hold_time}; passive {they_wait}; group-updates false; {protection}
  capability {{ asn4 enable; route-refresh enable; {restart} {add_path} }}
  family {{ ipv4 unicast; ipv6 unicast; }}
  api {{ processes [ pipe ]; neighbor-changes; receive {{ parsed; update; notification; }} }}
  static {{
{routes}  }}
}}
",
        routes = routes.concat(),
    )
}

/// A route, as its configuration and its commands have them.
fn route(base: &Base, prefix: &str, extras: Extras) -> String {
    let ends = base.ends();
    let next_hop = match family(prefix) {
        "ipv6" => ends.theirs_v6.to_string(),
        _ => ends.theirs.to_string(),
    };
    let Session {
        our_asn, their_asn, ..
    } = base.session;
    let large = extras
        .large_community
        .map(|[a, b, c]| format!(" large-community [ {a}:{b}:{c} ]"));
    let standard = extras.community.map(|[a, b]| format!(" community [ {a}:{b} ]"));
    let behind = extras.our_as.then_some(our_asn).or(extras.behind);
    let path = behind.map(|asn| format!(" as-path [ {their_asn} {asn} ]"));
    let more: String = standard.into_iter().chain(large).chain(path).collect();
    format!("{prefix} next-hop {next_hop}{more}")
}

impl Router for ExaBgp {
    fn established(&self) -> usize {
        self.heard().up.len()
    }

    fn learned(&self) -> BTreeSet<String> {
        self.heard().paths.into_iter().map(|(prefix, _)| prefix).collect()
    }

    fn paths(&self, prefix: &str) -> usize {
        self.heard().paths.iter().filter(|(of, _)| of == prefix).count()
    }

    fn attributes(&self, prefix: &str) -> Option<Attributes> {
        self.heard().routes.remove(prefix)
    }

    fn announce(&mut self, prefix: &str, extras: Extras) {
        self.base.announced.insert(prefix.to_owned(), extras);
        self.command(&format!("announce route {}", route(&self.base, prefix, extras)));
    }

    fn withdraw(&mut self, prefix: &str) {
        if let Some(extras) = self.base.announced.remove(prefix) {
            self.command(&format!("withdraw route {}", route(&self.base, prefix, extras)));
        }
    }

    fn request_refresh(&self) {
        for family in FAMILIES {
            self.command(&format!("announce route-refresh {family} unicast"));
        }
    }

    fn updates(&self) -> u64 {
        self.heard().updates
    }

    fn shut_down(&self, message: &str) {
        unreachable!("it cannot say {message:?}");
    }

    fn was_told(&self, code: &str) -> bool {
        self.heard().notifications.contains(code)
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
