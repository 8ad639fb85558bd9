//! Forwarding outlives the daemon: an agent is killed, and nobody on the wire notices.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use manx_api::rpc::Method;
use manx_api::status::PeerStatus;
use manx_lab::{Lab, Pod, Topology, ask, is_alive};
use manx_linux::Netns;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBuf, RcvBufForce},
};
use nix::unistd::Pid;

use crate::lab_harness::{LabName, settings};

/// A thousand packets a second.
const PACE: Duration = Duration::from_millis(1);
const PORT: u16 = 5_001;
const HOSTS: [&str; 3] = ["node1", "node2", "node3"];
/// Room for a receiver that is late; who is root in a user namespace only gets what the system gives anybody.
const BUFFER: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// What a flow sent and what came of it.
#[derive(Debug, PartialEq, Eq)]
struct Tally {
    from: String,
    to: String,
    sent: u32,
    lost: Vec<u32>,
    /// How many of `lost` reached the receiver, which was late and had no room.
    overflowed: usize,
}

/// How many packets came for sockets of this thread's network namespace that had no room (`RcvbufErrors`).
fn overflowed() -> usize {
    let counters = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut udp = counters.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (udp.next().unwrap(), udp.next().unwrap());
    let column = names.split(' ').position(|name| name == "RcvbufErrors").unwrap();
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

/// Sends numbered packets from one pod to another until told to stop.
fn flow(from: &Pod, to: &Pod, port: u16, stop: &AtomicBool) -> Tally {
    let netns = |pod: &Pod| Netns::open(manx_lab::layout::netns_path(&pod.netns)).unwrap();
    let bind = |address: IpAddr, port| UdpSocket::bind(SocketAddr::new(address, port)).unwrap();
    let receiver = netns(to).run(|| bind(to.addresses[0], port)).unwrap();
    setsockopt(&receiver, RcvBufForce, &BUFFER)
        .or_else(|_| setsockopt(&receiver, RcvBuf, &BUFFER))
        .unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let sender = netns(from).run(|| bind(from.addresses[0], 0)).unwrap();
    let target = receiver.local_addr().unwrap();
    let (sent, seen) = std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let (mut seen, mut buffer) = (BTreeSet::new(), [0; 4]);
            // Half a second of silence after the end is the end.
            loop {
                match receiver.recv(&mut buffer) {
                    Ok(_) => seen.insert(u32::from_be_bytes(buffer)),
                    Err(_) if stop.load(Ordering::Relaxed) => return seen,
                    Err(_) => continue,
                };
            }
        });
        let (mut sent, start) = (0, Instant::now());
        while !stop.load(Ordering::Relaxed) {
            // An error would be a route that is not there: the packet counts as sent and lost.
            sender.send_to(&u32::to_be_bytes(sent), target).ok();
            sent += 1;
            std::thread::sleep((PACE * sent).saturating_sub(start.elapsed()));
        }
        (sent, listening.join().unwrap())
    });
    let lost = (0..sent).filter(|number| !seen.contains(number)).collect();
    Tally {
        from: from.name.clone(),
        to: to.name.clone(),
        sent,
        lost,
        overflowed: netns(to).run(overflowed).unwrap(),
    }
}

/// Every change of a route on a host from now on, as `ip monitor` tells it.
struct Monitor(Child);

impl Monitor {
    fn start(lab: &Lab, host: &str) -> Self {
        let child = lab
            .command_on(host, "ip")
            .unwrap()
            .args(["monitor", "route"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says nothing when it is ready.
        std::thread::sleep(Duration::from_millis(300));
        Self(child)
    }

    /// What changed. A change made last shows that the monitor would have told.
    fn stop(mut self, lab: &Lab, host: &str) -> Vec<String> {
        let status = lab
            .command_on(host, "ip")
            .unwrap()
            .args("route add 198.51.100.0/24 dev eth0".split(' '))
            .status();
        assert!(status.unwrap().success());
        std::thread::sleep(Duration::from_millis(300));
        self.0.kill().unwrap();
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.wait().unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let last = lines.pop().unwrap_or_default();
        assert!(
            last.contains("198.51.100.0/24"),
            "{host}: the monitor ended with '{last}'"
        );
        lines
    }
}

fn peers(lab: &Lab, node: &str) -> Vec<PeerStatus> {
    ask(&lab.plan().layout.socket(node), Method::BgpPeers).unwrap_or_default()
}

fn await_established(lab: &Lab, node: &str, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let established = || {
        peers(lab, node)
            .iter()
            .filter(|peer| peer.state == "Established")
            .count()
    };
    while established() < count {
        assert!(Instant::now() < deadline, "{node}: {:#?}", peers(lab, node));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts the flows, waits a second, lets something happen, and ends the flows.
fn under_load(flows: &[(Pod, Pod)], happening: impl FnOnce()) -> Vec<Tally> {
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running: Vec<_> = flows
            .iter()
            .zip(PORT..)
            .map(|((from, to), port)| scope.spawn(move || flow(from, to, port, stop)))
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        // The flows must end also when what happens is a failure of the test.
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(happening));
        stop.store(true, Ordering::Relaxed);
        let tallies = running.into_iter().map(|flow| flow.join().unwrap()).collect();
        happened.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        tallies
    })
}

/// Kills a node's agent, leaves it dead for a while, starts it again, and waits for its sessions and for routes
/// to be swept or to flap, if anything were to do so.
fn kill_and_restart(lab: &mut Lab, node: &str) {
    let victim = lab
        .processes()
        .iter()
        .find(|process| process.host == node)
        .unwrap()
        .clone();
    kill(Pid::from_raw(victim.pid), Signal::SIGKILL).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!is_alive(&victim));
    lab.restart(node, &settings()).unwrap();
    for host in HOSTS {
        await_established(lab, host, HOSTS.len() - 1);
    }
    std::thread::sleep(Duration::from_secs(3));
}

#[test]
fn an_agent_killed_under_load_loses_no_packet_and_changes_no_route() {
    let name = LabName::new();
    let mut lab = name.up(Topology::Mesh, 3, false);
    let pod = |pod: &str| lab.pod("default", pod).unwrap().clone();
    // Past the victim, to it, from it, and within it.
    let flows = [
        ("pod1-1", "pod3-1"),
        ("pod1-2", "pod2-1"),
        ("pod2-2", "pod3-2"),
        ("pod2-1", "pod2-2"),
    ];
    let flows: Vec<(Pod, Pod)> = flows.iter().map(|(from, to)| (pod(from), pod(to))).collect();
    let monitors: Vec<Monitor> = HOSTS.iter().map(|host| Monitor::start(&lab, host)).collect();
    let begin = Instant::now();
    for tally in under_load(&flows, || kill_and_restart(&mut lab, "node2")) {
        assert_eq!(tally.lost.len(), tally.overflowed, "{tally:?}");
        assert!(tally.sent > 5_000, "{tally:?}");
    }
    for (monitor, host) in monitors.into_iter().zip(HOSTS) {
        assert_eq!(
            monitor.stop(&lab, host),
            Vec::<String>::new(),
            "routes of {host} changed"
        );
    }
    let bystanders = peers(&lab, "node1")
        .into_iter()
        .find(|peer| peer.address.to_string() == "192.168.1.13");
    let uptime = bystanders.unwrap().uptime_seconds;
    assert!(
        uptime + 1 >= begin.elapsed().as_secs(),
        "the session of bystanders flapped: up for {uptime} s"
    );
    let returned = peers(&lab, "node2");
    assert!(
        returned.iter().all(|peer| peer.uptime_seconds >= 2),
        "sessions flapped: {returned:?}"
    );
}
