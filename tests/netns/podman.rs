//! podman with its CNI network backend: real containers on our network.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use manx_api::Kind;
use manx_linux::Netns;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::cni_runtime::REFERENCE;
use crate::containers::{BUSYBOX, SERVE, fetch, fetching, fill};
use crate::harness::eventually;

/// What goes through the datastore or a session.
const LATER: Duration = Duration::from_secs(60);

/// Seconds that a command of podman's may take.
const LIMIT: &str = "60";

/// podman on one node, with folders of its own. Its containers end with it.
struct Podman {
    netns: Netns,
    folder: PathBuf,
}

impl Podman {
    fn new(node: &Node) -> Self {
        let folder = node.folder().join("podman");
        let networks = folder.join("net.d");
        std::fs::create_dir_all(&networks).unwrap();
        let plugins = manx_tests::binaries::program("manx");
        let configuration = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [{:?}, \"{REFERENCE}\"]\n\
             network_config_dir = {networks:?}\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
            plugins.parent().unwrap(),
        );
        std::fs::write(folder.join("containers.conf"), configuration).unwrap();
        let mut manx = node.plugin();
        manx["capabilities"] = json!({"ips": true, "mac": true});
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let list = json!({"cniVersion": "1.0.0", "name": "manx", "plugins": [manx, portmap]});
        std::fs::write(networks.join("10-manx.conflist"), list.to_string()).unwrap();
        Self {
            netns: (*node.netns).clone(),
            folder,
        }
    }

    fn command(&self) -> Command {
        let mut command = self.netns.command("timeout");
        command
            .args([LIMIT, "podman", "--runtime", "runc", "--storage-driver", "vfs"])
            .arg("--root")
            .arg(self.folder.join("root"))
            .arg("--runroot")
            .arg(self.folder.join("run"))
            .arg("--tmpdir")
            .arg(self.folder.join("tmp"))
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"));
        command
    }

    /// Runs a container with a root folder of its own and these options.
    fn run<S: AsRef<str>>(&self, name: &str, options: &[&str], command: &[S]) -> Output {
        let root = self.folder.join(name);
        fill(&root, name);
        self.command()
            .args(["run", "--name", name, "--network", "manx"])
            .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"])
            .args(options)
            .arg("--rootfs")
            .arg(root)
            .args(command.iter().map(AsRef::as_ref))
            .output()
            .unwrap()
    }

    /// Starts a container that serves its name as a page; returns its address.
    fn serve(&self, name: &str, options: &[&str]) -> String {
        let options = [&["--detach"], options].concat();
        text(&self.run(name, &options, &SERVE));
        self.address(name)
    }

    fn address(&self, name: &str) -> String {
        let format = "{{.NetworkSettings.Networks.manx.IPAddress}}";
        self.ask(&["inspect", name, "--format", format]).trim().to_owned()
    }

    /// The page at an address, as seen from a new container.
    fn fetch(&self, name: &str, address: &str) -> String {
        text(&self.run(name, &["--rm"], &fetching(address)))
    }

    fn ask(&self, arguments: &[&str]) -> String {
        text(&self.command().args(arguments).output().unwrap())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let mut command = self.command();
        if let Err(error) = command.args(["rm", "--all", "--force", "--time", "0"]).output() {
            eprintln!("left behind: {error}");
        }
    }
}

/// What a command said; it has to have succeeded.
#[track_caller]
fn text(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Two nodes on one wire, with pods of IPv4: what podman 4.3 shows of a container is its first address.
fn pair(cluster: &Cluster) -> (Node, Node) {
    cluster.create_pool("v4", &json!({"cidr": "10.64.0.0/16"}));
    cluster.pair()
}

fn await_routes(nodes: [&Node; 2]) {
    for node in nodes {
        let learned = || !node.netns.ip("route show proto 179").is_empty();
        assert!(eventually(LATER, learned), "{}", node.log());
    }
}

#[test]
fn containers_reach_each_other_on_a_node_and_across_two_and_through_a_mapped_port() {
    let cluster = Cluster::empty();
    let (left, right) = pair(&cluster);
    let (here, there) = (Podman::new(&left), Podman::new(&right));
    let address = here.serve(
        "web_1",
        &["--publish", "8080:80", "--mac-address", "02:00:00:00:00:07"],
    );
    await_routes([&left, &right]);
    assert!(here.fetch("neighbour", &address).contains("web_1"));
    assert!(there.fetch("stranger", &address).contains("web_1"));
    assert!(
        fetch(&right.netns, "192.0.2.1:8080", "/")
            .unwrap()
            .contains("web_1")
    );
    let mac = "{{.NetworkSettings.Networks.manx.MacAddress}}";
    assert_eq!(
        here.ask(&["inspect", "web_1", "--format", mac]).trim(),
        "02:00:00:00:00:07"
    );
    let described = || cluster.count(Kind::WorkloadEndpoint) == 1;
    assert!(eventually(LATER, described), "{}", left.log());

    here.ask(&["restart", "--time", "0", "web_1"]);
    let again = here.address("web_1");
    assert!(there.fetch("stranger", &again).contains("web_1"));
    here.ask(&["rm", "--force", "--time", "0", "web_1"]);
    assert_eq!((left.held(), right.held()), (0, 0));
    let forgotten = || cluster.count(Kind::WorkloadEndpoint) == 0;
    assert!(eventually(LATER, forgotten), "{}", left.log());
}

#[test]
fn containers_live_through_the_agents_death_and_what_ends_meanwhile_is_cleared_up() {
    let cluster = Cluster::empty();
    let (mut left, right) = pair(&cluster);
    let (here, there) = (Podman::new(&left), Podman::new(&right));
    let addresses = ["stays", "ends"].map(|name| here.serve(name, &[]));
    await_routes([&left, &right]);
    left.end(Signal::SIGKILL);
    for (address, name) in addresses.iter().zip(["stays", "ends"]) {
        assert!(there.fetch("stranger", address).contains(name));
    }
    let refused = here.run("late", &["--rm"], &[BUSYBOX, "true"]);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(
        complaint.contains("see that manxd runs on this node"),
        "{complaint}"
    );
    here.ask(&["rm", "--force", "--time", "0", "ends"]);
    left.start();
    assert!(eventually(LATER, || left.held() == 1), "{}", left.log());
    assert!(there.fetch("stranger", &addresses[0]).contains("stays"));
    assert!(here.fetch("late", &addresses[0]).contains("stays"));
    here.ask(&["rm", "--force", "--time", "0", "stays"]);
    assert_eq!(left.held(), 0);
}

#[test]
fn a_container_gets_the_address_that_it_asks_for_while_nobody_has_it() {
    let cluster = Cluster::empty();
    let (left, _right) = pair(&cluster);
    let here = Podman::new(&left);
    let asked = "10.64.9.7";
    assert_eq!(here.serve("first", &["--ip", asked]), asked);
    assert!(here.fetch("neighbour", asked).contains("first"));
    let refused = here.run("second", &["--rm", "--ip", asked], &[BUSYBOX, "true"]);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(complaint.contains("is held by"), "{complaint}");
    here.ask(&["rm", "--force", "--time", "0", "first"]);
    assert_eq!(here.serve("second", &["--ip", asked]), asked);
}
