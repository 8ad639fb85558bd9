//! Packets that are nobody's, forged or odd.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use manx_bgp::PeerKey;
use manx_bgp::bfd::{Input, Output, Packet, SessionConfig, State, TTL};
use proptest::prelude::*;

use crate::pair::{Pair, address, key, ms, settings};

fn received(ttl: u8, multihop: bool, bytes: Bytes) -> Input {
    Input::Received {
        from: address(1),
        scope: 0,
        multihop,
        ttl,
        bytes,
    }
}

/// The last packet of an end.
fn last(pair: &Pair, end: usize) -> Packet {
    let sent = pair.packets.iter().rev().find(|(_, who, _)| *who == end);
    sent.unwrap().2
}

/// A packet of the second end that would take the first one's session down.
fn fatal(pair: &mut Pair) -> Packet {
    pair.run(ms(1000));
    Packet {
        state: State::Down,
        ..last(pair, 1)
    }
}

#[test]
fn a_packet_that_was_forwarded_does_not_count_on_one_hop() {
    let mut pair = Pair::up(1);
    let fatal = fatal(&mut pair).encode();
    for ttl in [0, 1, 64, 254] {
        pair.input(0, received(ttl, false, fatal.clone()));
        assert_eq!(pair.state(0), State::Up, "{ttl}");
    }
    pair.input(0, received(TTL, false, fatal));
    assert_ne!(pair.state(0), State::Up, "the packet itself is good");
}

#[test]
fn a_wrong_discriminator_is_nobodys() {
    let mut pair = Pair::up(2);
    let fatal = fatal(&mut pair);
    for guess in [1, u32::MAX, !fatal.your_discriminator.unwrap().get()] {
        let packet = Packet {
            your_discriminator: NonZeroU32::new(guess),
            ..fatal
        };
        pair.input(0, received(TTL, false, packet.encode()));
    }
    pair.input(0, received(TTL, true, fatal.encode()));
    assert_eq!(pair.state(0), State::Up);
}

#[test]
fn a_stranger_is_not_answered() {
    let mut pair = Pair::new(3);
    pair.set(0, settings(0));
    pair.forget();
    let packet = Packet {
        poll: true,
        ..settings_packet(State::Down)
    };
    let from = "198.51.100.1".parse().unwrap();
    let input = Input::Received {
        from,
        scope: 0,
        multihop: false,
        ttl: TTL,
        bytes: packet.encode(),
    };
    pair.input(0, input);
    pair.input(0, received(TTL, true, packet.encode()));
    assert!(pair.packets.is_empty());
    assert_eq!(pair.state(0), State::Down);
    pair.input(0, received(TTL, false, packet.encode()));
    assert_eq!(pair.state(0), State::Init);
    assert!(last(&pair, 0).finish, "a poll is answered at once");
}

fn settings_packet(state: State) -> Packet {
    Packet::decode(&[
        0x20, 0x40, 3, 24, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30, 0, 0, 0, 0,
    ])
    .map(|packet| Packet { state, ..packet })
    .unwrap()
}

/// nasty case 52
#[test]
fn one_hop_and_several_to_one_address_are_two_sessions() {
    let mut pair = Pair::up(4);
    let multi = |end| SessionConfig {
        key: key(end, true),
        ..settings(end)
    };
    (0..2).for_each(|end| pair.set(end, multi(end)));
    pair.run(ms(60_000));
    for end in 0..2 {
        let states: Vec<_> = pair.ends[end].sessions().iter().map(|it| it.state).collect();
        assert_eq!(states, [State::Up; 2]);
    }
    assert_eq!(pair.reports.len(), 2, "neither flaps: {:?}", pair.reports);
    pair.input(0, Input::RemoveSession(key(0, false)));
    pair.run(ms(60_000));
    assert_eq!(pair.ends[0].sessions().len(), 1);
    assert_eq!(pair.state(0), State::Up, "the other one stays");
    assert_eq!(pair.down(1), None);
}

#[test]
fn link_local_neighbours_on_two_links_are_two_sessions() {
    let mut pair = Pair::new(5);
    let address = "fe80::1".parse().unwrap();
    for scope in [2, 3] {
        let mut config = settings(0);
        config.key.peer = PeerKey::of(address, scope);
        pair.ends[0].handle(pair.now, Input::SetSession(config));
    }
    let input = Input::Received {
        from: address,
        scope: 3,
        multihop: false,
        ttl: TTL,
        bytes: settings_packet(State::Down).encode(),
    };
    pair.ends[0].handle(pair.now, input);
    let states: Vec<_> = pair.ends[0].sessions().iter().map(|it| it.state).collect();
    assert_eq!(states, [State::Down, State::Init]);
}

/// RFC 5880 §6.8.7: no periodic packets to a neighbour that takes none, or in demand mode.
#[test]
fn a_neighbour_that_wants_no_packets_gets_none() {
    let silent: [fn(Packet) -> Packet; 2] = [
        |packet| Packet {
            required_min_rx: Duration::ZERO,
            ..packet
        },
        |packet| Packet {
            demand: true,
            ..packet
        },
    ];
    for quiet in silent {
        let mut pair = Pair::up(6);
        let _poll_is_over = fatal(&mut pair);
        let packet = quiet(last(&pair, 1));
        pair.cut = [true; 2];
        pair.input(0, received(TTL, false, packet.encode()));
        pair.forget();
        pair.run(ms(800));
        assert!(pair.packets.iter().all(|(_, end, _)| *end == 1));
        let poll = Packet { poll: true, ..packet };
        pair.input(0, received(TTL, false, poll.encode()));
        assert!(last(&pair, 0).finish);
    }
}

/// A driver that was held up hands in what waited before time is let pass.
#[test]
fn packets_that_waited_count_before_the_clock() {
    let mut pair = Pair::up(7);
    pair.run(ms(1000));
    let waiting = last(&pair, 1).encode();
    pair.now += ms(5000);
    pair.input(0, received(TTL, false, waiting));
    pair.input(0, Input::Tick);
    assert_eq!(pair.state(0), State::Up);
    assert_eq!(pair.reports, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Octets of no meaning move no session; nor does any packet that does not know our discriminator bring
    /// one up.
    #[test]
    fn garbage_brings_nothing_up(
        datagrams in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        heads in proptest::collection::vec((0x20_u8..0x40, any::<u8>(), 1_u8..9, any::<[u8; 20]>()), 0..20),
    ) {
        let mut pair = Pair::new(8);
        pair.set(0, settings(0));
        for (multihop, datagram) in datagrams {
            pair.input(0, received(TTL, multihop, datagram.into()));
        }
        for (head, flags, multiplier, rest) in heads {
            let mut datagram = vec![head, flags, multiplier, 24];
            datagram.extend_from_slice(&rest);
            pair.input(0, received(TTL, false, datagram.into()));
            pair.run(ms(100));
        }
        let up = |(_, _, output): &(Duration, usize, Output)| matches!(output, Output::Up(_));
        prop_assert!(!pair.reports.iter().any(up));
    }
}
