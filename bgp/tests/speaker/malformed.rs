//! Malformed UPDATEs, from the octets to what the other peers hear (RFC 7606).
//!
//! Peer 2 announces a route, then announces it anew with something wrong; peer 3, of another AS, watches.

use manx_bgp::wire::{Capability, Open, Origin};
use manx_bgp::{ConnId, Family, PeerConfig, State};

use crate::rig::{Rig, config, external, internal, open, prefix};

const TARGET: &str = "10.1.0.0/26";
/// The target as NLRI.
const NLRI: [u8; 5] = [26, 10, 1, 0, 0];

/// What an error costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// The attribute, or nothing: the new route replaces the old one.
    Kept,
    /// The route: neither the old nor the new one stays.
    Withdrawn,
    /// The session, with this subcode of code 3.
    Reset(u8),
}

/// An attribute and what is lost with it.
struct Row {
    code: u8,
    flags: u8,
    value: &'static [u8],
    /// With wrong flags.
    flags_cost: Cost,
    /// With a wrong length, from an internal and from an external peer; the subcode without routes.
    length_cost: (Cost, Cost),
}

/// A next hop, and AS_PATH of AS 65002.
const NEXT_HOP: [u8; 4] = [10, 0, 0, 2];
const AS_PATH: [u8; 6] = [2, 1, 0, 0, 0xfd, 0xea];

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use Cost::{Kept, Withdrawn};
    let row = |code, flags, value, flags_cost, length_cost| Row { code, flags, value, flags_cost, length_cost };
    let (always, inside, never) = ((Withdrawn, Withdrawn), (Withdrawn, Kept), (Kept, Kept));
    vec![
        row(1, 0x40, &[1], Withdrawn, always),
        row(2, 0x40, &AS_PATH, Withdrawn, always),
        row(3, 0x40, &NEXT_HOP, Withdrawn, always),
        row(4, 0x80, &[0, 0, 0, 9], Withdrawn, always),
        row(5, 0x40, &[0, 0, 0, 200], Withdrawn, inside),
        row(6, 0x40, &[], Withdrawn, never),
        row(7, 0xc0, &[0, 0, 0, 9, 9, 9, 9, 9], Withdrawn, never),
        row(8, 0xc0, &[0, 9, 0, 9], Withdrawn, always),
        row(9, 0x80, &[9; 4], Withdrawn, inside),
        row(10, 0x80, &[9; 4], Withdrawn, inside),
        row(16, 0xc0, &[0, 2, 0, 9, 0, 0, 0, 9], Withdrawn, always),
        row(17, 0xc0, &AS_PATH, Withdrawn, never),
        row(18, 0xc0, &[0, 0, 0, 9, 9, 9, 9, 9], Withdrawn, never),
        row(25, 0xc0, &[9; 20], Withdrawn, always),
        row(26, 0x80, &[1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9], Kept, never),
        row(29, 0x80, &[4, 0, 0, 1, 9], Kept, never),
        row(32, 0xc0, &[9; 12], Withdrawn, always),
        row(35, 0xc0, &[0, 0, 0, 9], Withdrawn, always),
        row(40, 0xc0, &[1, 0, 7, 0, 0, 0, 0, 0, 9], Kept, never),
    ]
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, code, u8::try_from(value.len()).unwrap()], value].concat()
}

/// A whole UPDATE.
fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    let body = [
        &length(withdrawn)[..],
        withdrawn,
        &length(attributes),
        attributes,
        nlri,
    ]
    .concat();
    let header = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16][..], &header, &[2], &body].concat()
}

/// The mandatory attributes with this ORIGIN, and `own` in the place of one of its type or behind them.
fn attributes(origin: u8, own: &[u8]) -> Vec<u8> {
    let mandatory = [
        attribute(0x40, 1, &[origin]),
        attribute(0x40, 2, &AS_PATH),
        attribute(0x40, 3, &NEXT_HOP),
    ];
    let others = mandatory
        .into_iter()
        .filter(|other| own.get(1) != Some(&other[1]));
    others.chain([own.to_vec()]).flatten().collect()
}

/// Peer 2 with its route announced, and peer 3 that has heard of it.
struct Scene {
    rig: Rig,
    peer: ConnId,
    observer: ConnId,
}

