//! Timers as a table: which are armed, and until when.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

/// A connection's timers (RFC 4271 §8.1.3 and §10, RFC 9687).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// `ConnectRetryTimer`: when to dial (again).
    ConnectRetry,
    /// `HoldTimer`: when a silent peer counts as dead.
    Hold,
    /// `KeepaliveTimer`: when to say that we live.
    Keepalive,
    /// `IdleHoldTimer`: when to start over after a failure.
    IdleHold,
    /// `SendHoldTimer`: when a peer that takes no bytes counts as dead.
    SendHold,
}

impl Timer {
    const ALL: [Self; 5] = [
        Self::ConnectRetry,
        Self::Hold,
        Self::Keepalive,
        Self::IdleHold,
        Self::SendHold,
    ];
}

/// When each armed timer of a connection expires.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    /// Arms a timer, or moves it.
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Stops a timer.
    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Stops all.
    pub(crate) fn stop_all(&mut self) {
        *self = Self::default();
    }

    /// When the next one expires.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// When this one expires.
    pub(crate) fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    /// Takes the earliest timer that has expired; it is armed no more.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Timer> {
        let due = |timer: &Timer| self.0[*timer as usize].is_some_and(|at| at <= now);
        let timer = Timer::ALL
            .into_iter()
            .filter(due)
            .min_by_key(|timer| self.0[*timer as usize])?;
        self.stop(timer);
        Some(timer)
    }
}

/// `period`, shortened at random to no less than three quarters, so that peers do not move in step
/// (RFC 4271 §10).
pub(crate) fn jitter(period: Duration, rng: &mut impl Rng) -> Duration {
    period.mul_f64(rng.random_range(0.75..=1.0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn the_earliest_expired_timer_comes_first_and_once() {
        let start = crate::testing::epoch();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.arm(Timer::Hold, at(9));
        timers.arm(Timer::Keepalive, at(3));
        timers.arm(Timer::ConnectRetry, at(5));
        timers.stop(Timer::ConnectRetry);
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.take_expired(at(2)), None);
        assert_eq!(timers.take_expired(at(9)), Some(Timer::Keepalive));
        assert_eq!(timers.take_expired(at(9)), Some(Timer::Hold));
        assert_eq!(timers.take_expired(at(9)), None);
        assert_eq!(timers.next(), None);
    }

    /// RFC 4271 §10: three quarters to all of a timer.
    #[test]
    fn jitter_takes_a_quarter_at_most() {
        let mut rng = StdRng::seed_from_u64(1);
        let period = Duration::from_secs(100);
        for _ in 0..1000 {
            let jittered = jitter(period, &mut rng);
            assert!(jittered >= period * 3 / 4 && jittered <= period, "{jittered:?}");
        }
    }
}
