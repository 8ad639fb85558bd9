//! GoBGP.

use std::collections::BTreeSet;

use manx_linux::Netns;
use manx_tests::foreign;
use serde_json::Value;

use crate::matrix::Feature;
use crate::net::{Ends, ip, run};
use crate::router::{
    Attributes, Base, Extras, FAMILIES, Process, Program, Protection, Router, Session, Side, family,
};

pub(crate) const PROGRAM: Program = Program {
    name: "GoBGP",
    binary: foreign::GOBGP,
    version: "--version",
    package: "gobgpd",
    start: |namespace, session, sessions| Box::new(Gobgp::start(namespace, session, sessions)),
    lacks: &[
        (Feature::Unnumbered, "puts no routes into the kernel by itself"),
        (
            Feature::WeRestartUnderTraffic,
            "puts no routes into the kernel by itself",
        ),
        (
            Feature::TheyRestartUnderTraffic,
            "puts no routes into the kernel by itself",
        ),
        (
            Feature::WeRefuseTheirAs,
            "shows no NOTIFICATION that it gets in OpenConfirm",
        ),
        (Feature::RouteRefresh, "asks for none, evaluates what it stored"),
        (Feature::Bfd, "has none"),
    ],
};

pub(crate) struct Gobgp {
    base: Base,
    process: Process,
}

impl Gobgp {
    pub(crate) fn start(namespace: &Netns, session: Session, sessions: &[Ends]) -> Self {
        let base = Base::new(namespace, session, sessions);
        base.write("gobgp.toml", configuration(&base));
        let process = foreign::gobgp(&base, "debug", false);
        Self { base, process }
    }

    fn gobgp(&self, command: &str) -> String {
        gobgp(&self.base, command)
    }

    fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.gobgp(&format!("{command} -j"))).unwrap_or_default()
    }

    /// The path, of those of a prefix, that came from us on the first session.
    fn ours_among<'a>(&self, paths: &'a Value) -> Option<&'a Value> {
        let ours = self.base.ends().ours.to_string();
        paths.as_array()?.iter().find(|path| path["neighbor-ip"] == ours)
    }

    fn rib(&self, action: &str, prefix: &str, more: &str) {
        let family = family(prefix);
        let ends = self.base.ends();
        let next_hop = match family {
            "ipv6" => ends.theirs_v6.to_string(),
            _ => ends.theirs.to_string(),
        };
        self.gobgp(&format!(
            "global rib {action} {prefix} -a {family} nexthop {next_hop}{more}"
        ));
    }
}

/// Asks the GoBGP of `base`.
pub(crate) fn gobgp(base: &Base, command: &str) -> String {
    let mut gobgp = base.namespace.command("/usr/bin/gobgp");
    run(gobgp.args(["-p", "50051"]).args(command.split(' ')))
}

fn configuration(base: &Base) -> String {
    let Session {
        their_asn, their_id, ..
    } = base.session;
    let neighbors: String = base
        .sessions
        .iter()
        .map(|ends| neighbor(*ends, base.session))
        .collect();
    format!("[global.config]\nas = {their_asn}\nrouter-id = \"{their_id}\"\n{neighbors}")
}

/// A family of a session.
fn address_family(family: &str, session: Session) -> String {
    let restart = session.graceful_restart.is_some();
    let add_path = if session.add_path {
        "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n"
    } else {
        ""
    };
    let limit = session
        .at_most
        .map(|most| format!("[neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = {most}\n"));
    let limit = limit.unwrap_or_default();
    format!(
        "[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = \"{family}-unicast\"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = {restart}
{add_path}{limit}"
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
        ..
    } = session;
    let (password, near) = match protection {
        Some(Protection::Password(text)) => (format!("auth-password = \"{text}\"\n"), ""),
        Some(Protection::Near) => (
            String::new(),
            "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n",
        ),
        None => (String::new(), ""),
    };
    let Ends { ours, theirs, .. } = ends;
    let keepalive = hold_time / 3;
    let restart = graceful_restart.map_or_else(String::new, |seconds| {
        format!("[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {seconds}\n")
    });
    let client = if reflector == Some(Side::Theirs) {
        "[neighbors.route-reflector.config]\nroute-reflector-client = true\n"
    } else {
        ""
    };
    format!(
        "[[neighbors]]
[neighbors.config]
neighbor-address = \"{ours}\"
peer-as = {our_asn}
{password}[neighbors.timers.config]
hold-time = {hold_time}
keepalive-interval = {keepalive}
connect-retry = 1
idle-hold-time-after-reset = 1
[neighbors.transport.config]
local-address = \"{theirs}\"
passive-mode = {they_wait}
{restart}{client}{near}{families}",
        families = FAMILIES.map(|family| address_family(family, session)).concat(),
    )
}

