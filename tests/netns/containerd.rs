//! containerd, called through its Container Runtime Interface as a kubelet calls it: real pods on our network.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use manx_api::Kind;
use manx_linux::Netns;
use manx_tests::binaries::program;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::cni_runtime::REFERENCE;
use crate::containers::{BUSYBOX, SERVE, fetch, fetching, fill};
use crate::cri::{
    Client, Complaint, ContainerConfig, ContainerId, ContainerMetadata, CreateContainerRequest,
    ExecSyncRequest, ExecSyncResponse, ImageSpec, ImageStatusRequest, ImageStatusResponse,
    ListPodSandboxResponse, Nothing, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusResponse,
    PortMapping, RunPodSandboxRequest, SandboxId,
};
use crate::harness::eventually;

/// What goes through the datastore or a session, or waits for a start.
const LATER: Duration = Duration::from_secs(60);

/// The only image there is, also of sandboxes.
const IMAGE: &str = "manx.test/pod:1";

/// containerd on one node, with folders of its own. Its pods end with it.
struct Containerd {
    netns: Netns,
    folder: PathBuf,
    client: Client,
    process: Option<Child>,
}

/// A pod that runs.
struct Pod {
    sandbox: String,
    container: String,
    addresses: Vec<String>,
}

impl Containerd {
    /// Starts it, with its image.
    fn start(node: &Node) -> Self {
        let folder = node.folder().join("containerd");
        let plugins = folder.join("bin");
        fs::create_dir_all(&plugins).unwrap();
        for plugin in ["loopback", "portmap"] {
            symlink(Path::new(REFERENCE).join(plugin), plugins.join(plugin)).unwrap();
        }
        symlink(program("manx"), plugins.join("manx")).unwrap();
        let networks = folder.join("net.d");
        fs::create_dir_all(&networks).unwrap();
        let mut manx = node.plugin();
        manx["capabilities"] = json!({"io.kubernetes.cri.pod-annotations": true});
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let list = json!({"cniVersion": "1.0.0", "name": "manx", "plugins": [manx, portmap]});
        fs::write(networks.join("10-manx.conflist"), list.to_string()).unwrap();
        fs::write(folder.join("config.toml"), configuration(&folder)).unwrap();
        let mut this = Self {
            netns: (*node.netns).clone(),
            client: Client::new(&folder.join("containerd.sock")),
            folder,
            process: None,
        };
        this.launch();
        this.import();
        this
    }

    /// Starts the daemon and waits until it answers.
    fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .unwrap();
        let mut command = self.netns.command("containerd");
        command.arg("--config").arg(self.folder.join("config.toml"));
        self.process = Some(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
        let answers = || self.client.call::<Nothing>("Version", &Nothing {}).is_ok();
        assert!(eventually(LATER, answers), "{}", self.log());
    }

