//! BIRD 2.

use std::collections::BTreeSet;
use std::path::PathBuf;

use manx_linux::Netns;
use manx_tests::foreign;

use crate::net::Ends;
use crate::router::{
    Attributes, Base, Extras, FAMILIES, Hops, Process, Program, Protection, Router, Session, Side, numbers,
    prefixes,
};

pub(crate) const PROGRAM: Program = Program {
    name: "BIRD",
    binary: foreign::BIRD,
    version: "--version",
    package: "bird2",
    start: |namespace, session, sessions| Box::new(Bird::start(namespace, session, sessions)),
    lacks: &[],
};

pub(crate) struct Bird {
    base: Base,
    process: Process,
}

impl Bird {
    pub(crate) fn start(namespace: &Netns, session: Session, sessions: &[Ends]) -> Self {
        let base = Base::new(namespace, session, sessions);
        let process = launch(&base, false);
        Self { base, process }
    }

    /// What it answers, which may be that there is no such route.
    fn birdc(&self, words: &[&str]) -> String {
        birdc(&self.base, words)
    }

    /// Reads the configuration anew, with the routes originated by now.
    fn configure(&self) {
        let file = configuration(&self.base);
        let answer = self.birdc(&["configure", &format!("\"{}\"", file.display())]);
        assert!(
            answer.contains("Reconfigured") || answer.contains("in progress"),
            "{answer}"
        );
    }
}

/// What the BIRD of `base` answers, which may be that there is no such route.
pub(crate) fn birdc(base: &Base, words: &[&str]) -> String {
    let mut birdc = base.namespace.command("/usr/sbin/birdc");
    let output = birdc.arg("-s").arg(base.path("bird.ctl")).args(words).output();
    let output = output.expect("birdc comes with BIRD");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn launch(base: &Base, restart: bool) -> Process {
    configuration(base);
    foreign::bird(base, restart)
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

/// The protocol that originates the routes of one family.
fn statics(base: &Base, family: &str) -> String {
    let our_asn = base.session.our_asn;
    let route = |(prefix, extras): (&str, Extras)| {
        let large = extras
            .large_community
            .map(|[a, b, c]| format!("bgp_large_community.add(({a}, {b}, {c})); "));
        let standard = extras
            .community
            .map(|[a, b]| format!("bgp_community.add(({a}, {b})); "));
        let behind = extras.our_as.then_some(our_asn).or(extras.behind);
        let prepended = behind.map(|asn| format!("bgp_path.prepend({asn}); "));
        let set: String = standard.into_iter().chain(large).chain(prepended).collect();
        format!(" route {prefix} blackhole {{ {set}}};")
    };
    let routes: String = base.announced(family).map(route).collect();
    format!("protocol static originated_{family} {{ {family};{routes} }}\n")
}

fn configuration(base: &Base) -> PathBuf {
    let Session {
        their_id,
        graceful_restart,
        bfd,
        fib,
        ..
    } = base.session;
    let restart = match graceful_restart {
        Some(seconds) => format!("graceful restart on; graceful restart time {seconds};"),
        None => "graceful restart off;".to_owned(),
    };
    let (watch, bfd) = watching(bfd);
    let sessions: String = base
        .sessions
        .iter()
        .enumerate()
        .map(|(number, ends)| protocol(number, *ends, base.session, &[&restart, bfd].join("\n  ")))
        .collect();
    let kernel = |family| {
        format!("protocol kernel {{ graceful restart on; {family} {{ export where source = RTS_BGP; }}; }}\n")
    };
    let kernel = if fib {
        FAMILIES.map(kernel).concat()
    } else {
        String::new()
    };
    let statics: String = FAMILIES.map(|family| statics(base, family)).concat();
    let text = format!(
        "log \"{log}\" all;
router id {their_id};
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; ipv6; }}
{watch}{kernel}{statics}{sessions}",
        log = base.path("log").display(),
    );
    base.write("bird.conf", text)
}