impl Router for Gobgp {
    fn established(&self) -> usize {
        let shown = self.json("neighbor");
        let neighbors = shown.as_array().into_iter().flatten();
        let is_up = |neighbor: &&Value| neighbor["state"]["session_state"] == 6;
        neighbors.filter(is_up).count()
    }

    fn learned(&self) -> BTreeSet<String> {
        let ribs = FAMILIES.map(|family| self.json(&format!("global rib -a {family}")));
        let routes = ribs.iter().filter_map(Value::as_object).flatten();
        routes
            .filter(|(_, paths)| self.ours_among(paths).is_some())
            .map(|(prefix, _)| prefix.clone())
            .collect()
    }

    fn paths(&self, prefix: &str) -> usize {
        let ours = self.base.ends().ours.to_string();
        let rib = self.json(&format!("global rib -a {}", family(prefix)));
        let paths = rib[prefix].as_array().into_iter().flatten();
        paths.filter(|path| path["neighbor-ip"] == ours).count()
    }

    fn attributes(&self, prefix: &str) -> Option<Attributes> {
        let rib = self.json(&format!("global rib -a {}", family(prefix)));
        let path = self.ours_among(&rib[prefix])?;
        Some(attributes(self.base.session, path["attrs"].as_array()?))
    }

    fn announce(&mut self, prefix: &str, extras: Extras) {
        self.base.announced.insert(prefix.to_owned(), extras);
        let large = extras
            .large_community
            .map(|[a, b, c]| format!(" large-community {a}:{b}:{c}"));
        let standard = extras.community.map(|[a, b]| format!(" community {a}:{b}"));
        let behind = extras.our_as.then_some(self.base.session.our_asn);
        let path = behind.or(extras.behind).map(|asn| format!(" aspath {asn}"));
        let more: String = standard.into_iter().chain(large).chain(path).collect();
        self.rib("add", prefix, &more);
    }

    fn withdraw(&mut self, prefix: &str) {
        self.base.announced.remove(prefix);
        self.rib("del", prefix, "");
    }

    fn request_refresh(&self) {
        self.gobgp(&format!("neighbor {} softresetin", self.base.ends().ours));
    }

    fn updates(&self) -> u64 {
        let shown = self.json(&format!("neighbor {}", self.base.ends().ours));
        shown["state"]["messages"]["received"]["update"]
            .as_u64()
            .unwrap_or_default()
    }

    fn shut_down(&self, message: &str) {
        let ours = self.base.ends().ours.to_string();
        let mut gobgp = self.base.namespace.command("/usr/bin/gobgp");
        run(gobgp.args(["-p", "50051", "neighbor", &ours, "shutdown", "--reason", message]));
    }

    fn was_told(&self, code: &str) -> bool {
        let (code, subcode) = code.split_once('/').expect("code/subcode");
        let said = [format!(" Code={code} "), format!(" Subcode={subcode} ")];
        let log = self.base.log().to_lowercase();
        let mut received = log.lines().filter(|line| line.contains("received notification"));
        received.any(|line| said.iter().all(|field| line.contains(&field.to_lowercase())))
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn restart(&mut self, kept: &[&str]) {
        self.base.set_announced(kept);
        // It knows its routes before it meets us, as the others do from their files.
        let us = format!("{}/32", self.base.ends().ours);
        ip(&self.base.namespace, &format!("route add blackhole {us}"));
        self.process = foreign::gobgp(&self.base, "debug", true);
        for prefix in self.base.announced.keys() {
            self.rib("add", prefix, "");
        }
        ip(&self.base.namespace, &format!("route delete blackhole {us}"));
    }

    fn freeze(&self) {
        self.process.signal("STOP");
    }
}

/// Path attributes by their type codes (RFC 4271 §5).
fn attributes(session: Session, shown: &[Value]) -> Attributes {
    let of = |code: u8| shown.iter().find(|attribute| attribute["type"] == code);
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().and_then(|it| u32::try_from(it).ok());
    let segments = list(of(2).map(|it| &it["as_paths"]));
    let large = |it: &Value| format!("{}:{}:{}", it["ASN"], it["LocalData1"], it["LocalData2"]);
    let address = |it: &Value| it.as_str().and_then(|it| it.parse().ok());
    let (local_pref, med) = session.metrics(
        of(5).and_then(|it| number(&it["value"])),
        of(4).and_then(|it| number(&it["metric"])),
    );
    Attributes {
        as_path: segments
            .iter()
            .flat_map(|it| list(it.get("asns")))
            .filter_map(|it| number(&it))
            .collect(),
        communities: list(of(8).map(|it| &it["communities"]))
            .iter()
            .filter_map(number)
            .map(|it| format!("{}:{}", it >> 16, it & 0xffff))
            .collect(),
        med,
        local_pref,
        large_communities: list(of(32).map(|it| &it["value"])).iter().map(large).collect(),
        originator: of(9).and_then(|it| address(&it["value"])),
        clusters: list(of(10).map(|it| &it["value"]))
            .iter()
            .filter_map(address)
            .collect(),
    }
}
