//! FRR: zebra, bgpd and, where asked for, bfdd.

use std::collections::BTreeSet;

use manx_linux::Netns;
use manx_tests::foreign;
use serde_json::Value;

use crate::matrix::Feature;
use crate::net::{Ends, run};
use crate::router::{
    Attributes, Base, Extras, FAMILIES, Hops, Process, Program, Protection, Router, Session, Side, family,
    numbers,
};

pub(crate) const PROGRAM: Program = Program {
    name: "FRR",
    binary: foreign::FRR,
    version: "--version",
    package: "frr",
    start: |namespace, session, sessions| Box::new(Frr::start(namespace, session, sessions)),
    lacks: &[(
        Feature::TheyRestartUnderTraffic,
        "its zebra takes IPv6 routes out of the kernel for 50 ms",
    )],
};

pub(crate) struct Frr {
    base: Base,
    bgpd: Process,
    /// zebra, which tells bgpd which next hops are reachable, and bfdd.
    _others: Vec<Process>,
}

impl Frr {
    pub(crate) fn start(namespace: &Netns, session: Session, sessions: &[Ends]) -> Self {
        let base = Base::new(namespace, session, sessions);
        let mut others = vec![foreign::zebra(&base)];
        if session.bfd.is_some() {
            others.push(foreign::bfdd(&base, ""));
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
        let peer = format!("peer {}", self.base.ends().ours);
        self.configure([String::from("bfd"), peer, String::from("shutdown")]);
        self.vtysh(&["show bfd peers"])
    }

    fn vtysh(&self, commands: &[&str]) -> String {
        vtysh(&self.base, commands)
    }

    fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.vtysh(&[command])).unwrap_or_default()
    }

    /// Enters these lines of configuration.
    fn configure(&self, lines: impl IntoIterator<Item = String>) {
        let lines: Vec<String> = lines.into_iter().collect();
        let mut commands = vec!["configure terminal"];
        commands.extend(lines.iter().map(String::as_str));
        self.vtysh(&commands);
    }

    fn neighbor(&self) -> Value {
        let ours = self.base.ends().ours.to_string();
        self.json(&format!("show bgp neighbors {ours} json"))[ours].take()
    }

    /// Where the lines for `prefix` belong.
    fn context(&self, prefix: &str) -> [String; 2] {
        [
            format!("router bgp {}", self.base.session.their_asn),
            format!("address-family {} unicast", family(prefix)),
        ]
    }

    /// The path, of those of a prefix, that came from us on the first session.
    fn ours_among<'a>(&self, paths: &'a Value) -> Option<&'a Value> {
        let ours = self.base.ends().ours.to_string();
        // A table and a single prefix are shown in different shapes.
        let is_ours = |path: &&Value| path["peerId"] == ours || path["peer"]["peerId"] == ours;
        paths.as_array()?.iter().find(is_ours)
    }
}

fn launch(base: &Base) -> Process {
    base.write("bgpd.conf", configuration(base));
    foreign::bgpd(base, base.session.fib)
}

/// Has the FRR of `base` run commands.
pub(crate) fn vtysh(base: &Base, commands: &[&str]) -> String {
    let folder = base.folder.path();
    let mut command = base.namespace.command("/usr/bin/vtysh");
    command
        .arg("--vty_socket")
        .arg(folder)
        .arg("--config_dir")
        .arg(folder);
    run(command.args(commands.iter().flat_map(|line| ["-c", line])))
}