/// One session.
fn protocol(number: usize, ends: Ends, session: Session, more: &str) -> String {
    let Session {
        our_asn,
        their_asn,
        they_wait,
        hold_time,
        reflector,
        protection,
        add_path,
        at_most,
        ..
    } = session;
    let protection = match protection {
        Some(Protection::Password(text)) => format!("password \"{text}\";"),
        Some(Protection::Near) => "ttl security on;".to_owned(),
        None => String::new(),
    };
    let Ends { ours, theirs, .. } = ends;
    let passive = if they_wait { "on" } else { "off" };
    let client = if reflector == Some(Side::Theirs) {
        "rr client;"
    } else {
        ""
    };
    let exported = if reflector.is_some() {
        "source = RTS_STATIC || source = RTS_BGP"
    } else {
        "source = RTS_STATIC"
    };
    let add_path = if add_path { "on" } else { "off" };
    let limit = at_most.map(|most| format!("import limit {most} action disable;"));
    let limit = limit.unwrap_or_default();
    let channel = format!("{{ import all; {limit} export where {exported}; add paths {add_path}; }}");
    format!(
        "protocol bgp manx{number} {{
  debug {{ states, events }};
  local {theirs} as {their_asn};
  neighbor {ours} as {our_asn};
  passive {passive};
  hold time {hold_time};
  connect delay time 1; connect retry time 1; error wait time 1, 1;
  {client} {protection} {more}
  ipv4 {channel};
  ipv6 {channel};
}}
"
    )
}

impl Router for Bird {
    fn established(&self) -> usize {
        self.birdc(&["show", "protocols"]).matches("Established").count()
    }

    fn learned(&self) -> BTreeSet<String> {
        prefixes(&self.birdc(&["show", "route", "protocol", "manx0"]))
    }

    fn paths(&self, prefix: &str) -> usize {
        let text = self.birdc(&["show", "route", prefix, "protocol", "manx0"]);
        text.matches("[manx0").count()
    }

    fn attributes(&self, prefix: &str) -> Option<Attributes> {
        let text = self.birdc(&["show", "route", prefix, "protocol", "manx0", "all"]);
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            line.map(|rest| rest.trim_start_matches(':').trim().to_owned())
        };
        let words = |name: &str| field(name).unwrap_or_default();
        let joined = |name: &str, parts: usize| {
            let all = numbers(&words(name));
            let texts: Vec<String> = all.iter().map(u32::to_string).collect();
            texts.chunks(parts).map(|it| it.join(":")).collect()
        };
        let number = |name: &str| words(name).parse().ok();
        let (local_pref, med) = self
            .base
            .session
            .metrics(number("BGP.local_pref"), number("BGP.med"));
        field("BGP.origin").map(|_| Attributes {
            as_path: numbers(&words("BGP.as_path")),
            communities: joined("BGP.community", 2),
            large_communities: joined("BGP.large_community", 3),
            med,
            local_pref,
            originator: words("BGP.originator_id").parse().ok(),
            clusters: words("BGP.cluster_list")
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
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
        self.birdc(&["reload", "in", "manx0"]);
    }

    fn updates(&self) -> u64 {
        let text = self.birdc(&["show", "protocols", "all", "manx0"]);
        let counts = text.lines().filter(|line| line.contains("Import updates:"));
        counts
            .filter_map(|line| numbers(line).first().copied())
            .map(u64::from)
            .sum()
    }

    fn shut_down(&self, message: &str) {
        self.birdc(&["disable", "manx0", &format!("\"{message}\"")]);
    }

    fn was_told(&self, code: &str) -> bool {
        let known = [
            ("Bad peer AS", "2/2"),
            ("Maximum number of prefixes reached", "6/1"),
            ("Administrative shutdown", "6/2"),
            ("Peer de-configured", "6/3"),
        ];
        let said = known.iter().filter(|(_, known)| *known == code);
        let said: Vec<String> = said.map(|(text, _)| format!("manx0: Received: {text}")).collect();
        let log = self.base.log();
        said.iter().any(|text| log.contains(text))
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn restart(&mut self, kept: &[&str]) {
        self.base.set_announced(kept);
        self.process = launch(&self.base, true);
    }

    fn freeze(&self) {
        self.process.signal("STOP");
    }
}
