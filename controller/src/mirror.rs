//! What the datastore has of some kinds, kept up by a watch, and never behind our own writes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use manx_api::{Key, Kind, Resource, Revision};
use manx_store::{Error, Event, Events, Store};
use tokio::time::{Instant, timeout_at};

/// How long what happens is gathered before it is looked at.
const GATHER: Duration = Duration::from_millis(200);

/// The last state of each resource of some kinds.
pub(crate) struct Mirror {
    held: BTreeMap<Key, Resource>,
    /// What we wrote and the watch has not told of yet: until it does, what it tells of these is older.
    awaited: BTreeMap<Key, Revision>,
    events: Events,
}

impl Mirror {
    /// Everything as it is now, to be followed from here.
    pub(crate) async fn of<S: Store>(store: &S, kinds: &[Kind]) -> Result<Self, Error> {
        let (mut held, mut oldest) = (BTreeMap::new(), None);
        for kind in kinds {
            let listing = store.list(*kind, None).await?;
            oldest.get_or_insert(listing.revision);
            held.extend(
                listing
                    .items
                    .into_iter()
                    .map(|resource| (resource.key(), resource)),
            );
        }
        Ok(Self {
            held,
            awaited: BTreeMap::new(),
            events: store.watch(kinds, oldest.unwrap_or_else(Revision::start)),
        })
    }

    /// All resources.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Resource> {
        self.held.values()
    }

    /// Takes in what we wrote ourselves.
    pub(crate) fn wrote(&mut self, resource: Resource) {
        let key = resource.key();
        let revision = resource.metadata().resource_version.clone();
        let before = self.held.insert(key.clone(), resource);
        // A write that changed nothing is no event.
        let before = before.and_then(|before| before.metadata().resource_version.clone());
        if let Some(revision) = revision.filter(|revision| before.as_ref() != Some(revision)) {
            self.awaited.insert(key, revision);
        }
    }

    /// Waits until something has changed, and a little longer for what comes with it.
    ///
    /// # Errors
    /// The watch has ended: what it missed is in a new mirror.
    pub(crate) async fn changed(&mut self) -> Result<(), Error> {
        let first = self.events.next().await;
        self.take(first)?;
        let until = Instant::now() + GATHER;
        while let Ok(event) = timeout_at(until, self.events.next()).await {
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Option<Result<Event, Error>>) -> Result<(), Error> {
        match event.unwrap_or_else(|| Err(Error::Expired(Revision::start())))? {
            Event::Deleted(resource) => {
                let key = resource.key();
                self.awaited.remove(&key);
                self.held.remove(&key);
            }
            Event::Applied(resource) => {
                let (key, revision) = (resource.key(), resource.metadata().resource_version.as_ref());
                if self
                    .awaited
                    .get(&key)
                    .is_none_or(|awaited| revision == Some(awaited))
                {
                    self.awaited.remove(&key);
                    self.held.insert(key, resource);
                }
            }
            // Whether a list has our own writes nobody can tell: one that is made after them does.
            Event::Listed(_, listing) => return Err(Error::Expired(listing.revision)),
        }
        Ok(())
    }
}
