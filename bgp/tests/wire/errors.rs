//! The catalogue of a peer's errors: which octets make which error, and what the peer is told.

use std::net::Ipv4Addr;

use bytes::{Bytes, BytesMut};
use manx_bgp::wire::{self, Capability, Cease, Context, Error, Notification, Problem, Waiting};

use crate::{attribute, attributes, context, framed, unhex, update};

/// What decoding, framing included, ends in.
fn error(octets: &[u8], context: &Context) -> Error {
    let mut buf = BytesMut::from(octets);
    match wire::frame(&mut buf, context.max_message) {
        Err(error) => error,
        Ok(frame) => wire::decode(&frame.expect("a whole message"), context).unwrap_err(),
    }
}

fn told(error: Error) -> (u8, u8, Vec<u8>) {
    let Notification { code, subcode, data } = error.into();
    (code, subcode, data.to_vec())
}

/// An OPEN of AS 65001 and hold time 90 with these optional parameters.
fn open(parameters: &[u8]) -> Vec<u8> {
    let length = u8::try_from(parameters.len()).unwrap();
    [&[4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 9, length], parameters].concat()
}

/// The same with some of its fixed octets changed.
fn open_with(at: usize, octets: &[u8]) -> Bytes {
    let mut body = open(&[]);
    body[at..at + octets.len()].copy_from_slice(octets);
    framed(1, &body)
}

fn keepalive_with(at: usize, octets: &[u8]) -> Vec<u8> {
    let mut message = framed(4, &[]).to_vec();
    message[at..at + octets.len()].copy_from_slice(octets);
    message
}

/// RFC 4271 §6.1 (marker): 1/1.
/// RFC 4271 §6.1 (length): 1/2.
/// RFC 4271 §6.1 (type): 1/3.
/// RFC 8654 §3: OPEN and KEEPALIVE do not grow.
/// nasty cases 9 and 31
#[test]
fn header_errors_tell_the_offending_field() {
    let extended = Context {
        max_message: 65_535,
        ..context(false)
    };
    let short = |length: u16| {
        (
            Error::MessageLength { length },
            (1, 2, length.to_be_bytes().to_vec()),
        )
    };
    let cases = [
        (keepalive_with(3, &[0xfe]), Error::NotSynchronized, (1, 1, vec![])),
        (
            keepalive_with(18, &[0]),
            Error::MessageType { kind: 0 },
            (1, 3, vec![0]),
        ),
        (
            keepalive_with(18, &[6]),
            Error::MessageType { kind: 6 },
            (1, 3, vec![6]),
        ),
        (
            keepalive_with(18, &[255]),
            Error::MessageType { kind: 255 },
            (1, 3, vec![255]),
        ),
    ];
    for (octets, wanted, notification) in cases {
        assert_eq!(error(&octets, &context(false)), wanted);
        assert_eq!(told(wanted), notification);
    }
    // Message type, and the lengths just below and above what it may have.
    for (kind, lengths) in [
        (1, [28, 4_097_u16]),
        (2, [22, 4_097]),
        (3, [20, 4_097]),
        (4, [18, 20]),
        (5, [22, 4_097]),
    ] {
        for length in lengths {
            let octets = keepalive_with(16, &[&length.to_be_bytes()[..], &[kind]].concat());
            let (wanted, notification) = short(length);
            assert_eq!(error(&octets, &context(false)), wanted);
            assert_eq!(told(wanted), notification);
        }
    }
    // OPEN and KEEPALIVE do not grow with RFC 8654, all others do.
    for kind in [1, 4] {
        let octets = keepalive_with(16, &[0x10, 0x01, kind]);
        assert_eq!(error(&octets, &extended), short(0x1001).0);
    }
    for kind in [2, 3, 5] {
        let mut buf = BytesMut::from(&keepalive_with(16, &[0xff, 0xff, kind])[..]);
        assert_eq!(wire::frame(&mut buf, extended.max_message), Ok(None));
    }
}

