//! A datastore in memory, under the contract that all backends keep; and the same as an agent reaches it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use manx_api::{Key, Kind, Problem, Resource, Revision, validate, validate_among_pools, validate_update};
use manx_store::{Error, Event, Events, Listing, Store};
use rand::RngExt as _;
use tokio::sync::mpsc;

use crate::chance::Life;

/// Milliseconds that a call takes at most.
const SLOW: u64 = 20;

/// How long a call hangs at most while the datastore is away.
const HANG: u64 = 15_000;

/// The datastore. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By kind, namespace and name.
    objects: BTreeMap<(&'static str, String, String), Resource>,
    /// Every write; the revision is the position, from 1.
    log: Vec<Event>,
    /// Events before this position are forgotten.
    forgotten: usize,
    watches: Vec<Watch>,
    away: bool,
    /// Calls are never answered.
    hanging: bool,
}

/// Somebody who is told of later events.
#[derive(Debug)]
struct Watch {
    kinds: Vec<Kind>,
    events: mpsc::UnboundedSender<Event>,
}

fn place(key: &Key) -> (&'static str, String, String) {
    let namespace = key.namespace.clone().unwrap_or_default();
    (key.kind.name(), namespace, key.name.clone())
}

fn unavailable() -> Error {
    Error::Unavailable {
        context: "a call".to_owned(),
        source: "the datastore is away".into(),
    }
}

fn refuse(key: &Key, problems: Vec<Problem>) -> Result<(), Error> {
    if problems.is_empty() {
        return Ok(());
    }
    let key = key.clone();
    Err(Error::Invalid { key, problems })
}

impl State {
    fn existing(&self, key: &Key, expected: Option<&Revision>) -> Result<Resource, Error> {
        let stored = self.objects.get(&place(key)).cloned();
        let stored = stored.ok_or_else(|| Error::NotFound(key.clone()))?;
        match (expected, &stored.metadata().resource_version) {
            (Some(expected), Some(actual)) if expected != actual => Err(Error::Conflict {
                key: key.clone(),
                expected: expected.clone(),
                actual: actual.clone(),
            }),
            (Some(_) | None, _) => Ok(stored),
        }
    }

    fn among_pools(&self, resource: &Resource) -> Vec<Problem> {
        let Resource::IpPool(pool) = resource else {
            return Vec::new();
        };
        let others = self.objects.values().filter_map(|other| {
            if let Resource::IpPool(other) = other {
                return Some(other);
            }
            None
        });
        validate_among_pools(pool, others)
    }

    /// Gives a resource the next revision, and tells.
    fn write(&mut self, mut resource: Resource, event: impl FnOnce(Resource) -> Event) -> Resource {
        let revision = self.log.len() + 1;
        resource.metadata_mut().resource_version = Some(Revision(revision.to_string()));
        let event = event(resource.clone());
        self.watches.retain(|watch| {
            !watch.kinds.contains(&resource.kind()) || watch.events.send(event.clone()).is_ok()
        });
        self.log.push(event);
        resource
    }

    fn put(&mut self, resource: Resource) -> Resource {
        let resource = self.write(resource, Event::Applied);
        self.objects.insert(place(&resource.key()), resource.clone());
        resource
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Goes away, or comes back; watches break when it goes.
    pub(crate) fn set_away(&self, away: bool) {
        let mut state = self.lock();
        state.away = away;
        if away {
            state.watches.clear();
        }
    }

    /// From now on, calls are never answered.
    pub(crate) fn set_hanging(&self) {
        let mut state = self.lock();
        state.hanging = true;
        state.watches.clear();
    }

    fn is_hanging(&self) -> bool {
        self.lock().hanging
    }

    pub(crate) fn is_away(&self) -> bool {
        self.lock().away
    }

    /// Forgets the events so far: watches from before have to list again.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        state.forgotten = state.log.len();
    }

    /// The resources of a kind.
    pub(crate) fn items(&self, kind: Kind) -> Vec<Resource> {
        let state = self.lock();
        let of_kind = state.objects.values().filter(|object| object.kind() == kind);
        of_kind.cloned().collect()
    }

    /// How many writes were of this kind.
    pub(crate) fn written(&self, of_kind: impl Fn(&Resource) -> bool) -> usize {
        let state = self.lock();
        let written = state.log.iter().filter_map(Event::resource);
        written.filter(|resource| of_kind(resource)).count()
    }

    fn read(&self, key: &Key) -> Result<Resource, Error> {
        self.lock().existing(key, None)
    }

    fn listing(&self, kind: Kind, namespace: Option<&str>) -> Listing {
        let revision = Revision(self.lock().log.len().to_string());
        let mut items = self.items(kind);
        items.retain(|item| namespace.is_none() || item.metadata().namespace.as_deref() == namespace);
        Listing { revision, items }
    }

    /// Stores a new resource.
    pub(crate) fn insert(&self, mut resource: Resource) -> Result<Resource, Error> {
        let key = resource.key();
        let mut state = self.lock();
        let mut problems = validate(&resource);
        if let Some(revision) = &resource.metadata().resource_version {
            problems.push(Problem::new(
                "metadata.resourceVersion",
                revision,
                "must be left out",
            ));
        }
        refuse(&key, problems)?;
        if state.objects.contains_key(&place(&key)) {
            return Err(Error::AlreadyExists(key));
        }
        refuse(&key, state.among_pools(&resource))?;
        let uid = format!("uid-{}", state.log.len() + 1);
        let metadata = resource.metadata_mut();
        metadata.uid = Some(uid);
        metadata.creation_timestamp = Some("2026-01-01T00:00:00Z".to_owned());
        Ok(state.put(resource))
    }

