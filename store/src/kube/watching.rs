//! Watches: what follows a revision, whatever becomes of the connection; and lists that are streamed.
//!
//! A connection is asked for events behind the last revision seen, which bookmarks move on where nothing happens, so
//! that what comes after a break is exactly what was missed. Servers end each after [`LIFETIME`]; one that says nothing
//! for [`SILENCE`], in which a bookmark is due, is taken for dead. Only a revision that the server has forgotten (410)
//! ends a watch: whoever watches lists again, each after a pause of its own length.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use kube::api::{WatchEvent, WatchParams};
use manx_api::{Key, Kind, Resource, Revision};
use serde_json::Value;

use super::pods::Pod;
use super::{KubeStore, errors, object, paths};
use crate::{Error, Event, Listing};

/// Seconds that one connection serves a watch.
pub(super) const LIFETIME: u32 = 290;
/// How long a healthy server may say nothing: bookmarks come about every minute.
const SILENCE: Duration = Duration::from_secs(150);
/// How long the server may take to begin an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a streamed list may pause.
const LIST_PAUSE: Duration = Duration::from_secs(20);
/// The bookmark that ends a streamed list.
const LISTED: &str = "k8s.io/initial-events-end";

type Lines = BoxStream<'static, Result<WatchEvent<Value>, kube::Error>>;

/// Every write to resources of `kind` behind `from`. Ends with [`Error::Expired`] and with nothing else.
pub(super) fn watch(
    store: KubeStore,
    kind: Kind,
    from: Revision,
) -> impl Stream<Item = Result<Event, Error>> + Send {
    let watching = Watching {
        store,
        kind,
        from,
        lines: None,
        pauses: pauses(),
        told: HashMap::new(),
    };
    stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(event) => Some((Ok(event), Some(watching))),
            Err(expired) => Some((Err(expired), None)),
        }
    })
}

struct Watching {
    store: KubeStore,
    kind: Kind,
    /// Everything up to here has been yielded.
    from: Revision,
    lines: Option<Lines>,
    pauses: ExponentialBackoff,
    /// Of pods, a digest of what was told last: most of what becomes of a pod says nothing new to us.
    told: HashMap<Key, u64>,
}

/// What to do about a line.
enum Step {
    Yield(Box<Event>),
    GoOn,
    Expired,
    /// Connect anew: something was wrong, or the connection has served its time.
    Again(Option<Error>),
}

impl Watching {
    async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let step = match &mut self.lines {
                Some(lines) => match tokio::time::timeout(SILENCE, lines.next()).await {
                    Ok(Some(line)) => self.step(line),
                    Ok(None) | Err(_) => Step::Again(None),
                },
                None => self.connect().await,
            };
            match step {
                Step::Yield(event) => {
                    self.pauses = pauses();
                    return Ok(*event);
                }
                Step::GoOn => {}
                Step::Expired => {
                    // Many lose their place at once, and are not to list at once.
                    tokio::time::sleep(self.pauses.next().unwrap_or_default()).await;
                    return Err(Error::Expired(self.from.clone()));
                }
                Step::Again(error) => {
                    self.lines = None;
                    if let Some(error) = error {
                        tracing::warn!(kind = %self.kind, %error, "a watch broke; trying again");
                    }
                    tokio::time::sleep(self.pauses.next().unwrap_or_default()).await;
                }
            }
        }
    }

    async fn connect(&mut self) -> Step {
        let parameters = WatchParams::default().timeout(LIFETIME);
        match open(&self.store, self.kind, None, &parameters, &self.from).await {
            Ok(lines) => {
                self.lines = Some(lines);
                Step::GoOn
            }
            Err(Error::Expired(_)) => Step::Expired,
            // The kind may be installed later.
            Err(Error::NotFound(_)) if self.kind == Kind::ClusterNetworkPolicy => Step::Again(None),
            Err(error) => Step::Again(Some(error)),
        }
    }

    fn step(&mut self, line: Result<WatchEvent<Value>, kube::Error>) -> Step {
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
                    .map_or(Step::Expired, |it| Step::Yield(Box::new(Event::Deleted(it))))
            }
            Ok(WatchEvent::Bookmark(bookmark)) => {
                self.from = Revision(bookmark.metadata.resource_version);
                self.pauses = pauses();
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
        let key = object::all(self.kind, None);
        let place = errors::Place {
            what: "watch",
            key: &key,
            server: &self.store.inner.server,
        };
        let error = place.error(error);
        if matches!(error, Error::Expired(_)) {
            return Step::Expired;
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
    let key = object::all(kind, namespace);
    let place = errors::Place {
        what: "watch",
        key: &key,
        server: &store.inner.server,
    };
    let request = paths::of(kind, namespace)
        .watch(parameters, &from.0)
        .map_err(|error| Error::unavailable(format!("cannot watch {kind}"), error))?;
    let answer = tokio::time::timeout(PATIENCE, store.inner.client.request_events(request)).await;
    let lines = answer
        .map_err(|late| place.late(late))?
        .map_err(|error| place.error(error))?;
    Ok(lines.boxed())
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