/// RFC 4271 §6.2 (version): 2/1.
/// RFC 4271 §6.2 (hold time): 2/6 for 1 and 2 s.
/// RFC 4271 §6.2 (identifier): 2/3 for zero.
/// RFC 4271 §6.2 (parameter): 2/4.
/// RFC 5492 §5: 2/7 and what is missing.
/// RFC 7607 §2 (open): 2/2 for AS 0.
#[test]
fn open_errors_tell_what_would_do() {
    let lacks = Error::UnsupportedCapability {
        missing: vec![
            Capability::Multiprotocol(manx_bgp::Family::Ipv6Unicast),
            Capability::FourOctetAs(65_001),
        ],
    };
    assert_eq!(told(lacks), (2, 7, unhex("01040002000141040000fde9")));
    let identifier = Error::BadIdentifier {
        router_id: Ipv4Addr::UNSPECIFIED,
    };
    let as_trans = &[0x5b, 0xa0];
    let cases = [
        (
            open_with(0, &[3]),
            Error::UnsupportedVersion { version: 3 },
            (2, 1, vec![0, 4]),
        ),
        (
            open_with(0, &[5]),
            Error::UnsupportedVersion { version: 5 },
            (2, 1, vec![0, 4]),
        ),
        (open_with(1, &[0, 0]), Error::BadPeerAs { asn: 0 }, (2, 2, vec![])),
        (
            open_with(1, as_trans),
            Error::BadPeerAs { asn: 23_456 },
            (2, 2, vec![]),
        ),
        (
            open_with(3, &[0, 1]),
            Error::UnacceptableHoldTime { seconds: 1, min: 3 },
            (2, 6, vec![]),
        ),
        (
            open_with(3, &[0, 2]),
            Error::UnacceptableHoldTime { seconds: 2, min: 3 },
            (2, 6, vec![]),
        ),
        (open_with(5, &[0; 4]), identifier, (2, 3, vec![])),
        // Authentication, which is deprecated.
        (
            framed(1, &open(&[1, 1, 0])),
            Error::UnsupportedParameter { kind: 1 },
            (2, 4, vec![]),
        ),
    ];
    for (octets, wanted, notification) in cases {
        assert_eq!(error(&octets, &context(false)), wanted);
        assert_eq!(told(wanted), notification);
    }
}

/// RFC 6793 §4.1: the field and the capability agree.
/// nasty case 45
#[test]
fn an_as_number_that_contradicts_its_capability_is_refused() {
    let with = |my_as: [u8; 2], capability: u32| {
        let mut body = open(&[&[2, 6, 65, 4], &capability.to_be_bytes()[..]].concat());
        body[1..3].copy_from_slice(&my_as);
        wire::decode(&framed(1, &body), &Context::default()).map(|_| ())
    };
    assert_eq!(with([0xfd, 0xe9], 65_001), Ok(()));
    assert_eq!(with([0x5b, 0xa0], 4_200_000_000), Ok(()));
    assert_eq!(with([0xfd, 0xe9], 65_002), Err(Error::BadPeerAs { asn: 65_002 }));
    assert_eq!(
        with([0xfd, 0xe9], 4_200_000_000),
        Err(Error::BadPeerAs { asn: 4_200_000_000 })
    );
    assert_eq!(with([0x5b, 0xa0], 0), Err(Error::BadPeerAs { asn: 0 }));
}

/// RFC 4271 §6.2 (malformed): 2/0.
/// RFC 9072 §2 (receive): in either form.
/// nasty cases 10, 11, 18, 19 and 23
#[test]
fn malformed_parameters_are_unspecific_open_errors() {
    let bodies = [
        // The parameters' length is not what follows.
        [&open(&[])[..9], &[4, 2, 2, 2]].concat(),
        [&open(&[])[..], &[2, 0]].concat(),
        // A parameter, a capability, runs past the end; a header is cut.
        open(&[2, 5, 2, 0]),
        open(&[2]),
        open(&[2, 2, 64, 9]),
        open(&[2, 1, 2]),
        // Capabilities of a wrong length: family, refresh, restart, AS; FQDN overruns.
        open(&[2, 5, 1, 3, 0, 1, 1]),
        open(&[2, 3, 2, 1, 0]),
        open(&[2, 3, 64, 1, 0]),
        open(&[2, 7, 64, 5, 0, 120, 0, 1, 1]),
        open(&[2, 4, 65, 2, 0xfd, 0xe9]),
        open(&[2, 4, 73, 9, 1, b'a']),
        // RFC 9072: cut, too long, too short.
        [&open(&[])[..9], &[255, 255, 0]].concat(),
        [&open(&[])[..9], &[255, 255, 0, 9, 2]].concat(),
        [&open(&[])[..9], &[255, 255, 0, 0, 2, 0, 0]].concat(),
        // Crashed parsers elsewhere.
        unhex("04dead0005c0a83901ffff00020001"),
        unhex("04dead00deadbeef6bff"),
    ];
    for body in bodies {
        let wanted = Error::MalformedParameters;
        assert_eq!(
            error(&framed(1, &body), &Context::default()),
            wanted,
            "{body:02x?}"
        );
        assert_eq!(told(wanted), (2, 0, vec![]));
    }
}

