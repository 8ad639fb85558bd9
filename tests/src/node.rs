//! One node for benches: an agent in a network namespace of its own, a datastore, and pods by number.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_linux::link::{LinkSocket, Veth, VethEnd};
use manx_linux::netns::Netns;
use serde_json::{Value, json};

use crate::binaries::program;

/// Where the reference plugins are.
pub const REFERENCE: &str = "/usr/lib/cni";

/// Where the agent tells of itself, in the node's namespace.
const HTTP: &str = "127.0.0.1:9099";

/// A node. It ends, with all its namespaces, when it is dropped.
#[derive(Debug)]
pub struct Node {
    folder: tempfile::TempDir,
    netns: Netns,
    agent: Child,
}

impl Node {
    /// Makes one with the pool 10.64.0.0/16, whose agent has had time to claim its first block.
    ///
    /// # Panics
    /// Where the kernel or a program refuses something: a bench has nothing to measure then.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let netns = Netns::create(folder.path().join("node")).expect("a namespace for the node");
        let peer = Netns::create(folder.path().join("peer")).expect("a namespace for its neighbour");
        let mut links = LinkSocket::open_in(&netns).expect("netlink");
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
        let agent = launch(folder.path(), &netns);
        let node = Self { folder, netns, agent };
        node.apply(&json!({
            "apiVersion": "manx.network/v1",
            "kind": "IPPool",
            "metadata": { "name": "bench" },
            "spec": { "cidr": "10.64.0.0/16" },
        }));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !node.socket().exists() {
            assert!(Instant::now() < deadline, "manxd does not open its socket");
            std::thread::sleep(Duration::from_millis(10));
        }
        // Its first block: what is measured is a node at work, not a node's first second.
        std::thread::sleep(Duration::from_secs(2));
        node
    }

    /// The folder with everything of the node's.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its namespace.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The datastore's file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.folder().join("store.db")
    }

    /// The agent's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder().join("manxd.sock")
    }

    /// The agent's process.
    #[must_use]
    pub fn agent(&self) -> u32 {
        self.agent.id()
    }

    /// What a counter of the agent's metrics says.
    ///
    /// # Panics
    /// Where there is none of this name.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let ask = || {
            let mut stream = TcpStream::connect(HTTP)?;
            write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
            io::read_to_string(stream)
        };
        let text = self.netns.run(ask).expect("the node's namespace");
        let text = text.expect("the agent's metrics");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Puts a resource into the datastore, as an operator does.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn apply(&self, resource: &Value) {
        let file = self.folder().join("applied.yaml");
        std::fs::write(&file, resource.to_string()).expect("a manifest");
        let status = Command::new(program("manxctl"))
            .args(["apply", "--store"])
            .arg(self.database())
            .arg("-f")
            .arg(file)
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("manxctl starts").success(), "refused: {resource}");
    }

    /// Makes a namespace for the pod of this number.
    ///
    /// # Panics
    /// Where there is one.
    pub fn make_pod(&self, pod: usize) -> Netns {
        Netns::create(self.pod_path(pod)).expect("a pod's namespace")
    }

    fn pod_path(&self, pod: usize) -> PathBuf {
        self.folder().join(format!("pod{pod}"))
    }

    /// Runs a plugin once for the pod of this number; how long it took, and what it said.
    ///
    /// # Panics
    /// Where it fails.
    pub fn call(&self, plugin: &Plugin, command: &str, pod: usize) -> (Duration, Value) {
        let started = Instant::now();
        let mut child = self
            .netns
            .command(&plugin.program)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("bench{pod}"))
            .env("CNI_NETNS", self.pod_path(pod))
            .env("CNI_IFNAME", plugin.ifname)
            .env("CNI_PATH", REFERENCE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        let input = plugin.configuration.to_string();
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("the plugin reads");
        drop(stdin);
        let output = child.wait_with_output().expect("the plugin ends");
        let took = started.elapsed();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{command} of pod {pod} by {} failed: {said}",
            plugin.program.display()
        );
        (took, serde_json::from_str(&said).unwrap_or(Value::Null))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The node goes either way; an agent that is gone already is no news.
        drop(self.agent.kill());
        drop(self.agent.wait());
        for entry in std::fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            drop(Netns::delete(entry.path()));
        }
    }
}

fn launch(folder: &Path, netns: &Netns) -> Child {
    let configuration = json!({
        "nodeName": "bench",
        "datastore": { "sqlite": { "path": folder.join("store.db") } },
        "socket": folder.join("manxd.sock"),
        "stateDir": folder,
        "http": HTTP,
        "ipv4Address": "192.0.2.1/24",
        "logLevel": "warn",
    });
    let file = folder.join("manxd.yaml");
    std::fs::write(&file, configuration.to_string()).expect("the agent's configuration");
    netns
        .command(program("manxd"))
        .arg("--config")
        .arg(file)
        .spawn()
        .expect("manxd starts")
}

/// A CNI plugin, and how it is called.
#[derive(Debug)]
pub struct Plugin {
    /// The program.
    pub program: PathBuf,
    /// The name of the pods' interface.
    pub ifname: &'static str,
    /// What it reads.
    pub configuration: Value,
}

impl Plugin {
    /// Ours, for pods with these labels.
    #[must_use]
    pub fn manx(node: &Node, labels: &[(&str, String)]) -> Self {
        let label = |(key, value): &(&str, String)| json!({ "key": key, "value": value });
        let labels: Vec<Value> = labels.iter().map(label).collect();
        Self {
            program: program("manx"),
            ifname: "eth0",
            configuration: json!({
                "cniVersion": "1.0.0", "name": "manx", "type": "manx", "socket": node.socket(),
                "args": { "cni": { "labels": labels } },
            }),
        }
    }

    /// The reference's `ptp` with `host-local`.
    #[must_use]
    pub fn reference(node: &Node) -> Self {
        Self {
            program: Path::new(REFERENCE).join("ptp"),
            ifname: "eth1",
            configuration: json!({
                "cniVersion": "1.0.0", "name": "reference", "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": node.folder().join("host-local"),
                    "ranges": [[{ "subnet": "10.65.0.0/16" }]],
                },
            }),
        }
    }
}
