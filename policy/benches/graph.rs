//! The engine at the size of a large cluster: a full start, and one change at a time.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::unwrap_used, reason = "a bench's files and numbers are what they are")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use manx_api::Kind;
use manx_api::policy::{
    Action, DefaultAction, Endpoint, Hook, NamedPort, Not, Order, Origin, Policy, Port, PortRange, Protocol,
    Rule, Scope, Side, Subject, Tier,
};
use manx_policy::{Engine, Local, Settings, Transaction, Update};

const PODS: u32 = 100_000;
const NAMESPACES: u32 = 500;
const LOCAL: u32 = 250;
const POLICIES: u32 = 5_000;
/// Applications of a namespace.
const APPS: u32 = 10;
const CHANGES: u32 = 2_000;
/// Between two pods of this node, so that they are of many namespaces.
const STRIDE: u32 = 397;

fn namespace(number: u32) -> String {
    format!("namespace-{number}")
}

/// The application that a pod is of at the start.
const fn app_of(number: u32) -> u32 {
    number / NAMESPACES % APPS
}

fn pod(number: u32, app: u32, version: u32) -> Update {
    let labels = [
        ("app.kubernetes.io/name", format!("app-{app}")),
        (
            "app.kubernetes.io/instance",
            format!("app-{app}-{}", number % NAMESPACES),
        ),
        ("app.kubernetes.io/part-of", format!("system-{}", app % 3)),
        ("pod-template-hash", format!("{app}f{}", number % NAMESPACES)),
        ("version", format!("v{version}")),
        ("pod-index", (number / NAMESPACES).to_string()),
    ];
    let endpoint = Endpoint {
        namespace: Some(namespace(number % NAMESPACES)),
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        service_account: Some("default".to_owned()),
        ports: vec![NamedPort {
            name: "http".to_owned(),
            protocol: Protocol::TCP,
            port: 8080,
        }],
        addresses: vec![Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number).into()],
        closed: false,
    };
    Update::Endpoint(name(number), Some(Box::new(endpoint)))
}

fn name(number: u32) -> String {
    format!("{}/pod-{number}", namespace(number % NAMESPACES))
}

fn app(scope: Scope, app: u32) -> Subject {
    Subject {
        scope,
        labels: format!("app.kubernetes.io/name == 'app-{app}'").parse().unwrap(),
        service_accounts: None,
    }
}

fn allow(source: Subject, port: Port) -> Rule {
    Rule {
        action: Action::Allow,
        family: None,
        protocol: Some(Not::Is(Protocol::TCP)),
        icmp: None,
        not_icmp: None,
        source: Side {
            of: Some(source),
            ..Side::default()
        },
        destination: Side {
            ports: vec![port],
            ..Side::default()
        },
    }
}

/// With so many rules of three: an application of a namespace is spoken to by its neighbour, by the same one of a team, and by all that monitor.
fn policy(number: u32, rules: usize) -> Update {
    let (space, which) = (number % NAMESPACES, number / NAMESPACES % APPS);
    let here = || Scope::Namespace(namespace(space));
    let team = Scope::Namespaces(format!("team == 'team-{}'", space % 50).parse().unwrap());
    let monitors = Subject {
        scope: Scope::Namespaces("purpose == 'monitoring'".parse().unwrap()),
        ..Subject::default()
    };
    let port = |port| {
        Port::Numbers(PortRange {
            first: port,
            last: port,
        })
    };
    let mut ingress = vec![
        allow(app(here(), (which + 1) % APPS), Port::Named("http".to_owned())),
        allow(app(team, which), port(9000)),
        allow(monitors, port(9100)),
    ];
    ingress.truncate(rules);
    let policy = Policy {
        tier: "default".to_owned(),
        order: Order::new(1000.0).unwrap(),
        subject: app(here(), which),
        hook: Hook::Normal,
        staged: false,
        ingress: Some(ingress),
        egress: None,
    };
    let origin = Origin {
        name: format!("policy-{number}"),
        namespace: Some(namespace(space)),
        kind: Kind::NetworkPolicy,
    };
    Update::Policy(origin, Some(Box::new(policy)))
}

