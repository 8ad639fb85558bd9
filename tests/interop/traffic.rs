//! Graceful restart while packets flow: between hosts behind both sides, through both kernels.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use manx_linux::Netns;

use crate::binary::{Daemon, OURS, SESSION, THEIRS, set};
use crate::net::{Cable, SOON, becomes, eventually, ip};
use crate::router::{Extras, Process, Program, Router, Session, prefixes};

/// Hosts behind us, one per family, inside what we announce.
const OUR_HOSTS: [&str; 2] = ["10.1.0.1", "2001:db8:1::1"];
/// Hosts behind them.
const THEIR_HOSTS: [&str; 2] = ["10.2.0.1", "2001:db8:2::1"];

const PORT: u16 = 7;

/// A packet leaves this often.
const INTERVAL: Duration = Duration::from_millis(2);

/// Packets from a host of ours to one of theirs, each of which comes back.
struct Traffic {
    stop: Arc<AtomicBool>,
    flowing: Arc<AtomicBool>,
    echo: JoinHandle<()>,
    probe: JoinHandle<[u32; 2]>,
}

impl Traffic {
    fn start(cable: &Cable, [from, to]: [&str; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let address = |host: &str, port| SocketAddr::new(host.parse().expect("an address"), port);
        let echoing = socket(&cable.theirs, address(to, PORT));
        let probing = socket(&cable.ours, address(from, 0));
        let target = address(to, PORT);
        let flowing = Arc::new(AtomicBool::new(false));
        let first = Arc::clone(&flowing);
        Self {
            echo: spawn(&stop, move |stop| echo(&echoing, stop)),
            probe: spawn(&stop, move |stop| probe(&probing, target, &first, stop)),
            flowing,
            stop,
        }
    }

    /// Whether a packet came back: with a neighbor to ask for first, that takes a while.
    fn flows(&self) -> bool {
        self.flowing.load(Ordering::Relaxed)
    }

    /// How many packets left, and how many of them were lost.
    fn end(self) -> [u32; 2] {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.probe.join().expect("the probe does not panic");
        self.echo.join().expect("the echo does not panic");
        counts
    }
}

fn spawn<T: Send + 'static>(
    stop: &Arc<AtomicBool>,
    work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
) -> JoinHandle<T> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || work(&stop))
}

fn socket(namespace: &Netns, address: SocketAddr) -> UdpSocket {
    let bound = namespace.run(|| -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(socket)
    });
    let bound = bound.expect("the namespace can be entered");
    bound.unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut packet = [0; 4];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut packet) {
            // What cannot go back is lost, and counted where it should arrive.
            socket.send_to(&packet[..length], from).map_or_else(drop, drop);
        }
    }
}

/// One packet at a time: the next leaves when this one is back, or lost. Counted from the first that comes back.
fn probe(socket: &UdpSocket, target: SocketAddr, flowing: &AtomicBool, stop: &AtomicBool) -> [u32; 2] {
    let (mut sent, mut lost) = (0_u32, 0);
    while !stop.load(Ordering::Relaxed) {
        if passes(socket, target, sent) {
            flowing.store(true, Ordering::Relaxed);
            sent += 1;
        } else if sent > 0 {
            sent += 1;
            lost += 1;
        }
        std::thread::sleep(INTERVAL);
    }
    [sent, lost]
}

/// Whether the packet with this number comes back; of those before it some may be late.
fn passes(socket: &UdpSocket, target: SocketAddr, number: u32) -> bool {
    let mut packet = [0; 4];
    if socket.send_to(&number.to_be_bytes(), target).is_err() {
        return false;
    }
    while socket.recv(&mut packet).is_ok() {
        if packet == number.to_be_bytes() {
            return true;
        }
    }
    false
}

/// What is routed to a neighbour in a namespace: by its address, or by the number of a group of neighbours.
fn routed(namespace: &Netns) -> impl Fn(&str) -> bool {
    let shown = ["-4", "-6"].map(|family| ip(namespace, &format!("{family} route show")));
    let via: String = shown
        .concat()
        .lines()
        .filter(|line| line.contains(" via ") || line.contains(" nhid "))
        .map(|line| format!("{line}\n"))
        .collect();
    let routed = prefixes(&via);
    move |prefix| routed.contains(prefix)
}

/// Both sides in session, with each other's routes in their kernels, and hosts behind them.
fn meet(program: &Program, cable: &Cable) -> (Daemon, Process, Box<dyn Router>) {
    for (end, hosts) in [(&cable.ours, OUR_HOSTS), (&cable.theirs, THEIR_HOSTS)] {
        for host in hosts {
            let length = if host.parse::<IpAddr>().is_ok_and(|it| it.is_ipv4()) {
                32
            } else {
                128
            };
            ip(end, &format!("address add {host}/{length} dev lo"));
        }
    }
    let session = Session { fib: true, ..SESSION };
    let mut router = (program.start)(&cable.theirs, session, &[cable.ends]);
    THEIRS
        .iter()
        .for_each(|prefix| router.announce(prefix, Extras::default()));
    let daemon = Daemon::new(true);
    let process = daemon.start(cable);
    eventually("both kernels have the routes", SOON, || {
        let (ours, theirs) = (routed(&cable.ours), routed(&cable.theirs));
        THEIRS.into_iter().all(ours) && OURS.into_iter().all(theirs)
    });
    (daemon, process, router)
}

/// While `restart` goes on, and a while longer, no packet is lost in either family.
fn nothing_is_lost(cable: &Cable, restart: impl FnOnce()) {
    let flows = [0, 1].map(|family| Traffic::start(cable, [OUR_HOSTS[family], THEIR_HOSTS[family]]));
    eventually("packets flow in both families", SOON, || {
        flows.iter().all(Traffic::flows)
    });
    restart();
    std::thread::sleep(Duration::from_secs(1));
    for flow in flows {
        let [sent, lost] = flow.end();
        eprintln!("{lost} of {sent} packets lost");
        assert!(sent > 100 && lost == 0, "{lost} of {sent} packets lost");
    }
}

/// RFC 4724 §4.1 (bits): the peer goes on forwarding to us, and we forward without a daemon.
pub(crate) fn we_restart(program: &Program) {
    let cable = Cable::new();
    let (daemon, mut process, router) = meet(program, &cable);
    nothing_is_lost(&cable, || {
        process.kill();
        std::thread::sleep(Duration::from_secs(1));
        process = daemon.start(&cable);
        eventually("the session returns", SOON, || router.established() == 1);
        becomes("so do our routes", &set(OURS), || router.learned());
    });
}

/// RFC 4724 §4.2 (stale): we go on forwarding to the peer.
pub(crate) fn they_restart(program: &Program) {
    let cable = Cable::new();
    let (_daemon, _process, mut router) = meet(program, &cable);
    nothing_is_lost(&cable, || {
        router.kill();
        std::thread::sleep(Duration::from_secs(1));
        router.restart(&THEIRS);
        eventually("the session returns", SOON, || router.established() == 1);
        becomes("it has our routes again", &set(OURS), || router.learned());
    });
}
