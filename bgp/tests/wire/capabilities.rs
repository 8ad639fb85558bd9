//! Capabilities: what each is on the wire, and what becomes of one that is wrong.

use bytes::Bytes;
use manx_bgp::Family;
use manx_bgp::wire::{
    self, AddPath, Capability, Context, Error, LongLivedRestart, Message, Notification, Open, Role,
};

use crate::{framed, unhex};

const V4: Family = Family::Ipv4Unicast;
const V6: Family = Family::Ipv6Unicast;

/// An OPEN with these capabilities' octets.
fn open(capabilities: &[u8]) -> Bytes {
    let length = u8::try_from(capabilities.len()).unwrap();
    let fixed = [4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 9, length + 2, 2, length];
    framed(1, &[&fixed[..], capabilities].concat())
}

fn decoded(capabilities: &[u8]) -> Result<Vec<Capability>, Error> {
    match wire::decode(&open(capabilities), &Context::default())? {
        Message::Open(open) => Ok(open.capabilities),
        other @ (Message::Update(_)
        | Message::Notification(_)
        | Message::Keepalive
        | Message::RouteRefresh(_)) => panic!("{other:?} is no OPEN"),
    }
}

fn unknown(code: u8, value: &[u8]) -> Capability {
    Capability::Unknown {
        code,
        value: Bytes::copy_from_slice(value),
    }
}

fn add_path(family: Family, receive: bool, send: bool) -> AddPath {
    AddPath {
        family,
        receive,
        send,
    }
}

/// RFC 5492 §3: an unknown one does no harm.
/// RFC 9234 §4.1: five roles.
/// RFC 9494 §3: seven octets a family.
#[test]
fn each_capability_has_the_octets_of_its_rfc() {
    let stale = |family, forwarding, stale_time| LongLivedRestart {
        family,
        forwarding,
        stale_time,
    };
    let cases = [
        ("0506000100010002", Capability::ExtendedNextHop(vec![V4])),
        ("0600", Capability::ExtendedMessage),
        ("090100", Capability::Role(Role::Provider)),
        ("090101", Capability::Role(Role::RouteServer)),
        ("090102", Capability::Role(Role::RouteServerClient)),
        ("090103", Capability::Role(Role::Customer)),
        ("090104", Capability::Role(Role::Peer)),
        ("090105", Capability::Role(Role::Unassigned(5))),
        (
            "45080001010100020103",
            Capability::AddPath(vec![add_path(V4, true, false), add_path(V6, true, true)]),
        ),
        (
            "450400010102",
            Capability::AddPath(vec![add_path(V4, false, true)]),
        ),
        ("4600", Capability::EnhancedRouteRefresh),
        (
            "470e00010180000e1000020100ffffff",
            Capability::LongLivedGracefulRestart(vec![stale(V4, true, 3_600), stale(V6, false, 16_777_215)]),
        ),
        // A host name, which is nobody's business here.
        ("4903016100", unknown(73, b"\x01a\x00")),
    ];
    for (octets, capability) in cases {
        assert_eq!(decoded(&unhex(octets)), Ok(vec![capability.clone()]), "{octets}");
        let open = Message::Open(Open {
            asn: 65_001,
            hold_time: 90,
            router_id: [192, 0, 2, 9].into(),
            capabilities: vec![capability],
        });
        let sent = wire::encode(&open, &Context::default());
        assert_eq!(sent[31..], unhex(octets));
    }
}

/// RFC 4271 §6.2 (malformed): 2/0.
/// nasty cases 18, 19 and 22
#[test]
fn a_capability_of_a_wrong_length_is_malformed() {
    let cases = [
        // One octet less or more than a tuple, or any at all.
        "05050001000100",
        "050700010001000200",
        "060100",
        "0900",
        "09020000",
        "4503000101",
        "45050001010100",
        "460100",
        "4706000101800000",
        "47080001018000000000",
        // Past the end.
        "4508000101",
        "47ff",
    ];
    for octets in cases {
        assert_eq!(
            decoded(&unhex(octets)),
            Err(Error::MalformedParameters),
            "{octets}"
        );
    }
    let told = Notification::from(Error::MalformedParameters);
    assert_eq!((told.code, told.subcode), (2, 0));
}

