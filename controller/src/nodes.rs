//! The nodes task: deletes the Node resource of a node that Kubernetes has no more.
//!
//! As a rule Kubernetes does so itself, since an agent ties its resource to Kubernetes' Node. What is left is a resource
//! whose agent had no time for that. Only a node that owns blocks is taken for one that was a member: others are an
//! operator's. The agents then free its blocks, by what they hear of its routes (`agent/src/reclaim.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use manx_api::{Kind, Resource};
use manx_store::{Cluster, Error, Store};
use tokio::time::{Instant, sleep};

/// How often it is looked at, and twice a grace period at least.
const LOOK: Duration = Duration::from_secs(30);

/// Runs until the datastore cannot be read.
pub(crate) async fn run<S: Store>(
    store: &S,
    cluster: &Cluster,
    grace: Duration,
) -> Result<Infallible, Error> {
    let mut absent = Absent::default();
    loop {
        let nodes = store.list(Kind::Node, None).await?.items;
        let names: BTreeSet<&str> = nodes.iter().map(|node| node.metadata().name.as_str()).collect();
        let due = absent.look(Instant::now(), &names, &cluster.hosts().await?, grace);
        if !due.is_empty() {
            let owners = owners(store).await?;
            let gone = |node: &&Resource| {
                let name = &node.metadata().name;
                due.contains(name) && owners.contains(name)
            };
            for node in nodes.iter().filter(gone) {
                forget(store, cluster, node).await?;
            }
        }
        sleep(LOOK.min(grace / 2)).await;
    }
}

/// Who owns blocks.
async fn owners<S: Store>(store: &S) -> Result<BTreeSet<String>, Error> {
    let blocks = store.list(Kind::IpBlock, None).await?.items.into_iter();
    let owner = |resource| {
        if let Resource::IpBlock(block) = resource {
            block.spec.node
        } else {
            None
        }
    };
    Ok(blocks.filter_map(owner).collect())
}

async fn forget<S: Store>(store: &S, cluster: &Cluster, node: &Resource) -> Result<(), Error> {
    let (key, revision) = (node.key(), node.metadata().resource_version.as_ref());
    if !cluster.is_done_with(&key.name).await? {
        return Ok(());
    }
    match store.delete(&key, revision).await {
        Ok(_) => tracing::info!(
            node = key.name,
            "forgotten: Kubernetes has no such node, and no pod on it"
        ),
        // It has just been written: it lives.
        Err(Error::NotFound(_) | Error::Conflict { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Since when nodes are absent.
#[derive(Debug, Default)]
struct Absent(BTreeMap<String, Instant>);

impl Absent {
    /// Takes in which nodes are ours, and which Kubernetes has; returns those that have been absent for long enough.
    fn look(
        &mut self,
        now: Instant,
        ours: &BTreeSet<&str>,
        hosts: &BTreeSet<String>,
        grace: Duration,
    ) -> BTreeSet<String> {
        let is_absent = |name: &str| ours.contains(name) && !hosts.contains(name);
        self.0.retain(|name, _| is_absent(name));
        for name in ours.iter().filter(|name| is_absent(name)) {
            self.0.entry((*name).to_owned()).or_insert(now);
        }
        let is_due = |since: &Instant| now.saturating_duration_since(*since) >= grace;
        let due = self.0.iter().filter(|(_, since)| is_due(since));
        due.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_comes_back_in_time_was_never_away() {
        let (mut absent, begin) = (Absent::default(), Instant::now());
        let grace = Duration::from_secs(300);
        let ours = BTreeSet::from(["a", "b"]);
        let mut look = |seconds, hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            absent.look(begin + Duration::from_secs(seconds), &ours, &hosts, grace)
        };
        assert!(look(0, &["a"]).is_empty());
        assert!(look(299, &["a"]).is_empty());
        assert_eq!(look(300, &["a"]), BTreeSet::from(["b".to_owned()]));
        assert!(look(301, &["a", "b"]).is_empty());
        assert!(look(302, &["a"]).is_empty(), "the grace begins anew");
    }
}