    /// Puts a resource in the place of its present version.
    pub(crate) fn replace(&self, mut resource: Resource) -> Result<Resource, Error> {
        let key = resource.key();
        let mut state = self.lock();
        let mut problems = validate(&resource);
        let Some(expected) = resource.metadata().resource_version.clone() else {
            problems.push(Problem::new("metadata.resourceVersion", "", "is missing"));
            return Err(Error::Invalid { key, problems });
        };
        let old = state.existing(&key, Some(&expected))?;
        problems.extend(validate_update(&old, &resource));
        problems.extend(state.among_pools(&resource));
        refuse(&key, problems)?;
        let (metadata, before) = (resource.metadata_mut(), old.metadata());
        metadata.uid.clone_from(&before.uid);
        metadata.creation_timestamp.clone_from(&before.creation_timestamp);
        if resource == old {
            return Ok(old);
        }
        Ok(state.put(resource))
    }

    /// Deletes a resource.
    pub(crate) fn remove(&self, key: &Key, revision: Option<&Revision>) -> Result<Resource, Error> {
        let mut state = self.lock();
        let old = state.existing(key, revision)?;
        state.objects.remove(&place(key));
        Ok(state.write(old, Event::Deleted))
    }

    fn events(&self, kinds: &[Kind], from: &Revision) -> Events {
        let mut state = self.lock();
        let error = |error| stream::iter([Err(error)]).boxed();
        if state.away {
            return error(unavailable());
        }
        let from: usize = match from.0.parse() {
            Ok(from) if from >= state.forgotten && from <= state.log.len() => from,
            _ => return error(Error::Expired(from.clone())),
        };
        let (events, receiver) = mpsc::unbounded_channel();
        for event in &state.log[from..] {
            if event.resource().is_some_and(|it| kinds.contains(&it.kind())) {
                events.send(event.clone()).unwrap();
            }
        }
        let kinds = kinds.to_vec();
        state.watches.push(Watch { kinds, events });
        stream::unfold(receiver, async |mut receiver| {
            let event = receiver.recv().await?;
            Some((Ok(event), receiver))
        })
        .chain(stream::iter([Err(unavailable())]))
        .boxed()
    }
}

impl Store for Memory {
    async fn get(&self, key: &Key) -> Result<Resource, Error> {
        self.read(key)
    }

    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        Ok(self.listing(kind, namespace))
    }

    async fn create(&self, resource: Resource) -> Result<Resource, Error> {
        self.insert(resource)
    }

    async fn update(&self, resource: Resource) -> Result<Resource, Error> {
        self.replace(resource)
    }

    async fn delete(&self, key: &Key, revision: Option<&Revision>) -> Result<Resource, Error> {
        self.remove(key, revision)
    }

    fn watch(&self, kinds: &[Kind], from: Revision) -> Events {
        self.events(kinds, &from)
    }
}

/// The datastore as one task of one life of an agent reaches it: over a network that fails.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) memory: Memory,
    pub(crate) life: Life,
    /// Which task calls.
    pub(crate) task: &'static str,
    /// Calls so far, also those that failed.
    pub(crate) calls: Arc<AtomicUsize>,
}

impl Remote {
    async fn call<T>(
        &self,
        what: &str,
        about: impl std::fmt::Display,
        effect: impl FnOnce(&Memory) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let what = format!("{} {what} {about}", self.task);
        if self.memory.is_hanging() {
            return std::future::pending().await;
        }
        if self.memory.is_away() {
            let hang = self.life.draw(&what).random_range(0..HANG);
            tokio::time::sleep(Duration::from_millis(hang)).await;
            return Err(unavailable());
        }
        let refusal = || Err(unavailable());
        self.life
            .operation(&what, SLOW, || effect(&self.memory), refusal)
            .await
    }
}

impl Store for Remote {
    async fn get(&self, key: &Key) -> Result<Resource, Error> {
        self.call("get", key, |memory| memory.read(key)).await
    }

    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        self.call("list", kind, |memory| Ok(memory.listing(kind, namespace)))
            .await
    }

    async fn create(&self, resource: Resource) -> Result<Resource, Error> {
        self.call("create", resource.key(), |memory| memory.insert(resource))
            .await
    }

    async fn update(&self, resource: Resource) -> Result<Resource, Error> {
        self.call("update", resource.key(), |memory| memory.replace(resource))
            .await
    }

    async fn delete(&self, key: &Key, revision: Option<&Revision>) -> Result<Resource, Error> {
        self.call("delete", key, |memory| memory.remove(key, revision))
            .await
    }

    fn watch(&self, kinds: &[Kind], from: Revision) -> Events {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.memory.events(kinds, &from)
    }
}

/// The contract of every backend.
mod contract {
    use super::Memory;

    manx_store::conformance_tests!(std::future::ready((Memory::default(), ())));
}