#[test]
fn what_others_carry_is_left_out() {
    let cases = [
        // IPv4 with IPv4 next hops, VPN, a SAFI of two octets.
        (
            "0518000100010001000100800002000101010002000100010002",
            Capability::ExtendedNextHop(vec![V4]),
        ),
        ("0500", Capability::ExtendedNextHop(vec![])),
        (
            "450800018001 00010103",
            Capability::AddPath(vec![add_path(V4, true, true)]),
        ),
        ("4500", Capability::AddPath(vec![])),
        ("4707001946800000ff", Capability::LongLivedGracefulRestart(vec![])),
        ("4700", Capability::LongLivedGracefulRestart(vec![])),
    ];
    for (octets, capability) in cases {
        assert_eq!(
            decoded(&unhex(&octets.replace(' ', ""))),
            Ok(vec![capability]),
            "{octets}"
        );
    }
}

/// RFC 7911 §4: any other value voids the capability.
#[test]
fn add_path_that_neither_sends_nor_receives_is_not_understood() {
    // RFC 7911 §4: any other value, and all of the capability is ignored.
    for both in [0, 4, 255] {
        let value = [0, 1, 1, 3, 0, 2, 1, both];
        let octets = [&[69, 8][..], &value].concat();
        assert_eq!(decoded(&octets), Ok(vec![unknown(69, &value)]));
    }
}

#[test]
fn flags_without_a_meaning_are_not_looked_at() {
    let restart = decoded(&unhex("4707000101ff000001")).unwrap();
    let wanted = LongLivedRestart {
        family: V4,
        forwarding: true,
        stale_time: 1,
    };
    assert_eq!(restart, [Capability::LongLivedGracefulRestart(vec![wanted])]);
}

/// RFC 9234 §4.2: 2/11 where they do not pair.
#[test]
fn roles_pair_as_the_table_says() {
    let roles = [
        Role::Provider,
        Role::RouteServer,
        Role::RouteServerClient,
        Role::Customer,
        Role::Peer,
        Role::Unassigned(9),
    ];
    let pairs = [
        (Role::Provider, Role::Customer),
        (Role::RouteServer, Role::RouteServerClient),
        (Role::Peer, Role::Peer),
    ];
    for ours in roles {
        for theirs in roles {
            let wanted = pairs.contains(&(ours, theirs)) || pairs.contains(&(theirs, ours));
            assert_eq!(ours.pairs_with(theirs), wanted, "{ours:?} and {theirs:?}");
        }
    }
    let told = Notification::from(Error::RoleMismatch {
        ours: Role::Peer,
        theirs: Some(Role::Provider),
    });
    assert_eq!((told.code, told.subcode, told.data.len()), (2, 11, 0));
}

/// RFC 9072 §2 (send): the old form as long as it is enough.
/// RFC 9072 §2 (receive): both forms.
#[test]
fn many_capabilities_take_the_extended_form() {
    for (octets, extended) in [(0_u8, false), (1, false), (249, false), (250, true)] {
        let open = Open {
            asn: 65_001,
            hold_time: 90,
            router_id: [192, 0, 2, 9].into(),
            // With their own headers 4 octets more.
            capabilities: vec![unknown(99, &vec![7; octets.into()]), Capability::RouteRefresh],
        };
        let sent = wire::encode(&Message::Open(open.clone()), &Context::default());
        assert_eq!(sent[28..30] == [255, 255], extended, "{octets}");
        assert_eq!(
            wire::decode(&sent, &Context::default()),
            Ok(Message::Open(open.clone()))
        );
        let twice = [open.capabilities.clone(), open.capabilities.clone()].concat();
        let open = Open {
            capabilities: twice,
            ..open
        };
        let sent = wire::encode(&Message::Open(open.clone()), &Context::default());
        assert_eq!(wire::decode(&sent, &Context::default()), Ok(Message::Open(open)));
    }
}

/// RFC 9072 §2 (receive): the extended form also where the old one would do.
#[test]
fn the_extended_form_is_read_whatever_the_length() {
    let fixed = [4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 9];
    for (first, parameters) in [
        (255, &[255, 0, 0][..]),
        (255, &[255, 0, 5, 2, 0, 2, 2, 0]),
        (3, &[255, 0, 5, 2, 0, 2, 2, 0]),
    ] {
        let body = [&fixed[..], &[first], parameters].concat();
        let open = wire::decode(&framed(1, &body), &Context::default());
        let Ok(Message::Open(open)) = open else {
            panic!("{open:?}")
        };
        assert_eq!(open.capabilities.len(), usize::from(parameters.len() > 3));
    }
}
