//! What a frame between machines is.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// A frame's beginning, as far as it matters here.
pub(super) type Frame = Vec<u8>;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// Plain IP from a pod to a pod.
    PodToPod,
    /// Plain IP between a machine and a pod.
    MachineToPod,
    /// Sessions between machines.
    Bgp,
    /// Who is where: ARP, neighbour discovery, multicast membership.
    Neighbours,
    /// A packet inside a packet.
    Encapsulated,
    /// Anything else.
    Other,
}

impl Class {
    /// Whether no such packet should be there.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        match self {
            Self::PodToPod | Self::MachineToPod | Self::Bgp | Self::Neighbours => false,
            Self::Encapsulated | Self::Other => true,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PodToPod => "pod to pod, plain IP",
            Self::MachineToPod => "machine to pod and back, plain IP",
            Self::Bgp => "BGP",
            Self::Neighbours => "ARP and neighbour discovery",
            Self::Encapsulated => "encapsulated",
            Self::Other => "other",
        })
    }
}

/// Whose addresses there are.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) pods: BTreeSet<IpAddr>,
    pub(super) machines: BTreeSet<IpAddr>,
}

const ETHERNET: usize = 14;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const IGMP: u8 = 2;
const BGP_PORT: u16 = 179;
/// Protocols that carry packets: IPIP, IPv6 in IP, GRE, ESP, AH, EtherIP, IPComp, L2TP.
const TUNNELS: [u8; 8] = [4, 41, 47, 50, 51, 97, 108, 115];
/// UDP ports of tunnels: VXLAN (IANA's and Linux's), Geneve, WireGuard, GUE, FOU, IPsec over UDP.
const TUNNEL_PORTS: [u16; 7] = [4789, 8472, 6081, 51820, 6080, 5555, 4500];

/// The part of an IP packet that tells what it is.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Source and destination port, of protocols that have them.
    ports: Option<(u16, u16)>,
    /// ICMPv6's type.
    kind: u8,
}

/// What a frame is.
pub(super) fn classify(frame: &[u8], addresses: &Addresses) -> Class {
    match ethertype(frame) {
        Some(ARP) => return Class::Neighbours,
        Some(IPV4 | IPV6) => {}
        Some(_) | None => return Class::Other,
    }
    let Some(packet) = packet(frame) else {
        return Class::Other;
    };
    let is_tunnel_port = |port: u16| packet.protocol == UDP && TUNNEL_PORTS.contains(&port);
    if TUNNELS.contains(&packet.protocol) || packet.ports.is_some_and(|(_, to)| is_tunnel_port(to)) {
        return Class::Encapsulated;
    }
    if is_neighbourly(&packet) {
        return Class::Neighbours;
    }
    let is_pod = |address| addresses.pods.contains(address);
    let is_machine = |address| addresses.machines.contains(address);
    let (from, to) = (&packet.source, &packet.destination);
    if is_pod(from) && is_pod(to) {
        Class::PodToPod
    } else if (is_pod(from) && is_machine(to)) || (is_machine(from) && is_pod(to)) {
        Class::MachineToPod
    } else if packet.protocol == TCP && packet.ports.is_some_and(|(a, b)| a == BGP_PORT || b == BGP_PORT) {
        Class::Bgp
    } else {
        Class::Other
    }
}

/// A frame, for people.
pub(super) fn describe(frame: &[u8]) -> String {
    match packet(frame) {
        Some(Packet {
            source,
            destination,
            protocol,
            ports,
            kind,
        }) => {
            let detail = match (ports, protocol) {
                (Some((from, to)), _) => format!(", ports {from} to {to}"),
                (None, ICMPV6) => format!(", type {kind}"),
                (None, _) => String::new(),
            };
            format!("{source} to {destination}, protocol {protocol}{detail}")
        }
        None => format!(
            "ethertype {:#06x}, {} bytes",
            ethertype(frame).unwrap_or_default(),
            frame.len()
        ),
    }
}

/// IGMP, and of ICMPv6 what never leaves a link: neighbour and router discovery, listener reports, redirects.
fn is_neighbourly(packet: &Packet) -> bool {
    match packet.protocol {
        IGMP => true,
        ICMPV6 => matches!(packet.kind, 130..=137 | 143),
        _ => false,
    }
}

