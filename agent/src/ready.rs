//! Readiness as a set of guards: the agent is ready when none is left.
//!
//! Each task takes its guards before it starts and calls [`Guard::done`] when what it stands for is done, so
//! a task that is forgotten, stuck or dead keeps `/readyz` at "no", with its name.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// What the agent still waits for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    waiting: watch::Sender<BTreeSet<&'static str>>,
}

/// A thing that readiness waits for.
#[derive(Debug)]
#[must_use = "readiness waits until `done` is called"]
pub struct Guard {
    what: &'static str,
    waiting: watch::Sender<BTreeSet<&'static str>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            waiting: watch::Sender::new(BTreeSet::new()),
        }
    }
}

impl Readiness {
    /// Makes readiness wait for `what`, until the guard's `done` is called.
    pub fn wait_for(&self, what: &'static str) -> Guard {
        self.waiting.send_modify(|waiting| {
            waiting.insert(what);
        });
        Guard {
            what,
            waiting: self.waiting.clone(),
        }
    }

    /// What is still waited for, in order of name; ready when empty.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        self.waiting
            .borrow()
            .iter()
            .map(|&what| what.to_owned())
            .collect()
    }
}

impl Guard {
    /// What was waited for has come.
    pub fn done(self) {
        self.waiting.send_modify(|waiting| {
            waiting.remove(self.what);
        });
        tracing::info!(what = self.what, "ready");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_ready_when_the_last_guard_is_done() {
        let readiness = Readiness::default();
        let (store, routes) = (readiness.wait_for("store"), readiness.wait_for("routes"));
        assert_eq!(readiness.waiting_for(), ["routes", "store"]);
        routes.done();
        assert_eq!(readiness.waiting_for(), ["store"]);
        store.done();
        assert!(readiness.waiting_for().is_empty());
    }
}
