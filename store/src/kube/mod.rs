//! The store on Kubernetes: custom resources for Manx's own kinds, Kubernetes' own for the others.
//!
//! ```text
//!  get ─────────────────────────► GET             ┐
//!  list ────────────────────────► WATCH with initial events, or LIST by pages where that is not served
//!  create, update, delete ──────► GET or LIST what the rules speak of, then POST, PUT, DELETE with a precondition
//!  amend ───────────────────────► PATCH with a precondition: what is to be changed was read before
//!  watch ── a stream of each kind ► WATCH from the last revision, again and again; after 410, a list of that kind (`watching`)
//! ```
//!
//! What is written is validated here as well as by the schema in `deploy/crds`, since a schema cannot say everything.
//! What somebody else wrote past both is not a resource to us: a listing leaves it out, a watch goes on with the
//! version before it, and both say so in the log; of a policy that can be read, its status says so instead. Rules about several resources (pools do not overlap) are checked
//! before a write, not with it: of two operators in the same instant both may be right.
//!
//! WorkloadEndpoints are the cluster's Pods ([`pods`]), read and never written. What Kubernetes knows of nodes is
//! [`Cluster`]'s.
//!
//! An update keeps what others keep in the same object (finalizers, owners, `status`); it replaces labels, annotations
//! and the specification. Short faults of the server (429 with its `Retry-After`, 503, 504) are waited out (`retry`);
//! what is left is [`Error::Unavailable`].

mod census;
mod cluster;
mod errors;
mod lease;
mod object;
mod paths;
mod pods;
mod retry;
mod watching;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use kube::Client;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use manx_api::{Key, Kind, Problem, Resource, Revision, validate_update};
use serde_json::Value;

pub use self::cluster::{Cluster, Happening, Host, NETWORK_UNAVAILABLE, Subject};
pub use self::lease::{Lease, LeaseName};
use crate::{Error, Events, Listing, Store, rules};

/// How long a request may take, retries included. The slowest that an API server lets a list be is a minute.
const PATIENCE: Duration = Duration::from_secs(60);
/// Resources in one page of a list.
const PAGE: u32 = 500;
/// How often a deletion is tried anew when others change the resource meanwhile.
const TRIES: usize = 8;
/// As what we write, in `managedFields`.
const MANAGER: &str = "manx";

/// Where the API server is, and who we are to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeOptions {
    /// A kubeconfig. None: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it. None: its current one.
    pub context: Option<String>,
}

/// A store in a Kubernetes API server. Clones share its connections.
#[derive(Clone)]
pub struct KubeStore {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    /// The server's URL, for messages.
    server: String,
    /// Whether the server streams lists, as far as we know.
    streams_lists: AtomicBool,
}

impl fmt::Debug for KubeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeStore")
            .field("server", &self.inner.server)
            .finish_non_exhaustive()
    }
}

impl KubeStore {
    /// Reads the configuration; nothing is asked of the server yet. Must be called within a Tokio runtime with time and
    /// I/O, which then runs the connections.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the configuration cannot be read or used.
    pub async fn connect(options: &KubeOptions) -> Result<Self, Error> {
        let config = match &options.kubeconfig {
            Some(path) => {
                let context = format!("cannot use the kubeconfig {}", path.display());
                let choice = KubeConfigOptions {
                    context: options.context.clone(),
                    ..KubeConfigOptions::default()
                };
                let read =
                    Kubeconfig::read_from(path).map_err(|error| Error::unavailable(&context, error))?;
                let config = kube::Config::from_custom_kubeconfig(read, &choice).await;
                config.map_err(|error| Error::unavailable(&context, error))?
            }
            None => kube::Config::incluster().map_err(|error| {
                let context = "no kubeconfig is named, and this is no pod with a service account";
                Error::unavailable(context, error)
            })?,
        };
        let server = config.cluster_url.to_string();
        let client = retry::client(config)
            .map_err(|error| Error::unavailable(format!("cannot talk to {server}"), error))?;
        Ok(Self::through(client, server))
    }

    /// A store behind a client, for messages called so.
    pub(crate) fn through(client: Client, server: String) -> Self {
        Self {
            inner: Arc::new(Inner {
                client,
                server,
                streams_lists: AtomicBool::new(true),
            }),
        }
    }

