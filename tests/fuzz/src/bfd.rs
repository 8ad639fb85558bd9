//! BFD Control packets, and the machine that gets them: it never panics, what it understood it can say again, and
//! all that it sends is a packet that a neighbour understands.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use manx_bgp::PeerKey;
use manx_bgp::bfd::{Bfd, Input, Key, Output, Packet, SessionConfig, TTL};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Packets, each after an octet with its length and one whose bits say how it came: over several hops, with a
/// time to live that has been counted down, how long after the one before.
pub fn packets(data: &[u8]) {
    let mut now = Instant::now();
    let mut machine = Bfd::new(1);
    for multihop in [false, true] {
        machine.handle(now, Input::SetSession(session(multihop)));
    }
    let mut rest = data;
    while let [length, how, packets @ ..] = rest {
        let (bytes, later) = packets.split_at(packets.len().min((*length).into()));
        rest = later;
        decodes_to_the_same(bytes);
        now += Duration::from_millis(u64::from(how >> 2) * 16);
        let input = Input::Received {
            from: PEER,
            scope: 0,
            multihop: how & 1 == 1,
            ttl: TTL - (how >> 1 & 1),
            bytes: Bytes::copy_from_slice(bytes),
        };
        machine.handle(now, input);
        machine.handle(now, Input::Tick);
        assert!(
            machine.deadline().is_none_or(|at| at > now),
            "what is due has been done"
        );
        while let Some(output) = machine.poll() {
            if let Output::Send { bytes, .. } = output {
                Packet::decode(&bytes).expect("our own packet is right");
            }
        }
    }
}

fn session(multihop: bool) -> SessionConfig {
    SessionConfig {
        key: Key {
            peer: PeerKey::of(PEER, 0),
            multihop,
        },
        local: None,
        min_tx: Duration::from_millis(300),
        min_rx: Duration::from_millis(300),
        multiplier: NonZeroU8::MIN,
    }
}

fn decodes_to_the_same(bytes: &[u8]) {
    if let Ok(packet) = Packet::decode(bytes) {
        assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }
}
