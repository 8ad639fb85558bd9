//! What time it is for addresses that rest.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A clock that tells UTC and never goes back within a life, whatever is done to the machine's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Seconds of UTC at the start.
    base: u64,
    start: Instant,
}

impl Clock {
    /// The machine's time, from now on.
    #[must_use]
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::at(since.map_or(0, |since| since.as_secs()))
    }

    /// A clock that shows this many seconds of UTC now.
    #[must_use]
    pub fn at(base: u64) -> Self {
        let start = Instant::now();
        Self { base, start }
    }

    /// Now, in seconds of UTC.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.base.saturating_add(self.start.elapsed().as_secs())
    }
}
