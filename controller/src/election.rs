//! Who may act: the rules of an election by a lease, without a clock, a network or randomness of its own.
//!
//! The datastore keeps one lease, written by compare-and-swap. Its holder writes it again and again and acts for
//! [`Timing::acting`] after it *sent* the last write that succeeded; somebody else takes the lease when it has seen no
//! write for the lease's own length, which is longer. Each side measures spans by its own monotonic clock, and nobody
//! compares a time in the lease with a wall clock: clocks that are wrong do no harm, only such that run at speeds which
//! differ by half.

use std::time::{Duration, Instant};

use manx_store::Lease;

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The lease's length, in seconds.
    pub seconds: u32,
}

impl Timing {
    /// How long a holder acts after a write.
    #[must_use]
    pub fn acting(self) -> Duration {
        Duration::from_secs(self.seconds.into()) * 2 / 3
    }

    /// How often it is looked at and written: five times while one may act.
    #[must_use]
    pub fn pause(self) -> Duration {
        self.acting() / 5
    }
}

/// What a candidate does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Writes the lease with its own name in the place of what it read; none: creates it.
    Write(Option<Lease>),
    /// Leaves it to who has it.
    Wait,
}

/// One candidate's view of the election.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    /// The lease as it was last seen, and since when it is like that.
    seen: Option<(Lease, Instant)>,
    /// Until when we may act.
    until: Option<Instant>,
}

impl Election {
    /// A candidate; `me` is nobody else's name, nor was it in an earlier life.
    #[must_use]
    pub fn new(me: String, timing: Timing) -> Self {
        Self {
            me,
            timing,
            seen: None,
            until: None,
        }
    }

    /// Our name.
    #[must_use]
    pub fn me(&self) -> &str {
        &self.me
    }

    /// How long things last.
    #[must_use]
    pub const fn timing(&self) -> Timing {
        self.timing
    }

    /// The lease was read, at this moment or later.
    pub fn look(&mut self, now: Instant, lease: Option<Lease>) -> Move {
        let Some(lease) = lease else {
            self.seen = None;
            return Move::Write(None);
        };
        let same = self.seen.as_ref().filter(|(seen, _)| *seen == lease);
        let since = same.map_or(now, |(_, since)| *since);
        let length = Duration::from_secs(lease.seconds.max(1).into());
        let is_over = now.saturating_duration_since(since) >= length;
        let free = lease.holder.as_ref().is_none_or(|holder| *holder == self.me) || is_over;
        self.seen = Some((lease.clone(), since));
        if free {
            return Move::Write(Some(lease));
        }
        self.until = None;
        Move::Wait
    }

    /// Our write, sent at that moment, succeeded, and the lease is this since.
    pub fn wrote(&mut self, sent: Instant, lease: Lease) {
        self.seen = Some((lease, sent));
        self.until = sent.checked_add(self.timing.acting());
    }

    /// Until when we may act; none: not at all.
    #[must_use]
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    /// What is to be written to give the lease back, if it is ours; we act no more.
    pub fn resign(&mut self) -> Option<Lease> {
        self.until = None;
        let (lease, _) = self.seen.take()?;
        (lease.holder.as_deref() == Some(self.me.as_str())).then_some(lease)
    }
}

#[cfg(test)]
mod tests {
    use manx_api::Revision;
    use proptest::prelude::*;

    use super::*;

    const TIMING: Timing = Timing { seconds: 15 };

