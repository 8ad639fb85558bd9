//! Nodes for the agent's tests: a namespace, a directory, and a `manxd` in them.

use std::fs::File;
use std::io::BufReader;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use manx_api::rpc::{self, Method, Request, Response};
use manx_api::status::{BlockStatus, NodeStatus};
use manx_api::{Key, Kind, Resource};
use manx_cni::Success;
use manx_store::{SqliteStore, Store as _};
use manx_tests::binaries::{as_unit, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::container;
use crate::harness::{TestNetns, eventually};

/// How long an agent may take to become ready, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster's datastore, in a directory that all its nodes share.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    /// One with a pool of IPv4 and a pool of IPv6 addresses.
    pub(crate) fn new() -> Self {
        let cluster = Self::empty();
        cluster.create_pool("v4", &json!({"cidr": "10.64.0.0/16"}));
        cluster.create_pool("v6", &json!({"cidr": "fd64::/64"}));
        cluster
    }

    /// One without pools.
    pub(crate) fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self { directory, runtime }
    }

    /// Adds a pool.
    pub(crate) fn create_pool(&self, name: &str, spec: &Value) {
        self.create("IPPool", name, spec);
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    /// Adds a resource.
    pub(crate) fn create(&self, kind: &str, name: &str, spec: &Value) {
        let metadata = json!({"name": name});
        self.store(json!({
            "apiVersion": "manx.network/v1", "kind": kind, "metadata": metadata, "spec": spec,
        }));
    }

    /// Adds a namespace with more metadata than its name.
    pub(crate) fn create_namespace(&self, name: &str, metadata: &Value) {
        let mut named = json!({"name": name});
        extend(&mut named, metadata);
        self.store(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": named}));
    }

    /// Adds a resource, as a manifest has it.
    pub(crate) fn store(&self, resource: Value) {
        let resource: Resource = serde_json::from_value(resource).unwrap();
        self.runtime.block_on(async {
            let store = SqliteStore::open(&self.database()).await.unwrap();
            store.create(resource).await.unwrap();
        });
    }

    /// Changes a node's resource.
    pub(crate) fn change_node(&self, name: &str, change: impl Fn(&mut manx_api::node::Node)) {
        self.change(&Key::cluster(Kind::Node, name), |resource| {
            let Resource::Node(node) = resource else {
                panic!("{name} is no node");
            };
            change(node);
        });
    }

    /// Changes a resource, which an agent may write to as well.
    pub(crate) fn change(&self, key: &Key, change: impl Fn(&mut Resource)) {
        self.runtime.block_on(async {
            let store = SqliteStore::open(&self.database()).await.unwrap();
            loop {
                let mut resource = store.get(key).await.unwrap();
                change(&mut resource);
                match store.update(resource).await {
                    Ok(_) => return,
                    Err(manx_store::Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }

    /// Switches a pool's NAT outgoing.
    pub(crate) fn set_nat(&self, pool: &str, nat_outgoing: bool) {
        let key = Key {
            kind: Kind::IpPool,
            namespace: None,
            name: pool.to_owned(),
        };
        self.runtime.block_on(async {
            let store = SqliteStore::open(&self.database()).await.unwrap();
            let Resource::IpPool(mut pool) = store.get(&key).await.unwrap() else {
                panic!("{pool} is no pool");
            };
            pool.spec.nat_outgoing = nat_outgoing;
            store.update(Resource::IpPool(pool)).await.unwrap();
        });
    }

    /// The resources of a kind.
    pub(crate) fn list<T: TryFrom<Resource>>(&self, kind: Kind) -> Vec<T> {
        let listing = self.runtime.block_on(async {
            let store = SqliteStore::open(&self.database()).await.unwrap();
            store.list(kind, None).await.unwrap()
        });
        let items = listing.items.into_iter();
        items.filter_map(|resource| T::try_from(resource).ok()).collect()
    }

    /// Deletes the resources of a kind whose names begin like this.
    pub(crate) fn delete(&self, kind: Kind, beginning: &str) {
        self.runtime.block_on(async {
            let store = SqliteStore::open(&self.database()).await.unwrap();
            for resource in store.list(kind, None).await.unwrap().items {
                if resource.metadata().name.starts_with(beginning) {
                    store.delete(&resource.key(), None).await.unwrap();
                }
            }
        });
    }

    /// How many resources of a kind there are.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.runtime.block_on(async {
            let store = SqliteStore::open(&self.database()).await.unwrap();
            store.list(kind, None).await.unwrap().items.len()
        })
    }

    /// A node in this namespace; its agent is not started.
    pub(crate) fn node(&self, name: &'static str, netns: TestNetns) -> Node {
        let directory = self.directory.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        let config = json!({
            "nodeName": name,
            "datastore": {"sqlite": {"path": self.database()}},
            "socket": directory.join("manxd.sock"),
            "stateDir": directory.join("state"),
            "secretsDir": directory.join("secrets"),
            "http": null,
            "logLevel": "debug",
        });
        // YAML is a superset of JSON.
        std::fs::write(directory.join("manxd.yaml"), config.to_string()).unwrap();
        Node {
            netns,
            directory,
            contained: false,
            agent: None,
        }
    }

    /// Two nodes on one wire, started: `left` has the address 1 of it, `right` 2.
    pub(crate) fn pair(&self) -> (Node, Node) {
        let [left, right] = TestNetns::pair(["left", "right"]);
        let (mut left, mut right) = (self.node("left", left), self.node("right", right));
        left.start();
        right.start();
        (left, right)
    }

    /// Three nodes on one switch, which is returned, too; their agents are not started.
    pub(crate) fn three(&self) -> (TestNetns, [Node; 3]) {
        let switch = TestNetns::new("switch");
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let nodes = [(1, "n1"), (2, "n2"), (3, "n3")].map(|(host, name)| {
            let netns = TestNetns::new(name);
            let cable = format!("eth{host}");
            let addresses = [format!("192.0.2.{host}/24"), format!("2001:db8::{host}/64")];
            switch.connect(&netns, &cable, [&[], &addresses.each_ref().map(String::as_str)]);
            switch.ip(&format!("link set {cable} master br0"));
            self.node(name, netns)
        });
        (switch, nodes)
    }

    /// What a manxctl of this cluster prints, given this to read.
    pub(crate) fn manxctl(&self, arguments: &str, input: &str) -> String {
        let mut manxctl = Command::new(program("manxctl"));
        manxctl.arg("--store").arg(self.database());
        manxctl.args(arguments.split_whitespace()).env_remove("MANX_LAB");
        manxctl
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut manxctl = manxctl.spawn().unwrap();
        std::io::Write::write_all(&mut manxctl.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = manxctl.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "manxctl {arguments}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a manxctl of this cluster that can ask one node's agent makes of `ipam check`.
    pub(crate) fn check(&self, node: &Node) -> Output {
        let mut manxctl = Command::new(program("manxctl"));
        manxctl.arg("--store").arg(self.database());
        manxctl.arg("--socket").arg(node.directory.join("manxd.sock"));
        manxctl
            .args(["ipam", "check", "-o", "json"])
            .env_remove("MANX_LAB");
        manxctl.output().unwrap()
    }
}

/// A node; its agent dies with it.
pub(crate) struct Node {
    pub(crate) netns: TestNetns,
    directory: PathBuf,
    /// It runs as a pod, and not as a service of the machine.
    contained: bool,
    agent: Option<Child>,
}

impl Node {
    fn command(&self) -> Command {
        let mut command = if self.contained {
            container::command(&self.netns, &self.directory)
        } else {
            as_unit(&self.netns, "manxd")
        };
        command.arg("--config").arg(self.directory.join("manxd.yaml"));
        command
    }

    /// Changes a setting of the agent, which takes effect with its next start.
    pub(crate) fn configure(&self, setting: &str, value: Value) {
        let path = self.directory.join("manxd.yaml");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[setting] = value;
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Has the agent run as the DaemonSet of `deploy/` has it.
    pub(crate) fn contain(&mut self) {
        self.contained = true;
        self.configure("sysctlDir", json!(container::sysctl_dir(&self.directory)));
    }

    /// The agent's process.
    pub(crate) fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Puts a key of a Secret where the agent finds it.
    pub(crate) fn set_secret(&self, name: &str, key: &str, value: &str) {
        let folder = self.directory.join("secrets").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(key), value).unwrap();
    }

    /// Starts the agent.
    pub(crate) fn launch(&mut self) {
        self.spawn(self.command());
    }

    /// Starts the agent under `strace` with these arguments.
    pub(crate) fn launch_traced(&mut self, arguments: &[String]) {
        let agent = self.command();
        let mut strace = self.netns.command("strace");
        // The agent stays our child: what kills it is told to us.
        strace.args("-D -f --seccomp-bpf -qq -o /dev/null".split(' '));
        strace
            .args(arguments)
            .arg(agent.get_program())
            .args(agent.get_args());
        self.spawn(strace);
    }

    fn spawn(&mut self, mut command: Command) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("manxd.log"))
            .unwrap();
        self.agent = Some(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Whether the agent runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        let agent = self.agent.as_mut();
        agent.is_some_and(|agent| agent.try_wait().unwrap().is_none())
    }

    /// Starts the agent and waits until it is ready.
    pub(crate) fn start(&mut self) {
        self.launch();
        self.becomes_ready();
    }

    /// The same with a variable in its environment.
    pub(crate) fn start_with(&mut self, variable: &str, value: &Path) {
        let mut command = self.command();
        command.env(variable, value);
        self.spawn(command);
        self.becomes_ready();
    }

    fn becomes_ready(&mut self) {
        let ready = self.comes_to(|status| status.ready);
        assert!(ready, "not ready: {:?}\n{}", self.status(), self.log());
    }

    /// Waits until the agent says this of itself, or has ended; returns whether it says so.
    pub(crate) fn comes_to(&mut self, wanted: impl Fn(&NodeStatus) -> bool) -> bool {
        let mut said = false;
        eventually(PATIENCE, || {
            said = self.status().as_ref().is_some_and(&wanted);
            said || !self.is_alive()
        });
        said
    }

    /// Starts another agent with the same configuration, which is expected to end by itself.
    pub(crate) fn start_another(&self) -> Output {
        self.command().output().unwrap()
    }

    /// The running agent's process.
    pub(crate) fn agent_id(&self) -> Pid {
        let agent = self.agent.as_ref().unwrap();
        Pid::from_raw(i32::try_from(agent.id()).unwrap())
    }

    /// Ends the agent by a signal, and waits for its end.
    pub(crate) fn end(&mut self, signal: Signal) {
        if self.is_alive() {
            kill(self.agent_id(), signal).unwrap();
        }
        if let Some(mut agent) = self.agent.take() {
            agent.wait().unwrap();
        }
    }

    /// What the agent has logged, for messages of tests that fail.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("manxd.log")).unwrap_or_default()
    }

    /// Asks the agent.
    pub(crate) fn ask(&self, method: Method) -> Option<Value> {
        self.ask_with(method, Value::Null)
    }

    /// Asks the agent, with parameters.
    pub(crate) fn ask_with(&self, method: Method, params: Value) -> Option<Value> {
        let stream = UnixStream::connect(self.directory.join("manxd.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        rpc::write(&mut &stream, &Request::new(1, method, params)).ok()?;
        let response: Response = rpc::read(&mut BufReader::new(&stream), rpc::MAX_LINE).ok()?;
        response.outcome().ok()
    }

    pub(crate) fn status(&self) -> Option<NodeStatus> {
        serde_json::from_value(self.ask(Method::NodeStatus)?).ok()
    }

    /// Whether the kernel has routes of both families that BGP brought.
    pub(crate) fn has_learned(&self) -> bool {
        let routes = |family| self.netns.ip(&format!("{family} route show proto 179"));
        ["-4", "-6"].iter().all(|family| !routes(family).is_empty())
    }

    /// How many addresses pods hold.
    pub(crate) fn held(&self) -> usize {
        let blocks: Vec<BlockStatus> = serde_json::from_value(self.ask(Method::IpamShow).unwrap()).unwrap();
        blocks.iter().map(|block| block.allocations.len()).sum()
    }

    /// The node's own folder, for what else runs on it.
    pub(crate) fn folder(&self) -> &Path {
        &self.directory
    }

    /// The plugin's configuration, as a list of plugins has it.
    pub(crate) fn plugin(&self) -> Value {
        json!({
            "type": "manx",
            "socket": self.directory.join("manxd.sock"),
            "stateDir": self.directory.join("state"),
        })
    }

    /// Runs the CNI plugin as a runtime would.
    pub(crate) fn cni(&self, verb: &str, container: &str, netns: &Path) -> Output {
        self.cni_of("default", verb, container, netns, &json!({}))
    }

    /// The same for a pod of this namespace that the runtime says this of.
    pub(crate) fn cni_of(
        &self,
        namespace: &str,
        verb: &str,
        container: &str,
        netns: &Path,
        runtime: &Value,
    ) -> Output {
        let args = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={container}");
        self.cni_with(&args, verb, container, netns, runtime)
    }

    /// The same with these `CNI_ARGS`.
    pub(crate) fn cni_with(
        &self,
        args: &str,
        verb: &str,
        container: &str,
        netns: &Path,
        runtime: &Value,
    ) -> Output {
        let mut config = self.plugin();
        let head = json!({"cniVersion": "1.1.0", "name": "manx", "runtimeConfig": runtime});
        extend(&mut config, &head);
        let mut plugin = Command::new(program("manx"))
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", format!("IgnoreUnknown=1;{args}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut plugin.stdin.take().unwrap(), config.to_string().as_bytes()).unwrap();
        plugin.wait_with_output().unwrap()
    }

    /// Attaches a pod; returns its addresses, IPv4 first.
    pub(crate) fn add(&self, container: &str, netns: &TestNetns) -> Vec<IpAddr> {
        self.added(&self.cni("ADD", container, netns.path()))
    }

    /// The addresses in ADD's answer, IPv4 first.
    pub(crate) fn added(&self, output: &Output) -> Vec<IpAddr> {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}", self.log());
        let result: Success = serde_json::from_str(&text).unwrap();
        result.ips.iter().map(|ip| ip.address.ip()).collect()
    }

    /// Detaches a pod.
    pub(crate) fn delete(&self, container: &str, netns: &Path) {
        let output = self.cni("DEL", container, netns);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

/// Adds fields to an object.
pub(crate) fn extend(object: &mut Value, more: &Value) {
    object
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
}
