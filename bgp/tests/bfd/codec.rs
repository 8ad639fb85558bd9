//! Octets of other people's BFD, with their known meaning, and any octets at all.

use std::fs;
use std::num::{NonZeroU8, NonZeroU32};
use std::path::Path;
use std::time::Duration;

use manx_bgp::bfd::packet::Malformed;
use manx_bgp::bfd::{Diagnostic, Packet, State};
use proptest::prelude::*;

use crate::fuzz;

/// A multiplier of 3, the usual.
const THREE: NonZeroU8 = NonZeroU8::new(3).unwrap();

fn octets(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

fn packet(state: State, mine: u32, yours: u32, tx: u64, rx: u64, echo: u64) -> Packet {
    Packet {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        finish: false,
        control_plane_independent: false,
        demand: false,
        multiplier: THREE,
        my_discriminator: NonZeroU32::new(mine).unwrap(),
        your_discriminator: NonZeroU32::new(yours),
        desired_min_tx: Duration::from_millis(tx),
        required_min_rx: Duration::from_millis(rx),
        required_min_echo_rx: Duration::from_millis(echo),
    }
}

/// The first packets of tcpdump's `bfd-lag`, `bfd-multihop` (both ports), `bfd-sbfd` and
/// `bfd_source_port_49152` captures (BSD licence).
#[test]
fn captured_packets_mean_what_is_known_of_them_and_encode_to_the_same_octets() {
    let cases = [
        (
            "20600318 0de60837 00000000 000f4240 000493e0 000493e0",
            Packet {
                poll: true,
                ..packet(State::Down, 0x0de6_0837, 0, 1000, 300, 300)
            },
        ),
        (
            "20c00318 7429abf9 d43a40c1 000493e0 000493e0 000493e0",
            packet(State::Up, 0x7429_abf9, 0xd43a_40c1, 300, 300, 300),
        ),
        (
            "20c00318 89860b19 457f7451 00061a80 00061a80 00061a80",
            packet(State::Up, 0x8986_0b19, 0x457f_7451, 400, 400, 400),
        ),
        (
            "20c00318 27acfe90 a2961c74 000493e0 00000000 00000000",
            packet(State::Up, 0x27ac_fe90, 0xa296_1c74, 300, 0, 0),
        ),
        (
            "20c80318 80000001 80000001 000186a0 000186a0 00000000",
            Packet {
                control_plane_independent: true,
                ..packet(State::Up, 0x8000_0001, 0x8000_0001, 100, 100, 0)
            },
        ),
    ];
    for (hex, meaning) in cases {
        assert_eq!(Packet::decode(&octets(hex)), Ok(meaning), "{hex}");
        assert_eq!(meaning.encode()[..], octets(hex)[..]);
    }
}

/// The first packets of tcpdump's `bfd-raw-auth-simple` and `bfd-raw-auth-md5` captures (BSD licence).
#[test]
fn authenticated_packets_are_discarded_where_none_is_configured() {
    let mandatory = "00000001 00000000 000f4240 000f4240 00000000";
    for (head, tail) in [
        ("20440521", "010902736563726574"),
        ("20440530", "0218020000000005 01020304050607080910111213141516"),
    ] {
        let datagram = octets(&format!("{head}{mandatory}{tail}"));
        assert_eq!(Packet::decode(&datagram), Err(Malformed::Authenticated));
    }
}

#[test]
fn each_rule_of_reception_has_its_error() {
    let good = "20c00318 00000001 00000002 000f4240 000f4240 00000000";
    assert!(Packet::decode(&octets(good)).is_ok());
    let broken = |at: usize, value: u8| {
        let mut datagram = octets(good);
        datagram[at] = value;
        Packet::decode(&datagram)
    };
    let length = |length| Err(Malformed::Length { length, datagram: 24 });
    assert_eq!(
        Packet::decode(&octets(good)[..23]),
        Err(Malformed::Short { length: 23 })
    );
    assert_eq!(broken(0, 0x40), Err(Malformed::Version { version: 2 }));
    assert_eq!(broken(0, 0x00), Err(Malformed::Version { version: 0 }));
    assert_eq!(broken(3, 23), length(23));
    assert_eq!(broken(3, 25), length(25));
    assert_eq!(broken(1, 0xc4), length(24));
    assert_eq!(broken(2, 0), Err(Malformed::Multiplier));
    assert_eq!(broken(1, 0xc1), Err(Malformed::Multipoint));
    assert_eq!(broken(7, 0), Err(Malformed::MyDiscriminator));
    for (bits, state) in [(0x80, State::Init), (0xc0, State::Up)] {
        let mut datagram = octets(good);
        (datagram[1], datagram[11]) = (bits, 0);
        assert_eq!(
            Packet::decode(&datagram),
            Err(Malformed::YourDiscriminator { state })
        );
    }
}

#[test]
fn what_follows_the_packet_in_its_datagram_is_ignored() {
    let datagram = octets("20c00318 00000001 00000002 000f4240 000f4240 00000000 ffff");
    assert!(Packet::decode(&datagram).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Reserved diagnostics too: what decodes encodes to the same octets.
    #[test]
    fn decoding_and_encoding_are_inverse(head in 0_u8..32, flags in any::<u8>(), rest in any::<[u8; 21]>()) {
        let mut datagram = vec![0x20 | head, flags, rest[0], 24];
        datagram.extend_from_slice(&rest[1..]);
        if let Ok(packet) = Packet::decode(&datagram) {
            prop_assert_eq!(&packet.encode()[..], &datagram[..]);
        }
    }

    #[test]
    fn any_octets_are_survived(datagram in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(packet) = Packet::decode(&datagram) {
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }
    }
}

#[test]
fn the_fuzz_corpus_finds_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/bfd");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        fuzz::packets(&fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 10, "{replayed} inputs only");
}