impl Scene {
    fn new(peer: PeerConfig) -> Self {
        let mut rig = Rig::new(config());
        let observer = rig.establish(external(3));
        let hello = Open {
            capabilities: [
                open(2, peer.asn).capabilities,
                vec![Capability::Multiprotocol(Family::Ipv6Unicast)],
            ]
            .concat(),
            ..open(2, peer.asn)
        };
        let peer = PeerConfig {
            families: Family::ALL.to_vec(),
            ..peer
        };
        let peer = rig.establish_with(peer, 2, hello);
        rig.receive_octets(peer, &update(&[], &attributes(0, &[]), &NLRI));
        rig.sent(peer);
        assert_eq!(rig.told(observer).0, [prefix(TARGET)]);
        Self { rig, peer, observer }
    }

    /// Takes the UPDATE in; checks that it costs this much, here and at the observer.
    fn check(mut self, octets: &[u8], cost: Cost, case: &str) {
        self.rig.receive_octets(self.peer, octets);
        let target = prefix(TARGET);
        let heard = self.rig.told(self.observer);
        let stays = self.rig.peer(2).state == State::Established;
        let told = self.rig.notified(self.peer);
        match cost {
            Cost::Kept => {
                assert_eq!(self.rig.paths(target)[0].attributes.origin, Origin::Egp, "{case}");
                assert_eq!(
                    (heard, stays, told),
                    ((vec![target], vec![]), true, None),
                    "{case}"
                );
            }
            Cost::Withdrawn => {
                assert!(self.rig.paths(target).is_empty(), "{case}");
                assert_eq!(
                    (heard, stays, told),
                    ((vec![], vec![target]), true, None),
                    "{case}"
                );
            }
            Cost::Reset(subcode) => {
                assert!(self.rig.paths(target).is_empty(), "{case}");
                assert_eq!(
                    (heard, told),
                    ((vec![], vec![target]), Some((3, subcode))),
                    "{case}"
                );
                assert!(!stays && self.rig.closed == [self.peer], "{case}");
            }
        }
        assert_eq!(self.rig.peer(3).state, State::Established, "{case}");
    }

    /// Takes the UPDATE in, which announces nothing; checks whether the session stays, and the old route with it.
    fn check_without_routes(mut self, octets: &[u8], stays: bool, case: &str) {
        self.rig.receive_octets(self.peer, octets);
        assert_eq!(self.rig.peer(2).state == State::Established, stays, "{case}");
        assert_eq!(self.rig.paths(prefix(TARGET)).len(), usize::from(stays), "{case}");
        assert_eq!(self.rig.notified(self.peer).is_some(), !stays, "{case}");
    }
}

/// Internal and external.
fn peers() -> [(PeerConfig, bool); 2] {
    let same_path = PeerConfig {
        asn: 65_002,
        ..external(2)
    };
    [(internal(2), false), (same_path, true)]
}

/// Everything that is wrong with one attribute, and what it costs.
fn faults(row: &Row, is_external: bool) -> Vec<(Vec<u8>, Cost, &'static str)> {
    let Row {
        code, flags, value, ..
    } = *row;
    let (inside, outside) = row.length_cost;
    let length_cost = if is_external { outside } else { inside };
    let longer = [value, &[0]].concat();
    let mut faults = vec![
        (
            attribute(flags ^ 0x80, code, value),
            row.flags_cost,
            "not as optional as it is",
        ),
        (
            attribute(flags ^ 0x40, code, value),
            row.flags_cost,
            "not as transitive as it is",
        ),
        (attribute(flags, code, &longer), length_cost, "too long"),
    ];
    if flags != 0xc0 {
        faults.push((attribute(flags | 0x20, code, value), row.flags_cost, "partial"));
    }
    if let [shorter @ .., _] = value {
        faults.push((attribute(flags, code, shorter), length_cost, "too short"));
    }
    // ORIGIN is what the new route is known by.
    if code != 1 {
        let twice = [attribute(flags, code, value), attribute(flags, code, &longer)].concat();
        faults.push((twice, Cost::Kept, "twice"));
    }
    faults
}

/// RFC 7606 §2: the routes of the UPDATE go, the session and all others stay.
/// RFC 7606 §3 (c): wrong flags.
/// RFC 7606 §3 (e): wrong lengths that cost the routes.
/// RFC 7606 §3 (f): wrong lengths that cost the attribute.
/// RFC 7606 §3 (g): what comes twice counts once.
/// nasty cases 1, 3, 4, 7, 16, 34 and 39
#[test]
fn each_fault_of_each_attribute_costs_the_route_or_the_attribute_and_no_session() {
    for (peer, is_external) in peers() {
        for row in rows() {
            for (own, cost, fault) in faults(&row, is_external) {
                let case = format!("attribute {} {fault}, external: {is_external}", row.code);
                let octets = update(&[], &attributes(1, &own), &NLRI);
                Scene::new(peer.clone()).check(&octets, cost, &case);
            }
        }
    }
}

