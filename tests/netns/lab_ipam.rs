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

/// What `ipam check` finds, as `class address`, and what it leaves with.
fn check(lab: &LabName) -> (Vec<String>, Option<i32>) {
    let output = lab.try_ctl("ipam check -o json");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let findings = report["findings"].as_array().unwrap().iter();
    let line = |finding: &Value| {
        let address = finding["address"].as_str().unwrap_or_default();
        format!("{} {address}", finding["class"].as_str().unwrap())
    };
    (findings.map(line).collect(), output.status.code())
}

#[test]
fn a_check_finds_what_was_broken_and_nothing_else() {
    let name = LabName::new();
    let lab = name.up(Topology::Mesh, 2, true);
    assert_eq!(check(&name), (vec![], Some(0)));

    // A route and an interface go that should stay; an interface comes that nobody knows.
    let addresses = |pod: &str| lab.pod("default", pod).unwrap().addresses.clone();
    let link = |pod: &str| {
        let endpoints = name.json("get workloadendpoints");
        let mut endpoints = endpoints["items"].as_array().unwrap().iter();
        let endpoint = endpoints
            .find(|endpoint| endpoint["spec"]["pod"] == *pod)
            .unwrap();
        endpoint["spec"]["interfaceName"].as_str().unwrap().to_owned()
    };
    let on = |node: &str, command: &str| name.ctl(&format!("lab exec {node} -- {command}"));
    on("node1", &format!("ip link delete {}", link("pod1-1")));
    on("node2", "ip link add mxstranger type veth peer name mxelse");
    on("node2", "ip link set mxstranger up");
    on("node2", "ip route add 10.244.77.7/32 dev mxstranger");
    on("node2", "ip route add 192.0.2.7/32 dev mxstranger");
    let leaked = addresses("pod1-1");
    let mut wanted = vec![
        "notAllocated 10.244.77.7".to_owned(),
        "outsidePools 192.0.2.7".to_owned(),
    ];
    wanted.extend(leaked.iter().map(|address| format!("leaked {address}")));
    assert_eq!(check(&name), (wanted, Some(3)));

    let text = String::from_utf8(name.try_ctl("ipam check --show-all-ips").stdout).unwrap();
    assert!(
        text.contains("Found 2 addresses allocated but not in use."),
        "{text}"
    );
    assert!(text.contains("Check complete; found 4 problems."), "{text}");
    assert!(
        text.contains(&format!("{} held by default/pod2-1", addresses("pod2-1")[0])),
        "{text}"
    );

    // What cannot be asked is named, and judged by the datastore.
    on("node2", "ip link delete mxstranger");
    kill_agent(&lab, "node1");
    let output = name.try_ctl("ipam check");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(
        text.contains("Not asked, compared as far as the datastore shows: node1"),
        "{text}"
    );
    let nowhere = name.folder().join("nothing.db");
    let output = name.try_ctl(&format!(
        "--store {} ipam check",
        nowhere.join("deeper").display()
    ));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