/// RFC 7606 §3 (b): lengths.
/// RFC 7606 §3 (j): prefixes.
/// RFC 7606 §3 (i): withdrawn ones, too.
/// RFC 7606 §7.11: MP_REACH_NLRI.
/// RFC 7606 §7.12: MP_UNREACH_NLRI.
/// RFC 4271 §6.3 (lengths): 3/1.
/// RFC 4271 §6.3 (network): 3/10.
/// nasty cases 25 and 26
#[test]
fn update_errors_beyond_repair_carry_the_attribute() {
    let v6_reach = |rest: &[u8]| attribute(0x80, 14, &[&[0, 2, 1], rest].concat());
    let reach = attribute(
        0x80,
        14,
        &unhex("0002011020010db8000000000000000000000001004020010db800000001"),
    );
    let short_reach = v6_reach(&[16, 0x20, 1]);
    let long_prefix = attribute(0x80, 15, &[0, 2, 1, 129]);
    let framing = |code| Problem::MultiprotocolFraming { code };
    let cases = [
        (framed(2, &[0, 1, 0, 0]), Problem::FieldLength, (1, vec![])),
        (framed(2, &[0, 0, 0, 1]), Problem::FieldLength, (1, vec![])),
        (update(&[], &short_reach, &[]), framing(14), (1, vec![])),
        (update(&[], &v6_reach(&[24; 30]), &[]), framing(14), (1, vec![])),
        (
            update(&[], &attribute(0x80, 14, &[0, 2]), &[]),
            framing(14),
            (1, vec![]),
        ),
        (
            update(&[], &attribute(0x80, 15, &[]), &[]),
            framing(15),
            (1, vec![]),
        ),
        (
            update(&[], &[reach.clone(), reach].concat(), &[]),
            Problem::Duplicate { code: 14 },
            (1, vec![]),
        ),
        (
            update(&[], &[0x80, 15, 200], &[]),
            Problem::AttributeOverrun { code: 15 },
            (1, vec![]),
        ),
        (
            update(&[], &long_prefix, &[]),
            Problem::OptionalAttribute {
                code: 15,
                attribute: long_prefix.clone().into(),
            },
            (9, long_prefix.clone()),
        ),
        (
            update(&[33, 0, 0, 0, 0, 0], &[], &[]),
            Problem::InvalidNetwork,
            (10, vec![]),
        ),
        (
            update(&[], &attributes(&[]), &[24, 10, 0]),
            Problem::InvalidNetwork,
            (10, vec![]),
        ),
    ];
    for (octets, problem, (subcode, data)) in cases {
        let wanted = Error::Update(problem);
        assert_eq!(error(&octets, &context(true)), wanted);
        assert_eq!(told(wanted), (3, subcode, data));
    }
}

/// RFC 7606 §5.2: a reset.
/// nasty case 29
#[test]
fn an_error_without_routes_ends_the_session_with_its_own_subcode() {
    let bad = |flags, code, value: &[u8]| attribute(flags, code, value);
    let cases = [
        (bad(0x40, 99, &[1]), 2),
        (bad(0xc0, 1, &[0]), 4),
        (bad(0x40, 1, &[0, 0]), 5),
        (bad(0x40, 1, &[3]), 6),
        (bad(0x40, 3, &[0, 0, 0]), 5),
        (bad(0x80, 3, &[192, 0, 2, 1]), 4),
    ];
    for (attribute, subcode) in cases {
        let ended = error(&update(&[], &attribute, &[]), &context(false));
        assert_eq!(told(ended), (3, subcode, attribute));
    }
    let path = attribute(0x40, 2, &[2, 0]);
    assert_eq!(
        told(error(&update(&[], &path, &[]), &context(false))),
        (3, 11, vec![])
    );
    assert_eq!(
        told(Problem::MissingWellKnown { code: 2 }.into()),
        (3, 3, vec![2])
    );
}

/// RFC 7313 §5: 7/1 and the message.
#[test]
fn a_demarcation_of_the_wrong_length_comes_back_whole() {
    let message = framed(5, &[0, 1, 1, 1, 0]);
    let wanted = Error::RefreshLength {
        message: message.clone(),
    };
    assert_eq!(error(&message, &context(false)), wanted);
    assert_eq!(told(wanted), (7, 1, message.to_vec()));
    // Filters behind a request are nobody's business here.
    let request = framed(5, &[0, 1, 0, 1, 1, 128, 0, 0]);
    assert!(wire::decode(&request, &context(false)).is_ok());
}

