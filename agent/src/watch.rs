//! The store watch task: keeps the view equal to the datastore, and tells the policy and announcing tasks of what they live on.
//!
//! It lists everything, watches from the list's revision, and resumes from the last event when the stream
//! breaks. Only when the store has forgotten that revision does it list again. While the store is away the
//! last view stays: absence of news is not news.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::StreamExt as _;
use manx_api::{Kind, Resource, Revision};
use manx_store::{Error, Event, Events, Store};
use tokio::sync::{mpsc, watch};

use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::policy::{self, News};
use crate::ready::Guard;
use crate::services;
use crate::view::{KINDS, View};

/// Events taken into one new view, at most.
const BATCH: usize = 1024;

/// Pause before a watch that broke is resumed.
const RESUME_PAUSE: Duration = Duration::from_millis(500);

/// What the task works with.
#[derive(Debug)]
pub struct Inbox<S> {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The datastore.
    pub store: S,
    /// Where the view goes.
    pub view: watch::Sender<Arc<View>>,
    /// Where news of policies, and of what they speak of, goes: too many to be copied with each view.
    pub policies: mpsc::Sender<News>,
    /// The same of services and what is behind them.
    pub services: mpsc::Sender<News>,
    /// What is counted.
    pub metrics: Metrics,
    /// Done when the first view is out.
    pub listed: Option<Guard>,
}

/// Runs until the process ends.
pub async fn run<S: Store>(inbox: &mut Inbox<S>) {
    let kinds: Vec<Kind> = kinds().into_iter().collect();
    loop {
        let (mut view, listed, mut revision) = list(inbox).await;
        inbox.view.send_replace(Arc::new(view.clone()));
        for (kinds, readers) in inbox.readers() {
            let theirs = listed.iter().filter(|resource| kinds.contains(&resource.kind()));
            tell(readers, News::Listed(theirs.cloned().collect())).await;
        }
        if let Some(guard) = inbox.listed.take() {
            guard.done();
        }
        loop {
            let mut events = inbox.store.watch(&kinds, revision.clone());
            match follow(inbox, &mut events, &mut view, &mut revision).await {
                Some(Error::Expired(_)) => break,
                Some(error) => tracing::warn!(%error, "the store's watch broke; resuming"),
                None => tracing::warn!("the store's watch ended; resuming"),
            }
            tokio::time::sleep(RESUME_PAUSE).await;
        }
    }
}

impl<S> Inbox<S> {
    /// Who reads news, and of which kinds.
    fn readers(&self) -> [(&'static [Kind], &mpsc::Sender<News>); 2] {
        [
            (&policy::KINDS, &self.policies),
            (&services::KINDS, &self.services),
        ]
    }
}

/// All that is watched: some kinds both make up the view and are news.
fn kinds() -> BTreeSet<Kind> {
    KINDS
        .into_iter()
        .chain(policy::KINDS)
        .chain(services::KINDS)
        .collect()
}

async fn tell(reader: &mpsc::Sender<News>, news: News) {
    if reader.send(news).await.is_err() {
        tracing::debug!("a reader of news has ended");
    }
}

/// Everything, as view and as news, and a revision to watch from: nothing later than the oldest of the lists.
async fn list<S: Store>(inbox: &Inbox<S>) -> (View, Vec<Resource>, Revision) {
    let mut pauses = pauses(&inbox.identity.name);
    loop {
        match try_list(&inbox.store).await {
            Ok(listed) => {
                inbox.metrics.store_lists.inc();
                return listed;
            }
            Err(error) => tracing::warn!(%error, "cannot list the store; trying again"),
        }
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
    }
}

async fn try_list<S: Store>(store: &S) -> Result<(View, Vec<Resource>, Revision), Error> {
    let mut view = View {
        complete: true,
        ..View::default()
    };
    let (mut news, mut oldest) = (Vec::new(), None);
    for kind in kinds() {
        let listing = store.list(kind, None).await?;
        oldest.get_or_insert(listing.revision);
        if policy::KINDS.contains(&kind) || services::KINDS.contains(&kind) {
            news.extend(listing.items.iter().cloned());
        }
        listing.items.into_iter().for_each(|resource| view.put(resource));
    }
    Ok((view, news, oldest.unwrap_or_else(Revision::start)))
}

/// Takes events into the view, as many at once as are there, until the stream fails.
async fn follow<S>(
    inbox: &Inbox<S>,
    events: &mut Events,
    view: &mut View,
    revision: &mut Revision,
) -> Option<Error> {
    let mut batches = events.ready_chunks(BATCH);
    let mut changed = false;
    while let Some(batch) = batches.next().await {
        for event in batch {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    inbox.view.send_replace(Arc::new(view.clone()));
                    return Some(error);
                }
            };
            *revision = event.revision();
            inbox.metrics.store_events.inc();
            let (key, resource) = match event {
                Event::Applied(resource) => (resource.key(), Some(resource)),
                Event::Deleted(resource) => (resource.key(), None),
            };
            for (_, reader) in inbox
                .readers()
                .into_iter()
                .filter(|(kinds, _)| kinds.contains(&key.kind))
            {
                let put = resource.clone().map(|resource| News::Put(Box::new(resource)));
                tell(reader, put.unwrap_or_else(|| News::Gone(key.clone()))).await;
            }
            if KINDS.contains(&key.kind) {
                changed = true;
                match resource {
                    Some(resource) => view.put(resource),
                    None => view.remove(&key),
                }
            }
        }
        if std::mem::take(&mut changed) {
            inbox.view.send_replace(Arc::new(view.clone()));
        }
    }
    None
}

/// Pauses before trying again, for ever: from 100 ms to 10 s, and of a length that differs between whoever tries.
pub fn pauses(who: &str) -> impl Iterator<Item = Duration> + use<> {
    let mut hasher = DefaultHasher::new();
    who.hash(&mut hasher);
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .with_jitter_seed(hasher.finish())
        .without_max_times()
        .build()
}
