//! Which families a peer is repeating, and how long it is waited for.
//!
//! A peer that begins to repeat its routes (RFC 7313 §4) and never says that it has ended would keep what it does not
//! repeat for as long as its session lasts. The RFC lets a speaker set a bound to that.

use std::time::{Duration, Instant};

use crate::Family;

/// How long what a peer has not repeated waits for the end of the repetition (RFC 7313 §4).
pub(crate) const LIMIT: Duration = Duration::from_secs(360);

/// When each family's repetition counts as ended, where one is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repetitions([Option<Instant>; Family::ALL.len()]);

impl Repetitions {
    /// A repetition begins, or begins anew.
    pub(crate) fn begin(&mut self, family: Family, now: Instant) {
        self.0[family as usize] = Some(now + LIMIT);
    }

    /// The peer says that it has repeated all.
    pub(crate) fn end(&mut self, family: Family) {
        self.0[family as usize] = None;
    }

    /// When the next one counts as ended.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// The families whose time is up; their repetitions have ended with that.
    pub(crate) fn take_overdue(&mut self, now: Instant) -> Vec<Family> {
        let overdue = |family: &Family| self.0[*family as usize].is_some_and(|until| until <= now);
        let families: Vec<Family> = Family::ALL.into_iter().filter(overdue).collect();
        for family in &families {
            self.end(*family);
        }
        families
    }
}
