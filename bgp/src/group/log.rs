//! Steps that some of a group have not been told yet.
//!
//! Peers take what they are told at their own pace. Who is a few steps late is told the same octets as the others,
//! later; who is later than the log is long is told the last word only, from the group's table.

use std::collections::VecDeque;

use super::batch::Step;

/// Octets that a group's log keeps at most, but for one step.
pub(crate) const LOG: usize = 1024 * 1024;

/// Steps that are still to be told to somebody, by number.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The number of the first.
    first: u64,
    steps: VecDeque<Kept>,
    octets: usize,
}

#[derive(Debug)]
struct Kept {
    step: Step,
    /// How many peers are to be told.
    waiting: usize,
}

impl Log {
    /// The number of the first step.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next step will have.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.steps.len() as u64
    }

    /// A step by its number.
    pub(crate) fn get(&self, number: u64) -> Option<&Step> {
        self.steps.get(self.place(number)?).map(|kept| &kept.step)
    }

    /// The steps from a number on.
    pub(crate) fn since(&self, number: u64) -> impl Iterator<Item = &Step> {
        let place = self.place(number).unwrap_or_default();
        self.steps.iter().skip(place).map(|kept| &kept.step)
    }

    /// Keeps a step that so many have not been told, one at least.
    pub(crate) fn push(&mut self, step: Step, waiting: usize) {
        self.octets += step.octets();
        self.steps.push_back(Kept { step, waiting });
    }

    /// Whether it keeps more than it may.
    pub(crate) fn is_long(&self) -> bool {
        self.octets > LOG && self.steps.len() > 1
    }

    /// One peer no longer waits for a step: the steps that nobody waits for any more.
    pub(crate) fn told(&mut self, number: u64) -> Vec<Step> {
        let place = self.place(number);
        if let Some(kept) = place.and_then(|place| self.steps.get_mut(place)) {
            kept.waiting -= 1;
        }
        let mut done = Vec::new();
        while self.steps.front().is_some_and(|kept| kept.waiting == 0)
            && let Some(kept) = self.steps.pop_front()
        {
            self.first += 1;
            self.octets -= kept.step.octets();
            done.push(kept.step);
        }
        done
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }
}
