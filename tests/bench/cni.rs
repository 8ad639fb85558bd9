//! CNI ADD and DEL, from the plugin's start to its answer, beside the reference `ptp` with `host-local`:
//! both in turn, in one network namespace, in one run; then two hundred calls at once.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_linux::link::{LinkSocket, Veth, VethEnd};
use manx_linux::netns::Netns;
use manx_tests::binaries::program;
use manx_tests::sample::Sample;
use serde_json::{Value, json};

const ROUNDS: usize = 100;

/// Calls at once.
const BURST: usize = 200;

/// The number of the first pod that is called for at once with others.
const FIRST_OF_BURST: usize = 1000;

const REFERENCE: &str = "/usr/lib/cni";

/// One node in a namespace of its own, with an agent in it.
struct Site {
    folder: tempfile::TempDir,
    node: Netns,
    agent: Child,
}

impl Site {
    fn build() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let node = Netns::create(folder.path().join("node")).expect("a namespace for the node");
        let peer = Netns::create(folder.path().join("peer")).expect("a namespace for its neighbour");
        let mut links = LinkSocket::open_in(&node).expect("netlink");
        links
            .create_veth(&Veth {
                end: VethEnd::named("eth0"),
                peer: VethEnd {
                    netns: Some(&peer),
                    ..VethEnd::named("eth0")
                },
            })
            .expect("the node's link");
        let eth0 = links.get("eth0").expect("netlink").expect("just made").index;
        let address: IpNetwork = "192.0.2.1/24".parse().expect("an address");
        links.add_address(eth0, address).expect("the node's address");
        links.set_up(eth0).expect("the node's link");
        let agent = start_agent(folder.path(), &node);
        Self { folder, node, agent }
    }

    fn make_pod(&self, pod: usize) {
        Netns::create(self.folder.path().join(format!("pod{pod}"))).expect("a pod's namespace");
    }

    /// Runs a plugin once; how long it took, and what it said.
    fn call(&self, contender: &Contender, command: &str, pod: usize) -> (Duration, Value) {
        let netns = self.folder.path().join(format!("pod{pod}"));
        let started = Instant::now();
        let mut plugin = self
            .node
            .command(&contender.plugin)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("bench{pod}"))
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", contender.ifname)
            .env("CNI_PATH", REFERENCE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        let input = contender.configuration.to_string();
        plugin
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes())
            .expect("the plugin reads");
        let output = plugin.wait_with_output().expect("the plugin ends");
        let took = started.elapsed();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{command} by {} failed: {said}",
            contender.name
        );
        (took, serde_json::from_str(&said).unwrap_or(Value::Null))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The site goes either way; an agent that is gone already is no news.
        drop(self.agent.kill());
        drop(self.agent.wait());
        for entry in std::fs::read_dir(self.folder.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            drop(Netns::delete(entry.path()));
        }
    }
}

fn start_agent(folder: &Path, node: &Netns) -> Child {
    let configuration = json!({
        "nodeName": "bench",
        "datastore": { "sqlite": { "path": folder.join("store.db") } },
        "socket": folder.join("manxd.sock"),
        "stateDir": folder,
        "http": null,
        "ipv4Address": "192.0.2.1/24",
        "logLevel": "warn",
    });
    let file = folder.join("manxd.yaml");
    std::fs::write(&file, configuration.to_string()).expect("the agent's configuration");
    let agent = node
        .command(program("manxd"))
        .arg("--config")
        .arg(file)
        .spawn()
        .expect("manxd starts");
    let pool = json!({
        "apiVersion": "manx.network/v1",
        "kind": "IPPool",
        "metadata": { "name": "bench" },
        "spec": { "cidr": "10.64.0.0/16" },
    });
    let file = folder.join("pool.yaml");
    std::fs::write(&file, pool.to_string()).expect("the pool");
    let status = Command::new(program("manxctl"))
        .args(["apply", "--store"])
        .arg(folder.join("store.db"))
        .arg("-f")
        .arg(file)
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("manxctl starts").success(), "the pool is applied");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !folder.join("manxd.sock").exists() {
        assert!(Instant::now() < deadline, "manxd does not open its socket");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Its first block: what is measured is a node at work, not a node's first second.
    std::thread::sleep(Duration::from_secs(2));
    agent
}

