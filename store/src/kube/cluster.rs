//! What a Kubernetes cluster knows of its nodes beside our resources: the Node that the kubelet keeps.
//!
//! A kubelet writes its Node every few minutes, so each agent watches its own alone, and says in its resource of
//! `manx.network` what others have to know of it. That resource belongs to the Node: Kubernetes deletes both together.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use manx_api::condition::Condition;
use manx_api::service::Service;
use manx_api::{Key, Kind, Metadata, Resource, Revision};
use serde_json::{Value, json};

use super::{KubeStore, MANAGER, errors, object, paths, watching};
use crate::Error;

/// The condition of Kubernetes' nodes that keeps pods away from those without network.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// Where events about what is of no namespace are.
const CLUSTERS_EVENTS: &str = "default";

/// Seconds in which the same is recorded once.
const REPEATED: i64 = 600;

/// A Kubernetes cluster. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(super) store: KubeStore,
}

/// What Kubernetes says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Which of the nodes that ever had its name it is.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It is cordoned.
    pub unschedulable: bool,
    /// Whether pods lack their network there, as somebody has said it.
    pub network_unavailable: Option<Condition>,
}

/// What a [`Happening`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A resource, and its `uid` where it is known: `kubectl describe` shows the events of that alone.
    Resource(Key, Option<String>),
    /// Kubernetes' node of this name.
    Host(String),
}

/// Something that an operator has to act on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Happening {
    /// What it is about.
    pub subject: Subject,
    /// What it is, in a word: `NoFreeAddress`.
    pub reason: &'static str,
    /// What it is, and what to do, in a sentence.
    pub message: String,
}

impl Subject {
    /// Namespace of the event, and what that refers to.
    fn reference(&self) -> (&str, Value) {
        match self {
            Self::Resource(key, uid) => (
                key.namespace.as_deref().unwrap_or(CLUSTERS_EVENTS),
                json!({
                    "apiVersion": key.kind.api_version(), "kind": key.kind.written(),
                    "namespace": key.namespace, "name": key.name, "uid": uid,
                }),
            ),
            // A node's events are found by its name in the place of its uid: so do kubelets.
            Self::Host(node) => (
                CLUSTERS_EVENTS,
                json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node}),
            ),
        }
    }
}

impl Host {
    fn of(node: &Value) -> Self {
        Self {
            uid: node["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            labels: object::labels(&node["metadata"]),
            unschedulable: node["spec"]["unschedulable"] == true,
            network_unavailable: node["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == NETWORK_UNAVAILABLE)
                .and_then(|condition| serde_json::from_value(condition.clone()).ok()),
        }
    }
}

impl Cluster {
    pub(super) fn of(store: KubeStore) -> Self {
        Self { store }
    }

    pub(super) fn client(&self) -> &kube::Client {
        &self.store.inner.client
    }

    /// What Kubernetes says of a node, at first and whenever it changes; none while it has no such node. Does not end.
    #[must_use]
    pub fn host(&self, node: &str) -> BoxStream<'static, Option<Host>> {
        let (store, node) = (self.store.clone(), node.to_owned());
        let lives = stream::unfold(watching::pauses(), move |mut pauses| {
            let (store, node) = (store.clone(), node.clone());
            async move {
                let life = match watch(&store, &node).await {
                    Ok(life) => {
                        pauses = watching::pauses();
                        life
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot watch this node's own Node; trying again");
                        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                        stream::empty().boxed()
                    }
                };
                Some((life, pauses))
            }
        });
        let mut before = None;
        let changes = lives.flatten().filter(move |host| {
            let changed = before.as_ref() != Some(host);
            before = Some(host.clone());
            std::future::ready(changed)
        });
        changes.boxed()
    }

    /// Has a node's resource end when Kubernetes' node does.
    ///
    /// # Errors
    /// Those of [`crate::Store::update`].
    pub async fn tie(&self, node: &str, host: &Host) -> Result<(), Error> {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": host.uid});
        let patch = Patch::Merge(json!({"metadata": {"ownerReferences": [owner]}}));
        let request = paths::of(Kind::Node, None).patch(node, &patcher(), &patch);
        let key = Key::cluster(Kind::Node, node);
        self.store
            .ask("tie to Kubernetes' node", &key, request)
            .await
            .map(drop)
    }
}

impl Cluster {
    /// Says something of Kubernetes' node of this name, in place of what was said under that type.
    ///
    /// # Errors
    /// Those of [`crate::Store::update`].
    pub async fn say(&self, node: &str, condition: &Condition) -> Result<(), Error> {
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let request = paths::nodes().patch_subresource("status", node, &patcher(), &patch);
        let key = Key::cluster(Kind::Node, node);
        self.store
            .ask("write the status of Kubernetes'", &key, request)
            .await
            .map(drop)
    }

