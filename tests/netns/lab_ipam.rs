//! `manxctl ipam …` against real agents.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use manx_lab::{Lab, Topology, is_alive};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::lab_harness::LabName;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pool of a lab.
const POOL: &str = "default-ipv4-ippool";

/// Waits for something to be so.
fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: in vain");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Kills a node's agent; its pods do not notice.
fn kill_agent(lab: &Lab, node: &str) {
    let mut processes = lab.processes().iter();
    let victim = processes.find(|process| process.host == node).unwrap().clone();
    kill(Pid::from_raw(victim.pid), Signal::SIGKILL).unwrap();
    await_that("the agent's end", || !is_alive(&victim));
}

fn address_of(lab: &Lab, pod: &str) -> IpAddr {
    lab.pod("default", pod).unwrap().addresses[0]
}

/// Changes one field of a resource, as an editor would.
fn edit(lab: &LabName, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
    let mut resource = lab.json(&format!("get {kind} {name}"));
    change(&mut resource);
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, &resource).unwrap();
    lab.ctl(&format!("apply -f {}", file.path().display()));
}

#[test]
fn addresses_are_shown_whether_agents_answer_or_not() {
    let name = LabName::new();
    let lab = name.up(Topology::Mesh, 2, false);
    let (first, second) = (address_of(&lab, "pod1-1"), address_of(&lab, "pod2-1"));
    let shown = |arguments: &str| name.json(&format!("ipam show {arguments}"));
    assert_eq!(shown("")[0]["inUse"], 4);
    let held = shown(&format!("--ip {second}"));
    assert_eq!(
        (&held["ip"], &held["status"], &held["pod"], &held["live"]),
        (
            &json!(second),
            &json!("inUse"),
            &json!("default/pod2-1"),
            &json!(true)
        )
    );
    await_that("a checkpoint", || {
        let blocks = name.json("get ipblocks");
        let of = |block: &Value| block["spec"]["allocations"].as_array().map_or(0, Vec::len);
        blocks["items"].as_array().unwrap().iter().map(of).sum::<usize>() == 4
    });
    kill_agent(&lab, "node2");
    let output = name.try_ctl(&format!("ipam show --ip {second} -o json"));
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("of node2 are shown as of its last checkpoint")
    );
    let stale: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&stale["status"], &stale["live"]),
        (&json!("inUse"), &json!(false))
    );
    assert_eq!(stale["sequence"], held["sequence"]);
    assert_eq!(shown(&format!("--ip {first}"))["live"], true);
    assert_eq!(shown("")[0]["inUse"], 4);
    assert_eq!(shown("--ip 192.0.2.1")["status"], "noPool");

    edit(&name, "ippool", POOL, |pool| {
        pool["spec"]["disabled"] = json!(true)
    });
    let text = name.ctl(&format!("ipam show --pool {POOL} --show-blocks"));
    assert!(text.contains("draining, 4 left on 2 nodes"), "{text}");
    assert!(text.contains("node1") && text.contains("node2"), "{text}");
}