/// RFC 4486 §3: subcodes 1 to 8.
#[test]
fn reasons_to_cease_have_their_registered_numbers() {
    let cases = [
        (
            Cease::MaximumPrefixes,
            "cease: maximum number of prefixes reached (6/1)",
        ),
        (
            Cease::AdministrativeShutdown,
            "cease: administrative shutdown (6/2)",
        ),
        (Cease::PeerDeconfigured, "cease: peer de-configured (6/3)"),
        (Cease::AdministrativeReset, "cease: administrative reset (6/4)"),
        (Cease::ConnectionRejected, "cease: connection rejected (6/5)"),
        (
            Cease::OtherConfigurationChange,
            "cease: other configuration change (6/6)",
        ),
        (
            Cease::ConnectionCollision,
            "cease: connection collision resolution (6/7)",
        ),
        (Cease::OutOfResources, "cease: out of resources (6/8)"),
        (Cease::HardReset, "cease: hard reset (6/9)"),
        (Cease::BfdDown, "cease: BFD down (6/10)"),
    ];
    for (reason, text) in cases {
        assert_eq!(Notification::cease(reason).to_string(), text);
    }
}

/// RFC 6608 §3: subcodes 1 to 3.
#[test]
fn errors_of_the_state_machine_have_their_registered_numbers() {
    let unexpected = Notification::unexpected_message;
    let state_machine = "finite state machine error: unexpected message in";
    let cases = [
        (
            Notification::hold_timer_expired(),
            "hold timer expired (4/0)".to_owned(),
        ),
        (
            Notification::send_hold_timer_expired(),
            "send hold timer expired (8/0)".to_owned(),
        ),
        (
            unexpected(Waiting::OpenSent, 2),
            format!("{state_machine} OpenSent (5/1)"),
        ),
        (
            unexpected(Waiting::OpenConfirm, 2),
            format!("{state_machine} OpenConfirm (5/2)"),
        ),
        (
            unexpected(Waiting::Established, 1),
            format!("{state_machine} Established (5/3)"),
        ),
    ];
    for (notification, text) in cases {
        assert_eq!(notification.to_string(), text);
    }
    assert_eq!(unexpected(Waiting::Established, 1).data[..], [1]);
}

/// RFC 9003 §2 (receive): shown.
/// RFC 9003 §4: never an error.
/// nasty case 35
#[test]
fn an_operators_words_are_shown_without_what_a_terminal_would_obey() {
    let said = |data: &'static [u8]| {
        Notification {
            data: Bytes::from_static(data),
            ..Notification::cease(Cease::AdministrativeShutdown)
        }
        .to_string()
    };
    let plain = "cease: administrative shutdown (6/2)";
    assert_eq!(said(b"\x05lunch"), format!("{plain}, \"lunch\""));
    assert_eq!(said(b"\x03a\x1bb"), format!("{plain}, \"a\\u{{1b}}b\""));
    assert_eq!(said(b"\xffshort"), plain);
    assert_eq!(said(b"\x02a\xff"), format!("{plain}, \"a\u{fffd}\""));
    assert_eq!(said(b"\x01a and more"), format!("{plain}, \"a\""));
    assert_eq!(said(b"\x00"), plain);
    let unknown = Notification {
        code: 200,
        subcode: 1,
        data: Bytes::new(),
    };
    assert_eq!(unknown.to_string(), "error 200/1");
}

/// RFC 9003 §2 (send): 255 octets at most, and whole characters.
#[test]
fn an_operators_words_leave_as_text_that_fits() {
    for (words, length) in [
        ("", 0),
        ("lunch", 5),
        (&"a".repeat(300), 255),
        (&"é".repeat(200), 254),
    ] {
        let said = Notification::cease(Cease::AdministrativeReset).saying(words);
        assert_eq!(usize::from(said.data[0]), length);
        assert_eq!(said.data[1..], words.as_bytes()[..length]);
        let shown = said.to_string();
        assert!(
            length == 0 || shown.ends_with(&format!(", \"{}\"", &words[..length])),
            "{shown}"
        );
    }
}

/// RFC 8538 §3.1: the reason inside a hard reset is told, but no hard reset in a hard reset.
#[test]
fn a_hard_resets_reason_is_shown() {
    let hard = |data: &'static [u8]| {
        Notification {
            data: Bytes::from_static(data),
            ..Notification::cease(Cease::HardReset)
        }
        .to_string()
    };
    let plain = "cease: hard reset (6/9)";
    assert_eq!(
        hard(b"\x06\x02\x05lunch"),
        format!("{plain}, cease: administrative shutdown (6/2), \"lunch\"")
    );
    for nothing in [&b""[..], b"\x06", b"\x06\x09\x06\x09"] {
        assert_eq!(hard(nothing), plain);
    }
}

#[test]
fn a_notification_carries_no_more_than_a_message_holds() {
    let notification = Notification {
        code: 3,
        subcode: 5,
        data: vec![7; 5_000].into(),
    };
    let octets = wire::encode(&wire::Message::Notification(notification), &context(true));
    assert_eq!(octets.len(), 4_096);
}