    /// Kills the daemon; its pods go on.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Gives it the image, as `docker save` writes one.
    fn import(&self) {
        let image = self.folder.join("image");
        fill(&image.join("root"), "a page");
        run(Command::new("tar")
            .arg("-cf")
            .arg(image.join("layer.tar"))
            .arg("-C")
            .arg(image.join("root"))
            .arg("."));
        let digest = run(Command::new("sha256sum").arg(image.join("layer.tar")));
        let digest = digest.split_whitespace().next().unwrap();
        let configuration = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": [BUSYBOX, "sleep", "100000"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        fs::write(image.join("config.json"), configuration.to_string()).unwrap();
        let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
        fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
        let archive = self.folder.join("image.tar");
        let files = ["manifest.json", "config.json", "layer.tar"];
        run(Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&image)
            .args(files));
        let import = [
            "--namespace",
            "k8s.io",
            "images",
            "import",
            "--snapshotter",
            "native",
        ];
        run(Command::new("ctr")
            .arg("--address")
            .arg(self.folder.join("containerd.sock"))
            .args(import)
            .arg(&archive));
        let request = ImageStatusRequest {
            image: Some(image_spec()),
        };
        let known = || {
            let status =
                self.client
                    .call_service::<ImageStatusResponse>("ImageService", "ImageStatus", &request);
            status.is_ok_and(|status| status.image.is_some())
        };
        assert!(eventually(LATER, known), "{}", self.log());
    }

    /// Makes a sandbox, which attaches it.
    fn sandbox(&self, config: &PodSandboxConfig) -> Result<String, Complaint> {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        Ok(self.client.call::<SandboxId>("RunPodSandbox", &request)?.id)
    }

    /// Starts a pod whose container serves a page.
    fn serve(&self, config: PodSandboxConfig) -> Pod {
        let sandbox = self
            .sandbox(&config)
            .unwrap_or_else(|complaint| panic!("{complaint}"));
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: "web".to_owned(),
            }),
            image: Some(image_spec()),
            command: SERVE.map(str::to_owned).to_vec(),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let container: ContainerId = self.client.call("CreateContainer", &request).unwrap();
        self.client.call::<Nothing>("StartContainer", &container).unwrap();
        Pod {
            addresses: self.addresses(&sandbox),
            sandbox,
            container: container.id,
        }
    }

    /// A sandbox's addresses, as the runtime reports them.
    fn addresses(&self, sandbox: &str) -> Vec<String> {
        let request = SandboxId {
            id: sandbox.to_owned(),
        };
        let response: PodSandboxStatusResponse = self.client.call("PodSandboxStatus", &request).unwrap();
        let network = response.status.unwrap().network.unwrap();
        let further = network.additional_ips.into_iter().map(|further| further.ip);
        [network.ip].into_iter().chain(further).collect()
    }

    /// The page at an address, as seen from a pod's container.
    fn fetch(&self, pod: &Pod, address: &str) -> String {
        let request = ExecSyncRequest {
            container_id: pod.container.clone(),
            command: fetching(address).to_vec(),
            timeout: 10,
        };
        let response: ExecSyncResponse = self.client.call("ExecSync", &request).unwrap();
        String::from_utf8(response.stdout).unwrap()
    }

    /// Ends a pod, which detaches it.
    fn stop(&self, sandbox: &str) -> Result<(), Complaint> {
        let request = SandboxId {
            id: sandbox.to_owned(),
        };
        self.client.call::<Nothing>("StopPodSandbox", &request)?;
        self.client
            .call::<Nothing>("RemovePodSandbox", &request)
            .map(drop)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let sandboxes = self
            .client
            .call::<ListPodSandboxResponse>("ListPodSandbox", &Nothing {});
        for sandbox in sandboxes.unwrap_or_default().items {
            if let Err(complaint) = self.stop(&sandbox.id) {
                eprintln!("left behind: {complaint}");
            }
        }
        self.kill();
    }
}

fn image_spec() -> ImageSpec {
    ImageSpec {
        image: IMAGE.to_owned(),
    }
}

fn configuration(folder: &Path) -> String {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\n[grpc]\naddress = {socket:?}\n\
         [{cri}]\nsandbox_image = {IMAGE:?}\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
         [{cri}.containerd]\nsnapshotter = \"native\"\n\
         [{cri}.cni]\nbin_dir = {bin:?}\nconf_dir = {networks:?}\n",
        root = folder.join("root"),
        state = folder.join("state"),
        socket = folder.join("containerd.sock"),
        bin = folder.join("bin"),
        networks = folder.join("net.d"),
    )
}

/// What a command says; it has to succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// A pod of this name.
fn pod(name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: "/tmp".to_owned(),
        port_mappings: Vec::new(),
        annotations: HashMap::new(),
    }
}

fn pair(cluster: &Cluster) -> (Node, Node) {
    let (left, right) = cluster.pair();
    for node in [&left, &right] {
        assert!(eventually(LATER, || node.has_learned()), "{}", node.log());
    }
    (left, right)
}

