//! Namespaces with names of this process, gone when the test is, and packets between them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use manx_linux::link::{Veth, VethEnd};
use manx_linux::{LinkSocket, Netns, netns};

/// How long a packet that should arrive may take.
const PATIENCE: Duration = Duration::from_secs(2);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A namespace that is deleted when dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct TestNetns {
    path: PathBuf,
    netns: Netns,
}

impl TestNetns {
    /// Makes one; the label is for whoever looks at `ip netns` while the test runs.
    pub(crate) fn new(label: &str) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mxtest-{}-{number}-{label}", std::process::id());
        let path = Path::new(netns::DIRECTORY).join(name);
        let netns = Netns::create(&path).unwrap_or_else(|error| {
            panic!(
                "{error}: these tests need root, or a user namespace with its own /run: \
                 unshare -Urnm sh -c 'mount -t tmpfs none /run && cargo test -p manx-tests --test netns'"
            )
        });
        Self { path, netns }
    }

    /// Two machines on a network of both families: their `eth0`s have the addresses 1 and 2 in it.
    pub(crate) fn pair(labels: [&str; 2]) -> [Self; 2] {
        let pair = labels.map(Self::new);
        pair[0].connect(
            &pair[1],
            "eth0",
            [
                &["192.0.2.1/24", "2001:db8::1/64"],
                &["192.0.2.2/24", "2001:db8::2/64"],
            ],
        );
        pair
    }

    /// The file that names it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `ip` in it, as somebody would by hand.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let output = self
            .netns
            .command("ip")
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Connects it with another by a veth pair named `name` at both ends, and gives each end its address.
    pub(crate) fn connect(&self, other: &Self, name: &str, addresses: [&[&str]; 2]) {
        let end = VethEnd::named(name);
        let peer = VethEnd {
            netns: Some(other),
            ..end
        };
        LinkSocket::open_in(self)
            .unwrap()
            .create_veth(&Veth { end, peer })
            .unwrap();
        let mut ends = [self, other].map(|netns| LinkSocket::open_in(netns).unwrap());
        for (links, addresses) in ends.iter_mut().zip(addresses) {
            let index = links.get(name).unwrap().unwrap().index;
            links.set_up(index).unwrap();
            for address in addresses {
                links.add_address(index, address.parse().unwrap()).unwrap();
            }
        }
        for links in &mut ends {
            links.wait_until_ready(name).unwrap();
        }
    }
}

impl Deref for TestNetns {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.netns
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete(&self.path) {
            eprintln!("left behind: {error}");
        }
    }
}

/// Sends a question from one namespace to an address in another, and an answer back; returns the address
/// that the question seemed to come from, or nothing if either got lost.
pub(crate) fn exchange(from: &Netns, to: &Netns, address: IpAddr) -> Option<IpAddr> {
    exchange_as(from, None, to, address)
}

/// The same with a source address of the sender's own choice, which need not be its own.
pub(crate) fn exchange_as(
    from: &Netns,
    source: Option<IpAddr>,
    to: &Netns,
    address: IpAddr,
) -> Option<IpAddr> {
    let question = ask(from, source, to, address)?;
    question.receiver.send_to(b"answer", question.seen).ok()?;
    let mut buffer = [0; 16];
    let (length, _) = question.sender.recv_from(&mut buffer).ok()?;
    (&buffer[..length] == b"answer").then(|| question.seen.ip())
}

/// Sends a question, and no answer back; returns the address that it seemed to come from.
pub(crate) fn seen_as(from: &Netns, to: &Netns, address: IpAddr) -> Option<IpAddr> {
    ask(from, None, to, address).map(|question| question.seen.ip())
}

/// A question that has arrived.
struct Question {
    sender: UdpSocket,
    receiver: UdpSocket,
    /// Where it seemed to come from.
    seen: SocketAddr,
}

fn ask(from: &Netns, source: Option<IpAddr>, to: &Netns, address: IpAddr) -> Option<Question> {
    let bind = |address: IpAddr| {
        let socket = UdpSocket::bind(SocketAddr::new(address, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let anywhere = || {
        if address.is_ipv4() {
            IpAddr::from([0; 4])
        } else {
            IpAddr::from([0; 16])
        }
    };
    let receiver = to.run(|| bind(address)).unwrap();
    let sender = from.run(|| bind(source.unwrap_or_else(anywhere))).unwrap();
    sender.send_to(b"question", receiver.local_addr().unwrap()).ok()?;
    let (_, seen) = receiver.recv_from(&mut [0; 16]).ok()?;
    Some(Question {
        sender,
        receiver,
        seen,
    })
}

/// Waits until the condition holds, for as long as `limit`; returns whether it came to hold.
pub(crate) fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    condition()
}

#[test]
fn a_panic_leaves_no_namespace_behind() {
    let path = std::thread::spawn(|| {
        let netns = TestNetns::new("panic");
        let path = netns.path().to_owned();
        assert!(path.exists());
        std::panic::panic_any(path);
    });
    let path = path.join().unwrap_err().downcast::<PathBuf>().unwrap();
    assert!(!path.exists());
}
