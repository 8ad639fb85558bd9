//! The workload task: writes this node's WorkloadEndpoints, off the path of ADD and DEL.
//!
//! What is wanted stands in a map, one entry per resource, so that a pod that comes and goes while the store
//! is away costs nothing. A write that fails stays in the map and is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manx_api::workload::{WorkloadEndpoint, WorkloadEndpointSpec};
use manx_api::{Key, Kind, Resource};
use manx_store::{Error, Store};
use tokio::sync::mpsc;

use crate::identity::Identity;
use crate::metrics::Metrics;

/// Changes taken together, at most.
const BATCH: usize = 256;

/// Pause before failed writes are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A change of this node's WorkloadEndpoints.
#[derive(Debug)]
pub enum Change {
    /// The attachment is there.
    Put(Box<WorkloadEndpoint>),
    /// The attachment is still there: what the store says of its pod, if it is the same container's, stays.
    Keep(Box<WorkloadEndpoint>),
    /// The attachment of this container is gone; another container's under the same name stays.
    Remove {
        /// Which.
        key: Key,
        /// Whose.
        container_id: String,
    },
    /// Every attachment of an earlier life was `Put`: what else there is of this node is to go.
    Settle,
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox<S> {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The datastore.
    pub store: S,
    /// Changes.
    pub changes: mpsc::Receiver<Change>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What a resource shall become.
enum Wanted {
    Present(Box<WorkloadEndpoint>, Knowledge),
    /// Absent, if it is this container's.
    Absent(String),
}

/// How much whoever wants a resource knows of the pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    All,
    /// Labels, ports and the like are known to the store alone.
    Attachment,
}

/// Runs until nobody can send changes any more.
pub async fn run<S: Store>(inbox: &mut Inbox<S>) {
    let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
    let mut present: BTreeMap<Key, String> = BTreeMap::new();
    let mut unsettled = false;
    let mut batch = Vec::new();
    loop {
        let retry = unsettled || !wanted.is_empty();
        let count = tokio::select! {
            biased;
            count = inbox.changes.recv_many(&mut batch, BATCH) => Some(count),
            () = tokio::time::sleep(PAUSE), if retry => None,
        };
        if count == Some(0) {
            return;
        }
        for change in batch.drain(..) {
            let mut put = |endpoint: Box<WorkloadEndpoint>, knowledge| {
                let key = Resource::WorkloadEndpoint((*endpoint).clone()).key();
                present.insert(key.clone(), endpoint.spec.container_id.clone());
                wanted.insert(key, Wanted::Present(endpoint, knowledge));
            };
            match change {
                Change::Put(endpoint) => put(endpoint, Knowledge::All),
                Change::Keep(endpoint) => put(endpoint, Knowledge::Attachment),
                Change::Remove { key, container_id }
                    if present.get(&key).is_none_or(|own| *own == container_id) =>
                {
                    present.remove(&key);
                    wanted.insert(key, Wanted::Absent(container_id));
                }
                Change::Remove { .. } => {}
                Change::Settle => unsettled = true,
            }
        }
        if unsettled {
            unsettled = !settle(inbox, &present, &mut wanted).await;
        }
        write(inbox, &mut wanted).await;
    }
}

/// Wants away what the store has of this node and nobody `Put`. False when the store could not be read.
async fn settle<S: Store>(
    inbox: &Inbox<S>,
    present: &BTreeMap<Key, String>,
    wanted: &mut BTreeMap<Key, Wanted>,
) -> bool {
    let listing = match inbox.store.list(Kind::WorkloadEndpoint, None).await {
        Ok(listing) => listing,
        Err(error) => {
            tracing::warn!(%error, "cannot list workload endpoints; trying again");
            return false;
        }
    };
    for resource in listing.items {
        let key = resource.key();
        if let Resource::WorkloadEndpoint(endpoint) = resource
            && endpoint.spec.node == inbox.identity.name
            && !present.contains_key(&key)
        {
            wanted
                .entry(key)
                .or_insert_with(|| Wanted::Absent(endpoint.spec.container_id));
        }
    }
    true
}

/// Writes what is wanted; what fails stays wanted.
async fn write<S: Store>(inbox: &Inbox<S>, wanted: &mut BTreeMap<Key, Wanted>) {
    let due = std::mem::take(wanted);
    for (key, what) in due {
        let outcome = match &what {
            Wanted::Present(endpoint, knowledge) => put(&inbox.store, &key, endpoint, *knowledge).await,
            Wanted::Absent(container_id) => remove(&inbox.store, &key, container_id).await,
        };
        match outcome {
            Ok(()) => {}
            Err(error @ Error::Invalid { .. }) => {
                tracing::error!(%error, "a workload endpoint cannot be written")
            }
            Err(error) => {
                tracing::debug!(%key, %error, "a workload endpoint is not written yet");
                inbox.metrics.workload_retries.inc();
                wanted.insert(key, what);
            }
        }
    }
}

async fn put<S: Store>(
    store: &S,
    key: &Key,
    endpoint: &WorkloadEndpoint,
    knowledge: Knowledge,
) -> Result<(), Error> {
    let mut wanted = endpoint.clone();
    let stored: WorkloadEndpoint = match store.get(key).await {
        Ok(Resource::WorkloadEndpoint(stored)) => stored,
        Ok(_) => return Ok(()),
        Err(Error::NotFound(_)) => {
            return store.create(Resource::WorkloadEndpoint(wanted)).await.map(drop);
        }
        Err(error) => return Err(error),
    };
    if knowledge == Knowledge::Attachment && stored.spec.container_id == wanted.spec.container_id {
        wanted = WorkloadEndpoint {
            metadata: stored.metadata.clone(),
            spec: WorkloadEndpointSpec {
                node: wanted.spec.node,
                interface_name: wanted.spec.interface_name,
                addresses: wanted.spec.addresses,
                ..stored.spec.clone()
            },
        };
        if wanted == stored {
            return Ok(());
        }
    } else {
        wanted.metadata.resource_version = stored.metadata.resource_version;
        wanted.metadata.uid = stored.metadata.uid;
        wanted.metadata.creation_timestamp = stored.metadata.creation_timestamp;
    }
    store.update(Resource::WorkloadEndpoint(wanted)).await.map(drop)
}

async fn remove<S: Store>(store: &S, key: &Key, container_id: &str) -> Result<(), Error> {
    let stored = match store.get(key).await {
        Ok(Resource::WorkloadEndpoint(stored)) if stored.spec.container_id == container_id => stored,
        Ok(_) | Err(Error::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    match store.delete(key, stored.metadata.resource_version.as_ref()).await {
        Ok(_) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
