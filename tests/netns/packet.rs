//! Packets of all kinds, made byte by byte and stamped, so that whoever gets one knows which it is.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};

use crate::world::Packet;

/// The hardware address of the node, on all its links.
pub(crate) const NODE: [u8; 6] = [2, 0, 0, 0, 1, 0];
/// The hardware address of everything around it.
pub(crate) const AROUND: [u8; 6] = [2, 0, 0, 0, 2, 0];

/// What stands before every stamp.
const MARK: [u8; 4] = *b"manx";
/// The identifier of echo messages.
const ECHO: [u8; 4] = [0, 7, 0, 1];
/// The sequence number with which a TCP connection is opened.
const OPENED: u32 = 1000;

/// The frame that opens a connection, from something around to the node.
pub(crate) fn opening(packet: &Packet, stamp: u32) -> Vec<u8> {
    frame(packet, stamp, false)
}

/// The frame that answers it, with the ends exchanged.
pub(crate) fn answering(packet: &Packet, stamp: u32) -> Vec<u8> {
    let answer = Packet {
        from: packet.to,
        to: packet.from,
        ports: packet.ports.map(|(from, to)| (to, from)),
        icmp: packet
            .icmp
            .map(|_| (if packet.from.is_ipv4() { 0 } else { 129 }, 0)),
        ..*packet
    };
    frame(&answer, stamp, true)
}

/// The part of a frame behind the headers of link and network; nothing, if it is not whole.
pub(crate) fn transport(frame: &[u8], v4: bool) -> &[u8] {
    frame
        .get(Ethernet2Header::LEN..)
        .map_or(&[], |packet| payload(packet, v4))
}

/// The part of a packet behind the header of the network; nothing, if it is not whole.
pub(crate) fn payload(packet: &[u8], v4: bool) -> &[u8] {
    let network = if v4 { Ipv4Header::MIN_LEN } else { Ipv6Header::LEN };
    packet.get(network..).unwrap_or_default()
}

/// What a packet is stamped with.
pub(crate) fn stamp(bytes: &[u8]) -> Option<u32> {
    let (rest, stamp) = bytes.split_last_chunk()?;
    rest.ends_with(&MARK).then(|| u32::from_be_bytes(*stamp))
}

/// A question for an address of the node, which it answers whatever its rules are.
pub(crate) fn question(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let [link, kind] = [[&NODE[..], &AROUND].concat(), vec![8, 6, 0, 1, 8, 0, 6, 4, 0, 1]];
    [
        link,
        kind,
        AROUND.to_vec(),
        from.octets().into(),
        vec![0; 6],
        to.octets().into(),
    ]
    .concat()
}

/// Whether a frame is the answer to such a question.
pub(crate) fn is_answer(frame: &[u8]) -> bool {
    frame.get(12..22) == Some(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2])
}

fn frame(packet: &Packet, stamp: u32, answers: bool) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(AROUND, NODE);
    let ip = match (packet.from, packet.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        (from, to) => panic!("{from} and {to} are of two families"),
    };
    let stamp = [MARK, stamp.to_be_bytes()].concat();
    let mut bytes = Vec::new();
    let (from, to) = packet.ports.unwrap_or_default();
    let written = match (packet.protocol, packet.icmp) {
        (6, _) => {
            let option = [&[1, 1, 253, 10], &stamp[..]].concat();
            let tcp = if answers {
                ip.tcp(from, to, 1, 65_000).syn().ack(OPENED + 1)
            } else {
                ip.tcp(from, to, OPENED, 65_000).syn()
            };
            tcp.options_raw(&option).unwrap().write(&mut bytes, &[])
        }
        (17, _) => ip.udp(from, to).write(&mut bytes, &stamp),
        (1, Some((kind, code))) => ip.icmpv4_raw(kind, code, ECHO).write(&mut bytes, &stamp),
        (58, Some((kind, code))) => ip.icmpv6_raw(kind, code, ECHO).write(&mut bytes, &stamp),
        (132, _) => {
            let payload = sctp((from, to), &stamp, answers);
            ip.write(&mut bytes, IpNumber::SCTP, &payload)
        }
        // GRE, without any option.
        (protocol, _) => {
            let payload = [&[0, 0, 8, 0], &stamp[..]].concat();
            ip.write(&mut bytes, IpNumber(protocol), &payload)
        }
    };
    written.unwrap();
    bytes
}

/// The chunk that opens an association, or the one that answers it (RFC 9260, section 3.3), with a parameter that
/// nobody knows.
fn sctp((from, to): (u16, u16), stamp: &[u8], answers: bool) -> Vec<u8> {
    const TAGS: [u32; 2] = [0x11, 0x22];
    let (kind, expected, own) = if answers {
        (2, TAGS[0], TAGS[1])
    } else {
        (1, 0, TAGS[0])
    };
    let header = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let chunk = [
        &[kind, 0, 0, 32],
        &own.to_be_bytes()[..],
        &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        &[0xc0, 1, 0, 12],
        stamp,
    ]
    .concat();
    let whole = |checksum: u32| {
        [
            &header[..],
            &expected.to_be_bytes(),
            &checksum.to_le_bytes(),
            &chunk,
        ]
        .concat()
    };
    whole(crc32c(&whole(0)))
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let shifted = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let added = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shifted(crc));
    !bytes.iter().fold(u32::MAX, added)
}

#[test]
fn a_packet_is_told_by_its_stamp() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let packet = Packet {
        from: [10, 0, 0, 1].into(),
        to: [10, 0, 0, 2].into(),
        protocol: 132,
        ports: Some((40_000, 80)),
        icmp: None,
    };
    for protocol in [6, 17, 132, 47] {
        let frame = opening(&Packet { protocol, ..packet }, 77);
        assert_eq!(stamp(&frame), Some(77));
        assert_eq!(stamp(transport(&frame, true)), Some(77));
    }
}
