//! What becomes of a task that panics.
//!
//! Two answers, both fail static: the kernel is left as it is. [`restarted`] is for tasks whose state can be
//! built again from what outlives them (the store, the kernel, their inbox): they start anew after a pause.
//! For all others the agent's end is the answer: the process exits non-zero, its supervisor starts it again,
//! and start-up adopts what is there. That path is the one that `kill -9` takes, so it is the best tested.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinError;

/// Pause before a task that panicked runs again.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs `task` on `state` until it returns; after a panic it runs again on the same state.
///
/// `state` is what must outlive the task's life: its inbox and the handles it works with. The task's own
/// knowledge is a local of `task` and dies with it.
pub async fn restarted<S, T>(name: &'static str, mut state: S, mut task: impl AsyncFnMut(&mut S) -> T) -> T {
    loop {
        match AssertUnwindSafe(task(&mut state)).catch_unwind().await {
            Ok(end) => return end,
            Err(panic) => {
                tracing::error!(
                    task = name,
                    reason = reason(&*panic),
                    "task panicked; it starts again"
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What a panic said.
#[must_use]
pub fn reason(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given")
}

/// What to resume with when a part of a task failed: the part's own panic, or that it was cancelled.
#[must_use]
pub fn panic_of(error: JoinError) -> Box<dyn Any + Send> {
    error
        .try_into_panic()
        .unwrap_or_else(|error| Box::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_runs_again_on_the_same_state() {
        let end = restarted("test", 0, async |lives: &mut u32| {
            *lives += 1;
            assert!(*lives > 2, "life {lives} ends early");
            *lives
        });
        assert_eq!(end.await, 3);
    }
}
