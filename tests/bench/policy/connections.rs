//! A node with many connections, and policies that deny some of them: how long until those are ended, and what pods
//! that come meanwhile have to wait.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use manx_linux::Netns;
use manx_tests::node::{Node, Plugin};
use manx_tests::sample::Sample;

use crate::{APPS, OTHER_PORTS, POLICIES, Writer, policy, print_row};

/// Pairs of pods with connections, and how many each has.
const PAIRS: usize = 4;
const EACH: u16 = 50_000;

/// Their first source port.
const FIRST_PORT: u16 = 10_000;

/// The application whose connections are denied, which is that of the first pair.
const DENIED: usize = 2;

/// Pods that come while there are few connections, and the first of their numbers.
const ADDS: usize = 40;
const LATER: usize = 1000;

/// How long until connections are ended, at most.
const LIMIT: Duration = Duration::from_secs(120);

/// Fills the table, denies one pair's connections, and tells how long it took to end them.
pub(crate) fn measure(node: &Node, store: &Writer, pods: &[(Netns, IpAddr)]) {
    let mut few = Sample::default();
    (0..ADDS).for_each(|number| few.push(add(node, LATER + number)));
    print_row("ADD of a pod, few connections", &few);
    fill(node, pods);
    let all = count(node);
    let left = all - usize::from(EACH);
    for number in (DENIED..POLICIES).step_by(APPS) {
        store.put(&policy(number, OTHER_PORTS - 1));
    }
    let begun = Instant::now();
    let mut many = Sample::default();
    let took = std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            while count(node) > left {
                assert!(begun.elapsed() < LIMIT, "{} of {all} connections", count(node));
                std::thread::sleep(Duration::from_millis(5));
            }
            begun.elapsed()
        });
        for number in LATER + ADDS.. {
            many.push(add(node, number));
            if ended.is_finished() {
                break;
            }
        }
        ended.join().expect("connections end")
    });
    print_row("the same while many are looked through", &many);
    println!(
        "{EACH} of {all} connections ended {:.2} s after the policies that deny them were written",
        took.as_secs_f64()
    );
}

/// Has pairs of pods begin connections, which last.
fn fill(node: &Node, pods: &[(Netns, IpAddr)]) {
    let lasting = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
    let set = node.netns().run(|| std::fs::write(lasting, "600"));
    set.expect("the node's namespace").expect("a setting");
    let before = count(node);
    for pair in 0..PAIRS {
        // An application's pods are called by those of the next one.
        let (to, from) = (&pods[DENIED + 2 * pair], &pods[DENIED + 2 * pair + 1]);
        connect(&from.0, to.1);
    }
    let all = count(node);
    let wanted = before + PAIRS * usize::from(EACH);
    assert!(all >= wanted, "{all} connections, not {wanted}");
}

/// One connection from each of many ports.
fn connect(from: &Netns, to: IpAddr) {
    let to = SocketAddr::new(to, u16::try_from(OTHER_PORTS).expect("a port"));
    let sent = from.run(|| {
        for port in FIRST_PORT..FIRST_PORT + EACH {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a free port");
            socket.send_to(&[0], to).expect("a way");
        }
    });
    sent.expect("the pod's namespace");
}

/// How many connections the node has.
fn count(node: &Node) -> usize {
    let read = || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    let count = node.netns().run(read).expect("the node's namespace");
    count.expect("a count").trim().parse().expect("a number")
}

/// Adds a pod and takes it away again; how long the first took.
fn add(node: &Node, number: usize) -> Duration {
    let plugin = Plugin::manx(node, &[]);
    let _netns = node.make_pod(number);
    let (took, _) = node.call(&plugin, "ADD", number);
    node.call(&plugin, "DEL", number);
    took
}