    /// One request and its answer. `what` names it for people, `key` what it is about.
    async fn ask(&self, what: &str, key: &Key, request: Request) -> Result<Value, Error> {
        let request = request.map_err(|error| Error::unavailable(format!("cannot {what} {key}"), error))?;
        let answer = tokio::time::timeout(PATIENCE, self.inner.client.request(request)).await;
        let place = errors::Place {
            what,
            key,
            server: &self.inner.server,
        };
        answer
            .map_err(|late| place.late(late))?
            .map_err(|error| place.error(error))
    }

    /// The object as the server has it.
    async fn object(&self, key: &Key) -> Result<Value, Error> {
        let request = paths::of(key.kind, key.namespace.as_deref()).get(&key.name, &GetParams::default());
        self.ask("read", key, request).await
    }

    /// Turns a refused write into what came before it.
    async fn conflict(&self, key: &Key, expected: &Revision) -> Error {
        match self.object(key).await {
            Ok(now) => Error::Conflict {
                key: key.clone(),
                expected: expected.clone(),
                actual: object::revision(&now),
            },
            Err(error) => error,
        }
    }

    /// A list in the best way that the server has.
    async fn current(&self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        if self.inner.streams_lists.load(Ordering::Relaxed) {
            if let Some(listing) = watching::list(self, kind, namespace).await? {
                return Ok(listing);
            }
            self.inner.streams_lists.store(false, Ordering::Relaxed);
        }
        self.pages(kind, namespace).await
    }

    /// A whole list by pages, all of one moment; or in one, where the server forgets that moment before they are read.
    async fn pages(&self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        let key = object::all(kind, namespace);
        let mut parameters = ListParams::default().limit(PAGE);
        let mut items = Vec::new();
        loop {
            let request = paths::of(kind, namespace).list(&parameters);
            let mut page = match self.ask("list", &key, request).await {
                Err(Error::Expired(_)) if parameters.continue_token.is_some() => {
                    items.clear();
                    parameters = ListParams::default();
                    continue;
                }
                other => other?,
            };
            if let Some(Value::Array(objects)) = page.get_mut("items").map(Value::take) {
                items.extend(
                    objects
                        .into_iter()
                        .filter_map(|object| object::taken(kind, object)),
                );
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token.to_owned()),
                Some(_) | None => return Ok(object::listing(items, object::revision(&page))),
            }
        }
    }

    /// Refuses a resource that does not go with others.
    async fn compare(&self, key: &Key, resource: &Resource) -> Result<(), Error> {
        let others = rules::all_of(self, rules::compared_at_write(key.kind)).await?;
        rules::writable(key, resource, &others)
    }
}

/// A request, if its parts make one.
type Request = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