fn configuration(base: &Base) -> String {
    let Session {
        their_asn,
        their_id,
        graceful_restart,
        ..
    } = base.session;
    let restart = match graceful_restart {
        Some(seconds) => format!(
            " bgp graceful-restart\n bgp graceful-restart restart-time {seconds}\n bgp graceful-restart preserve-fw-state\n"
        ),
        None => " bgp graceful-restart-disable\n".to_owned(),
    };
    let sessions: String = base
        .sessions
        .iter()
        .map(|ends| neighbor(*ends, base.session))
        .collect();
    let families: String = FAMILIES.map(|family| address_family(base, family)).concat();
    let maps = base
        .announced
        .iter()
        .flat_map(|(prefix, extras)| route_map(base.session, prefix, *extras));
    let maps: Vec<String> = maps.collect();
    format!(
        "debug bgp neighbor-events
debug bgp graceful-restart
{maps}
router bgp {their_asn}
 bgp router-id {their_id}
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
{restart}{sessions}{families}",
        maps = maps.join("\n"),
    )
}

/// One session.
fn neighbor(ends: Ends, session: Session) -> String {
    let Session {
        our_asn,
        they_wait,
        hold_time,
        bfd,
        protection,
        ..
    } = session;
    let Ends { ours, theirs, .. } = ends;
    let keepalive = hold_time / 3;
    let passive = if they_wait {
        format!(" neighbor {ours} passive\n")
    } else {
        String::new()
    };
    let bfd = match bfd {
        Some(Hops::One) => format!(" neighbor {ours} bfd\n"),
        Some(Hops::Several) => format!(" neighbor {ours} ebgp-multihop 8\n neighbor {ours} bfd\n"),
        None => String::new(),
    };
    let protection = match protection {
        Some(Protection::Password(text)) => format!(" neighbor {ours} password {text}\n"),
        Some(Protection::Near) => format!(" neighbor {ours} ttl-security hops 1\n"),
        None => String::new(),
    };
    format!(
        " neighbor {ours} remote-as {our_asn}
 neighbor {ours} update-source {theirs}
 neighbor {ours} timers {keepalive} {hold_time}
 neighbor {ours} timers connect 1
 neighbor {ours} advertisement-interval 0
{passive}{bfd}{protection}"
    )
}

fn address_family(base: &Base, family: &str) -> String {
    let client = base.session.reflector == Some(Side::Theirs);
    let neighbor = |ends: &Ends| {
        let ours = ends.ours;
        let client = if client {
            format!("  neighbor {ours} route-reflector-client\n")
        } else {
            String::new()
        };
        let add_path = if base.session.add_path {
            format!("  neighbor {ours} addpath-tx-all-paths\n")
        } else {
            String::new()
        };
        let limit = base
            .session
            .at_most
            .map(|most| format!("  neighbor {ours} maximum-prefix {most}\n"));
        let limit = limit.unwrap_or_default();
        format!("  neighbor {ours} activate\n{client}{add_path}{limit}")
    };
    let neighbors: String = base.sessions.iter().map(neighbor).collect();
    let networks = base
        .announced(family)
        .map(|(prefix, extras)| format!("  {}\n", network(prefix, extras)));
    let networks: String = networks.collect();
    format!(" address-family {family} unicast\n{neighbors}{networks} exit-address-family\n")
}

/// What originates a prefix.
fn network(prefix: &str, extras: Extras) -> String {
    let map = if extras == Extras::default() {
        String::new()
    } else {
        format!(" route-map of-{prefix}")
    };
    format!("network {prefix}{map}")
}

/// The route map that gives a prefix its extras.
fn route_map(session: Session, prefix: &str, extras: Extras) -> Vec<String> {
    let large = extras
        .large_community
        .map(|[a, b, c]| format!("set large-community {a}:{b}:{c}"));
    let standard = extras.community.map(|[a, b]| format!("set community {a}:{b}"));
    let behind = extras.our_as.then_some(session.our_asn).or(extras.behind);
    let prepended = behind.map(|asn| format!("set as-path prepend {asn}"));
    let mut lines = vec![format!("route-map of-{prefix} permit 10")];
    lines.extend(standard.into_iter().chain(large).chain(prepended));
    lines.push("exit".to_owned());
    lines
}

