//! The releases task: does what operators ask the owner of a block to free (`manxctl ipam release`).
//!
//! A request stands in the block's resource. Each goes to the cni task, in the order of its attachment's calls:
//! what is freed is an attachment, with its route and its WorkloadEndpoint. Then the request is taken out of the
//! resource, which is the answer to whoever waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manx_api::ipam::{Allocation, IpBlock, Release};
use manx_api::{Key, Kind, Resource};
use manx_ipam::{Settled, settle_releases};
use manx_store::{Error, Store};
use tokio::sync::{mpsc, watch};

use crate::ask::{Gone, ask};
use crate::cni::{self, Job};
use crate::identity::Identity;
use crate::ipam;
use crate::view::View;

/// Pause before what could not be done is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the task works with.
#[derive(Debug)]
pub struct Inbox<S> {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The datastore.
    pub store: S,
    /// The cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// Who holds what.
    pub ipam: mpsc::Sender<ipam::Request>,
    /// Frees it.
    pub cni: mpsc::Sender<Job>,
}

/// Runs until the agent ends.
pub async fn run<S: Store>(inbox: &mut Inbox<S>) {
    loop {
        let view = inbox.view.borrow_and_update().clone();
        let asked = asked(&view, &inbox.identity.name);
        let mut left = false;
        for block in asked {
            match settle(inbox, block).await {
                Ok(done) => left |= !done,
                Err(Gone) => return,
            }
        }
        tokio::select! {
            changed = inbox.view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE), if left => {}
        }
    }
}

/// Our blocks that operators want something freed of.
fn asked<'a>(view: &'a View, node: &str) -> Vec<&'a IpBlock> {
    let ours = |block: &&IpBlock| block.spec.node.as_deref() == Some(node);
    view.blocks
        .values()
        .filter(ours)
        .filter(|block| !block.spec.releases.is_empty())
        .collect()
}

/// Deals with a block's requests; false where something is left to be tried again.
async fn settle<S: Store>(inbox: &Inbox<S>, block: &IpBlock) -> Result<bool, Gone> {
    let held = ask(&inbox.ipam, ipam::Request::Recovered).await?;
    let mut settled = BTreeMap::new();
    for release in &block.spec.releases {
        match free(inbox, &held, *release).await? {
            Ok(outcome) => drop(settled.insert(*release, outcome)),
            Err(error) => {
                tracing::warn!(address = %release.address, %error, "an address cannot be freed yet");
            }
        }
    }
    let all = settled.len() == block.spec.releases.len();
    match write(inbox, block, &settled).await {
        Ok(()) => Ok(all),
        Err(error) => {
            tracing::warn!(block = %block.spec.cidr, %error, "what was freed cannot be written yet");
            Ok(false)
        }
    }
}

/// Has one address freed, if the allocation is still the one that was meant.
async fn free<S>(
    inbox: &Inbox<S>,
    held: &[Allocation],
    release: Release,
) -> Result<Result<Settled, manx_cni::Error>, Gone> {
    let meant = |held: &&Allocation| held.address == release.address && held.sequence == release.sequence;
    let owner = held.iter().find(meant).map(|held| &held.owner);
    let Some(attachment) = owner.and_then(cni::attachment_of) else {
        return Ok(Ok(Settled::Gone));
    };
    ask(&inbox.cni, |reply| Job::Release {
        attachment,
        release,
        reply,
    })
    .await
}

/// Takes what was dealt with out of the block's resource.
async fn write<S: Store>(
    inbox: &Inbox<S>,
    block: &IpBlock,
    settled: &BTreeMap<Release, Settled>,
) -> Result<(), Error> {
    let key = Key::cluster(Kind::IpBlock, &block.metadata.name);
    let Ok(block) = IpBlock::try_from(inbox.store.get(&key).await?) else {
        return Ok(());
    };
    match settle_releases(&block, &inbox.identity.name, settled) {
        Ok(next) if next == block => Ok(()),
        Ok(next) => inbox.store.update(Resource::IpBlock(next)).await.map(drop),
        // Its next owner deals with what is asked.
        Err(_) => Ok(()),
    }
}
