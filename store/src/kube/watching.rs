//! Watches: what follows a revision, whatever becomes of the connection; and lists that are streamed.
//!
//! A connection is asked for events behind the last revision seen, which bookmarks move on where nothing happens, so
//! that what comes after a break is exactly what was missed. Servers end each after a [`lifetime`]; one that says nothing
//! for [`SILENCE`], in which a bookmark is due, is taken for dead. Where the server has forgotten that revision (410), the
//! kind is listed, and no other, after a pause of random length: what loses one watch may have lost those of every node.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::RangeInclusive;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use kube::api::{WatchEvent, WatchParams};
use manx_api::{Key, Kind, Resource, Revision};
use serde_json::Value;

use super::pods::Pod;
use super::{KubeStore, Request, errors, object, paths};
use crate::{Error, Event, Listing, Store as _};

/// Seconds that one connection serves a watch. They differ, so that what began together is not renewed together for ever.
const LIFETIME: RangeInclusive<u32> = 300..=600;
/// The time over which those are spread that have to list a kind anew: as many as there are nodes.
const SPREAD: Duration = Duration::from_secs(5);
/// How long a healthy server may say nothing: bookmarks come about every minute.
pub(super) const SILENCE: Duration = Duration::from_secs(150);
/// How long the server may take to begin an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a streamed list may pause.
const LIST_PAUSE: Duration = Duration::from_secs(20);
/// The bookmark that ends a streamed list.
const LISTED: &str = "k8s.io/initial-events-end";

/// What a watch's answer has, line by line.
pub(super) type Lines = BoxStream<'static, Result<WatchEvent<Value>, kube::Error>>;

/// Every write to resources of `kind` behind `from`, or what they came to. Does not end.
pub(super) fn watch(
    store: KubeStore,
    kind: Kind,
    from: Revision,
) -> impl Stream<Item = Result<Event, Error>> + Send {
    let watching = Watching {
        store,
        kind,
        from,
        forgotten: false,
        lines: None,
        pauses: pauses(),
        told: HashMap::new(),
    };
    stream::unfold(watching, |mut watching| async move {
        let event = watching.next().await;
        Some((Ok(event), watching))
    })
}

struct Watching {
    store: KubeStore,
    kind: Kind,
    /// Everything up to here has been yielded.
    from: Revision,
    /// The server knows no more what came behind that.
    forgotten: bool,
    lines: Option<Lines>,
    pauses: ExponentialBackoff,
    /// Of pods, a digest of what was told last: most of what becomes of a pod says nothing new to us.
    told: HashMap<Key, u64>,
}

/// What to do about a line.
enum Step {
    Yield(Box<Event>),
    GoOn,
    /// List anew: what was missed cannot be had.
    Forgotten,
    /// Connect anew: something was wrong, or the connection has served its time.
    Again(Option<Error>),
}

impl Watching {
    async fn next(&mut self) -> Event {
        loop {
            let step = match &mut self.lines {
                _ if self.forgotten => self.list().await,
                Some(lines) => match tokio::time::timeout(SILENCE, lines.next()).await {
                    Ok(Some(line)) => self.step(line),
                    Ok(None) | Err(_) => Step::Again(None),
                },
                None => self.connect().await,
            };
            match step {
                Step::Yield(event) => return *event,
                Step::GoOn => {}
                Step::Forgotten => {
                    tracing::info!(kind = %self.kind, from = %self.from, "the API server knows no more what came since: the kind is listed");
                    self.lines = None;
                    self.forgotten = true;
                    let spread = SPREAD.mul_f64(rand::random());
                    tokio::time::sleep(self.pause().saturating_add(spread)).await;
                }
                Step::Again(error) => {
                    self.lines = None;
                    if let Some(error) = error {
                        tracing::warn!(kind = %self.kind, %error, "a watch broke; trying again");
                    }
                    tokio::time::sleep(self.pause()).await;
                }
            }
        }
    }

