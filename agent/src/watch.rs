//! The store watch task: keeps the view equal to the datastore, and tells the policy and announcing tasks of what they live on.
//!
//! It lists everything, watches from the list's revision, and resumes from the last event when the stream
//! breaks. Only when the store has forgotten that revision does it list again; a store that forgets of one kind alone
//! lists that one by itself. While the store is away the last view stays: absence of news is not news.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
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

/// Kinds that are listed at once: a datastore may be slow, and pods wait for all of them.
const LISTS: usize = 4;

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
            tell(readers, News::Listed(kinds.to_vec(), theirs.cloned().collect())).await;
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
    let mut kinds = kinds().into_iter();
    let Some(first) = kinds.next() else {
        return Ok((view, Vec::new(), Revision::start()));
    };
    // Nothing later is missed by a watch that begins here.
    let first = store.list(first, None).await?;
    let oldest = first.revision.clone();
    let others = stream::iter(kinds)
        .map(|kind| store.list(kind, None))
        .buffered(LISTS);
    let mut listings = stream::iter([Ok(first)]).chain(others).boxed();
    let mut news = Vec::new();
    while let Some(listing) = listings.try_next().await? {
        for resource in listing.items {
            let kind = resource.kind();
            if policy::KINDS.contains(&kind) || services::KINDS.contains(&kind) {
                news.push(resource.clone());
            }
            view.put(resource);
        }
    }
    drop(listings);
    Ok((view, news, oldest))
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
            changed |= KINDS.contains(&take(inbox, view, event).await);
        }
        if std::mem::take(&mut changed) {
            inbox.view.send_replace(Arc::new(view.clone()));
        }
    }
    None
}

/// Takes one event into the view, and tells those of it whom its kind, which is returned, matters to.
async fn take<S>(inbox: &Inbox<S>, view: &mut View, event: Event) -> Kind {
    let (kind, news) = match event {
        Event::Applied(resource) => {
            if KINDS.contains(&resource.kind()) {
                view.put(resource.clone());
            }
            (resource.kind(), News::Put(Box::new(resource)))
        }
        Event::Deleted(resource) => {
            view.remove(&resource.key());
            (resource.kind(), News::Gone(resource.key()))
        }
        Event::Listed(kind, listing) => {
            inbox.metrics.store_lists.inc();
            if KINDS.contains(&kind) {
                view.forget(kind);
                listing
                    .items
                    .iter()
                    .cloned()
                    .for_each(|resource| view.put(resource));
            }
            (kind, News::Listed(vec![kind], listing.items))
        }
    };
    let interested = inbox
        .readers()
        .into_iter()
        .filter(|(kinds, _)| kinds.contains(&kind));
    for (_, reader) in interested {
        tell(reader, news.clone()).await;
    }
    kind
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
