//! Two OPENs become a session, or a refusal (RFC 4271 §6.2, RFC 5492).

use std::time::Duration;

use super::Session;
use crate::Family;
use crate::config::{Config, PeerConfig};
use crate::error::Error;
use crate::features;
use crate::wire::{Capability, Context, GracefulRestart, LongLivedRestart, Open};

/// The greatest restart time that the capability can carry, in seconds (RFC 4724 §3).
const MAX_RESTART_TIME: u16 = 4095;

/// The greatest long-lived stale time that the capability can carry, in seconds (RFC 9494 §3.1).
const MAX_STALE_TIME: u32 = 0x00ff_ffff;

/// What we say of ourselves as to graceful restart, beyond the settings (RFC 4724 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restarted {
    /// R: we have restarted, and do not have all routes yet.
    pub(crate) recovering: bool,
    /// F: packets were forwarded on all the while.
    pub(crate) forwarding: bool,
}

/// Our OPEN for a peer.
pub(crate) fn offer(local: &Config, peer: &PeerConfig, restarted: Restarted) -> Open {
    let mut capabilities: Vec<_> = peer
        .families
        .iter()
        .copied()
        .map(Capability::Multiprotocol)
        .collect();
    capabilities.extend([
        Capability::RouteRefresh,
        Capability::FourOctetAs(peer.local_as(local)),
    ]);
    capabilities.extend(peer.features.offer(peer));
    capabilities.extend(peer.role(local).map(Capability::Role));
    capabilities.extend(peer.graceful_restart.map(|time| {
        Capability::GracefulRestart(GracefulRestart {
            restarting: restarted.recovering,
            notification: true,
            restart_time: seconds(time).min(MAX_RESTART_TIME),
            families: peer
                .families
                .iter()
                .map(|&family| (family, restarted.forwarding))
                .collect(),
        })
    }));
    capabilities.extend(long_lived_offer(peer, restarted));
    Open {
        asn: peer.local_as(local),
        hold_time: seconds(peer.hold_time),
        router_id: local.router_id,
        capabilities,
    }
}

/// What our settings and the peer's OPEN agree on.
///
/// # Errors
/// What is wrong with the OPEN: the AS is not the configured one, the identifier is our own within our AS
/// (RFC 6286 §2.1), the hold time is shorter than we take (RFC 4271 §4.2), or no family is common.
pub(crate) fn negotiate(local: &Config, peer: &PeerConfig, open: &Open) -> Result<Session, Error> {
    if open.asn != peer.asn {
        return Err(Error::BadPeerAs { asn: open.asn });
    }
    if open.router_id == local.router_id && open.asn == peer.local_as(local) {
        return Err(Error::BadIdentifier {
            router_id: open.router_id,
        });
    }
    if peer.role(local).is_some() {
        peer.features.check_role(open)?;
    }
    let theirs = Duration::from_secs(open.hold_time.into());
    if !theirs.is_zero() && theirs < peer.min_hold_time {
        return Err(Error::UnacceptableHoldTime {
            seconds: open.hold_time,
            min: peer.min_hold_time.as_secs(),
        });
    }
    let families = common_families(peer, open);
    if families.is_empty() {
        let missing = peer
            .families
            .iter()
            .copied()
            .map(Capability::Multiprotocol)
            .collect();
        return Err(Error::UnsupportedCapability { missing });
    }
    let restart = peer
        .graceful_restart
        .and_then(|_| graceful_restart(open, &families));
    let (takes_stale, long_lived) = long_lived(peer, open, &families);
    let mut context = Context {
        four_octet_as: open
            .capabilities
            .iter()
            .any(|it| matches!(it, Capability::FourOctetAs(_))),
        families,
        ..initial_context(local, peer)
    };
    peer.features.agree(peer.key, open, &mut context);
    Ok(Session {
        router_id: open.router_id,
        hold_time: Duration::from_secs(seconds(peer.hold_time).min(open.hold_time).into()),
        context,
        takes_refresh: open.capabilities.contains(&Capability::RouteRefresh),
        demarcates_refresh: features::demarcates_refresh(open),
        notification: restart.as_ref().is_some_and(|restart| restart.notification),
        long_lived,
        takes_stale,
        restart,
    })
}

