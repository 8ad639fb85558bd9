//! How long a lost peer's routes of a family stay: for its restart time (RFC 4724), then for its long-lived stale
//! time (RFC 9494).
//!
//! Here are the clocks alone; what becomes of the routes is said in [`Fate`]s, which
//! [`Inbound`](crate::inbound::Inbound) carries out.

use std::time::{Duration, Instant};

use crate::rib::Standing;

/// How long stale routes wait for a peer that is back but does not say End-of-RIB.
const STALE_LIMIT: Duration = Duration::from_secs(360);

/// How long routes of a family outlive the session; zero: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// As they are (RFC 4724 §4.2).
    pub(crate) restart: Duration,
    /// After that, as a last resort (RFC 9494 §4.2).
    pub(crate) long_lived: Duration,
}

/// Whether the peer kept its forwarding state of a family, as it says when it is back: the F bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// In the graceful restart capability (RFC 4724 §3).
    pub(crate) restart: bool,
    /// In the long-lived one (RFC 9494 §3).
    pub(crate) long_lived: bool,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Stays,
    /// It is stale from now on.
    Stale,
    /// It is long-lived stale from now on, unless it says that it does not want to be.
    LongLived,
    /// It goes.
    Goes,
}

/// The clocks of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Retention {
    /// Nothing is stale.
    #[default]
    Idle,
    /// The session is down, and the restart time runs.
    Graceful {
        /// When it is over.
        until: Instant,
        /// The long-lived stale time that follows; zero: none.
        then: Duration,
        /// When that is over which runs already for routes that an earlier loss has left.
        long_lived: Option<Instant>,
    },
    /// The session is down, and the long-lived stale time runs.
    LongLived {
        /// When it is over.
        until: Instant,
    },
    /// The session is up again, and End-of-RIB has not come.
    Back {
        /// When it is no longer waited for.
        limit: Instant,
        /// When the long-lived stale time is over, which runs on meanwhile (RFC 9494 §4.2).
        long_lived: Option<Instant>,
    },
    /// The session is up again, and the long-lived stale time was over before End-of-RIB: where the session ends
    /// before that, too, nothing stays (RFC 9494 §4.2).
    Late,
}

impl Retention {
    /// The session has ended, and routes stay for these times.
    ///
    /// Routes that were stale already go (RFC 4724 §4.2), but where there is a long-lived stale time they stay for
    /// that, whose clock goes on where it runs (RFC 9494 §4.2).
    #[must_use]
    pub(crate) fn lost(self, now: Instant, times: Times) -> Self {
        let times = self.left(times);
        let running = self.long_lived();
        if !times.restart.is_zero() {
            Self::Graceful {
                until: now + times.restart,
                then: times.long_lived,
                // Those that were stale have had their restart time.
                long_lived: running.or_else(|| {
                    let again = self != Self::Idle && !times.long_lived.is_zero();
                    again.then(|| now + times.long_lived)
                }),
            }
        } else if times.long_lived.is_zero() {
            Self::Idle
        } else {
            Self::LongLived {
                until: running.unwrap_or(now + times.long_lived),
            }
        }
    }

    /// What becomes of a route of this standing when the session ends.
    pub(crate) fn fate(self, standing: Standing, times: Times) -> Fate {
        let times = self.left(times);
        let last_resort = if times.long_lived.is_zero() {
            Fate::Goes
        } else {
            Fate::LongLived
        };
        match standing {
            Standing::Firm | Standing::Unrepeated if !times.restart.is_zero() => Fate::Stale,
            Standing::Firm | Standing::Unrepeated | Standing::Stale => last_resort,
            Standing::LongLived if last_resort == Fate::Goes => Fate::Goes,
            Standing::LongLived => Fate::Stays,
        }
    }

    /// The session is up again.
    #[must_use]
    pub(crate) fn back(self, now: Instant, forwarding: Forwarding) -> Self {
        if self == Self::Idle || forwarding == Forwarding::default() {
            return Self::Idle;
        }
        Self::Back {
            limit: now + STALE_LIMIT,
            long_lived: self.long_lived().filter(|_| forwarding.long_lived),
        }
    }

