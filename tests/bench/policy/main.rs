//! From a change in the datastore to the packets that meet it: a node with 1,000 policies and 110 pods, the real agent,
//! and a probe each half millisecond. Beside it, what the kernel's programs alone take for the same change.
//!
//! `cargo bench -p manx-tests --bench policy`, as root, after `cargo build --release --workspace --bins`.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod connections;

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use manx_api::Resource;
use manx_linux::Netns;
use manx_store::{SqliteStore, Store as _};
use manx_tests::node::{Node, Plugin};
use manx_tests::sample::Sample;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const POLICIES: usize = 1000;
const PODS: usize = 110;
/// Each policy is for the pods of one application.
const APPS: usize = 100;
/// Measured changes of a kind; half of them open and half of them close.
const CHANGES: usize = 100;

/// The port that is probed; the policies' own ports are above.
const PORT: u16 = 900;
const OTHER_PORTS: usize = 1000;

/// Between two probes, and how many have to agree that a change is in force.
const SPACING: Duration = Duration::from_micros(400);
const AGREEING: usize = 25;

/// How long a change may take at most.
const LIMIT: Duration = Duration::from_secs(30);

fn main() {
    let node = Node::start();
    let store = Writer::open(&node);
    let began = Instant::now();
    for number in 0..POLICIES {
        store.put(&policy(number, OTHER_PORTS));
    }
    println!(
        "{POLICIES} policies written in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let pods: Vec<(Netns, IpAddr)> = (0..PODS).map(|number| add(&node, number)).collect();
    store.put(&caller(pods[1].1, "nobody"));
    let mut probe = Probe::new(&pods[1].0, &pods[0]);
    probe.until(false);
    probe.until_moment_is_over();
    println!(
        "{:34} {:>9} {:>9} {:>9}",
        format!("milliseconds, {CHANGES} changes each"),
        "median",
        "p99",
        "slowest"
    );
    let rule = |open: bool| Change::Put(policy(0, if open { usize::from(PORT) } else { OTHER_PORTS }));
    measure("a rule of a policy", &store, &mut probe, rule);
    let whole = |open: bool| {
        let opening = opening();
        if open {
            Change::Put(opening)
        } else {
            Change::Delete(opening)
        }
    };
    measure("a policy that comes or goes", &store, &mut probe, whole);
    let at = pods[1].1;
    let label = |open: bool| Change::Put(caller(at, if open { "caller" } else { "nobody" }));
    measure("a label of a peer", &store, &mut probe, label);
    bare(&node);
    connections::measure(&node, &store, &pods);
    burst(&node, &store, &mut probe);
}

fn global(kind: &str, name: &str, metadata: Value, spec: Value) -> Value {
    let mut whole = json!({
        "apiVersion": "manx.network/v1", "kind": kind, "metadata": metadata, "spec": spec,
    });
    whole["metadata"]["name"] = name.into();
    whole
}

/// The pods of an application are called by those of the next one at this port; and by callers at the probed one.
fn policy(number: usize, port: usize) -> Value {
    let app = number % APPS;
    let allow = |source: String, port: usize| {
        json!({
            "action": "Allow", "protocol": "UDP",
            "source": { "selector": source }, "destination": { "ports": [port] },
        })
    };
    let next = format!("app == 'app-{}'", (app + 1) % APPS);
    let spec = json!({
        "selector": format!("app == 'app-{app}'"),
        "ingress": [allow(next, port), allow("role == 'caller'".to_owned(), PORT.into())],
    });
    global(
        "GlobalNetworkPolicy",
        &format!("policy-{number}"),
        json!({}),
        spec,
    )
}

/// One policy more, which opens the probed port.
fn opening() -> Value {
    let mut opening = policy(0, PORT.into());
    opening["metadata"]["name"] = "opening".into();
    opening
}

/// The prober's address as a network set of this role.
fn caller(address: IpAddr, role: &str) -> Value {
    let spec = json!({ "nets": [format!("{address}/32")] });
    global(
        "GlobalNetworkSet",
        "caller",
        json!({ "labels": { "role": role } }),
        spec,
    )
}

fn add(node: &Node, number: usize) -> (Netns, IpAddr) {
    let netns = node.make_pod(number);
    let plugin = Plugin::manx(node, &[("app", format!("app-{}", number % APPS))]);
    let (_, answer) = node.call(&plugin, "ADD", number);
    let address = answer["ips"][0]["address"].as_str().expect("an address");
    let (address, _) = address.split_once('/').expect("with a length");
    (netns, address.parse().expect("an address"))
}

/// What is written to the datastore.
enum Change {
    Put(Value),
    Delete(Value),
}

/// Whoever writes to the datastore.
struct Writer {
    runtime: Runtime,
    store: SqliteStore,
}

impl Writer {
    fn open(node: &Node) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let store = runtime.block_on(SqliteStore::open(&node.database()));
        let store = store.expect("the datastore");
        Self { runtime, store }
    }

    fn put(&self, value: &Value) {
        self.runtime.block_on(put(self.store.clone(), read(value)));
    }

    /// Begins to make a change.
    fn begin(&self, change: Change) -> tokio::task::JoinHandle<()> {
        let store = self.store.clone();
        self.runtime.spawn(async move {
            match change {
                Change::Put(value) => put(store, read(&value)).await,
                Change::Delete(value) => {
                    let deleted = store.delete(&read(&value).key(), None).await;
                    deleted.expect("the datastore deletes");
                }
            }
        })
    }
}

