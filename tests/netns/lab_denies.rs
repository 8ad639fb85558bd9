//! Denied packets in a lab: followed, named, bounded, and logged by nobody while nobody follows.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use manx_linux::{LinkSocket, Netns};
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::lab_policies::{DENY_ALL, SOON, Shop, WEB_FROM_TILL};

/// How long a denied packet may take to be told of.
const PROMPTLY: Duration = Duration::from_secs(1);

/// `manxctl policy denies --follow -o json`, ended when dropped.
struct Follower {
    child: Child,
    lines: Receiver<Value>,
}

impl Follower {
    /// Returns when both nodes log what they deny.
    fn start(shop: &Shop) -> Self {
        let mut command = shop.name.command("policy denies --follow -o json");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, lines) = channel();
        let printed = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            let values = printed.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
            values
                .take_while(|value| out.send(Value::clone(value)).is_ok())
                .count()
        });
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        let (ready, waiting) = channel();
        std::thread::spawn(move || {
            let lines = said.map(|line| line.unwrap());
            lines.take_while(|line| ready.send(line.clone()).is_ok()).count()
        });
        let follower = Self { child, lines };
        let mut nodes: Vec<String> = Vec::new();
        while nodes.len() < 2 {
            let line = waiting.recv_timeout(SOON).expect("both nodes begin to log");
            nodes.extend(line.strip_suffix(" logs denied packets").map(str::to_owned));
        }
        follower
    }

    /// Waits for an entry that is as it should be.
    fn hears(&self, what: &str, limit: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let (end, mut others) = (Instant::now() + limit, Vec::new());
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(entry) if is_it(&entry) => return entry,
                Ok(other) => others.push(other),
                Err(_) => panic!("not heard of within {limit:?}: {what}; but {others:#?}"),
            }
        }
    }

    /// What is heard within this time.
    fn all(&self, time: Duration) -> Vec<Value> {
        let (end, mut entries) = (Instant::now() + time, Vec::new());
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(entry) => entries.push(entry),
                Err(RecvTimeoutError::Timeout) => return entries,
                Err(RecvTimeoutError::Disconnected) => panic!("manxctl ended by itself"),
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a datagram from a pod, which may be lost.
fn send(from: &Netns, source: &str, to: SocketAddr) {
    let sent = from.run(|| {
        let socket = UdpSocket::bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        socket.send_to(b"question", to)
    });
    // A socket is told of what was denied before.
    sent.unwrap().ok();
}

/// What an entry says of who decided, and between whom.
fn told(entry: &Value) -> Value {
    let pod = |end: &str| json!([entry[end]["namespace"], entry[end]["pod"], entry[end]["port"]]);
    json!([
        entry["verdict"],
        entry["direction"],
        entry["reason"],
        entry["policy"]["kind"],
        entry["policy"]["namespace"],
        entry["policy"]["name"],
        entry["rule"],
        entry["tier"],
        entry["protocol"],
        pod("source")[1],
        pod("destination"),
    ])
}

const EGRESS: &str = "
apiVersion: manx.network/v1
kind: NetworkPolicy
metadata: {name: no-dns, namespace: shop}
spec:
  order: 10
  selector: app == 'db'
  egress:
  - {action: Log, protocol: UDP, destination: {ports: [53]}}
  - {action: Deny, protocol: UDP, destination: {ports: [53]}}
  - {action: Allow}
";

#[test]
fn whoever_follows_is_told_who_denied_what_within_a_second() {
    let shop = Shop::open();
    for manifest in [DENY_ALL, WEB_FROM_TILL, EGRESS] {
        shop.apply(manifest);
    }
    shop.becomes("till", "web", true);
    shop.becomes("db", "web", false);
    assert!(!shop.state().contains("manx:D:"), "nothing is logged");
    let follower = Follower::start(&shop);
    let ((db, _), (_, addresses), (till, _)) = (shop.pod("db"), shop.pod("web"), shop.pod("till"));
    for address in &addresses {
        hears_of_each(&follower, [&db, &till], *address);
    }
    spoof(&shop, &follower, addresses[0]);
    let rest = follower.all(Duration::from_secs(1));
    let allowed = rest
        .iter()
        .filter(|entry| entry["source"]["pod"] == "till")
        .count();
    assert_eq!(allowed, 0, "{rest:#?}");
    let remembered = shop.name.json("policy denies -n shop --pod shop/db");
    assert!(remembered.as_array().unwrap().len() >= 6, "{remembered}");

    drop(follower);
    let silent = || !shop.state().contains("manx:D:");
    assert!(eventually(SOON, silent), "{}", shop.state());
    let listeners = shop
        .name
        .ctl("lab exec node1 -- cat /proc/net/netfilter/nfnetlink_log");
    assert_eq!(listeners, "", "nobody listens to the kernel");
    assert!(
        shop.state().contains("manx:L:"),
        "what the policy itself wants logged"
    );
}

/// Sends denied packets of each kind to an address, and hears of each.
fn hears_of_each(follower: &Follower, [db, till]: [&Netns; 2], address: IpAddr) {
    let is_to = |port: u16| move |entry: &Value| entry["destination"]["port"] == port;
    let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    send(till, any, SocketAddr::new(address, 81));
    send(db, any, SocketAddr::new(address, 82));
    let entry = follower.hears("the end of the tier", PROMPTLY, is_to(82));
    let end = json!([
        "deny",
        "Ingress",
        "endOfTier",
        "NetworkPolicy",
        "shop",
        "deny-all",
        null,
        "default",
        "UDP",
        "db",
        ["shop", "web", 82]
    ]);
    assert_eq!(told(&entry), end);
    assert_eq!(
        (&entry["node"], &entry["destination"]["address"]),
        (&json!("node1"), &json!(address))
    );
    assert!(
        entry["fromInterface"].as_str().unwrap().starts_with("mx"),
        "{entry}"
    );

    send(db, any, SocketAddr::new(address, 53));
    for (verdict, rule) in [("deny", 1), ("log", 0)] {
        let is_it = |entry: &Value| is_to(53)(entry) && entry["verdict"] == verdict;
        let entry = follower.hears("a rule", PROMPTLY, is_it);
        let rule = json!([
            verdict,
            "Egress",
            "rule",
            "NetworkPolicy",
            "shop",
            "no-dns",
            rule,
            "default",
            "UDP",
            "db",
            ["shop", "web", 53]
        ]);
        assert_eq!(told(&entry), rule);
    }
}

/// A pod sends from an address that is not its own.
fn spoof(shop: &Shop, follower: &Follower, to: IpAddr) {
    let (db, _) = shop.pod("db");
    let mut links = LinkSocket::open_in(&db).unwrap();
    let index = links.get("eth0").unwrap().unwrap().index;
    links.add_address(index, "10.99.0.1/32".parse().unwrap()).unwrap();
    send(&db, "10.99.0.1", SocketAddr::new(to, 84));
    let entry = follower.hears("a foreign address", PROMPTLY, |entry| {
        entry["destination"]["port"] == 84
    });
    let source = json!([
        entry["reason"],
        entry["policy"],
        entry["source"]["pod"],
        entry["source"]["address"],
        entry["direction"]
    ]);
    assert_eq!(
        source,
        json!(["sourceAddress", null, "db", "10.99.0.1", "Egress"])
    );
}

#[test]
fn a_flood_of_denied_packets_is_few_entries_and_no_memory() {
    let shop = Shop::open();
    shop.apply(DENY_ALL);
    shop.becomes("db", "web", false);
    let follower = Follower::start(&shop);
    let ((db, _), (_, addresses)) = (shop.pod("db"), shop.pod("web"));
    let agent = agent_in(&shop);
    let before = resident(agent);
    let started = Instant::now();
    db.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for number in 0..200_000_u32 {
            let port = 1 + u16::try_from(number % 50_000).unwrap();
            socket.send_to(b"flood", SocketAddr::new(addresses[0], port)).ok();
        }
    })
    .unwrap();
    let entries = follower.all(Duration::from_secs(3));
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    // 20 a second and a burst of 100 by the one rule that denies, in one family.
    assert!(
        !entries.is_empty() && entries.len() <= 100 + 20 * seconds,
        "{} in {seconds} s",
        entries.len()
    );
    let grown = resident(agent).saturating_sub(before);
    assert!(grown < 8 << 10, "the agent has {grown} KiB more");
    let again = follower.all(Duration::from_secs(1));
    assert!(again.len() <= 100, "it has an end");
}

/// The process of the first node's agent.
fn agent_in(shop: &Shop) -> u32 {
    let words = "lab exec node1 -- sh -c";
    let mut command = shop.name.command(words);
    command.arg(
        "for p in /proc/[0-9]*; do [ $(readlink $p/ns/net) = $(readlink /proc/self/ns/net) ] && \
                 [ $(cat $p/comm) = manxd ] && basename $p; done; true",
    );
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// The memory of a process, in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
