//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

use super::timers::jitter;

/// The waits after the first, second … failure in a row. A mesh that starts all at once is up within a second
/// or two; a peer that resets every connection sees six attempts in its first nine seconds, then one in 30 s.
const STEPS: [Duration; 8] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
];

/// Damps reconnection (RFC 4271 §8.1.1, `DampPeerOscillations`): each failure in a row waits longer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: usize,
}

impl Backoff {
    /// Counts a failure: the jittered wait before the next attempt.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let step = STEPS[self.failures.min(STEPS.len() - 1)];
        self.failures += 1;
        jitter(step, rng)
    }

    /// Forgets the failures: a session has proved itself.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// RFC 4271 §8.1.1 (oscillations): each failure in a row waits longer.
    /// nasty case 42
    #[test]
    fn makes_at_most_one_attempt_per_second_on_average() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::default();
        let mut elapsed = Duration::ZERO;
        for attempt in 1..200 {
            elapsed += backoff.next(&mut rng);
            if elapsed > Duration::from_secs(6) {
                assert!(
                    elapsed.as_secs() >= attempt,
                    "attempt {attempt} after {elapsed:?}"
                );
            }
        }
        assert!(elapsed > Duration::from_secs(190 * 20));
    }

    #[test]
    fn starts_over_after_a_reset() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= STEPS[0]);
    }
}