fn read(value: &Value) -> Resource {
    serde_json::from_value(value.clone()).expect("a resource")
}

async fn put(store: SqliteStore, mut resource: Resource) {
    match store.get(&resource.key()).await {
        Ok(found) => {
            let revision = found.metadata().resource_version.clone();
            resource.metadata_mut().resource_version = revision;
            store.update(resource).await.expect("the datastore updates");
        }
        Err(_) => drop(store.create(resource).await.expect("the datastore creates")),
    }
}

/// A stream of packets from one pod to another, never answered, so that each is a new connection's first to the rules.
struct Probe {
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
    sent: u32,
}

impl Probe {
    fn new(from: &Netns, (to, address): &(Netns, IpAddr)) -> Self {
        let bind = |netns: &Netns, port: u16| {
            let socket = netns.run(|| UdpSocket::bind(("0.0.0.0", port)));
            let socket = socket.expect("a namespace").expect("a socket");
            socket.set_nonblocking(true).expect("a setting");
            socket
        };
        Self {
            sender: bind(from, 0),
            receiver: bind(to, PORT),
            to: SocketAddr::new(*address, PORT),
            sent: 0,
        }
    }

    /// Sends until enough packets in a row fared like this; returns when the first of those was sent.
    fn until(&mut self, pass: bool) -> Instant {
        let deadline = Instant::now() + LIMIT;
        // When each of the last packets was sent, and whether it arrived.
        let mut last: VecDeque<(u32, Instant, bool)> = VecDeque::new();
        let mut since = None;
        let mut agreeing = 0;
        while agreeing < AGREEING {
            assert!(Instant::now() < deadline, "the change is not in force");
            self.sent += 1;
            last.push_back((self.sent, Instant::now(), false));
            // What is dropped on its way is no error here; a receiver that is full drops as rules do.
            drop(self.sender.send_to(&self.sent.to_be_bytes(), self.to));
            std::thread::sleep(SPACING);
            self.take_in(&mut last);
            // A packet is judged once the next one has been sent.
            if last.len() > 1
                && let Some((_, at, arrived)) = last.pop_front()
            {
                (since, agreeing) = match (since, arrived == pass) {
                    (Some(since), true) => (Some(since), agreeing + 1),
                    (None, true) => (Some(at), 1),
                    (_, false) => (None, 0),
                };
            }
        }
        since.expect("it was set")
    }

