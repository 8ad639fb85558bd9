//! When the start is over: what to wait for before announcing, and before believing the table complete.
//!
//! A speaker that restarted announces nothing until it has heard its peers out (RFC 4724 §4.1): its peers keep
//! what they had from it, and an End-of-RIB before the table is complete would cost them routes. It waits for
//! those that are coming, not for those that are dead, and not for long.
//!
//! Whether the kernel's routes may be swept of what no peer announced is a graver question, so there every
//! configured peer counts, dead or not, until the time is up.

use std::time::{Duration, Instant};

/// How long after the start the first dials get their answers, those to peers that restart at the same time
/// among them.
const SETTLING: Duration = Duration::from_secs(2);

/// How far a peer's initial routes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// All have come.
    Nothing,
    /// There is a session, but RFC 4724 §4.1 says not to wait for its End-of-RIB before announcing: the peer
    /// does not send any, or it has restarted itself.
    EndOfRib,
    /// They are on the way.
    Routes,
    /// The last attempt to connect failed.
    Session,
}

/// The start of a speaker.
#[derive(Clone, Debug)]
pub(crate) struct Convergence {
    started: Option<Instant>,
    next: Option<Instant>,
    deferral: Duration,
    announces: bool,
    converged: bool,
}

impl Convergence {
    /// A start; one that `defers` announces nothing for a while, `deferral` at most.
    pub(crate) fn new(defers: bool, deferral: Duration) -> Self {
        Self {
            started: None,
            next: None,
            deferral,
            announces: !defers,
            converged: false,
        }
    }

    /// Whether announcements may leave.
    pub(crate) fn announces(&self) -> bool {
        self.announces
    }

    /// When to look again, at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next.filter(|_| !self.converged)
    }

    /// Looks at the peers: whether the table is complete as of now, which is said once.
    pub(crate) fn advance(&mut self, now: Instant, peers: impl Iterator<Item = Awaited> + Clone) -> bool {
        if self.converged {
            return false;
        }
        let started = *self.started.get_or_insert(now);
        let elapsed = now - started;
        let (settled, over) = (elapsed >= SETTLING, elapsed >= self.deferral);
        self.next = Some(
            started
                + if settled {
                    self.deferral
                } else {
                    SETTLING.min(self.deferral)
                },
        );
        let complete = settled && peers.clone().all(|it| it == Awaited::Nothing);
        let heard_out = |it| match it {
            Awaited::Nothing | Awaited::EndOfRib => true,
            Awaited::Routes => false,
            Awaited::Session => settled,
        };
        self.announces =
            self.announces || over || peers.clone().next().is_some() && peers.clone().all(heard_out);
        self.converged = over || complete && peers.clone().next().is_some();
        self.converged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::epoch;

    const DEFERRAL: Duration = Duration::from_secs(10);

    /// Whether announcements leave, and whether the table is complete.
    type Look = (bool, bool);

    /// What is seen after each of these seconds.
    fn after(defers: bool, peers: &[Awaited], seconds: &[u64]) -> Vec<Look> {
        let start = epoch();
        let mut convergence = Convergence::new(defers, DEFERRAL);
        let mut look = |&seconds| {
            let complete = convergence.advance(start + Duration::from_secs(seconds), peers.iter().copied());
            (convergence.announces(), complete)
        };
        seconds.iter().map(&mut look).collect()
    }

    /// RFC 4724 §4.1 (deferral): until all End-of-RIB came, or a time is up.
    /// nasty case 54
    /// nasty case 69
    #[test]
    fn waits_for_those_who_are_coming_and_not_for_long() {
        use Awaited::{EndOfRib, Nothing, Routes, Session};
        // Peers; then, after 0, 2 and 10 s, whether a restarted speaker announces, and whether it has converged.
        let table: [(&[Awaited], [Look; 3]); 6] = [
            (&[Nothing, Nothing], [(true, false), (true, true), (true, false)]),
            (&[Nothing, Routes], [(false, false), (false, false), (true, true)]),
            (&[Nothing, EndOfRib], [(true, false), (true, false), (true, true)]),
            (&[Nothing, Session], [(false, false), (true, false), (true, true)]),
            (&[Session], [(false, false), (true, false), (true, true)]),
            (&[], [(false, false), (false, false), (true, true)]),
        ];
        for (peers, expected) in table {
            assert_eq!(after(true, peers, &[0, 2, 10]), expected, "{peers:?}");
            let first_boot: Vec<_> = expected.iter().map(|(_, complete)| (true, *complete)).collect();
            assert_eq!(after(false, peers, &[0, 2, 10]), first_boot, "{peers:?}");
        }
    }

    #[test]
    fn asks_to_be_looked_at_again_until_it_is_over() {
        let start = epoch();
        let mut convergence = Convergence::new(true, DEFERRAL);
        let mut deadline = |seconds| {
            convergence.advance(
                start + Duration::from_secs(seconds),
                std::iter::once(Awaited::Routes),
            );
            convergence.deadline().map(|at| (at - start).as_secs())
        };
        assert_eq!(
            [0, 1, 2, 9, 10].map(&mut deadline),
            [Some(2), Some(2), Some(10), Some(10), None]
        );
    }
}