impl Router for Frr {
    fn established(&self) -> usize {
        let text = self.vtysh(&["show bgp neighbors"]);
        text.matches("BGP state = Established").count()
    }

    fn learned(&self) -> BTreeSet<String> {
        // By neighbor, FRR shows nothing once it dials a restarting one; the whole table has its stale routes.
        let table = |family| self.json(&format!("show bgp {family} unicast json"))["routes"].take();
        let tables = FAMILIES.map(table);
        let routes = tables.iter().filter_map(Value::as_object).flatten();
        routes
            .filter(|(_, paths)| self.ours_among(paths).is_some())
            .map(|(prefix, _)| prefix.clone())
            .collect()
    }

    fn paths(&self, prefix: &str) -> usize {
        let family = family(prefix);
        let shown = self.json(&format!("show bgp {family} unicast {prefix} json"));
        let ours = self.base.ends().ours.to_string();
        let paths = shown["paths"].as_array().into_iter().flatten();
        paths.filter(|path| path["peer"]["peerId"] == ours).count()
    }

    fn attributes(&self, prefix: &str) -> Option<Attributes> {
        let mut shown = self.json(&format!("show bgp {} unicast {prefix} json", family(prefix)));
        let paths = shown["paths"].take();
        let path = self.ours_among(&paths)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let large = text(&path["largeCommunity"]["string"]);
        let clusters = path["clusterList"]["list"].as_array();
        let standard = text(&path["community"]["string"]);
        let number = |value: &Value| value.as_u64().and_then(|it| u32::try_from(it).ok());
        let (local_pref, med) = self
            .base
            .session
            .metrics(number(&path["locPrf"]), number(&path["metric"]));
        Some(Attributes {
            communities: standard.split_whitespace().map(str::to_owned).collect(),
            med,
            local_pref,
            as_path: numbers(&text(&path["aspath"]["string"])),
            large_communities: large.split_whitespace().map(str::to_owned).collect(),
            originator: text(&path["originatorId"]).parse().ok(),
            clusters: clusters
                .into_iter()
                .flatten()
                .filter_map(|it| text(it).parse().ok())
                .collect(),
        })
    }

    fn announce(&mut self, prefix: &str, extras: Extras) {
        self.base.announced.insert(prefix.to_owned(), extras);
        let map = route_map(self.base.session, prefix, extras);
        let lines = map.into_iter().chain(self.context(prefix));
        self.configure(lines.chain([network(prefix, extras)]));
    }

    fn withdraw(&mut self, prefix: &str) {
        self.base.announced.remove(prefix);
        let lines = self.context(prefix).into_iter();
        self.configure(lines.chain([format!("no network {prefix}")]));
    }

    fn request_refresh(&self) {
        let ours = self.base.ends().ours;
        for family in FAMILIES {
            self.vtysh(&[&format!("clear bgp {family} unicast {ours} soft in")]);
        }
    }

    fn updates(&self) -> u64 {
        self.neighbor()["messageStats"]["updatesRecv"]
            .as_u64()
            .unwrap_or_default()
    }

    fn shut_down(&self, message: &str) {
        let router = format!("router bgp {}", self.base.session.their_asn);
        let ours = self.base.ends().ours;
        self.configure([router, format!("neighbor {ours} shutdown message {message}")]);
    }

    fn was_told(&self, code: &str) -> bool {
        // The last one, as two octets in hexadecimal: 0602.
        let neighbor = self.neighbor();
        let shown = neighbor["lastErrorCodeSubcode"].as_str();
        let octets = shown.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        octets.is_some_and(|it| format!("{}/{}", it >> 8, it & 0xff) == code)
    }

    fn kill(&mut self) {
        self.bgpd.kill();
    }

    fn restart(&mut self, kept: &[&str]) {
        self.base.set_announced(kept);
        self.bgpd = launch(&self.base);
    }

    fn freeze(&self) {
        self.bgpd.signal("STOP");
    }
}