    /// When [`expire`](Self::expire) is due.
    pub(crate) fn deadline(self) -> Option<Instant> {
        let own = match self {
            Self::Idle | Self::Late => None,
            Self::Graceful { until, .. } | Self::LongLived { until } | Self::Back { limit: until, .. } => {
                Some(until)
            }
        };
        own.into_iter().chain(self.long_lived()).min()
    }

    /// Lets time pass: what is the case then, and what becomes of routes that are [`Standing::Stale`], and of those that
    /// are [`Standing::LongLived`].
    pub(crate) fn expire(self, now: Instant) -> (Self, Fate, Fate) {
        let over = |at: Instant| at <= now;
        let spent = self.long_lived().is_some_and(over);
        match self {
            Self::Back { .. } if spent => (Self::Late, Fate::Goes, Fate::Goes),
            Self::Graceful { .. } | Self::LongLived { .. } if spent => (Self::Idle, Fate::Goes, Fate::Goes),
            Self::Back { limit, .. } if over(limit) => (Self::Idle, Fate::Goes, Fate::Goes),
            Self::Graceful { until, then, .. } if over(until) && then.is_zero() => {
                (Self::Idle, Fate::Goes, Fate::Goes)
            }
            Self::Graceful {
                until,
                then,
                long_lived,
            } if over(until) => {
                let until = long_lived.unwrap_or(now + then);
                (Self::LongLived { until }, Fate::LongLived, Fate::Stays)
            }
            Self::Idle | Self::Graceful { .. } | Self::LongLived { .. } | Self::Back { .. } | Self::Late => {
                (self, Fate::Stays, Fate::Stays)
            }
        }
    }

    /// When the long-lived stale time is over, if it runs.
    fn long_lived(self) -> Option<Instant> {
        match self {
            Self::Graceful { long_lived, .. } | Self::Back { long_lived, .. } => long_lived,
            Self::LongLived { until } => Some(until),
            Self::Idle | Self::Late => None,
        }
    }

