//! Connection collision: two connections with one peer, of which one stays (RFC 4271 §6.8, RFC 6286 §2.3).
//!
//! The rule is a function of who dialled and of the two speakers' identities only, so both ends come to the same
//! verdict whatever the timing: the connection stays that the speaker with the greater identifier (among equals,
//! the greater AS) dialled.
//!
//! A connection that has just become Established is no exception (`CollisionDetectEstablishedState`, RFC 4271
//! §8.1.1): the other end may still be deciding by identifiers, and if we decided by state instead, each end
//! would close the connection that the other keeps. Once a session has stood for [`SETTLED`] there can be no
//! such race: a new connection then is either from a peer that restarted, which takes over where graceful
//! restart was agreed (RFC 4724 §4.2), or it is refused.

use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a session must have stood so that no connection dialled before it can still turn up.
pub(crate) const SETTLED: Duration = Duration::from_secs(10);

/// Who a speaker is, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    /// The BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    /// The AS, which decides among equal identifiers (RFC 6286 §2.3).
    pub(crate) asn: u32,
}

/// How far the other connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has not brought an OPEN yet: it may not even be the peer's.
    OpenSent,
    /// Its OPENs agree.
    OpenConfirm,
    /// It carries a session, not yet for [`SETTLED`].
    Fresh,
    /// It carries a session for [`SETTLED`] or longer.
    Settled {
        /// Graceful restart was agreed on it.
        graceful: bool,
    },
}

/// Which connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Both, until the other one brings its OPEN.
    Both,
    /// The one that was there.
    Older,
    /// The one whose OPEN has just come.
    Newer,
    /// The one whose OPEN has just come; the peer restarted, so its routes stay for a while.
    Takeover,
}