#[test]
fn pods_reach_each_other_on_a_node_and_across_two_and_through_a_mapped_port() {
    let cluster = Cluster::new();
    let (left, right) = pair(&cluster);
    let (here, there) = (Containerd::start(&left), Containerd::start(&right));
    let mapped = PodSandboxConfig {
        port_mappings: vec![PortMapping {
            protocol: 0,
            container_port: 80,
            host_port: 8080,
        }],
        ..pod("web")
    };
    let web = here.serve(mapped);
    let neighbour = here.serve(pod("neighbour"));
    let stranger = there.serve(pod("stranger"));
    assert_eq!(
        web.addresses.len(),
        2,
        "one address per family: {:?}",
        web.addresses
    );
    for address in &web.addresses {
        assert!(here.fetch(&neighbour, address).contains("a page"), "{address}");
        assert!(there.fetch(&stranger, address).contains("a page"), "{address}");
    }
    for address in &stranger.addresses {
        assert!(here.fetch(&web, address).contains("a page"), "{address}");
    }
    assert!(
        fetch(&right.netns, "192.0.2.1:8080", "/")
            .unwrap()
            .contains("a page")
    );
    let described = || cluster.count(Kind::WorkloadEndpoint) == 3;
    assert!(eventually(LATER, described), "{}", left.log());

    here.stop(&web.sandbox).unwrap();
    here.stop(&neighbour.sandbox).unwrap();
    there.stop(&stranger.sandbox).unwrap();
    assert_eq!((left.held(), right.held()), (0, 0));
}

#[test]
fn pods_live_through_the_death_of_the_runtime_and_of_the_agent() {
    let cluster = Cluster::new();
    let (mut left, right) = pair(&cluster);
    let (mut here, there) = (Containerd::start(&left), Containerd::start(&right));
    let web = here.serve(pod("web"));
    let stranger = there.serve(pod("stranger"));
    let reached = || {
        for address in &web.addresses {
            assert!(there.fetch(&stranger, address).contains("a page"), "{address}");
        }
    };
    here.kill();
    reached();
    left.end(Signal::SIGKILL);
    reached();
    here.launch();
    let complaint = here.sandbox(&pod("late")).unwrap_err();
    assert!(
        complaint.contains("see that manxd runs on this node"),
        "{complaint}"
    );
    left.start();
    reached();
    assert_eq!(here.addresses(&web.sandbox), web.addresses);
    let late = here.serve(pod("late"));
    assert!(here.fetch(&late, &web.addresses[0]).contains("a page"));
    left.end(Signal::SIGKILL);
    here.stop(&late.sandbox).unwrap();
    left.start();
    assert!(eventually(LATER, || left.held() == 2), "{}", left.log());
    here.stop(&web.sandbox).unwrap();
    assert_eq!(left.held(), 0);
}

#[test]
fn annotations_of_a_pod_choose_its_pool_and_its_address() {
    let cluster = Cluster::new();
    let manual = json!({"cidr": "10.65.0.0/16", "assignmentMode": "Manual"});
    cluster.create_pool("manual", &manual);
    let (left, _right) = cluster.pair();
    let here = Containerd::start(&left);
    let annotated = |name: &str, annotation: &str, value: &str| PodSandboxConfig {
        annotations: HashMap::from([(annotation.to_owned(), value.to_owned())]),
        ..pod(name)
    };
    let by_pool = here.serve(annotated("pool", "manx.network/ipv4pools", r#"["manual"]"#));
    assert!(
        by_pool.addresses[0].starts_with("10.65."),
        "{:?}",
        by_pool.addresses
    );
    let list = r#"["10.64.9.7", "fd64::9:7"]"#;
    let by_address = here.serve(annotated("address", "manx.network/ipAddrs", list));
    assert_eq!(by_address.addresses, ["10.64.9.7", "fd64::9:7"]);
    for address in &by_address.addresses {
        assert!(here.fetch(&by_pool, address).contains("a page"), "{address}");
    }
    let refused = here.sandbox(&annotated("late", "manx.network/ipAddrs", list));
    assert!(refused.unwrap_err().contains("is held by"));
    assert_eq!(left.held(), 4, "what was refused took nothing");
}
