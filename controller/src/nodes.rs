//! The nodes task: frees the blocks of nodes that Kubernetes has no more, and deletes what is left of their Nodes of ours.
//!
//! Agents free such blocks as well, and sooner, by what they hear of routes (`agent/src/reclaim.rs`); but where the API
//! server keeps each agent to its own blocks they may not, and nobody needs to be connected to a router for this. As a rule
//! Kubernetes deletes our Node with its own, since an agent ties the two. A Node that owns no block is an operator's, of a
//! machine that is to come.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use manx_api::ipam::{IpBlock, LeaseState};
use manx_api::{Key, Kind, Resource};
use manx_ipam::{release_block, return_lease};
use manx_store::{Cluster, Error, Store};
use tokio::time::{Instant, sleep};

/// How often it is looked at, and twice a grace period at least.
const LOOK: Duration = Duration::from_secs(30);

/// Runs until the datastore cannot be read or written.
pub(crate) async fn run<S: Store>(
    store: &S,
    cluster: &Cluster,
    grace: Duration,
) -> Result<Infallible, Error> {
    let mut absent = Absent::default();
    let mut before: Option<BTreeSet<String>> = None;
    loop {
        let hosts = cluster.hosts().await?;
        let nobody_left = before.as_ref().is_some_and(|before| before.is_subset(&hosts));
        // Blocks are many: they are read when somebody may have left some.
        if !nobody_left || !absent.0.is_empty() {
            let blocks = blocks(store).await?;
            let owners = blocks.iter().filter_map(|block| block.spec.node.as_deref());
            for owner in absent.look(Instant::now(), &owners.collect(), &hosts, grace) {
                if cluster.is_done_with(&owner).await? {
                    forget(store, &owner).await?;
                    free(store, &owner, &blocks, &hosts).await?;
                }
            }
        }
        before = Some(hosts);
        sleep(LOOK.min(grace / 2)).await;
    }
}

async fn blocks<S: Store>(store: &S) -> Result<Vec<IpBlock>, Error> {
    let listed = store.list(Kind::IpBlock, None).await?.items.into_iter();
    Ok(listed
        .filter_map(|resource| IpBlock::try_from(resource).ok())
        .collect())
}

/// Deletes what is left of a node's own resource.
async fn forget<S: Store>(store: &S, node: &str) -> Result<(), Error> {
    match store.delete(&Key::cluster(Kind::Node, node), None).await {
        Ok(_) => tracing::info!(node, "forgotten: Kubernetes has no such node, and no pod on it"),
        Err(Error::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Frees a node's blocks; one that somebody else changes meanwhile is seen to the next time.
async fn free<S: Store>(
    store: &S,
    owner: &str,
    blocks: &[IpBlock],
    hosts: &BTreeSet<String>,
) -> Result<(), Error> {
    for block in blocks
        .iter()
        .filter(|block| block.spec.node.as_deref() == Some(owner))
    {
        match give_up(store, owner, block, blocks, hosts).await {
            Ok(()) => tracing::info!(block = %block.spec.cidr, owner, "freed: its owner is gone"),
            Err(Error::NotFound(_) | Error::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn give_up<S: Store>(
    store: &S,
    owner: &str,
    block: &IpBlock,
    blocks: &[IpBlock],
    hosts: &BTreeSet<String>,
) -> Result<(), Error> {
    let freed = match &block.spec.lease {
        Some(lease) if lease.state == LeaseState::Returned => {
            let lender = blocks.iter().find(|it| it.metadata.name == lease.of);
            let lender = lender.and_then(|lender| lender.spec.node.as_ref());
            if lender.is_some_and(|lender| hosts.contains(lender)) {
                // Its lender takes it back.
                return Ok(());
            }
            let key = Key::cluster(Kind::IpBlock, &block.metadata.name);
            let revision = block.metadata.resource_version.as_ref();
            return store.delete(&key, revision).await.map(drop);
        }
        Some(_) => return_lease(block, owner),
        None => release_block(block, owner),
    };
    match freed {
        Ok(next) => store.update(Resource::IpBlock(next)).await.map(drop),
        // It is somebody else's by now.
        Err(_) => Ok(()),
    }
}

/// Since when owners of blocks are absent.
#[derive(Debug, Default)]
struct Absent(BTreeMap<String, Instant>);

impl Absent {
    /// Takes in who owns blocks, and whom Kubernetes has; returns those that have been absent for long enough.
    fn look(
        &mut self,
        now: Instant,
        owners: &BTreeSet<&str>,
        hosts: &BTreeSet<String>,
        grace: Duration,
    ) -> BTreeSet<String> {
        let is_absent = |name: &str| owners.contains(name) && !hosts.contains(name);
        self.0.retain(|name, _| is_absent(name));
        for name in owners.iter().filter(|name| is_absent(name)) {
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
        let owners = BTreeSet::from(["a", "b"]);
        let mut look = |seconds, hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            absent.look(begin + Duration::from_secs(seconds), &owners, &hosts, grace)
        };
        assert!(look(0, &["a"]).is_empty());
        assert!(look(299, &["a"]).is_empty());
        assert_eq!(look(300, &["a"]), BTreeSet::from(["b".to_owned()]));
        assert!(look(301, &["a", "b"]).is_empty());
        assert!(look(302, &["a"]).is_empty(), "the grace begins anew");
    }
}