impl Store for KubeStore {
    async fn get(&self, key: &Key) -> Result<Resource, Error> {
        object::read(key.kind, self.object(key).await?)
    }

    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        match self.current(kind, namespace).await {
            // The kind may be installed later; until then there is none.
            Err(Error::NotFound(_)) if kind == Kind::ClusterNetworkPolicy => {
                Ok(object::listing(Vec::new(), Revision::start()))
            }
            other => other,
        }
    }

    async fn create(&self, resource: Resource) -> Result<Resource, Error> {
        let key = resource.key();
        given(&key)?;
        rules::creatable(&key, &resource)?;
        self.compare(&key, &resource).await?;
        let body = object::bytes(&key, &resource)?;
        let request = paths::of(key.kind, key.namespace.as_deref()).create(&writer(), body);
        object::read(key.kind, self.ask("create", &key, request).await?)
    }

    async fn update(&self, resource: Resource) -> Result<Resource, Error> {
        let key = resource.key();
        given(&key)?;
        let expected = rules::replaceable(&key, &resource)?;
        let stored = self.object(&key).await?;
        let actual = object::revision(&stored);
        if actual != expected {
            return Err(Error::Conflict {
                key,
                expected,
                actual,
            });
        }
        // What nobody can read may be replaced by whatever is right.
        if let Ok(old) = object::read(key.kind, stored.clone()) {
            rules::refuse(&key, validate_update(&old, &resource))?;
            if object::same(&old, &resource) {
                return Ok(old);
            }
        }
        self.compare(&key, &resource).await?;
        let body = object::merged(&key, stored, &resource)?;
        let request = paths::of(key.kind, key.namespace.as_deref()).replace(&key.name, &writer(), body);
        match self.ask("update", &key, request).await {
            Err(Error::Conflict { .. }) => Err(self.conflict(&key, &expected).await),
            other => object::read(key.kind, other?),
        }
    }

    async fn amend(&self, before: &Resource, resource: Resource) -> Result<Resource, Error> {
        let key = resource.key();
        given(&key)?;
        let expected = rules::replaceable(&key, &resource)?;
        if before.metadata().resource_version.as_ref() != Some(&expected) {
            return self.update(resource).await;
        }
        rules::refuse(&key, validate_update(before, &resource))?;
        if object::same(before, &resource) {
            return Ok(before.clone());
        }
        self.compare(&key, &resource).await?;
        let patch = Patch::Merge(object::patch(&key, before, &resource)?);
        let request =
            paths::of(key.kind, key.namespace.as_deref()).patch(&key.name, &cluster::patcher(), &patch);
        match self.ask("update", &key, request).await {
            Err(Error::Conflict { .. }) => Err(self.conflict(&key, &expected).await),
            other => object::read(key.kind, other?),
        }
    }

    async fn update_status(&self, resource: Resource) -> Result<Resource, Error> {
        let key = resource.key();
        let stored = self.object(&key).await?;
        let (expected, actual) = (
            resource.metadata().resource_version.clone(),
            object::revision(&stored),
        );
        let Some(expected) = expected.filter(|expected| *expected == actual) else {
            let expected = resource
                .metadata()
                .resource_version
                .clone()
                .unwrap_or_else(Revision::start);
            return Err(Error::Conflict {
                key,
                expected,
                actual,
            });
        };
        let body = object::with_status(&key, stored, &resource)?;
        let objects = paths::of(key.kind, key.namespace.as_deref());
        let request = objects.replace_subresource("status", &key.name, &writer(), body);
        match self.ask("write the status of", &key, request).await {
            Err(Error::Conflict { .. }) => Err(self.conflict(&key, &expected).await),
            other => object::read(key.kind, other?),
        }
    }

    async fn delete(&self, key: &Key, revision: Option<&Revision>) -> Result<Resource, Error> {
        given(key)?;
        for _ in 0..TRIES {
            let stored = self.object(key).await?;
            let actual = object::revision(&stored);
            if let Some(expected) = revision.filter(|expected| **expected != actual) {
                return Err(Error::Conflict {
                    key: key.clone(),
                    expected: expected.clone(),
                    actual,
                });
            }
            let resource = object::read(key.kind, stored)?;
            let others = rules::all_of(self, rules::compared_at_deletion(key.kind)).await?;
            rules::deletable(key, &resource, &others)?;
            let parameters = DeleteParams {
                preconditions: Some(Preconditions {
                    resource_version: Some(actual.0),
                    uid: resource.metadata().uid.clone(),
                }),
                ..DeleteParams::default()
            };
            let request = paths::of(key.kind, key.namespace.as_deref()).delete(&key.name, &parameters);
            match self.ask("delete", key, request).await {
                // Somebody was quicker: the resource is looked at anew.
                Err(Error::Conflict { .. }) => {}
                other => return other.map(|_| resource),
            }
        }
        let advice = format!("others changed it {TRIES} times meanwhile: delete it again");
        Err(Error::unavailable(format!("cannot delete {key}"), advice))
    }

    fn watch(&self, kinds: &[Kind], from: Revision) -> Events {
        let streams = kinds
            .iter()
            .map(|kind| watching::watch(self.clone(), *kind, from.clone()).boxed());
        stream::select_all(streams).boxed()
    }

    fn cluster(&self) -> Option<Cluster> {
        Some(Cluster::of(self.clone()))
    }
}

/// Refuses to write what Kubernetes has as something else.
fn given(key: &Key) -> Result<(), Error> {
    if key.kind != Kind::WorkloadEndpoint {
        return Ok(());
    }
    let message = "is not written on Kubernetes: it is a Pod; create, change or delete that";
    rules::refuse(key, vec![Problem::new("kind", key.kind.name(), message)])
}

/// As whom we write.
fn writer() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}