    fn pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or_default()
    }

    /// All of the kind, to go on from. Pauses go on growing: a server may forget that as fast.
    async fn list(&mut self) -> Step {
        let listing = match self.store.list(self.kind, None).await {
            Ok(listing) => listing,
            Err(error) => return Step::Again(Some(error)),
        };
        self.forgotten = false;
        self.from = listing.revision.clone();
        if self.kind == Kind::WorkloadEndpoint {
            let pods = listing.items.iter();
            self.told = pods.map(|pod| (pod.key(), digest(pod))).collect();
        }
        Step::Yield(Box::new(Event::Listed(self.kind, listing)))
    }

    async fn connect(&mut self) -> Step {
        let parameters = WatchParams::default().timeout(lifetime());
        match open(&self.store, self.kind, None, &parameters, &self.from).await {
            Ok(lines) => {
                self.lines = Some(lines);
                Step::GoOn
            }
            Err(Error::Expired(_)) => Step::Forgotten,
            // The kind may be installed later.
            Err(Error::NotFound(_)) if self.kind == Kind::ClusterNetworkPolicy => Step::Again(None),
            Err(error) => Step::Again(Some(error)),
        }
    }

    fn step(&mut self, line: Result<WatchEvent<Value>, kube::Error>) -> Step {
        if !matches!(line, Ok(WatchEvent::Error(_)) | Err(_)) {
            self.pauses = pauses();
        }
        match line {
            Ok(WatchEvent::Added(found) | WatchEvent::Modified(found)) => {
                self.from = object::revision(&found);
                if self.kind == Kind::WorkloadEndpoint {
                    return self.pod(found, false);
                }
                object::taken(self.kind, found)
                    .map_or(Step::GoOn, |it| Step::Yield(Box::new(Event::Applied(it))))
            }
            Ok(WatchEvent::Deleted(found)) => {
                self.from = object::revision(&found);
                if self.kind == Kind::WorkloadEndpoint {
                    return self.pod(found, true);
                }
                // Whether it was a resource before it broke rules nobody knows any more: a list does.
                object::taken(self.kind, found)
                    .map_or(Step::Forgotten, |it| Step::Yield(Box::new(Event::Deleted(it))))
            }
            Ok(WatchEvent::Bookmark(bookmark)) => {
                self.from = Revision(bookmark.metadata.resource_version);
                Step::GoOn
            }
            Ok(WatchEvent::Error(status)) => self.failed(kube::Error::Api(status)),
            Err(error) => self.failed(error),
        }
    }

    /// What is news of a pod.
    fn pod(&mut self, found: Value, deleted: bool) -> Step {
        match Pod::of(found) {
            Pod::Endpoint(endpoint) if !deleted => {
                let digest = digest(&endpoint);
                if self.told.insert(endpoint.key(), digest) == Some(digest) {
                    return Step::GoOn;
                }
                Step::Yield(Box::new(Event::Applied(endpoint)))
            }
            Pod::Endpoint(endpoint) | Pod::Ended(endpoint) => {
                self.told.remove(&endpoint.key());
                Step::Yield(Box::new(Event::Deleted(endpoint)))
            }
            Pod::None => Step::GoOn,
        }
    }

    fn failed(&self, error: kube::Error) -> Step {
        let error = place(&self.store, &object::all(self.kind, None)).error(error);
        if matches!(error, Error::Expired(_)) {
            return Step::Forgotten;
        }
        Step::Again(Some(error))
    }
}

/// Of a resource everything but its revision.
fn digest(resource: &Resource) -> u64 {
    let mut resource = resource.clone();
    resource.metadata_mut().resource_version = None;
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&resource)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// How long the server is asked to serve a watch, in seconds.
pub(super) fn lifetime() -> u32 {
    rand::random_range(LIFETIME)
}

/// Pauses between tries, for ever: from a fifth of a second to half a minute, of a length that differs between all who
/// try.
pub(super) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}

/// The lines of a watch's answer.
async fn open(
    store: &KubeStore,
    kind: Kind,
    namespace: Option<&str>,
    parameters: &WatchParams,
    from: &Revision,
) -> Result<Lines, Error> {
    let wanted = paths::of(kind, namespace).watch(parameters, &from.0);
    request(store, &object::all(kind, namespace), wanted).await
}

/// The same of what is asked for about `key`.
pub(super) async fn request(store: &KubeStore, key: &Key, request: Request) -> Result<Lines, Error> {
    let place = place(store, key);
    let request = request.map_err(|error| Error::unavailable(format!("cannot watch {key}"), error))?;
    let answer = tokio::time::timeout(PATIENCE, store.inner.client.request_events(request)).await;
    let lines = answer
        .map_err(|late| place.late(late))?
        .map_err(|error| place.error(error))?;
    Ok(lines.boxed())
}

/// What a watch is, in messages.
pub(super) fn place<'a>(store: &'a KubeStore, key: &'a Key) -> errors::Place<'a> {
    errors::Place {
        what: "watch",
        key,
        server: &store.inner.server,
    }
}

/// A list that is streamed: the server need not hold it all. None where the server does not serve such (before
/// Kubernetes 1.32), or begins and finds that its etcd cannot.
pub(super) async fn list(
    store: &KubeStore,
    kind: Kind,
    namespace: Option<&str>,
) -> Result<Option<Listing>, Error> {
    let parameters = WatchParams {
        send_initial_events: true,
        ..WatchParams::default()
    };
    let latest = Revision(String::new());
    let mut lines = match open(store, kind, namespace, &parameters, &latest).await {
        Err(Error::Invalid { .. }) => return Ok(None),
        other => other?,
    };
    let broke = |why: &str| {
        let key = object::all(kind, namespace);
        Error::unavailable(format!("cannot list {key} at {}", store.inner.server), why)
    };
    let mut items: Vec<Resource> = Vec::new();
    loop {
        match tokio::time::timeout(LIST_PAUSE, lines.next()).await {
            Ok(Some(Ok(WatchEvent::Added(found)))) => items.extend(object::taken(kind, found)),
            Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => {
                if bookmark.metadata.annotations.contains_key(LISTED) {
                    let revision = Revision(bookmark.metadata.resource_version);
                    return Ok(Some(object::listing(items, revision)));
                }
            }
            Ok(Some(Ok(WatchEvent::Error(status)))) => {
                let server = &store.inner.server;
                tracing::debug!(%kind, %server, ?status, "no list is streamed: it is read by pages");
                return Ok(None);
            }
            Ok(Some(Ok(other @ (WatchEvent::Modified(_) | WatchEvent::Deleted(_))))) => {
                return Err(broke(&format!("{other:?} in a list")));
            }
            Ok(Some(Err(error))) => return Err(broke(&error.to_string())),
            Ok(None) => return Err(broke("the connection ended")),
            // It watches, and knows of no end of a list.
            Err(_) => return Ok(None),
        }
    }
}