    fn lease(revision: u64, holder: Option<&str>) -> Lease {
        Lease {
            revision: Revision(revision.to_string()),
            holder: holder.map(str::to_owned),
            seconds: TIMING.seconds,
            transitions: 0,
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_was_not_written_for_its_length_and_at_once_when_it_was_given_back() {
        let start = Instant::now();
        let second = |seconds| start + Duration::from_secs(seconds);
        let mut election = Election::new("a".to_owned(), TIMING);
        assert_eq!(election.look(start, None), Move::Write(None));
        assert_eq!(election.look(start, Some(lease(1, Some("b")))), Move::Wait);
        assert_eq!(election.look(second(14), Some(lease(1, Some("b")))), Move::Wait);
        assert_eq!(
            election.look(second(14), Some(lease(2, Some("b")))),
            Move::Wait,
            "it lives"
        );
        assert_eq!(election.look(second(28), Some(lease(2, Some("b")))), Move::Wait);
        let over = lease(2, Some("b"));
        assert_eq!(
            election.look(second(29), Some(over.clone())),
            Move::Write(Some(over))
        );
        let back = lease(3, None);
        assert_eq!(
            election.look(second(29), Some(back.clone())),
            Move::Write(Some(back))
        );
    }

    #[test]
    fn a_holder_acts_for_a_while_after_it_sent_its_last_write_and_not_when_it_resigned() {
        let start = Instant::now();
        let mut election = Election::new("a".to_owned(), TIMING);
        assert_eq!(election.until(start), None);
        election.wrote(start, lease(1, Some("a")));
        let end = start + TIMING.acting();
        assert_eq!(election.until(start), Some(end));
        assert_eq!(election.until(end), None);
        election.wrote(end, lease(2, Some("a")));
        assert_eq!(election.resign(), Some(lease(2, Some("a"))));
        assert_eq!((election.until(end), election.resign()), (None, None));
        election.wrote(end, lease(3, Some("a")));
        assert_eq!(election.look(end, Some(lease(4, Some("b")))), Move::Wait);
        assert_eq!(
            (election.until(end), election.resign()),
            (None, None),
            "somebody took it"
        );
    }

    /// Something that happens to one of the candidates.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Time passes, in milliseconds.
        Pass(u64),
        /// One asks, and hears what the lease is.
        Read(usize),
        /// One sends what it decided on; the server does it this much later, and the answer may be lost.
        Send { who: usize, delay: u64, lost: bool },
        /// One gives the lease back.
        Resign(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let who = 0_usize..3;
        let step = prop_oneof![
            4 => (1_u64..6000).prop_map(Step::Pass),
            4 => who.clone().prop_map(Step::Read),
            4 => (who.clone(), 0_u64..8000, prop::bool::weighted(0.2))
                .prop_map(|(who, delay, lost)| Step::Send { who, delay, lost }),
            1 => who.prop_map(Step::Resign),
        ];
        prop::collection::vec(step, 1..120)
    }

    /// A write under way: when it is done, what it replaces, by whom, when it was sent, whether its answer is lost.
    type Write = (Instant, Option<Revision>, usize, Instant, bool);

    #[derive(Default)]
    struct World {
        stored: Option<Lease>,
        writes: u64,
        under_way: Vec<Write>,
    }

    impl World {
        /// The server does what is due.
        fn serve(&mut self, now: Instant, candidates: &mut [Election]) {
            self.under_way.sort_by_key(|(due, ..)| *due);
            while self.under_way.first().is_some_and(|(due, ..)| *due <= now) {
                let (_, before, who, sent, lost) = self.under_way.remove(0);
                if self.stored.as_ref().map(|stored| stored.revision.clone()) != before {
                    continue;
                }
                self.writes += 1;
                let written = lease(self.writes, Some(candidates[who].me()));
                self.stored = Some(written.clone());
                if !lost {
                    candidates[who].wrote(sent, written);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256,
            rng_seed: prop::test_runner::RngSeed::Fixed(6),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_two_act_at_once_however_slow_and_lossy_the_server_is(steps in steps()) {
            let mut now = Instant::now();
            let mut world = World::default();
            let mut candidates: Vec<Election> =
                (0..3).map(|who| Election::new(format!("c{who}"), TIMING)).collect();
            let mut decided: [Option<Move>; 3] = [None, None, None];
            for step in steps {
                match step {
                    Step::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                    Step::Read(who) => decided[who] = Some(candidates[who].look(now, world.stored.clone())),
                    Step::Send { who, delay, lost } => {
                        if let Some(Move::Write(before)) = decided[who].take() {
                            let due = now + Duration::from_millis(delay);
                            let before = before.map(|lease| lease.revision);
                            world.under_way.push((due, before, who, now, lost));
                        }
                    }
                    Step::Resign(who) => {
                        let resigned = candidates[who].resign();
                        if let Some(given) = resigned
                            && world.stored.as_ref() == Some(&given)
                        {
                            world.writes += 1;
                            world.stored = Some(lease(world.writes, None));
                        }
                    }
                }
                world.serve(now, &mut candidates);
                let acting = candidates.iter().filter(|it| it.until(now).is_some()).count();
                prop_assert!(acting <= 1, "{candidates:#?}");
            }
        }
    }
}