/// RFC 7606 §5.2: where no route is announced, what would cost it ends the session.
/// nasty case 29
#[test]
fn without_routes_the_same_faults_end_the_session_or_cost_nothing() {
    for (peer, is_external) in peers() {
        for row in rows() {
            for (own, cost, fault) in faults(&row, is_external) {
                let case = format!("attribute {} {fault}, external: {is_external}", row.code);
                for withdrawn in [&[][..], &[16, 10, 9]] {
                    let octets = update(withdrawn, &attributes(1, &own), &[]);
                    Scene::new(peer.clone()).check_without_routes(&octets, cost == Cost::Kept, &case);
                }
            }
        }
    }
}

/// RFC 7606 §7.1: any ORIGIN but the three.
/// RFC 7606 §7.2: segments of an unknown type, empty or cut.
/// RFC 7607 §2 (update): AS 0, wherever it stands.
/// RFC 4271 §6.3 (next hop): no host's address.
/// nasty cases 17 and 34
#[test]
fn values_that_cannot_be_cost_the_route_or_the_attribute() {
    use Cost::{Kept, Withdrawn};
    let origins = (3..=255).map(|origin| (attribute(0x40, 1, &[origin]), Withdrawn));
    let paths = [
        &[0, 1, 0, 0, 0xfd, 0xea][..],
        &[3, 1, 0, 0, 0xfd, 0xea],
        &[4, 1, 0, 0, 0xfd, 0xea],
        &[5, 1, 0, 0, 0xfd, 0xea],
        &[2, 0],
        &[2, 1, 0, 0, 0xfd, 0xea, 2, 0],
        &[2, 2, 0, 0, 0xfd, 0xea],
        &[2, 255, 0, 0, 0xfd, 0xea],
        &[2, 1, 0, 0, 0, 0],
        &[2],
    ];
    let paths = paths.map(|path| (attribute(0x40, 2, path), Withdrawn));
    let next_hops = [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]];
    let next_hops = next_hops.map(|next_hop| (attribute(0x40, 3, &next_hop), Withdrawn));
    let others = [
        (attribute(0xc0, 7, &[0, 0, 0, 0, 9, 9, 9, 9]), Kept),
        (attribute(0xc0, 35, &[0; 4]), Withdrawn),
        (attribute(0x80, 99, &[9]), Kept),
        (attribute(0xc0, 99, &[]), Kept),
        (attribute(0xc0, 0, &[9]), Kept),
        (attribute(0xc0, 255, &[9; 200]), Kept),
    ];
    let all: Vec<_> = origins.chain(paths).chain(next_hops).chain(others).collect();
    for (peer, is_external) in peers() {
        for (own, cost) in &all {
            let octets = update(&[], &attributes(1, own), &NLRI);
            Scene::new(peer.clone()).check(&octets, *cost, &format!("{own:02x?}, external: {is_external}"));
        }
    }
}

/// RFC 7606 §3 (d): each of the three.
/// RFC 4271 §5.1.2: an internal peer's path may be empty, an external one's may not.
/// nasty cases 17, 21, 25 and 26
#[test]
fn a_route_without_a_mandatory_attribute_is_withdrawn() {
    for (peer, is_external) in peers() {
        for code in 1..=3 {
            let mut all = attributes(1, &[]);
            let at = match code {
                1 => 0..4,
                2 => 4..13,
                _ => 13..20,
            };
            all.drain(at);
            let octets = update(&[], &all, &NLRI);
            Scene::new(peer.clone()).check(&octets, Cost::Withdrawn, &format!("without {code}"));
        }
        let none = update(&[], &[], &NLRI);
        Scene::new(peer.clone()).check(&none, Cost::Withdrawn, "without any");
        let cost = if is_external { Cost::Withdrawn } else { Cost::Kept };
        let empty = update(&[], &attributes(1, &attribute(0x40, 2, &[])), &NLRI);
        Scene::new(peer).check(&empty, cost, "empty path");
    }
}