fn ethertype(frame: &[u8]) -> Option<u16> {
    be16(frame, 12)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn packet(frame: &[u8]) -> Option<Packet> {
    let bytes = frame.get(ETHERNET..)?;
    let (source, destination, mut protocol, mut header): (IpAddr, IpAddr, u8, usize) = match ethertype(frame)?
    {
        IPV4 => {
            let address =
                |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?).into());
            (
                address(12)?,
                address(16)?,
                *bytes.get(9)?,
                usize::from(bytes.first()? & 0x0f) * 4,
            )
        }
        IPV6 => {
            let address =
                |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?).into());
            (address(8)?, address(24)?, *bytes.get(6)?, 40)
        }
        _ => return None,
    };
    // Listener reports stand behind a router alert; no other extension is expected here.
    if protocol == HOP_BY_HOP && source.is_ipv6() {
        protocol = *bytes.get(header)?;
        header += (usize::from(*bytes.get(header + 1)?) + 1) * 8;
    }
    let has_ports = matches!(protocol, TCP | UDP);
    let ports = if has_ports {
        be16(bytes, header).zip(be16(bytes, header + 2))
    } else {
        None
    };
    let kind = bytes.get(header).copied().unwrap_or_default();
    Some(Packet {
        source,
        destination,
        protocol,
        ports,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let set = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Addresses {
            pods: set(&["10.244.0.1", "10.244.0.65", "fd00:10:244::1", "fd00:10:244::41"]),
            machines: set(&["192.168.1.11", "192.168.1.12", "fd00:192:168:1::11"]),
        }
    }

    fn frame(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Frame {
        let mut frame = vec![0; 12];
        match (from.parse().unwrap(), to.parse().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend(IPV4.to_be_bytes());
                frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend(IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0, 0, 0, protocol, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            mixed => panic!("{mixed:?}"),
        }
        frame.extend(payload);
        frame
    }

    fn class(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Class {
        classify(&frame(from, to, protocol, payload), &addresses())
    }

    #[test]
    fn plain_packets_are_told_by_their_ends() {
        assert_eq!(class("10.244.0.1", "10.244.0.65", 1, &[8, 0]), Class::PodToPod);
        assert_eq!(
            class("fd00:10:244::1", "fd00:10:244::41", TCP, &[0, 80, 0, 81]),
            Class::PodToPod
        );
        assert_eq!(
            class("192.168.1.11", "10.244.0.65", TCP, &[0, 80, 0, 81]),
            Class::MachineToPod
        );
        assert_eq!(
            class("10.244.0.65", "192.168.1.11", 1, &[0, 0]),
            Class::MachineToPod
        );
        assert_eq!(
            class("192.168.1.11", "192.168.1.12", TCP, &[0, 179, 200, 0]),
            Class::Bgp
        );
    }

    #[test]
    fn a_packet_inside_a_packet_is_wrong_between_whomever() {
        for protocol in TUNNELS {
            assert_eq!(
                class("192.168.1.11", "192.168.1.12", protocol, &[]),
                Class::Encapsulated
            );
        }
        let vxlan = [0xc0, 0, 0x12, 0xb5];
        assert_eq!(
            class("192.168.1.11", "192.168.1.12", UDP, &vxlan),
            Class::Encapsulated
        );
        assert_eq!(
            class("10.244.0.1", "10.244.0.65", UDP, &vxlan),
            Class::Encapsulated
        );
    }

    #[test]
    fn rewritten_addresses_are_wrong() {
        assert_eq!(
            class("192.168.1.11", "192.168.1.12", TCP, &[0, 80, 0, 81]),
            Class::Other
        );
        assert_eq!(
            class("10.9.9.9", "10.244.0.65", TCP, &[0, 80, 0, 81]),
            Class::Other
        );
    }

    #[test]
    fn the_links_own_talk_is_not_counted_against_pods() {
        let mut arp = vec![0; 12];
        arp.extend(ARP.to_be_bytes());
        assert_eq!(classify(&arp, &addresses()), Class::Neighbours);
        assert_eq!(
            class("fe80::1", "ff02::1:ff00:1", ICMPV6, &[135, 0]),
            Class::Neighbours
        );
        let report = [ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0];
        assert_eq!(
            class("fe80::1", "ff02::16", HOP_BY_HOP, &report),
            Class::Neighbours
        );
        assert_eq!(
            class("fd00:10:244::1", "fd00:10:244::41", ICMPV6, &[128, 0]),
            Class::PodToPod
        );
    }

    #[test]
    fn short_frames_are_other() {
        let whole = frame("10.244.0.1", "10.244.0.65", TCP, &[0, 80, 0, 81]);
        for length in 0..whole.len() {
            let class = classify(&whole[..length], &addresses());
            assert!(
                matches!(class, Class::Other | Class::PodToPod),
                "{length} bytes: {class:?}"
            );
            assert!(!describe(&whole[..length]).is_empty());
        }
    }
}