/// Our long-lived graceful restart capability, which is never without the other one (RFC 9494 §4.1).
fn long_lived_offer(peer: &PeerConfig, restarted: Restarted) -> Option<Capability> {
    let stale_time = stale_time(peer)?;
    let families = peer.families.iter().map(|&family| LongLivedRestart {
        family,
        forwarding: restarted.forwarding,
        stale_time,
    });
    Some(Capability::LongLivedGracefulRestart(families.collect()))
}

/// Our stale time for a peer, in seconds, as the capability carries it.
fn stale_time(peer: &PeerConfig) -> Option<u32> {
    let time = peer
        .long_lived_graceful_restart
        .filter(|_| peer.graceful_restart.is_some())?;
    Some(u32::try_from(time.as_secs()).map_or(MAX_STALE_TIME, |time| time.min(MAX_STALE_TIME)))
}

/// Whether the peer has long-lived graceful restart, which it has not without the other one (RFC 9494 §4.5); and of the
/// families in use how long we keep its routes: as long as it says, but no longer than we say (RFC 9494 §4.2).
fn long_lived(peer: &PeerConfig, open: &Open, families: &[Family]) -> (bool, Vec<LongLivedRestart>) {
    let with_restart = |_: &&[_]| graceful_restart(open, families).is_some();
    let Some(theirs) = long_lived_capability(open).filter(with_restart) else {
        return (false, Vec::new());
    };
    let Some(ours) = stale_time(peer) else {
        return (true, Vec::new());
    };
    let kept = theirs.iter().filter(|it| families.contains(&it.family));
    let kept = kept.map(|it| LongLivedRestart {
        stale_time: it.stale_time.min(ours),
        ..*it
    });
    (true, kept.collect())
}

fn long_lived_capability(open: &Open) -> Option<&[LongLivedRestart]> {
    open.capabilities.iter().rev().find_map(|it| {
        if let Capability::LongLivedGracefulRestart(families) = it {
            Some(families.as_slice())
        } else {
            None
        }
    })
}

/// What holds for a connection before the OPENs.
pub(crate) fn initial_context(local: &Config, peer: &PeerConfig) -> Context {
    Context {
        external: peer.is_external(local),
        ..Context::default()
    }
}

/// Our families that the peer offers, too; a peer that offers none by capability carries IPv4 (RFC 4760 §8).
fn common_families(peer: &PeerConfig, open: &Open) -> Vec<Family> {
    let offered: Vec<Family> = open
        .capabilities
        .iter()
        .filter_map(|it| {
            if let Capability::Multiprotocol(family) = it {
                Some(*family)
            } else {
                None
            }
        })
        .collect();
    let offered = if offered.is_empty() {
        vec![Family::Ipv4Unicast]
    } else {
        offered
    };
    Family::ALL
        .into_iter()
        .filter(|family| peer.families.contains(family) && offered.contains(family))
        .collect()
}

/// The peer's last graceful restart capability (RFC 4724 §3: earlier ones are ignored), of families in use.
fn graceful_restart(open: &Open, families: &[Family]) -> Option<GracefulRestart> {
    let mut restart = open.capabilities.iter().rev().find_map(|it| {
        if let Capability::GracefulRestart(restart) = it {
            Some(restart.clone())
        } else {
            None
        }
    })?;
    restart.families.retain(|(family, _)| families.contains(family));
    Some(restart)
}

