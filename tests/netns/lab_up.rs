//! A lab's life as a user sees it: up, looked at, down, and what happens when something gets in between.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use manx_lab::{Class, Lab, LabError, Options, Progress, Settings, Topology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab_harness::{LabName, assert_proved, settings};

/// How long a lab may take to come up in a test, at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the machine's own namespace has: links, addresses, routes of both families, rules.
fn machine() -> Vec<Value> {
    [
        "-j link",
        "-j addr",
        "-j route show table all",
        "-j -6 route show table all",
        "-j rule",
    ]
    .iter()
    .map(|arguments| {
        let output = Command::new("ip")
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        let mut value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        for item in value.as_array_mut().into_iter().flatten() {
            // Lifetimes run down by themselves.
            item.as_object_mut().unwrap().remove("expires");
        }
        value
    })
    .collect()
}

/// The processes that a lab's memory names.
fn pids(lab: &LabName) -> Vec<i32> {
    let Ok(text) = fs::read(lab.folder().join("state.json")) else {
        return Vec::new();
    };
    let state: Value = serde_json::from_slice(&text).unwrap();
    let processes = state["processes"].as_array().unwrap();
    processes
        .iter()
        .map(|process| i32::try_from(process["pid"].as_i64().unwrap()).unwrap())
        .collect()
}

