//! Chance from a seed: what fails, what an agent dies of, and how long things take.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

/// Of so many operations in a storm, one goes wrong.
const ONE_IN: u32 = 30;

/// What the calls of the datastore are called that blocks are claimed, checkpointed and given back by.
const BLOCKS: &str = "ipam ";

/// Of so many of these in a storm, one goes wrong: there are few of them.
const ONE_IN_OF_BLOCKS: u32 = 12;

/// Chance. Clones share it.
///
/// Every draw names what it is for, and depends on the seed, that name and how often it was drawn before, not on
/// what else was drawn meanwhile: so a seed gives the same story though the order of independent things differ.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    seed: u64,
    drawn: Arc<Mutex<BTreeMap<String, u64>>>,
    storm: Arc<AtomicBool>,
    /// What is to become of the next operations that are called so.
    doomed: Arc<Mutex<Vec<(&'static str, Fate)>>>,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is done, and said to be.
    Done,
    /// It is not done, and refused.
    Refused,
    /// It is done, and said to be refused.
    DoneButRefused,
    /// The agent dies before it.
    DiedBefore,
    /// The agent dies after it, or in the middle of it.
    DiedAfter,
}

impl Chance {
    /// A calm at first.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            drawn: Arc::default(),
            storm: Arc::default(),
            doomed: Arc::default(),
        }
    }

    /// What becomes of the next operation whose name begins so, storm or not.
    pub(crate) fn doom(&self, what: &'static str, fate: Fate) {
        self.doomed.lock().unwrap().push((what, fate));
    }

    /// Whether everything that was doomed has met its fate.
    pub(crate) fn is_fulfilled(&self) -> bool {
        self.doomed.lock().unwrap().is_empty()
    }

    /// Whether things go wrong from now on.
    pub(crate) fn set_storm(&self, storm: bool) {
        self.storm.store(storm, Ordering::Relaxed);
    }

    /// Numbers for the next draw of this name.
    pub(crate) fn draw(&self, what: &str) -> StdRng {
        let mut drawn = self.drawn.lock().unwrap();
        let count = drawn.entry(what.to_owned()).or_default();
        *count += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, what, *count).hash(&mut hasher);
        StdRng::seed_from_u64(hasher.finish())
    }

    fn fate(&self, what: &str, rng: &mut StdRng) -> Fate {
        let mut doomed = self.doomed.lock().unwrap();
        if let Some(place) = doomed.iter().position(|(name, _)| what.starts_with(name)) {
            return doomed.remove(place).1;
        }
        let one_in = if what.starts_with(BLOCKS) {
            ONE_IN_OF_BLOCKS
        } else {
            ONE_IN
        };
        if !self.storm.load(Ordering::Relaxed) || !rng.random_ratio(1, one_in) {
            return Fate::Done;
        }
        match rng.random_range(0..8) {
            0..4 => Fate::Refused,
            4..6 => Fate::DoneButRefused,
            6 => Fate::DiedBefore,
            _ => Fate::DiedAfter,
        }
    }
}

/// One life of an agent: from its start to its death. Clones share it. What a dead agent tries does not happen.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    name: String,
    chance: Chance,
    over: CancellationToken,
}

/// What a thread of a dead agent unwinds with.
#[derive(Debug)]
pub(crate) struct Dead;

impl Life {
    /// A life of this name: the same name never comes twice.
    pub(crate) fn new(name: String, chance: Chance) -> Self {
        Self {
            name,
            chance,
            over: CancellationToken::new(),
        }
    }

    /// Ends it here and now, as SIGKILL does.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits for the end.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// An operation that takes up to `slow` milliseconds.
    pub(crate) async fn operation<T>(
        &self,
        what: &str,
        slow: u64,
        effect: impl FnOnce() -> T,
        refusal: impl FnOnce() -> T,
    ) -> T {
        let mut rng = self.draw(what);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..=slow))).await;
        if self.is_over() {
            return std::future::pending().await;
        }
        match self.chance.fate(what, &mut rng) {
            Fate::Done => effect(),
            Fate::Refused => refusal(),
            Fate::DoneButRefused => {
                drop(effect());
                refusal()
            }
            Fate::DiedBefore => {
                self.end();
                std::future::pending().await
            }
            Fate::DiedAfter => {
                drop(effect());
                self.end();
                std::future::pending().await
            }
        }
    }

    /// What becomes of an operation that blocks; the caller ends the life where that is its fate. Does not return
    /// in a life that is over.
    pub(crate) fn fate(&self, what: &str) -> (Fate, StdRng) {
        if self.is_over() {
            self.die();
        }
        let mut rng = self.draw(what);
        (self.chance.fate(what, &mut rng), rng)
    }

    /// Ends the life and the calling task with it.
    pub(crate) fn die(&self) -> ! {
        self.end();
        std::panic::resume_unwind(Box::new(Dead))
    }

    /// Numbers for the next draw of this name in this life.
    pub(crate) fn draw(&self, what: &str) -> StdRng {
        self.chance.draw(&format!("{}: {what}", self.name))
    }
}