    /// The times that there are for one who has not used them up.
    fn left(self, times: Times) -> Times {
        if self == Self::Late {
            Times::default()
        } else {
            times
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::epoch;

    const BOTH: Times = seconds(10, 100);
    const KEPT: Forwarding = Forwarding {
        restart: true,
        long_lived: true,
    };

    const fn seconds(restart: u64, long_lived: u64) -> Times {
        Times {
            restart: Duration::from_secs(restart),
            long_lived: Duration::from_secs(long_lived),
        }
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// RFC 9494 §4.2 (intervals): first the one, then the other; what is zero is left out.
    #[test]
    fn the_restart_time_comes_first_and_then_the_long_lived_stale_time() {
        use Fate::{Goes, LongLived, Stale, Stays};
        let start = epoch();
        // The times; what becomes of a route that was announced, when, and what then and when.
        let table = [
            (seconds(0, 0), Goes, &[][..]),
            (seconds(10, 0), Stale, &[(10, Goes)][..]),
            (seconds(0, 100), LongLived, &[(100, Goes)][..]),
            (BOTH, Stale, &[(10, LongLived), (110, Goes)][..]),
        ];
        for (times, at_once, later) in table {
            assert_eq!(Retention::Idle.fate(Standing::Firm, times), at_once, "{times:?}");
            let mut retention = Retention::Idle.lost(start, times);
            for &(at, fate) in later {
                assert_eq!(retention.deadline(), Some(after(start, at)), "{times:?}");
                assert_eq!(retention.expire(after(start, at - 1)).1, Stays);
                let (next, stale, long_lived) = retention.expire(after(start, at));
                assert_eq!(stale, fate, "{times:?}");
                assert_eq!(long_lived == Goes, fate == Goes);
                retention = next;
            }
            assert_eq!((retention, retention.deadline()), (Retention::Idle, None));
        }
    }

    /// RFC 9494 §4.2 (timer): it is neither stopped nor set anew by a session that ends before End-of-RIB.
    /// RFC 9494 §4.2 (consecutive restarts): what was stale stays until the timer expires.
    #[test]
    fn the_stale_time_runs_on_over_sessions_that_do_not_finish() {
        let start = epoch();
        let (long_lived, ..) = Retention::Idle.lost(start, BOTH).expire(after(start, 10));
        let back = long_lived.back(after(start, 50), KEPT);
        assert_eq!(back.deadline(), Some(after(start, 110)));
        assert_eq!(back.fate(Standing::LongLived, BOTH), Fate::Stays);
        assert_eq!(back.fate(Standing::Firm, BOTH), Fate::Stale);
        let again = back.lost(after(start, 60), BOTH);
        assert_eq!(again.deadline(), Some(after(start, 70)));
        let (again, fresh, old) = again.expire(after(start, 70));
        assert_eq!((fresh, old), (Fate::LongLived, Fate::Stays));
        assert_eq!(
            again,
            Retention::LongLived {
                until: after(start, 110)
            }
        );
        let over = again.expire(after(start, 110));
        assert_eq!(over, (Retention::Idle, Fate::Goes, Fate::Goes));
    }

    /// RFC 9494 §4.2 (consecutive restarts): also where the timer has not begun: it begins then.
    /// RFC 4724 §4.2 (consecutive): without one, what was stale goes.
    #[test]
    fn what_was_stale_already_is_kept_as_a_last_resort_only() {
        let start = epoch();
        for (times, fate, deadline) in [(BOTH, Fate::LongLived, 105), (seconds(10, 0), Fate::Goes, 15)] {
            let back = Retention::Idle.lost(start, times).back(after(start, 4), KEPT);
            assert_eq!(back.fate(Standing::Stale, times), fate);
            let again = back.lost(after(start, 5), times);
            let (after_restart, ..) = again.expire(after(start, 15));
            let last = [again.deadline(), after_restart.deadline()].into_iter().max();
            assert_eq!(last.flatten(), Some(after(start, deadline)));
        }
    }

    /// RFC 9494 §4.2 (expiry): stale routes go when the time is over, also while the peer repeats its routes; and if it is
    /// lost again before it has repeated all, all go.
    #[test]
    fn who_is_too_late_with_end_of_rib_is_not_waited_for_again() {
        let start = epoch();
        let back = Retention::Idle
            .lost(start, seconds(0, 100))
            .back(after(start, 90), KEPT);
        let (late, stale, long_lived) = back.expire(after(start, 100));
        assert_eq!(
            (late, stale, long_lived),
            (Retention::Late, Fate::Goes, Fate::Goes)
        );
        assert_eq!(late.deadline(), None);
        assert_eq!(late.fate(Standing::Firm, BOTH), Fate::Goes);
        assert_eq!(late.lost(after(start, 101), BOTH), Retention::Idle);
    }

    /// RFC 9494 §4.2 (forwarding): the timer of a peer that has lost its forwarding state is of no use.
    #[test]
    fn a_peer_that_is_back_is_given_time_for_end_of_rib() {
        let start = epoch();
        let lost = Retention::Idle.lost(start, seconds(10, 3600));
        let (long_lived, ..) = lost.expire(after(start, 10));
        for (before, forwarding, deadline) in [
            (lost, Forwarding::default(), None),
            (lost, KEPT, Some(20 + 360)),
            (long_lived, KEPT, Some(20 + 360)),
            (Retention::Idle, KEPT, None),
        ] {
            let back = before.back(after(start, 20), forwarding);
            assert_eq!(back.deadline(), deadline.map(|at| after(start, at)));
            if let Some(at) = back.deadline() {
                assert_eq!(back.expire(at), (Retention::Idle, Fate::Goes, Fate::Goes));
            }
        }
    }
}