/// Judges when an OPEN comes on a connection while another one with the same peer is open.
///
/// `newer_dialled` and `older_dialled` say whether we dialled; `older` is how far the other connection is.
pub(crate) fn judge(
    us: Identity,
    peer: Identity,
    newer_dialled: bool,
    older_dialled: bool,
    older: Progress,
) -> Verdict {
    match older {
        Progress::OpenSent => Verdict::Both,
        Progress::Settled { graceful: true } if !newer_dialled => Verdict::Takeover,
        Progress::Settled { .. } => Verdict::Older,
        // Two dialled by the same end: that end has given up the first.
        Progress::OpenConfirm | Progress::Fresh if newer_dialled == older_dialled => Verdict::Newer,
        Progress::OpenConfirm | Progress::Fresh if newer_dialled == (us > peer) => Verdict::Newer,
        Progress::OpenConfirm | Progress::Fresh => Verdict::Older,
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    const LOW: Identity = Identity {
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        asn: 64_512,
    };
    const LOW_GREATER_AS: Identity = Identity { asn: 64_513, ..LOW };
    const HIGH: Identity = Identity {
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        asn: 64_512,
    };

    /// (us, peer, newer dialled by us, older dialled by us, how far the older is, who stays)
    #[rustfmt::skip]
    const TRUTH: &[(Identity, Identity, bool, bool, Progress, Verdict)] = &[
        // Without the other connection's OPEN there is nothing to compare.
        (LOW, HIGH, true, false, Progress::OpenSent, Verdict::Both),
        (LOW, HIGH, false, true, Progress::OpenSent, Verdict::Both),
        (HIGH, LOW, true, false, Progress::OpenSent, Verdict::Both),
        (HIGH, LOW, false, true, Progress::OpenSent, Verdict::Both),
        // The greater identifier's connection stays, on either end, in either order.
        (LOW, HIGH, true, false, Progress::OpenConfirm, Verdict::Older),
        (LOW, HIGH, false, true, Progress::OpenConfirm, Verdict::Newer),
        (HIGH, LOW, true, false, Progress::OpenConfirm, Verdict::Newer),
        (HIGH, LOW, false, true, Progress::OpenConfirm, Verdict::Older),
        (LOW, HIGH, true, false, Progress::Fresh, Verdict::Older),
        (LOW, HIGH, false, true, Progress::Fresh, Verdict::Newer),
        (HIGH, LOW, true, false, Progress::Fresh, Verdict::Newer),
        (HIGH, LOW, false, true, Progress::Fresh, Verdict::Older),
        // Among equal identifiers the greater AS's.
        (LOW, LOW_GREATER_AS, true, false, Progress::OpenConfirm, Verdict::Older),
        (LOW, LOW_GREATER_AS, false, true, Progress::OpenConfirm, Verdict::Newer),
        (LOW_GREATER_AS, LOW, true, false, Progress::OpenConfirm, Verdict::Newer),
        (LOW_GREATER_AS, LOW, false, true, Progress::OpenConfirm, Verdict::Older),
        // The peer dials twice: it lost the first.
        (LOW, HIGH, false, false, Progress::OpenConfirm, Verdict::Newer),
        (HIGH, LOW, false, false, Progress::OpenConfirm, Verdict::Newer),
        (LOW, HIGH, false, false, Progress::Fresh, Verdict::Newer),
        (HIGH, LOW, false, false, Progress::Fresh, Verdict::Newer),
        // A session that stands gives way to a restarted peer only.
        (LOW, HIGH, false, true, Progress::Settled { graceful: true }, Verdict::Takeover),
        (HIGH, LOW, false, true, Progress::Settled { graceful: true }, Verdict::Takeover),
        (HIGH, LOW, false, false, Progress::Settled { graceful: true }, Verdict::Takeover),
        (HIGH, LOW, true, false, Progress::Settled { graceful: true }, Verdict::Older),
        (LOW, HIGH, false, true, Progress::Settled { graceful: false }, Verdict::Older),
        (HIGH, LOW, false, false, Progress::Settled { graceful: false }, Verdict::Older),
        (HIGH, LOW, true, false, Progress::Settled { graceful: false }, Verdict::Older),
    ];

    /// Every state × who dialled which × order of identifiers × order of ASes: 180 rows, with the rule in words.
    ///
    /// RFC 4271 §6.8: the connection stays that the greater identifier dialled.
    /// RFC 4271 §6.8 (established): a session that stands wins, but over a restarted peer (RFC 4724 §4.2).
    /// RFC 6286 §2.3: among equal identifiers the greater AS decides.
    #[test]
    fn the_whole_table_follows_one_rule() {
        let progresses = [
            Progress::OpenSent,
            Progress::OpenConfirm,
            Progress::Fresh,
            Progress::Settled { graceful: false },
            Progress::Settled { graceful: true },
        ];
        let us = Identity {
            router_id: Ipv4Addr::new(10, 0, 0, 2),
            asn: 64_513,
        };
        let orders = [Ordering::Less, Ordering::Equal, Ordering::Greater];
        let dials = [(true, true), (true, false), (false, true), (false, false)];
        for ids in orders {
            for ases in orders {
                let peer = Identity {
                    router_id: Ipv4Addr::from(u32::from(us.router_id).wrapping_add_signed(-(ids as i32))),
                    asn: us.asn.wrapping_add_signed(-(ases as i32)),
                };
                let we_are_greater = ids == Ordering::Greater || ids.is_eq() && ases == Ordering::Greater;
                for (progress, (newer, older)) in progresses.into_iter().flat_map(|it| dials.map(|d| (it, d)))
                {
                    let wanted = match (progress, newer, older) {
                        (Progress::OpenSent, ..) => Verdict::Both,
                        (Progress::Settled { graceful: true }, false, _) => Verdict::Takeover,
                        (Progress::Settled { .. }, ..) => Verdict::Older,
                        (Progress::OpenConfirm | Progress::Fresh, true, true)
                        | (Progress::OpenConfirm | Progress::Fresh, false, false) => Verdict::Newer,
                        (Progress::OpenConfirm | Progress::Fresh, true, false) if we_are_greater => {
                            Verdict::Newer
                        }
                        (Progress::OpenConfirm | Progress::Fresh, true, false) => Verdict::Older,
                        (Progress::OpenConfirm | Progress::Fresh, false, true) if we_are_greater => {
                            Verdict::Older
                        }
                        (Progress::OpenConfirm | Progress::Fresh, false, true) => Verdict::Newer,
                    };
                    let found = judge(us, peer, newer, older, progress);
                    assert_eq!(found, wanted, "{ids:?} {ases:?} {newer} {older} {progress:?}");
                }
            }
        }
    }

    #[test]
    fn follows_the_truth_table() {
        for &(us, peer, newer, older, progress, verdict) in TRUTH {
            assert_eq!(
                judge(us, peer, newer, older, progress),
                verdict,
                "{us:?} {peer:?} {newer} {older} {progress:?}"
            );
        }
    }

    /// RFC 4271 §6.8: the same one at both ends.
    /// nasty case 43
    #[test]
    fn both_ends_keep_the_same_connection_whichever_open_comes_first() {
        let racing = [Progress::OpenConfirm, Progress::Fresh];
        for (us, peer) in [
            (LOW, HIGH),
            (HIGH, LOW),
            (LOW, LOW_GREATER_AS),
            (LOW_GREATER_AS, LOW),
        ] {
            for (here, there) in racing.into_iter().flat_map(|a| racing.map(|b| (a, b))) {
                for (first_here, first_there) in [(true, true), (true, false), (false, true), (false, false)]
                {
                    // `first_*`: the connection that `us` dialled came first there.
                    let ours_stays = |newer_stays: Verdict, ours_first: bool| {
                        (newer_stays == Verdict::Newer) != ours_first
                    };
                    let we_keep = ours_stays(judge(us, peer, !first_here, first_here, here), first_here);
                    let they_keep =
                        ours_stays(judge(peer, us, first_there, !first_there, there), first_there);
                    assert_eq!(we_keep, they_keep);
                    assert_eq!(we_keep, us > peer);
                }
            }
        }
    }
}
