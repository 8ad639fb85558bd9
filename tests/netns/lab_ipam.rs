//! `manxctl ipam …` against real agents.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use manx_lab::{Lab, Topology, is_alive};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::lab_harness::{LabName, settings};

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

    name.edit(&format!("ippool {POOL}"), |pool| {
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
    let on = |node: &str, command: &str| name.ctl(&format!("lab exec {node} -- {command}"));
    cut(&name, "node1", "pod1-1");
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

/// A report of a check, written to a file.
fn report(lab: &LabName) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = lab.try_ctl(&format!("ipam check --report {}", file.path().display()));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    file
}

/// What became of addresses that were to be released.
fn release(lab: &LabName, arguments: &str) -> (Vec<(String, String)>, Option<i32>) {
    let output = lab.try_ctl(&format!("ipam release {arguments} -o json"));
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let line = |line: &Value| (text(&line["ip"]), text(&line["outcome"]));
    (
        lines.as_array().unwrap().iter().map(line).collect(),
        output.status.code(),
    )
}

/// Takes a pod's link away, as no runtime would.
fn cut(lab: &LabName, node: &str, pod: &str) {
    let endpoints = lab.json("get workloadendpoints");
    let mut endpoints = endpoints["items"].as_array().unwrap().iter();
    let endpoint = endpoints
        .find(|endpoint| endpoint["spec"]["pod"] == *pod)
        .unwrap();
    let link = endpoint["spec"]["interfaceName"].as_str().unwrap();
    lab.ctl(&format!("lab exec {node} -- ip link delete {link}"));
}

#[test]
fn lost_addresses_are_released_by_their_owners_and_others_are_kept() {
    let name = LabName::new();
    let mut lab = name.up(Topology::Mesh, 2, false);
    let lost = address_of(&lab, "pod1-1").to_string();
    let live = address_of(&lab, "pod1-2").to_string();
    cut(&name, "node1", "pod1-1");
    let file = report(&name);
    let one = |outcome: &str, ip: &str| vec![(ip.to_owned(), outcome.to_owned())];

    let sequence = name.json(&format!("ipam show --ip {live}"))["sequence"]
        .as_u64()
        .unwrap();
    let earlier = sequence - 1;
    assert_eq!(
        release(&name, &format!("--ip {live}")),
        (one("inUse", &live), Some(1))
    );
    assert_eq!(
        release(&name, &format!("--ip {live} --force")),
        (one("kept", &live), Some(1))
    );
    assert_eq!(
        release(&name, &format!("--ip {live} --sequence {earlier}")),
        (one("later", &live), Some(0))
    );
    assert_eq!(name.json(&format!("ipam show --ip {live}"))["sequence"], sequence);

    let from_report = format!("--from-report {}", file.path().display());
    assert_eq!(release(&name, &from_report), (one("released", &lost), Some(0)));
    assert_eq!(check(&name), (vec![], Some(0)));
    assert_eq!(
        release(&name, &from_report),
        (one("free", &lost), Some(0)),
        "once more"
    );

    // An owner that is away finds the request when it is back.
    let away = address_of(&lab, "pod2-1").to_string();
    cut(&name, "node2", "pod2-1");
    let file = report(&name);
    kill_agent(&lab, "node2");
    let from_report = format!("--from-report {} --timeout 1", file.path().display());
    assert_eq!(release(&name, &from_report), (one("away", &away), Some(1)));
    lab.restart("node2", &settings()).unwrap();
    let requests = || {
        let blocks = name.json("get ipblocks");
        let asked = |block: &Value| block["spec"]["releases"].as_array().map_or(0, Vec::len);
        blocks["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(asked)
            .sum::<usize>()
    };
    await_that("the owner's answer", || requests() == 0);
    await_that("a clean check", || check(&name) == (vec![], Some(0)));
}

#[test]
fn settings_and_cordons_reach_the_agents() {
    let name = LabName::new();
    let lab = name.up(Topology::Mesh, 1, false);
    let settings =
        "--strictaffinity=true --ip-cooldown-seconds 7 --max-blocks-per-host 2 --auto-allocate-blocks false";
    let text = name.ctl(&format!("ipam configure {settings}"));
    assert!(text.contains("StrictAffinity      false  true"), "{text}");
    let found = name.json("ipam show --show-configuration");
    let wanted = json!({
        "strictAffinity": true, "maxBlocksPerHost": 2, "ipCooldownSeconds": 7, "autoAllocateBlocks": false,
    });
    assert_eq!(found, wanted);
    let refused = name.try_ctl("ipam configure --ip-cooldown-seconds 1201");
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("is too long: choose 0 to 1200")
    );

    assert_eq!(
        name.ctl(&format!("ipam cordon {POOL}")),
        format!("IPPool/{POOL} cordoned\n")
    );
    assert_eq!(
        name.ctl("ipam cordon 10.244.0.0/16"),
        format!("IPPool/{POOL} unchanged\n")
    );
    await_that("an ADD's refusal", || {
        let added = name.try_ctl("lab pod add late --node node1");
        let refused = !added.status.success();
        if !refused {
            name.ctl("lab pod delete late");
        }
        refused
    });
    assert_eq!(name.json("ipam show")[0]["left"], 2, "pods keep what they have");
    assert_eq!(
        name.ctl(&format!("ipam uncordon {POOL}")),
        format!("IPPool/{POOL} uncordoned\n")
    );
    await_that("an ADD", || {
        name.try_ctl("lab pod add late --node node1").status.success()
    });
    drop(lab);
}

#[test]
fn a_pool_is_split_while_pods_run_and_come() {
    let name = LabName::new();
    name.up(Topology::Mesh, 2, false);
    let more = |count: usize| {
        let node = if count.is_multiple_of(2) { "node1" } else { "node2" };
        name.ctl(&format!("lab pod add more-{count} --node {node}"));
    };
    let (added, text) = std::thread::scope(|scope| {
        let split = scope.spawn(|| name.ctl(&format!("ipam split 4 --pool {POOL}")));
        let mut added = 0;
        while added < 8 || (!split.is_finished() && added < 60) {
            more(added);
            added += 1;
        }
        (added as u64, split.join().unwrap())
    });
    assert!(
        text.contains(&format!("Created split-{POOL}-3 with CIDR 10.244.192.0/18.")),
        "{text}"
    );
    let pools = name.json("ipam show");
    let pools = pools.as_array().unwrap();
    assert_eq!(pools.len(), 4);
    let in_use: u64 = pools.iter().map(|pool| pool["inUse"].as_u64().unwrap()).sum();
    assert_eq!(in_use, added + 4);
    assert!(
        name.ctl(&format!("ipam split 4 --pool {POOL}"))
            .contains("has been split into 4 already")
    );
    assert_eq!(name.json("lab verify")["proved"], true);
    assert_eq!(check(&name), (vec![], Some(0)));
    let refused = name.try_ctl(&format!("ipam split 512 --pool split-{POOL}-0"));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        error.contains("cannot be split into 512: at most into 256"),
        "{error}"
    );
}
