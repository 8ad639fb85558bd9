//! What time it is for addresses that rest.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A clock that tells UTC and never goes back within a life, whatever is done to the machine's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Seconds of UTC at the start.
    base: u64,
    start: Instant,
}

impl Clock {
    /// A clock that is right now.
    pub(crate) fn start() -> Self {
        let base = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            base,
            start: Instant::now(),
        }
    }

    /// Now, in seconds of UTC.
    pub(crate) fn now(&self) -> u64 {
        self.base.saturating_add(self.start.elapsed().as_secs())
    }
}
