//! The availability task: keeps the condition `NetworkUnavailable` of Kubernetes' node saying whether pods have their
//! network here. The scheduler puts no pod on a node that has not.
//!
//! An agent that starts says nothing for a while: an earlier life's forwarding goes on, and so does what it said. Nor does
//! one that ends.

use std::time::Duration;

use jiff::Timestamp;
use manx_api::condition::{Condition, Truth};
use manx_api::status::NodeStatus;
use manx_store::{Cluster, Host, NETWORK_UNAVAILABLE};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::server::Doors;

/// For how long something must be wrong before it is said.
const GRACE: Duration = Duration::from_secs(60);

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// Where it is said.
    pub cluster: Cluster,
    /// What Kubernetes says of this node.
    pub host: watch::Receiver<Option<Host>>,
    /// Whom to ask how it is.
    pub doors: Doors,
}

/// Runs until the agent ends.
pub async fn run(inbox: &mut Inbox) {
    let node = inbox.doors.status.identity.name.clone();
    let mut judge = Judge::starting(Instant::now());
    while let Ok(status) = inbox.doors.status.node(&inbox.doors).await {
        let finding = judge.look(Instant::now(), &status);
        let host = inbox.host.borrow().clone();
        if let (Some(finding), Some(host)) = (finding, host)
            && let Some(condition) = finding.news(host.network_unavailable.as_ref())
        {
            tracing::info!(status = ?condition.status, reason = condition.reason, "NetworkUnavailable");
            if let Err(error) = inbox.cluster.say(&node, &condition).await {
                tracing::warn!(%error, "cannot say whether pods have their network here; trying again");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether pods have their network, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    unavailable: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    /// The condition to be written where this one stands; none: it says so.
    fn news(&self, before: Option<&Condition>) -> Option<Condition> {
        let status = if self.unavailable {
            Truth::True
        } else {
            Truth::False
        };
        let same = before.filter(|before| before.status == status);
        if same.is_some_and(|it| it.reason == self.reason && it.message == self.message) {
            return None;
        }
        let now = || Timestamp::now().strftime("%FT%TZ").to_string();
        Some(Condition {
            kind: NETWORK_UNAVAILABLE.to_owned(),
            status,
            reason: self.reason.to_owned(),
            message: self.message.clone(),
            last_transition_time: same.map_or_else(now, |it| it.last_transition_time.clone()),
            observed_generation: None,
        })
    }
}

/// Comes to findings.
#[derive(Debug)]
struct Judge {
    /// Since when something is wrong; none: nothing is.
    wrong: Option<Instant>,
}

impl Judge {
    /// Of an agent that starts now, and is not ready.
    fn starting(now: Instant) -> Self {
        Self { wrong: Some(now) }
    }

    /// What is to be said; none: what was said before.
    fn look(&mut self, now: Instant, status: &NodeStatus) -> Option<Finding> {
        let (reason, message) = if !status.ready {
            let waits = status.waiting_for.join(", ");
            ("ManxNotReady", format!("manxd waits for: {waits}"))
        } else if status.peers_configured > 0 && status.peers_established == 0 {
            let message = format!("none of {} BGP sessions is up", status.peers_configured);
            ("NoSession", message)
        } else {
            self.wrong = None;
            return Some(Finding {
                unavailable: false,
                reason: "ManxReady",
                message: "manxd attaches pods and has routes to other nodes".to_owned(),
            });
        };
        let since = *self.wrong.get_or_insert(now);
        (now.saturating_duration_since(since) >= GRACE).then_some(Finding {
            unavailable: true,
            reason,
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(waiting_for: &[&str], peers: [u64; 2]) -> NodeStatus {
        NodeStatus {
            node: "n1".to_owned(),
            version: String::new(),
            uptime_seconds: 0,
            ready: waiting_for.is_empty(),
            waiting_for: waiting_for.iter().map(ToString::to_string).collect(),
            asn: 64512,
            router_id: [192, 0, 2, 1].into(),
            peers_established: peers[0],
            peers_configured: peers[1],
            routes_installed: 0,
            routes_wanted: 0,
            pods: 0,
        }
    }

    #[test]
    fn what_is_wrong_is_said_when_it_lasts_and_taken_back_at_once() {
        let begin = Instant::now();
        let mut judge = Judge::starting(begin);
        let waits = status(&["address blocks"], [0, 0]);
        assert_eq!(judge.look(begin, &waits), None, "it has only begun");
        let finding = judge.look(begin + GRACE, &waits).unwrap();
        assert!(finding.unavailable && finding.message.contains("address blocks"));
        let later = begin + 2 * GRACE;
        assert!(!judge.look(later, &status(&[], [1, 2])).unwrap().unavailable);
        assert!(
            !judge.look(later, &status(&[], [0, 0])).unwrap().unavailable,
            "a node by itself needs no session"
        );
        assert_eq!(judge.look(later, &status(&[], [0, 2])), None);
        let finding = judge.look(later + GRACE, &status(&[], [0, 2])).unwrap();
        assert!(finding.unavailable && finding.reason == "NoSession");
        assert!(
            !judge
                .look(later + GRACE, &status(&[], [1, 2]))
                .unwrap()
                .unavailable
        );
    }

    #[test]
    fn a_condition_is_written_when_it_says_something_else_and_keeps_since_when() {
        let mut finding = Finding {
            unavailable: true,
            reason: "ManxNotReady",
            message: "manxd waits for: datastore".to_owned(),
        };
        let mut said = finding.news(None).unwrap();
        assert_eq!(said.status, Truth::True);
        assert_eq!(finding.news(Some(&said)), None);
        said.last_transition_time = "2026-01-01T00:00:00Z".to_owned();
        finding.message = "manxd waits for: rules".to_owned();
        let other = finding.news(Some(&said)).unwrap();
        assert_eq!(other.last_transition_time, said.last_transition_time);
        finding.unavailable = false;
        let cleared = finding.news(Some(&said)).unwrap();
        assert_eq!(cleared.status, Truth::False);
        assert_ne!(cleared.last_transition_time, said.last_transition_time);
    }
}