/// RFC 7606 §3 (b): lengths.
/// RFC 7606 §3 (g): multiprotocol attributes twice.
/// RFC 7606 §3 (i): withdrawn routes.
/// RFC 7606 §3 (j): prefixes that cannot be located.
/// RFC 7606 §5.3: each way to be incorrect.
/// RFC 7606 §7.11: MP_REACH_NLRI.
/// RFC 7606 §7.12: MP_UNREACH_NLRI.
/// RFC 4271 §6.3 (unrecognized): an unknown well-known attribute.
/// nasty cases 13, 25 and 26
#[test]
fn what_hides_prefixes_ends_the_session_and_takes_its_routes() {
    let whole = [&[0, 2, 1, 16, 0x20][..], &[1; 15], &[0, 8, 0x20]].concat();
    let unreach: &[u8] = &[0, 2, 1, 8, 0x20];
    let (reach, unreach_again) = (attribute(0x80, 14, &whole), attribute(0x80, 15, unreach));
    let with = |own: &[u8]| update(&[], &attributes(1, own), &NLRI);
    let next_hop_of = |length: u8| attribute(0x80, 14, &[&[0, 2, 1, length][..], &[0x20; 60]].concat());
    let too_long = |code, value: &[u8]| attribute(0x80, code, &[value, &[129, 0x20]].concat());
    let cases = [
        (update(&[33, 10], &attributes(1, &[]), &NLRI), 10),
        (update(&[16, 10], &attributes(1, &[]), &NLRI), 10),
        (update(&[], &attributes(1, &[]), &[33, 10, 1, 0, 0, 0]), 10),
        (update(&[], &attributes(1, &[]), &[26, 10, 1, 0]), 10),
        (with(&next_hop_of(0)), 1),
        (with(&next_hop_of(4)), 1),
        (with(&next_hop_of(15)), 1),
        (with(&next_hop_of(24)), 1),
        (with(&next_hop_of(33)), 1),
        (with(&next_hop_of(255)), 1),
        (with(&attribute(0x80, 14, &whole[..4])), 1),
        (with(&attribute(0x80, 14, &whole[..19])), 1),
        (with(&too_long(14, &whole)), 9),
        (with(&attribute(0xc0, 14, &whole)), 4),
        (with(&attribute(0x40, 14, &whole)), 4),
        (with(&[&reach[..], &reach].concat()), 1),
        (with(&attribute(0x80, 15, &unreach[..2])), 1),
        (with(&attribute(0x80, 15, &unreach[..4])), 9),
        (with(&too_long(15, unreach)), 9),
        (with(&attribute(0xc0, 15, unreach)), 4),
        (with(&[&unreach_again[..], &unreach_again].concat()), 1),
        (with(&attribute(0x40, 99, &[9])), 2),
        (with(&attribute(0x00, 255, &[])), 2),
    ];
    for (peer, _) in peers() {
        for (octets, subcode) in &cases {
            Scene::new(peer.clone()).check(octets, Cost::Reset(*subcode), &format!("{octets:02x?}"));
        }
        // Withdrawn Routes Length and Total Path Attribute Length, beyond the message.
        for at in [19, 21] {
            let mut octets = with(&[]);
            octets[at] = 1;
            Scene::new(peer.clone()).check(&octets, Cost::Reset(1), &format!("octet {at}"));
        }
    }
}

/// RFC 7606 §4: an attribute past the end costs the routes, which are still found behind it.
#[test]
fn attributes_past_the_end_cost_the_routes() {
    for (peer, _) in peers() {
        for tail in [
            &[0x80][..],
            &[0x80, 4],
            &[0x80, 4, 5, 0],
            &[0xd0, 99, 1],
            &[0xc0, 8, 255],
        ] {
            let all = [attributes(1, &[]), tail.to_vec()].concat();
            let octets = update(&[], &all, &NLRI);
            Scene::new(peer.clone()).check(&octets, Cost::Withdrawn, &format!("{tail:02x?}"));
        }
    }
}

/// RFC 4271 §5 (unknown): what nobody here knows reaches the others as it came, with Partial set.
/// nasty cases 1, 2, 3, 6, 20, 27 and 28
#[test]
fn what_nobody_here_reads_is_relayed_octet_by_octet() {
    for (peer, _) in peers() {
        for code in [21, 22, 23, 28, 99, 128, 255] {
            for value in [&[][..], &[0], &[0, 0, 0, 255, 1], &[0xff; 250]] {
                let mut scene = Scene::new(peer.clone());
                let own = attributes(1, &attribute(0xc0, code, value));
                scene.rig.receive_octets(scene.peer, &update(&[], &own, &NLRI));
                let relayed = scene
                    .rig
                    .updates(scene.observer)
                    .pop()
                    .unwrap()
                    .attributes
                    .unknown;
                let shown: Vec<_> = relayed
                    .iter()
                    .map(|it| (it.flags, it.code, &it.value[..]))
                    .collect();
                assert_eq!(shown, [(0xe0, code, value)]);
            }
        }
    }
}