    fn take_in(&self, sent: &mut VecDeque<(u32, Instant, bool)>) {
        let mut buffer = [0; 4];
        while self.receiver.recv_from(&mut buffer).is_ok() {
            let number = u32::from_be_bytes(buffer);
            if let Some(packet) = sent.iter_mut().find(|packet| packet.0 == number) {
                packet.2 = true;
            }
        }
    }

    /// What the agent does behind a change is over.
    fn until_moment_is_over(&self) {
        std::thread::sleep(Duration::from_secs(2));
    }
}

fn measure(what: &str, store: &Writer, probe: &mut Probe, change: impl Fn(bool) -> Change) {
    let mut sample = Sample::default();
    for round in 0..CHANGES {
        let open = round % 2 == 0;
        let change = change(open);
        let begun = Instant::now();
        let write = store.begin(change);
        let since = probe.until(open);
        sample.push(since.saturating_duration_since(begun));
        store.runtime.block_on(write).expect("the write");
        // At no fixed distance from what the agent does by the clock.
        std::thread::sleep(Duration::from_millis(40 + (round * 7 % 40) as u64));
    }
    print_row(what, &sample);
}

fn print_row(what: &str, sample: &Sample) {
    let at = |percent| sample.percentile(percent).as_secs_f64() * 1000.0;
    println!("{what:34} {:9.1} {:9.1} {:9.1}", at(50), at(99), at(100));
}

/// What programs take for changes of this size among so many rules, with nothing else around them.
fn bare(node: &Node) {
    let printed = node
        .netns()
        .command("iptables-save")
        .args(["-t", "filter"])
        .output();
    let printed = String::from_utf8(printed.expect("iptables-save").stdout).expect("text");
    let chain = printed.lines().find_map(|line| {
        let chain = line.strip_prefix("-A manx-pi-")?.split(' ').next()?;
        Some(format!("manx-pi-{chain}"))
    });
    let chain = chain.expect("a policy's chain");
    let beginning = format!("-A {chain} ");
    let rules: String = printed
        .lines()
        .filter(|line| line.starts_with(&beginning))
        .map(|line| format!("{line}\n"))
        .collect();
    println!("beside it, {} lines of rules:", printed.lines().count());
    let rules = format!("*filter\n:{chain} - [0:0]\n{rules}COMMIT\n");
    run_often(
        node,
        "iptables-restore of one chain",
        &["iptables-restore", "--noflush"],
        &rules,
    );
    let members = "create bench hash:net\nadd bench 10.0.0.1\ndel bench 10.0.0.1\n";
    run_often(
        node,
        "ipset restore of a member",
        &["ipset", "-exist", "restore"],
        members,
    );
}

fn run_often(node: &Node, what: &str, command: &[&str], input: &str) {
    let mut sample = Sample::default();
    for _ in 0..CHANGES {
        let begun = Instant::now();
        let child = node
            .netns()
            .command(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .spawn();
        let mut child = child.expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("the program reads");
        drop(stdin);
        assert!(child.wait().expect("the program ends").success(), "{command:?}");
        sample.push(begun.elapsed());
    }
    print_row(what, &sample);
}

/// As many changes as there are policies, as fast as they can be written; the last one is probed.
fn burst(node: &Node, store: &Writer, probe: &mut Probe) {
    const COUNT: &str = "manx_rules_commit_seconds_count";
    let before = node.metric(COUNT);
    let begun = Instant::now();
    for number in 1..POLICIES {
        store.put(&policy(number, OTHER_PORTS + 1));
    }
    let last = Instant::now();
    store.put(&policy(0, PORT.into()));
    let since = probe.until(true);
    println!(
        "{POLICIES} changes written in {:.1} s: {} transactions, the last change in force after {:.0} ms",
        last.duration_since(begun).as_secs_f64(),
        node.metric(COUNT) - before,
        since.saturating_duration_since(last).as_secs_f64() * 1000.0
    );
}
