//! What a Kubernetes cluster knows of its nodes beside our resources: the Node that the kubelet keeps.
//!
//! A kubelet writes its Node every few minutes, so each agent watches its own alone, and says in its resource of
//! `manx.network` what others have to know of it. That resource belongs to the Node: Kubernetes deletes both together.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use backon::ExponentialBackoff;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use manx_api::condition::Condition;
use manx_api::service::Service;
use manx_api::{Key, Kind, Metadata, Resource, Revision};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::watching::{self, Lines};
use super::{KubeStore, MANAGER, object, paths};
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
        let following = Following::of(self.store.clone(), node);
        let said = stream::unfold(following, |mut following| async {
            let host = following.next().await;
            Some((host, following))
        });
        let mut before = None;
        let changes = said.filter(move |host| {
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

/// One of Kubernetes' nodes, followed whatever becomes of the connection, as [`watching`] follows the resources of a kind.
struct Following {
    store: KubeStore,
    /// Ours is called the same.
    key: Key,
    /// Everything up to here has been told; none: the node is to be read.
    from: Option<Revision>,
    lines: Option<Lines>,
    pauses: ExponentialBackoff,
}

impl Following {
    fn of(store: KubeStore, node: &str) -> Self {
        Self {
            store,
            key: Key::cluster(Kind::Node, node),
            from: None,
            lines: None,
            pauses: watching::pauses(),
        }
    }

    /// What is said next.
    async fn next(&mut self) -> Option<Host> {
        loop {
            let told = match (&mut self.lines, self.from.clone()) {
                (_, None) => self.read().await.map(Some),
                (None, Some(from)) => self.connect(&from).await.map(|()| None),
                (Some(lines), Some(_)) => match timeout(watching::SILENCE, lines.next()).await {
                    Ok(Some(line)) => self.take(line),
                    Ok(None) | Err(_) => {
                        self.pause().await;
                        Ok(None)
                    }
                },
            };
            match told {
                Ok(Some(host)) => return host,
                Ok(None) => {}
                Err(error) => {
                    if matches!(error, Error::Expired(_)) {
                        self.from = None;
                    } else {
                        tracing::warn!(%error, "cannot watch this node's own Node; trying again");
                    }
                    self.pause().await;
                }
            }
        }
    }

    /// Gives up the connection, and waits before the next.
    async fn pause(&mut self) {
        self.lines = None;
        tokio::time::sleep(self.pauses.next().unwrap_or_default()).await;
    }

    fn selector(&self) -> String {
        format!("metadata.name={}", self.key.name)
    }

    /// The node as it is.
    async fn read(&mut self) -> Result<Option<Host>, Error> {
        let request = paths::nodes().list(&ListParams::default().fields(&self.selector()));
        let listed = self.store.ask("read", &self.key, request).await?;
        self.from = Some(object::revision(&listed));
        Ok(listed["items"].get(0).map(Host::of))
    }

    async fn connect(&mut self, from: &Revision) -> Result<(), Error> {
        let parameters = WatchParams::default()
            .fields(&self.selector())
            .timeout(watching::lifetime());
        let request = paths::nodes().watch(&parameters, &from.0);
        self.lines = Some(watching::request(&self.store, &self.key, request).await?);
        Ok(())
    }

    /// What a line says, if that is anything about the node.
    fn take(&mut self, line: Result<WatchEvent<Value>, kube::Error>) -> Result<Option<Option<Host>>, Error> {
        let event = match line {
            Ok(WatchEvent::Error(status)) => Err(kube::Error::Api(status)),
            line => line,
        };
        let event = event.map_err(|error| watching::place(&self.store, &self.key).error(error))?;
        self.pauses = watching::pauses();
        Ok(match event {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                self.from = Some(object::revision(&node));
                Some(Some(Host::of(&node)))
            }
            WatchEvent::Deleted(node) => {
                self.from = Some(object::revision(&node));
                Some(None)
            }
            WatchEvent::Bookmark(bookmark) => {
                self.from = Some(Revision(bookmark.metadata.resource_version));
                None
            }
            WatchEvent::Error(_) => None,
        })
    }
}
