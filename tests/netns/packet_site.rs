//! A node with a handful of pods, and everything around it in one namespace: packets are put on the wires by the
//! thousand, and it is seen which come out.
//!
//! A denied packet costs no time-out. A wire is a queue, so an answered question (ARP, which no rule sees) says that
//! whatever was sent before it has been decided, as long as all is sent by one processor.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt,
    socket, sockopt::RcvBufForce,
};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

use crate::harness::TestNetns;
use crate::packet::{self, AROUND, NODE};
use crate::world::{Packet, address_v4, address_v6};

/// The pods of the node, by their numbers; others are elsewhere.
const LOCAL: [u8; 5] = [1, 2, 4, 5, 7];
const ELSEWHERE: [u8; 3] = [3, 6, 8];
/// Who is outside the cluster.
const STRANGER: [&str; 2] = ["192.0.2.9", "2001:db8::9"];
const UPLINK: &str = "eth0";
const NODE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Packets that may wait on a wire: less than what the kernel queues for a processor (`netdev_max_backlog`).
const BATCH: usize = 200;
/// Octets of received packets that may wait for us.
const ROOM: usize = 8 << 20;
/// How long a machine may take to decide on a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Protocols of packets that the node itself sends and gets; ICMP's number is the family's.
const PROTOCOLS: [i32; 5] = [6, 17, 132, 47, 1];
/// A frame that we sent ourselves (`PACKET_OUTGOING`).
const OUTGOING: u8 = 4;

/// The node and what is around it.
pub(crate) struct Site {
    pub(crate) node: TestNetns,
    _around: TestNetns,
    /// All wires at once, at their far ends.
    wires: OwnedFd,
    /// The far ends, by name.
    ends: BTreeMap<String, LinkAddr>,
    /// Sockets of the node itself, by protocol, IPv4's and IPv6's.
    host: BTreeMap<(u8, bool), Socket>,
}

/// A packet on its way.
struct Sent {
    /// By which wire; none: the node sends it.
    wire: Option<String>,
    packet: Packet,
    frame: Vec<u8>,
}

/// The node's own addresses.
pub(crate) fn node_addresses() -> [IpAddr; 2] {
    [NODE_V4.into(), "2001:db8::1".parse().unwrap()]
}

/// Whether the address is one of a pod of the node.
pub(crate) fn is_local(address: IpAddr) -> bool {
    LOCAL
        .iter()
        .any(|number| [address_v4(*number), address_v6(*number)].contains(&address))
}