/// Whole seconds, rounded down, as OPEN carries them.
fn seconds(time: Duration) -> u16 {
    u16::try_from(time.as_secs()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::testing::{config, peer};

    const FIRST_BOOT: Restarted = Restarted {
        recovering: false,
        forwarding: false,
    };

    /// The OPEN of a speaker with router id `id`, that thinks of us as `them`.
    fn open_of(id: u8, them: &PeerConfig) -> Open {
        offer(&config(id), them, FIRST_BOOT)
    }

    /// RFC 6793 §4.1: four octets where both sides say so.
    /// RFC 8538 §2: the N bit counts where both set it.
    /// nasty case 45
    #[test]
    fn two_offers_agree() {
        let session = negotiate(&config(1), &peer(2), &open_of(2, &peer(1))).unwrap();
        assert_eq!(session.router_id, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(session.families(), Family::ALL);
        assert!(session.context.four_octet_as && !session.context.external && session.notification);
    }

    /// RFC 4271 §4.2: the smaller one holds.
    #[test]
    fn the_smaller_hold_time_holds_and_zero_means_none() {
        for (ours, theirs, agreed) in [(90, 30, 30), (30, 90, 30), (0, 90, 0), (90, 0, 0)] {
            let with = |seconds, id| PeerConfig {
                hold_time: Duration::from_secs(seconds),
                ..peer(id)
            };
            let session = negotiate(&config(1), &with(ours, 2), &open_of(2, &with(theirs, 1))).unwrap();
            assert_eq!(session.hold_time.as_secs(), agreed);
        }
    }

    /// RFC 4271 §6.2 (hold time): also where it is only shorter than we want.
    #[test]
    fn a_hold_time_below_the_floor_is_refused_and_none_is_not() {
        let floor = PeerConfig {
            min_hold_time: Duration::from_secs(9),
            ..peer(2)
        };
        for (theirs, refused) in [(0, false), (3, true), (8, true), (9, false), (90, false)] {
            let open = Open {
                hold_time: theirs,
                ..open_of(2, &peer(1))
            };
            let refusal = Error::UnacceptableHoldTime {
                seconds: theirs,
                min: 9,
            };
            let found = negotiate(&config(1), &floor, &open).err();
            assert_eq!(found, refused.then_some(refusal));
        }
    }

    /// RFC 4271 §6.2 (as): only the configured one.
    /// RFC 4271 §6.2 (identifier): not our own.
    /// RFC 6286 §2.1: another AS may have ours.
    #[test]
    fn refuses_the_wrong_as_and_its_own_identifier() {
        let open = Open {
            asn: 65_000,
            ..open_of(2, &peer(1))
        };
        assert_eq!(
            negotiate(&config(1), &peer(2), &open),
            Err(Error::BadPeerAs { asn: 65_000 })
        );
        let ours = Ipv4Addr::new(10, 0, 0, 1);
        let open = Open {
            router_id: ours,
            ..open_of(2, &peer(1))
        };
        assert_eq!(
            negotiate(&config(1), &peer(2), &open),
            Err(Error::BadIdentifier { router_id: ours })
        );
        // Across ASes the identifier may be the same (RFC 6286).
        let external = PeerConfig {
            asn: 65_000,
            ..peer(2)
        };
        let open = Open { asn: 65_000, ..open };
        assert!(negotiate(&config(1), &external, &open).is_ok());
    }

    /// RFC 4760 §8: what both sides announced.
    /// RFC 5492 §5: the missing ones are told.
    #[test]
    fn carries_the_common_families_and_ipv4_without_a_word() {
        let only = |families: &[Family], id| PeerConfig {
            families: families.to_vec(),
            ..peer(id)
        };
        let v6 = only(&[Family::Ipv6Unicast], 1);
        let session = negotiate(&config(1), &peer(2), &open_of(2, &v6)).unwrap();
        assert_eq!(session.families(), [Family::Ipv6Unicast]);
        let silent = Open {
            capabilities: Vec::new(),
            ..open_of(2, &v6)
        };
        let session = negotiate(&config(1), &peer(2), &silent).unwrap();
        assert_eq!(session.families(), [Family::Ipv4Unicast]);
        assert!(!session.context.four_octet_as && session.restart.is_none());
        let refusal = negotiate(&config(1), &only(&[Family::Ipv4Unicast], 2), &open_of(2, &v6));
        let missing = vec![Capability::Multiprotocol(Family::Ipv4Unicast)];
        assert_eq!(refusal, Err(Error::UnsupportedCapability { missing }));
    }

    /// RFC 8538 §2: the N bit counts where both set it.
    #[test]
    fn graceful_restart_needs_both_sides() {
        let without = |id| PeerConfig {
            graceful_restart: None,
            ..peer(id)
        };
        for (ours, theirs, agreed) in [
            (peer(2), peer(1), true),
            (without(2), peer(1), false),
            (peer(2), without(1), false),
        ] {
            let session = negotiate(&config(1), &ours, &open_of(2, &theirs)).unwrap();
            assert_eq!(
                (session.restart.is_some(), session.notification),
                (agreed, agreed)
            );
        }
    }

    /// RFC 4724 §3: the last one.
    #[test]
    fn the_last_of_several_restart_capabilities_counts() {
        let of = |restart_time| {
            Capability::GracefulRestart(GracefulRestart {
                restart_time,
                ..GracefulRestart::default()
            })
        };
        let mut open = open_of(2, &peer(1));
        open.capabilities.extend([of(7), of(9)]);
        let session = negotiate(&config(1), &peer(2), &open).unwrap();
        let restart = session.restart.unwrap();
        assert_eq!((restart.restart_time, restart.families), (9, vec![]));
    }

    /// RFC 9494 §3.1: a stale time per family, with the F bit as in the other capability.
    /// RFC 9494 §4.1: it is offered beside the other capability only.
    #[test]
    fn the_long_lived_offer_comes_with_the_other_one() {
        let offered = |peer: &PeerConfig, forwarding| {
            let restarted = Restarted {
                recovering: false,
                forwarding,
            };
            let open = offer(&config(1), peer, restarted);
            let has_restart = graceful_restart(&open, &Family::ALL).is_some();
            (has_restart, long_lived_capability(&open).map(<[_]>::to_vec))
        };
        let entry = |family, forwarding, stale_time| LongLivedRestart {
            family,
            forwarding,
            stale_time,
        };
        let both = |forwarding, stale_time| Family::ALL.map(|it| entry(it, forwarding, stale_time)).to_vec();
        assert_eq!(offered(&peer(2), true), (true, None), "off by default");
        assert_eq!(
            offered(&long_lived_peer(2, 3600), true),
            (true, Some(both(true, 3600)))
        );
        assert_eq!(
            offered(&long_lived_peer(2, u64::MAX), false),
            (true, Some(both(false, MAX_STALE_TIME)))
        );
        let alone = PeerConfig {
            graceful_restart: None,
            ..long_lived_peer(2, 3600)
        };
        assert_eq!(offered(&alone, true), (false, None));
    }

    fn long_lived_peer(id: u8, seconds: u64) -> PeerConfig {
        PeerConfig {
            long_lived_graceful_restart: Some(Duration::from_secs(seconds)),
            ..peer(id)
        }
    }

    /// RFC 9494 §4.2 (bounds): the received stale time counts, up to our own.
    /// RFC 9494 §4.5: without the other capability it is as if there were none.
    #[test]
    fn routes_are_kept_as_long_as_both_sides_say() {
        let times = |ours: &PeerConfig, open: &Open| {
            let session = negotiate(&config(1), ours, open).unwrap();
            let times: Vec<u32> = session.long_lived.iter().map(|it| it.stale_time).collect();
            (session.takes_stale, times)
        };
        for (ours, theirs, kept) in [(100, 300, 100), (300, 100, 100), (300, 0, 0)] {
            let open = open_of(2, &long_lived_peer(1, theirs));
            assert_eq!(times(&long_lived_peer(2, ours), &open), (true, vec![kept; 2]));
        }
        let open = open_of(2, &long_lived_peer(1, 300));
        assert_eq!(times(&peer(2), &open), (true, vec![]), "ours is off");
        let mut alone = open;
        alone
            .capabilities
            .retain(|it| !matches!(it, Capability::GracefulRestart(_)));
        assert_eq!(times(&long_lived_peer(2, 300), &alone), (false, vec![]));
    }

    /// RFC 4724 §4.1 (bits): R and F after a restart.
    /// nasty case 59
    #[test]
    fn a_restart_shows_in_the_offer() {
        let bits = |restarted| {
            let open = offer(&config(1), &peer(2), restarted);
            let restart = graceful_restart(&open, &Family::ALL).unwrap();
            (
                restart.restarting,
                restart.families.iter().all(|&(_, forwarding)| forwarding),
            )
        };
        assert_eq!(bits(FIRST_BOOT), (false, false));
        assert_eq!(
            bits(Restarted {
                recovering: true,
                forwarding: true
            }),
            (true, true)
        );
    }
}