fn labels_of(number: u32, team: u32) -> Update {
    let purpose = if number.is_multiple_of(100) {
        "monitoring"
    } else {
        "service"
    };
    let labels = [
        ("kubernetes.io/metadata.name", namespace(number)),
        ("team", format!("team-{team}")),
        ("purpose", purpose.to_owned()),
    ];
    let labels: BTreeMap<String, String> = labels.map(|(key, value)| (key.to_owned(), value)).into();
    Update::Namespace(namespace(number), Some(labels))
}

/// Everything that a node is told at its start, in the order in which it hurts most: peers come last.
fn world() -> impl Iterator<Item = Update> {
    let tier = Tier {
        order: Order::new(1_000_000.0).unwrap(),
        default_action: DefaultAction::Deny,
    };
    let locals = (0..LOCAL).map(|number| {
        let local = Local {
            interface: format!("mx{number}"),
            sources: Vec::new(),
        };
        Update::Local(name(number * STRIDE), Some(local))
    });
    let first = [
        Update::Enforce(Some(Settings::default())),
        Update::Tier("default".to_owned(), Some(tier)),
    ];
    let namespaces = (0..NAMESPACES).map(|number| labels_of(number, number % 50));
    let pods = (0..PODS).map(|number| pod(number, app_of(number), 1));
    first
        .into_iter()
        .chain((0..POLICIES).map(|number| policy(number, 3)))
        .chain(locals)
        .chain(namespaces)
        .chain(pods)
}

/// Memory in MB: `VmRSS`, or the most that there was, `VmHWM`.
fn memory(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn measure(what: &str, engine: &mut Engine, updates: impl Iterator<Item = Update>) {
    let mut times: Vec<Duration> = updates
        .map(|update| {
            let begun = Instant::now();
            let text = Transaction::of(engine.apply([update]));
            let took = begun.elapsed();
            drop(text);
            took
        })
        .collect();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("{what:45} median {:7.3} ms   p99 {:7.3} ms", at(50), at(99));
}

fn main() {
    let before = memory("VmRSS");
    let mut engine = Engine::new();
    let begun = Instant::now();
    let text = Transaction::of(engine.apply(world()));
    println!(
        "full start, {PODS} pods, {LOCAL} here, {POLICIES} policies: {:.2} s, with the making of the news",
        begun.elapsed().as_secs_f64()
    );
    println!(
        "rules: {} lines, sets: {} changes",
        text.rules
            .values()
            .map(|text| text.lines().count())
            .sum::<usize>(),
        text.before.len()
    );
    drop(text);
    println!(
        "memory: {} MB, at most {} MB",
        memory("VmRSS") - before,
        memory("VmHWM") - before
    );
    let anywhere = |change: u32| change.wrapping_mul(7919) % PODS;
    let here = |change: u32| change % LOCAL * STRIDE;
    let other = |change: u32| (change + change / LOCAL) % APPS;
    measure(
        "a pod's label that no policy speaks of",
        &mut engine,
        (0..CHANGES).map(|change| pod(anywhere(change), app_of(anywhere(change)), 2 + change)),
    );
    measure(
        "a pod's label that policies speak of",
        &mut engine,
        (0..CHANGES).map(|change| pod(anywhere(change), other(change), 1)),
    );
    measure(
        "the same, of a pod of this node",
        &mut engine,
        (0..CHANGES).map(|change| pod(here(change), other(change), 1)),
    );
    measure(
        "a namespace's label, of 200 pods",
        &mut engine,
        (0..200).map(|change| labels_of(change % NAMESPACES, (change + 1) % 50)),
    );
    measure(
        "a policy's rules",
        &mut engine,
        (0..CHANGES).map(|change| policy(change % POLICIES, 1 + change as usize % 2)),
    );
}