impl Site {
    pub(crate) fn new() -> Self {
        let [node, around] = ["node", "around"].map(TestNetns::new);
        let quiet = || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        around.run(quiet).unwrap().unwrap();
        batch(&node, &links(&around));
        batch(&around, &up());
        batch(&node, &routes());
        node.run(manx_linux::sysctl::enable_forwarding).unwrap().unwrap();
        let open = || {
            let wires = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            );
            let named = |it: nix::ifaddrs::InterfaceAddress| {
                let address = it.address?.as_link_addr().copied()?;
                Some((it.interface_name, address))
            };
            (wires.unwrap(), getifaddrs().unwrap().filter_map(named).collect())
        };
        let (wires, ends) = around.run(open).unwrap();
        setsockopt(&wires, RcvBufForce, &ROOM).unwrap();
        let host = node.run(host_sockets).unwrap();
        Self {
            node,
            _around: around,
            wires,
            ends,
            host,
        }
    }

    /// Opens a connection with each of the packets; returns which of them arrived.
    pub(crate) fn open(&self, packets: &[Packet]) -> Vec<bool> {
        self.send_openings(packets, |packet| wire(packet.from))
    }

    /// The same, by the wire of one of the node's pods, whoever the packets say that they are from.
    pub(crate) fn open_by(&self, pod: u8, packets: &[Packet]) -> Vec<bool> {
        self.send_openings(packets, |_| wire(address_v4(pod)))
    }

    fn send_openings(&self, packets: &[Packet], wire: impl Fn(&Packet) -> Option<String>) -> Vec<bool> {
        let one = |(stamp, packet): (u32, &Packet)| Sent {
            wire: wire(packet),
            packet: *packet,
            frame: packet::opening(packet, stamp),
        };
        self.send(&(0..).zip(packets).map(one).collect::<Vec<_>>())
    }

    /// Answers each of the packets; returns which of the answers arrived.
    pub(crate) fn answer(&self, packets: &[Packet]) -> Vec<bool> {
        let one = |(stamp, it): (u32, &Packet)| Sent {
            wire: wire(it.to),
            packet: Packet {
                from: it.to,
                to: it.from,
                ..*it
            },
            frame: packet::answering(it, stamp),
        };
        self.send(&(0..).zip(packets).map(one).collect::<Vec<_>>())
    }

    fn send(&self, frames: &[Sent]) -> Vec<bool> {
        let mut arrived = vec![false; frames.len()];
        let this = Pid::from_raw(0);
        let everywhere = sched_getaffinity(this).unwrap();
        let mut here = CpuSet::new();
        here.set(sched_getcpu().unwrap()).unwrap();
        sched_setaffinity(this, &here).unwrap();
        for batch in frames.chunks(BATCH) {
            for sent in batch {
                self.send_one(sent);
            }
            self.collect(frames, &mut arrived);
        }
        sched_setaffinity(this, &everywhere).unwrap();
        arrived
    }

    fn send_one(&self, Sent { wire, packet, frame }: &Sent) {
        let Some(wire) = wire else {
            let v4 = packet.to.is_ipv4();
            let socket = &self.host[&(packet.protocol, v4)];
            let sent = socket.send_to(
                packet::transport(frame, v4),
                &SocketAddr::new(packet.to, 0).into(),
            );
            // That is how the node is told that its own rules dropped it.
            let refused = |error: &std::io::Error| error.kind() == ErrorKind::PermissionDenied;
            assert!(
                sent.is_ok() || sent.as_ref().is_err_and(refused),
                "{sent:?} {packet:?}"
            );
            return;
        };
        self.put(wire, frame);
    }

    fn put(&self, wire: &str, frame: &[u8]) {
        let sent = sendto(self.wires.as_raw_fd(), frame, &self.ends[wire], MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "{wire}");
    }

    /// Notes what has come out, once all that was sent is decided.
    fn collect(&self, sent: &[Sent], arrived: &mut [bool]) {
        let stranger = Ipv4Addr::new(192, 0, 2, 9);
        self.put(UPLINK, &packet::question(stranger, NODE_V4));
        let names: BTreeMap<usize, &str> = self
            .ends
            .iter()
            .map(|(name, end)| (end.ifindex(), name.as_str()))
            .collect();
        // Errors quote what they are about: what arrives is the same to the last octet.
        let mut note = |bytes: &[u8], at: Option<&str>| {
            let Some(stamp) = packet::stamp(bytes) else { return };
            let index = usize::try_from(stamp).unwrap();
            let Sent { packet, frame, .. } = &sent[index];
            let v4 = packet.to.is_ipv4();
            let got = match at {
                Some(_) => packet::transport(bytes, v4),
                None if v4 => packet::payload(bytes, v4),
                None => bytes,
            };
            arrived[index] |= wire(packet.to).as_deref() == at && got == packet::transport(frame, v4);
        };
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        loop {
            match recvfrom::<LinkAddr>(self.wires.as_raw_fd(), &mut buffer) {
                Ok((_, Some(from))) if from.pkttype() == OUTGOING => {}
                Ok((length, _)) if packet::is_answer(&buffer[..length]) => break,
                Ok((length, from)) => {
                    let at = from.and_then(|from| names.get(&from.ifindex()).copied());
                    note(&buffer[..length], at.or(Some("")));
                }
                Err(nix::Error::EAGAIN) => {
                    assert!(Instant::now() < end, "the node does not answer");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
        for socket in self.host.values() {
            while let Ok(length) = std::io::Read::read(&mut &*socket, &mut buffer) {
                note(&buffer[..length], None);
            }
        }
    }
}

/// The wire to an address; none: it is the node's own.
fn wire(address: IpAddr) -> Option<String> {
    if node_addresses().contains(&address) {
        return None;
    }
    let local = LOCAL
        .iter()
        .find(|it| [address_v4(**it), address_v6(**it)].contains(&address));
    Some(local.map_or_else(|| UPLINK.to_owned(), |number| format!("mx{number}")))
}

fn host_sockets() -> BTreeMap<(u8, bool), Socket> {
    let mut sockets = BTreeMap::new();
    for address in node_addresses() {
        let (domain, icmp) = if address.is_ipv4() {
            (Domain::IPV4, 1)
        } else {
            (Domain::IPV6, 58)
        };
        for protocol in PROTOCOLS {
            let protocol = if protocol == 1 { icmp } else { protocol };
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
            sockets.insert((u8::try_from(protocol).unwrap(), address.is_ipv4()), socket);
        }
    }
    sockets
}

fn names() -> impl Iterator<Item = String> {
    let pods = LOCAL.iter().map(|number| format!("mx{number}"));
    pods.chain([UPLINK.to_owned()])
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

fn links(around: &TestNetns) -> String {
    let far = around.path().file_name().unwrap().to_str().unwrap();
    let (near_mac, far_mac) = (mac(NODE), mac(AROUND));
    let pair = |name: String| {
        format!(
            "link add {name} address {near_mac} type veth peer name {name} address {far_mac} netns {far}\n\
             link set {name} up\n"
        )
    };
    names().map(pair).collect()
}

fn up() -> String {
    names().map(|name| format!("link set {name} up\n")).collect()
}

/// The node's addresses, and its ways to all pods and the stranger.
fn routes() -> String {
    let [v4, v6] = node_addresses();
    let mut text = format!("address add {v4}/24 dev {UPLINK}\naddress add {v6}/64 dev {UPLINK} nodad\n");
    let mac = mac(AROUND);
    let mut neighbour = |address: &str, device: &str| {
        text += &format!("neighbour add {address} dev {device} lladdr {mac} nud permanent\n");
    };
    for stranger in STRANGER {
        neighbour(stranger, UPLINK);
    }
    for number in LOCAL.into_iter().chain(ELSEWHERE) {
        for address in [address_v4(number), address_v6(number)] {
            neighbour(&address.to_string(), &wire(address).unwrap());
        }
    }
    for number in LOCAL.into_iter().chain(ELSEWHERE) {
        for (address, own) in [(address_v4(number), v4), (address_v6(number), v6)] {
            let device = wire(address).unwrap();
            text += &format!("route add {address} dev {device} src {own}\n");
        }
    }
    text
}

/// Runs many commands of `ip`.
fn batch(netns: &TestNetns, commands: &str) {
    let mut child = netns
        .command("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(commands.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
