//! A pod's first act is to send: of those under a policy that denies it nothing gets out, however early it is sent.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually, exchange};
use crate::rules::tables;

/// What goes through the datastore, or waits for a start.
const LATER: Duration = Duration::from_secs(30);

/// Pods that are started, every second one under the policy. `MANX_FIRST_PACKETS=20000` starts that many.
const PODS: usize = 120;

/// How many are started at once.
const AT_ONCE: usize = 4;

/// How often a pod is started anew when its ADD is refused.
const ATTEMPTS: usize = 3;

/// Between two packets of a pod.
const PAUSE: Duration = Duration::from_micros(100);

/// The namespace that the policy is for, and another one.
const NAMESPACES: [&str; 2] = ["denied", "free"];

/// Somebody who hears whatever pods send to it.
struct Ear {
    sockets: Vec<UdpSocket>,
    /// The pods that were heard, by number.
    heard: Vec<AtomicBool>,
}

impl Ear {
    fn new(netns: &TestNetns, addresses: &[IpAddr], pods: usize) -> Self {
        let bind = |address: &IpAddr| {
            let socket = netns.run(|| UdpSocket::bind((*address, 0)).unwrap()).unwrap();
            let limit = Duration::from_millis(50);
            socket.set_read_timeout(Some(limit)).unwrap();
            socket
        };
        Self {
            sockets: addresses.iter().map(bind).collect(),
            heard: (0..pods).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.sockets.iter();
        addresses.map(|socket| socket.local_addr().unwrap()).collect()
    }

    /// Hears until all is over and nothing is left.
    fn hear(&self, socket: &UdpSocket, over: &AtomicBool) {
        let mut buffer = [0; 8];
        loop {
            let ending = over.load(Ordering::Acquire);
            match socket.recv_from(&mut buffer) {
                Ok(_) => self.heard[usize::from_be_bytes(buffer)].store(true, Ordering::Relaxed),
                Err(_) if ending => return,
                Err(_) => {}
            }
        }
    }
}

/// Says at its end that all is over, also where that is a panic.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Sends to all these addresses from the moment on that the pod can, and once more when its ADD has been answered.
/// Returns how many packets the pod's kernel took.
fn send(netns: &TestNetns, number: usize, to: &[SocketAddr], added: &AtomicBool) -> usize {
    let sockets = ["0.0.0.0:0", "[::]:0"].map(|any| netns.run(|| UdpSocket::bind(any).unwrap()).unwrap());
    let mut taken = 0;
    loop {
        let last = added.load(Ordering::Acquire);
        for address in to {
            let socket = &sockets[usize::from(address.is_ipv6())];
            taken += usize::from(socket.send_to(&number.to_be_bytes(), address).is_ok());
        }
        if last {
            return taken;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Starts a pod, which sends at once, and ends it; returns how many packets it sent. What a busy machine refuses is
/// asked for again, as a kubelet does, from a new sandbox.
fn start(node: &Node, number: usize, to: &[SocketAddr]) -> usize {
    let mut taken = 0;
    for attempt in 1..=ATTEMPTS {
        let netns = TestNetns::new("first");
        let (name, added) = (format!("first{number}-{attempt}"), AtomicBool::new(false));
        let output = std::thread::scope(|scope| {
            let answered = Ending(&added);
            let sender = scope.spawn(|| send(&netns, number, to, &added));
            let output = node.cni_of(NAMESPACES[number % 2], "ADD", &name, netns.path(), &json!({}));
            drop(answered);
            taken += sender.join().unwrap();
            output
        });
        node.delete(&name, netns.path());
        if output.status.success() || attempt == ATTEMPTS {
            node.added(&output);
            break;
        }
    }
    taken
}

#[test]
fn no_packet_of_a_pod_gets_past_the_policy_that_denies_it() {
    let pods = std::env::var("MANX_FIRST_PACKETS").map_or(PODS, |number| number.parse().unwrap());
    let cluster = Cluster::new();
    let policy = json!({
        "namespaceSelector": "kubernetes.io/metadata.name == 'denied'",
        "types": ["Egress"],
    });
    cluster.create("GlobalNetworkPolicy", "deny", &policy);
    let [netns, _outside] = TestNetns::pair(["node", "outside"]);
    let mut node = cluster.node("n1", netns);
    node.start();
    let listener = TestNetns::new("listener");
    let at = node.add("listener", &listener);
    let enforced = || {
        tables(&node.netns, manx_linux::Backend::Nft)
            .iter()
            .any(|line| line.contains("manx-pod"))
    };
    assert!(eventually(LATER, enforced), "{}", node.log());
    assert!(exchange(&node.netns, &listener, at[0]).is_some());
    let ear = Ear::new(&listener, &at, pods);
    let (over, next, taken) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let to = ear.addresses();
    std::thread::scope(|scope| {
        let _ending = Ending(&over);
        for socket in &ear.sockets {
            scope.spawn(|| ear.hear(socket, &over));
        }
        std::thread::scope(|starters| {
            for _ in 0..AT_ONCE {
                starters.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= pods {
                            return;
                        }
                        let sent = start(&node, number, &to);
                        assert!(sent >= 2, "pod {number} sent in both families");
                        taken.fetch_add(sent, Ordering::Relaxed);
                    }
                });
            }
        });
    });
    let heard = |namespace: usize| {
        let theirs = ear.heard.iter().skip(namespace).step_by(2);
        theirs.filter(|heard| heard.load(Ordering::Relaxed)).count()
    };
    assert_eq!(heard(0), 0, "of {} pods that are denied", pods.div_ceil(2));
    assert_eq!(heard(1), pods / 2, "what others send is heard");
    println!("{pods} pods sent {} packets", taken.load(Ordering::Relaxed));
}