/// A plugin and how it is called.
struct Contender {
    name: &'static str,
    plugin: PathBuf,
    ifname: &'static str,
    configuration: Value,
    add: Sample,
    del: Sample,
}

fn contenders(folder: &Path) -> [Contender; 2] {
    let ours = Contender {
        name: "manx",
        plugin: program("manx"),
        ifname: "eth0",
        configuration: json!({
            "cniVersion": "1.0.0", "name": "manx", "type": "manx", "socket": folder.join("manxd.sock"),
        }),
        add: Sample::default(),
        del: Sample::default(),
    };
    let reference = Contender {
        name: "ptp + host-local",
        plugin: Path::new(REFERENCE).join("ptp"),
        ifname: "eth1",
        configuration: json!({
            "cniVersion": "1.0.0", "name": "reference", "type": "ptp",
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("host-local"),
                "ranges": [[{ "subnet": "10.65.0.0/16" }]],
            },
        }),
        add: Sample::default(),
        del: Sample::default(),
    };
    [ours, reference]
}

fn resident_kilobytes(process: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(String::new, |size| size.trim().to_owned())
}

/// One ADD after another, both contenders in turn, then one DEL after another.
fn in_turn(site: &Site, contenders: &mut [Contender]) {
    // One pod beyond the count warms caches and is not counted.
    for pod in 0..=ROUNDS {
        site.make_pod(pod);
        for contender in contenders.iter_mut() {
            let (took, _) = site.call(contender, "ADD", pod);
            if pod > 0 {
                contender.add.push(took);
            }
        }
    }
    println!(
        "memory of manxd with {} pods: {}",
        ROUNDS + 1,
        resident_kilobytes(site.agent.id())
    );
    for pod in 0..=ROUNDS {
        for contender in contenders.iter_mut() {
            let (took, _) = site.call(contender, "DEL", pod);
            if pod > 0 {
                contender.del.push(took);
            }
        }
    }
}

/// So many calls at once, each for another pod; how many a second were done.
fn at_once(site: &Site, contender: &Contender, command: &str) -> f64 {
    let pods = FIRST_OF_BURST..FIRST_OF_BURST + BURST;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for pod in pods {
            scope.spawn(move || site.call(contender, command, pod));
        }
    });
    f64::from(u32::try_from(BURST).expect("a small number")) / began.elapsed().as_secs_f64()
}

fn print_in_turn(contenders: &[Contender; 2]) {
    println!(
        "{:18} {:>10} {:>10} {:>10} {:>10}",
        "milliseconds", "ADD p50", "ADD p99", "DEL p50", "DEL p99"
    );
    let figures = contenders.each_ref().map(|contender| {
        [
            contender.add.median(),
            contender.add.percentile(99),
            contender.del.median(),
            contender.del.percentile(99),
        ]
        .map(|duration| duration.as_secs_f64() * 1000.0)
    });
    for (contender, row) in contenders.iter().zip(&figures) {
        print_row(contender.name, *row);
    }
    let mut ratios = [0.0; 4];
    for (column, ratio) in ratios.iter_mut().enumerate() {
        *ratio = figures[0][column] / figures[1][column];
    }
    print_row("ratio", ratios);
}

fn print_row(name: &str, row: [f64; 4]) {
    println!(
        "{name:18} {:10.2} {:10.2} {:10.2} {:10.2}",
        row[0], row[1], row[2], row[3]
    );
}

fn main() {
    let site = Site::build();
    let mut contenders = contenders(site.folder.path());
    in_turn(&site, &mut contenders);
    print_in_turn(&contenders);
    for pod in FIRST_OF_BURST..FIRST_OF_BURST + BURST {
        site.make_pod(pod);
    }
    println!(
        "{:18} {:>10} {:>10}",
        format!("{BURST} at once"),
        "ADD/s",
        "DEL/s"
    );
    for contender in &contenders {
        let (add, del) = (at_once(&site, contender, "ADD"), at_once(&site, contender, "DEL"));
        println!("{:18} {add:10.0} {del:10.0}", contender.name);
    }
}
