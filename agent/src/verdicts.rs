//! The verdicts task: says in the status of a policy that it cannot be carried out, and when it can be again.
//!
//! The embedded store refuses such a policy; another store may hold what somebody wrote past every check. Every node
//! comes to the same verdict, and the first one that writes it spares the others.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use manx_api::condition::{ACCEPTED, Condition, Truth};
use manx_api::{Key, Revision};
use manx_store::{Error, Happening, Store, Subject};
use tokio::sync::mpsc;

use crate::events::Events;

/// Pause before failed writes are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether a policy can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which policy.
    pub key: Key,
    /// As it was at this revision.
    pub revision: Option<Revision>,
    /// What is wrong with it; empty: nothing.
    pub problems: String,
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox<S> {
    /// The datastore.
    pub store: S,
    /// Verdicts.
    pub verdicts: mpsc::Receiver<Verdict>,
    /// Where operators hear of them.
    pub events: Events,
}

/// Runs until nobody comes to verdicts any more.
pub async fn run<S: Store>(inbox: &mut Inbox<S>) {
    let mut unsaid: BTreeMap<Key, Verdict> = BTreeMap::new();
    loop {
        let verdict = tokio::select! {
            biased;
            verdict = inbox.verdicts.recv() => Some(verdict),
            () = tokio::time::sleep(PAUSE), if !unsaid.is_empty() => None,
        };
        match verdict {
            Some(Some(verdict)) => {
                inbox.events.tell_of(&verdict);
                unsaid.insert(verdict.key.clone(), verdict);
            }
            Some(None) => return,
            None => {}
        }
        for (key, verdict) in std::mem::take(&mut unsaid) {
            match say(&inbox.store, &verdict).await {
                // It is gone, or another by now: then there is another verdict on it. Or it is of a kind without a status.
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => {
                    tracing::debug!(%key, %error, "a policy's status is not written yet");
                    unsaid.insert(key, verdict);
                }
            }
        }
    }
}

impl Events {
    /// Tells of what is wrong with a policy. Kubernetes' NetworkPolicies have no status that could say so.
    fn tell_of(&self, verdict: &Verdict) {
        if !verdict.problems.is_empty() {
            self.tell(Happening {
                subject: Subject::Resource(verdict.key.clone(), None),
                reason: "PolicyNotAccepted",
                message: format!("it opens nothing until it is mended: {}", verdict.problems),
            });
        }
    }
}

/// Says it where that is news.
async fn say<S: Store>(store: &S, verdict: &Verdict) -> Result<(), Error> {
    let mut resource = store.get(&verdict.key).await?;
    if resource.metadata().resource_version != verdict.revision {
        return Ok(());
    }
    let Some(status) = resource.status_mut() else {
        return Ok(());
    };
    if verdict.problems.is_empty() && status.condition(ACCEPTED).is_none() {
        return Ok(());
    }
    let (truth, reason) = if verdict.problems.is_empty() {
        (Truth::True, "Valid")
    } else {
        (Truth::False, "Invalid")
    };
    let condition = Condition {
        kind: ACCEPTED.to_owned(),
        status: truth,
        reason: reason.to_owned(),
        message: verdict.problems.clone(),
        last_transition_time: Timestamp::now().strftime("%FT%TZ").to_string(),
        observed_generation: None,
    };
    if status.say(condition) {
        store.update_status(resource).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use manx_api::Resource;
    use manx_store::SqliteStore;
    use serde_json::json;

    use super::*;

    async fn condition(store: &SqliteStore, key: &Key) -> Option<(Truth, String)> {
        let policy = store.get(key).await.unwrap();
        let said = policy.status().unwrap().condition(ACCEPTED);
        said.map(|it| (it.status, it.message.clone()))
    }

    #[tokio::test]
    async fn a_policy_is_told_what_is_wrong_with_it_and_when_it_is_right_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("store.db"))
            .await
            .unwrap();
        let policy = json!({
            "apiVersion": "manx.network/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": "all()"},
        });
        let policy: Resource = serde_json::from_value(policy).unwrap();
        let policy = store.create(policy).await.unwrap();
        let verdict = |revision: &Option<Revision>, problems: &str| Verdict {
            key: policy.key(),
            revision: revision.clone(),
            problems: problems.to_owned(),
        };
        let first = policy.metadata().resource_version.clone();
        say(&store, &verdict(&first, "")).await.unwrap();
        assert_eq!(
            condition(&store, &policy.key()).await,
            None,
            "nothing was ever wrong"
        );
        say(&store, &verdict(&first, "spec: no")).await.unwrap();
        let wrong = Some((Truth::False, "spec: no".to_owned()));
        assert_eq!(condition(&store, &policy.key()).await, wrong);
        say(&store, &verdict(&first, "spec: other")).await.unwrap();
        assert_eq!(
            condition(&store, &policy.key()).await,
            wrong,
            "it is another by now"
        );
        let now = store
            .get(&policy.key())
            .await
            .unwrap()
            .metadata()
            .resource_version
            .clone();
        say(&store, &verdict(&now, "spec: no")).await.unwrap();
        let kept = store.get(&policy.key()).await.unwrap();
        assert_eq!(kept.metadata().resource_version, now, "said once is enough");
        say(&store, &verdict(&now, "")).await.unwrap();
        let right = Some((Truth::True, String::new()));
        assert_eq!(condition(&store, &policy.key()).await, right);
    }
}