/// Whether a process is there and works: one that nobody has waited for yet does not.
fn runs(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn assert_nothing_left(lab: &LabName, pids: &[i32]) {
    assert_eq!(lab.namespaces(), Vec::<String>::new());
    assert!(!lab.folder().exists());
    let left: Vec<&i32> = pids.iter().filter(|pid| runs(**pid)).collect();
    assert!(left.is_empty(), "processes {left:?} are left");
}

#[test]
fn a_lab_comes_up_from_one_command_proves_itself_and_leaves_nothing_behind() {
    let (lab, before) = (LabName::new(), machine());
    let shown = lab.ctl("lab up --nodes 3 --pods-per-node 2");
    for part in ["═╤═", "node3", "Established", "pod3-2", "lab verify", "lab down"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert_eq!(
        machine(),
        before,
        "the machine's own namespace while the lab is up"
    );
    let pids = pids(&lab);
    assert_eq!(pids.len(), 3);
    let proof = lab.json("lab verify");
    assert_eq!(proof["proved"], true);
    // Six pods to five others and three nodes to six pods, by TCP and by ICMP.
    assert_eq!(proof["exchanges"].as_array().unwrap().len(), (6 * 5 + 3 * 6) * 2);
    assert!(proof["packets"]["podToPod"].as_u64().unwrap() > 0);
    assert_eq!(proof["packets"].get("encapsulated"), None);
    scripts_find_what_is_promised(&lab);
    let again = lab.try_ctl("lab up");
    let error = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(
        error.contains("is up already") && error.contains("lab down"),
        "{error}"
    );
    lab.ctl("lab down");
    assert_nothing_left(&lab, &pids);
    assert_eq!(machine(), before, "the machine's own namespace after the lab");
    let error = String::from_utf8(lab.try_ctl("lab down").stderr).unwrap();
    assert!(error.contains("there is no lab"), "{error}");
}

fn scripts_find_what_is_promised(lab: &LabName) {
    let status = lab.json("lab status");
    for node in status["nodes"].as_array().unwrap() {
        for folder in ["cniConfDir", "cniBinDir"] {
            assert!(Path::new(node[folder].as_str().unwrap()).is_dir(), "{node}");
        }
        assert!(
            lab.namespaces().iter().any(|name| node["netns"] == **name),
            "{node}"
        );
        assert!(node["addresses"][0].is_string() && node["name"].is_string());
    }
    for pod in status["pods"].as_array().unwrap() {
        for field in ["namespace", "name", "node", "netns"] {
            assert!(pod[field].is_string(), "{pod}");
        }
        assert_eq!(pod["addresses"].as_array().unwrap().len(), 1);
    }
    let peers = lab.json("bgp peers");
    assert_eq!(peers.as_array().unwrap().len(), 6);
    for peer in peers.as_array().unwrap() {
        assert_eq!(
            (&peer["state"], &peer["asn"]),
            (&"Established".into(), &64512.into())
        );
        assert!(peer["uptimeSeconds"].is_u64() && peer["received"].is_u64() && peer["advertised"].is_u64());
    }
    assert_eq!(lab.json("bgp routes").as_array().unwrap().len(), 9);
    assert_eq!(lab.json("ipam show --show-blocks").as_array().unwrap().len(), 4);
    assert_eq!(lab.ctl("get nodes -o name").lines().count(), 3);
}

#[test]
fn pods_come_and_go_through_the_plugin() {
    let lab = LabName::new();
    lab.ctl("lab up --nodes 2 --pods-per-node 1");
    lab.ctl("lab pod add web -n shop --node node2");
    let address = |name: &str| {
        let pods = lab.json("lab pod list");
        let pod = pods
            .as_array()
            .unwrap()
            .iter()
            .find(|pod| pod["name"] == name)
            .cloned();
        pod.map(|pod| pod["addresses"][0].as_str().unwrap().to_owned())
    };
    let web = address("web").unwrap();
    assert!(
        lab.ctl("lab pod exec web -n shop -- ip -o -4 address show eth0")
            .contains(&web)
    );
    assert!(
        lab.ctl(&format!("lab exec node2 -- ip route get {web}"))
            .contains("dev mx")
    );
    let taken = lab.try_ctl("lab pod add web -n shop --node node1");
    assert!(
        String::from_utf8(taken.stderr)
            .unwrap()
            .contains("exists already")
    );
    let failing = lab.try_ctl("lab exec node1 -- sh -c false");
    assert_eq!(failing.status.code(), Some(1));
    lab.ctl("lab pod delete web -n shop");
    assert_eq!(address("web"), None);
    assert!(!lab.namespaces().iter().any(|name| name.ends_with("shop-web")));
    assert!(
        lab.ctl("lab exec node2 -- ip route")
            .lines()
            .all(|line| !line.starts_with(&format!("{web} ")))
    );
}

#[test]
fn both_families_are_proved() {
    let name = LabName::new();
    let lab = name.up(Topology::Mesh, 3, true);
    let proof = assert_proved(&lab);
    assert_eq!(
        proof
            .exchanges
            .iter()
            .filter(|exchange| exchange.address.is_ipv6())
            .count(),
        (6 * 5 + 3 * 6) * 2
    );
    assert!(proof.packets[&Class::PodToPod] > 0);
}

#[test]
fn two_labs_live_side_by_side() {
    let (one, other) = (LabName::new(), LabName::new());
    let (first, second) = (
        one.up(Topology::Mesh, 2, false),
        other.up(Topology::Mesh, 2, false),
    );
    assert_proved(&first);
    assert_proved(&second);
    Lab::down(&settings().base, one.name()).unwrap();
    assert_eq!(one.namespaces(), Vec::<String>::new());
    assert_proved(&second);
}

/// Starts `lab up` and waits until it has started its first processes.
fn half_up(lab: &LabName) -> Child {
    let mut child = lab
        .command("lab up --nodes 20 --pods-per-node 2")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while pids(lab).len() < 2 {
        assert!(
            Instant::now() < deadline && child.try_wait().unwrap().is_none(),
            "lab up was too slow or too fast"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn what_a_killed_up_leaves_behind_goes_with_the_next_one() {
    let lab = LabName::new();
    let mut child = half_up(&lab);
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    let old = pids(&lab);
    assert!(!old.is_empty() && lab.namespaces().len() > 20);
    lab.ctl("lab up --nodes 2 --pods-per-node 1");
    let left: Vec<&i32> = old.iter().filter(|pid| runs(**pid)).collect();
    assert!(left.is_empty(), "processes {left:?} are left");
    assert_eq!(lab.namespaces().len(), 5, "a fabric, two nodes and two pods");
    assert_eq!(lab.json("lab verify")["proved"], true);
}

#[test]
fn an_interrupted_up_leaves_nothing_behind() {
    let lab = LabName::new();
    let mut child = half_up(&lab);
    let started = pids(&lab);
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_nothing_left(&lab, &started);
}

/// Our programs with a reflector of another kind.
fn with_reflector(folder: &Path, script: &str) -> Settings {
    for name in ["manxd", "manx"] {
        symlink(settings().bin_dir.join(name), folder.join(name)).unwrap();
    }
    let reflector = folder.join("manx-bgpd");
    fs::write(&reflector, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&reflector, executable).unwrap();
    Settings {
        bin_dir: folder.to_owned(),
        timeout: Duration::from_secs(2),
        ..settings()
    }
}

fn up_with_reflector(lab: &LabName, script: &str) -> LabError {
    let folder = tempfile::tempdir().unwrap();
    let settings = with_reflector(folder.path(), script);
    let options = Options {
        name: lab.name().clone(),
        nodes: 1,
        topology: Topology::Rr { reflectors: 1 },
        pods_per_node: 1,
        dual_stack: false,
    };
    Lab::up(&options, &settings, &Progress::silent()).unwrap_err()
}

#[test]
fn a_session_that_does_not_come_is_named_with_the_agents_log() {
    let lab = LabName::new();
    let error = up_with_reflector(&lab, "#!/bin/sh\nexec sleep 60\n").to_string();
    assert!(
        error.contains("session node1 with rr1 (192.168.1.2)") && error.contains("the log of node1"),
        "{error}"
    );
    assert_nothing_left(&lab, &[]);
}

#[test]
fn a_process_that_ends_is_named_with_its_log() {
    let lab = LabName::new();
    let error = up_with_reflector(&lab, "#!/bin/sh\necho out of milk >&2\nexit 3\n").to_string();
    assert!(
        error.contains("manx-bgpd of rr1 ended") && error.contains("out of milk"),
        "{error}"
    );
    assert_nothing_left(&lab, &[]);
}
