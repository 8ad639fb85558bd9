//! Starts: the first one, and those after which peers still have our routes.

use std::time::Duration;

use manx_bgp::wire::{Capability, GracefulRestart, Message, Open, Update};
use manx_bgp::{Config, ConnId, Family, Input, PeerConfig};

use crate::rig::{Rig, config, graceful_open, internal, prefix};

fn graceful(id: u8) -> PeerConfig {
    PeerConfig {
        graceful_restart: Some(Duration::from_secs(60)),
        ..internal(id)
    }
}

fn end_of_rib() -> Update {
    Update {
        end_of_rib: Some(Family::Ipv4Unicast),
        ..Update::default()
    }
}

/// The R bit, and whether all families have the F bit, in the OPEN sent on a connection.
fn bits(rig: &mut Rig, conn: ConnId) -> (bool, bool) {
    let sent = rig.sent(conn);
    let Some(Message::Open(Open { capabilities, .. })) = sent.first() else {
        panic!("{sent:?}")
    };
    let restart = capabilities.iter().find_map(|capability| {
        if let Capability::GracefulRestart(restart) = capability {
            Some(restart)
        } else {
            None
        }
    });
    let GracefulRestart {
        restarting, families, ..
    } = restart.unwrap();
    (*restarting, families.iter().all(|(_, forwarding)| *forwarding))
}

/// RFC 4724 §4.1 (bits): as it was.
/// nasty cases 59 and 69
#[test]
fn a_first_boot_claims_nothing_and_a_later_session_that_we_forwarded() {
    let mut rig = Rig::new(config());
    let conn = rig.establish_with(graceful(2), 2, graceful_open(2));
    assert_eq!(bits(&mut rig, conn), (false, false));
    rig.input(Input::Closed { conn });
    let conn = rig.accept(2);
    assert_eq!(bits(&mut rig, conn), (false, true));
}

/// RFC 4724 §4.1 (deferral): not before End-of-RIB.
#[test]
fn a_restarted_speaker_announces_once_its_peers_have_been_heard_out() {
    let mut rig = Rig::new(Config {
        restarted: true,
        ..config()
    });
    let ours = prefix("10.1.0.0/26");
    rig.input(Input::Originate(ours));
    rig.input(Input::SetPeer(Box::new(graceful(3))));
    let first = rig.establish_with(graceful(2), 2, graceful_open(2));
    assert_eq!(bits(&mut rig, first), (true, true));
    rig.update(first, end_of_rib());
    let second = rig.establish_with(graceful(3), 3, graceful_open(3));
    assert!(rig.sent(first).is_empty(), "another peer's routes are on the way");
    rig.update(second, end_of_rib());
    assert_eq!(rig.told(first), (vec![ours], vec![]));
    assert_eq!(rig.told(second), (vec![ours], vec![]));
    rig.input(Input::Closed { conn: first });
    let first = rig.accept(2);
    assert_eq!(bits(&mut rig, first), (false, true), "the restart is over");
}

/// RFC 4724 §4.1 (deferral): for a time.
/// nasty case 54
#[test]
fn a_restarted_speaker_waits_for_the_deferral_at_most() {
    let mut rig = Rig::new(Config {
        restarted: true,
        ..config()
    });
    let ours = prefix("10.1.0.0/26");
    rig.input(Input::Originate(ours));
    let conn = rig.establish_with(graceful(2), 2, graceful_open(2));
    rig.wait(Duration::from_secs(9));
    assert_eq!(rig.told(conn), (vec![], vec![]));
    assert!(!rig.converged);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.told(conn), (vec![ours], vec![]));
    assert!(rig.converged);
}

#[test]
fn the_table_is_complete_when_every_peer_has_said_so() {
    let mut rig = Rig::new(config());
    let conns = [2, 3].map(|id| rig.establish(internal(id)));
    rig.update(conns[0], end_of_rib());
    rig.wait(Duration::from_secs(3));
    assert!(!rig.converged, "one has not");
    rig.update(conns[1], end_of_rib());
    assert!(rig.converged);
}

/// nasty case 53
#[test]
fn the_end_is_awaited_of_negotiated_families_only() {
    let mut rig = Rig::new(config());
    let both = PeerConfig {
        families: Family::ALL.to_vec(),
        ..internal(2)
    };
    let conn = rig.establish(both);
    rig.update(conn, end_of_rib());
    rig.wait(Duration::from_secs(3));
    assert!(rig.converged, "the peer never offered IPv6");
}
