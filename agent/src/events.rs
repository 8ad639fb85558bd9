//! The events task: tells Kubernetes' operators what they have to act on, each thing once in a while.
//!
//! Whoever has something to tell does not wait for it: while the API server is away, and when too much is told, the log
//! alone has it.

use std::collections::HashMap;
use std::time::Duration;

use manx_store::{Cluster, Happening};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::watch::pauses;

/// How long the same is not told again.
const PAUSE: Duration = Duration::from_secs(600);

/// What may wait to be told.
const QUEUE: usize = 32;

/// How often one is tried.
const TRIES: usize = 8;

/// Where things are told; nowhere without a cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events(Option<mpsc::Sender<Happening>>);

impl Events {
    /// Where things are told, and the task's end of it if there is a cluster.
    #[must_use]
    pub fn of(cluster: Option<Cluster>, node: String) -> (Self, Option<Inbox>) {
        let Some(cluster) = cluster else {
            return (Self(None), None);
        };
        let (sender, happenings) = mpsc::channel(QUEUE);
        let inbox = Inbox {
            cluster,
            node,
            happenings,
        };
        (Self(Some(sender)), Some(inbox))
    }

    /// Tells of something.
    pub fn tell(&self, happening: Happening) {
        if let Some(sender) = &self.0
            && let Err(error) = sender.try_send(happening)
        {
            tracing::debug!(%error, "not told as an event");
        }
    }
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    cluster: Cluster,
    node: String,
    happenings: mpsc::Receiver<Happening>,
}

/// Runs until nobody can tell anything any more.
pub async fn run(inbox: &mut Inbox) {
    let mut told = HashMap::new();
    while let Some(happening) = inbox.happenings.recv().await {
        if !is_news(&mut told, Instant::now(), &happening) {
            continue;
        }
        if !record(inbox, &happening).await {
            // The next time that it happens is the first.
            told.remove(&happening);
        }
    }
}

/// Whether it could be recorded; what happens but once is worth more than one try.
async fn record(inbox: &Inbox, happening: &Happening) -> bool {
    for pause in pauses(&inbox.node).take(TRIES) {
        match inbox.cluster.record(&inbox.node, happening).await {
            Ok(()) => return true,
            Err(error) => {
                tracing::warn!(%error, reason = happening.reason, "an event cannot be recorded yet");
            }
        }
        tokio::time::sleep(pause).await;
    }
    false
}

/// Whether this was not told lately; then it is told now.
fn is_news(told: &mut HashMap<Happening, Instant>, now: Instant, happening: &Happening) -> bool {
    told.retain(|_, last| now.saturating_duration_since(*last) < PAUSE);
    if told.contains_key(happening) {
        return false;
    }
    told.insert(happening.clone(), now);
    true
}

#[cfg(test)]
mod tests {
    use manx_store::Subject;

    use super::*;

    #[test]
    fn the_same_is_told_once_in_a_while() {
        let happening = |message: &str| Happening {
            subject: Subject::Host("n1".to_owned()),
            reason: "NoFreeAddress",
            message: message.to_owned(),
        };
        let (mut told, begin) = (HashMap::new(), Instant::now());
        assert!(is_news(&mut told, begin, &happening("a")));
        assert!(!is_news(&mut told, begin, &happening("a")));
        assert!(is_news(&mut told, begin, &happening("b")));
        assert!(is_news(&mut told, begin + PAUSE, &happening("a")));
        assert_eq!(told.len(), 1, "what is long ago is forgotten");
    }
}