    /// Says at which addresses the load balancer of a service is, of this revision of it and nothing else, and returns the
    /// service as it is since.
    ///
    /// # Errors
    /// Those of [`crate::Store::update`].
    pub async fn balance(&self, service: &Service, addresses: &[IpAddr]) -> Result<Resource, Error> {
        let Metadata {
            name,
            namespace,
            resource_version,
            ..
        } = &service.metadata;
        let key = Key {
            kind: Kind::Service,
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let ingress: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let ingress = if ingress.is_empty() {
            Value::Null
        } else {
            Value::Array(ingress)
        };
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": resource_version},
            "status": {"loadBalancer": {"ingress": ingress}},
        }));
        let services = paths::of(Kind::Service, namespace.as_deref());
        let request = services.patch_subresource("status", name, &patcher(), &patch);
        object::read(
            Kind::Service,
            self.store.ask("give an address to", &key, request).await?,
        )
    }

    /// Records a warning that `reporter`, a node, has. Of nodes that have the same in the same ten minutes, the first one
    /// records it for all.
    ///
    /// # Errors
    /// Those of [`crate::Store::create`].
    pub async fn record(&self, reporter: &str, happening: &Happening) -> Result<(), Error> {
        let (namespace, subject) = happening.subject.reference();
        let now = Timestamp::now();
        let name = happening.name(now.as_second() / REPEATED);
        let now = now.strftime("%FT%TZ").to_string();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": subject, "type": "Warning",
            "reason": happening.reason, "message": happening.message,
            "source": {"component": "manxd", "host": reporter},
            "reportingComponent": "manx.network/manxd", "reportingInstance": reporter,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        });
        let key = match &happening.subject {
            Subject::Resource(key, _) => key.clone(),
            Subject::Host(node) => Key::cluster(Kind::Node, node),
        };
        let request = paths::events(namespace).create(&super::writer(), event.to_string().into_bytes());
        match self.store.ask("record an event about", &key, request).await {
            Ok(_) | Err(Error::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Happening {
    /// The name of its event in a span of time, the same at all nodes.
    fn name(&self, span: i64) -> String {
        let mut hasher = DefaultHasher::new();
        (self, span).hash(&mut hasher);
        format!("manx-{:016x}", hasher.finish())
    }
}

pub(super) fn patcher() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// The node as it is, and as it becomes until the connection ends or breaks.
async fn watch(store: &KubeStore, node: &str) -> Result<BoxStream<'static, Option<Host>>, Error> {
    // Kubernetes' node and ours are called the same.
    let key = Key::cluster(Kind::Node, node);
    let name = format!("metadata.name={node}");
    let listed = ListParams::default().fields(&name);
    let listed = store.ask("read", &key, paths::nodes().list(&listed)).await?;
    let now = listed["items"].get(0).map(Host::of);
    let place = errors::Place {
        what: "watch",
        key: &key,
        server: &store.inner.server,
    };
    let Revision(from) = object::revision(&listed);
    let parameters = WatchParams::default().fields(&name).timeout(watching::LIFETIME);
    let request = paths::nodes().watch(&parameters, &from);
    let request = request.map_err(|error| Error::unavailable("cannot watch a node", error))?;
    let answer = tokio::time::timeout(
        watching::PATIENCE,
        store.inner.client.request_events::<Value>(request),
    )
    .await;
    let lines = answer
        .map_err(|late| place.late(late))?
        .map_err(|error| place.error(error))?;
    let later = lines
        .take_while(|line| std::future::ready(!matches!(line, Err(_) | Ok(WatchEvent::Error(_)))))
        .filter_map(|line| {
            std::future::ready(match line {
                Ok(WatchEvent::Added(node) | WatchEvent::Modified(node)) => Some(Some(Host::of(&node))),
                Ok(WatchEvent::Deleted(_)) => Some(None),
                Ok(WatchEvent::Bookmark(_) | WatchEvent::Error(_)) | Err(_) => None,
            })
        });
    Ok(stream::once(std::future::ready(now)).chain(later).boxed())
}
