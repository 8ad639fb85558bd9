//! Every case of the table `data/wire-cases.txt`, with a speaker, its peer and its observers played by hand.

#[path = "../wire_cases/mod.rs"]
mod cases;

use manx_bgp::wire::Context;
use manx_bgp::{ConnId, Family, Input, PeerConfig, State};

use self::cases::{Case, Observed, WATCHERS};
use crate::rig::{ASN, Rig, config, internal, key, prefix};

/// Brings up the session of an observer.
fn watch(rig: &mut Rig, id: u8) -> ConnId {
    let peer = PeerConfig {
        asn: cases::asn(id, ASN),
        families: Family::ALL.to_vec(),
        route_reflector_client: id == 4,
        ..internal(id)
    };
    rig.establish_with(peer, id, cases::open(id, ASN))
}

/// What becomes of a case.
fn observe(case: &Case) -> Observed {
    let mut rig = Rig::new(config());
    let watchers = WATCHERS.map(|id| (id, watch(&mut rig, id)));
    rig.input(Input::SetPeer(Box::new(case.session.config(key(2), ASN))));
    let mut peer = rig.accept(2);
    for (number, octets) in case.session.preludes().iter().enumerate() {
        if number > 0 {
            rig.input(Input::Closed { conn: peer });
            peer = rig.accept(2);
        }
        rig.receive_stream(peer, octets);
    }
    rig.octets(peer);
    let there = |text| !rig.paths(prefix(text)).is_empty();
    assert!(case.session.last_before().is_none_or(there), "{case:?}");
    let before = watchers.map(|(_, conn)| rig.octets(conn).to_vec());
    rig.receive_stream(peer, &case.octets);
    let paths = rig.speaker.paths();
    let said = cases::messages(&rig.octets(peer), &Context::default());
    let since = watchers.map(|(_, conn)| rig.octets(conn).to_vec());
    let told = WATCHERS.into_iter().zip(before.into_iter().zip(since));
    rig.receive_stream(peer, &case.session.sequel());
    let is_up = rig.peer(2).state == State::Established;
    Observed {
        closed: rig.closed.contains(&peer),
        goes_on: is_up && !rig.paths(prefix("10.10.10.0/24")).is_empty(),
        last_words: cases::last_words(said),
        paths: paths
            .into_iter()
            .filter(|path| path.peer == Some(key(2)))
            .collect(),
        told: told.collect(),
    }
}

/// Every case of the table ends as it says, the observers know of what is in use and of nothing else, and where the
/// session stays up, it takes a next UPDATE.
///
/// RFC 7606 §3 (h): of several errors the strongest action is taken.
/// RFC 7606 §4: prefixes are found though attributes run past their end.
/// RFC 7606 §5.2: an error without prefixes ends the session, unless it costs an attribute only.
///
/// nasty case 33: a role is asked for, and the OPEN has no parameters.
#[test]
fn every_case_of_the_table_ends_as_the_rfcs_say() {
    let all = cases::cases();
    let complaint = |case: &Case| observe(case).complaint(case);
    let wrong: Vec<_> = all.iter().filter_map(complaint).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
}
