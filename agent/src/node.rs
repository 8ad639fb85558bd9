//! The node task: keeps this node's own Node resource saying what the node is.
//!
//! In a Kubernetes cluster that is what Kubernetes says of its node as well: labels, and whether it is cordoned. Other
//! nodes' agents read it here, and the resource ends when Kubernetes' node does.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use manx_api::Resource;
use manx_api::node::Node;
use manx_store::{Cluster, Error, Host, Store};
use tokio::sync::watch::{Receiver, Sender};

use crate::identity::Identity;
use crate::view::View;
use crate::watch;

/// What the task works with.
#[derive(Debug)]
pub struct Inbox<S> {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The datastore.
    pub store: S,
    /// The cluster.
    pub view: Receiver<Arc<View>>,
    /// Where others hear what Kubernetes says of this node.
    pub host: Sender<Option<Host>>,
}

/// What Kubernetes says of this node.
struct Record {
    cluster: Cluster,
    /// What it said last; none: nothing yet, or that there is no such node.
    host: Option<Host>,
    /// The node that our resource is known to end with.
    tied: Option<String>,
}

/// Runs until the view ends.
pub async fn run<S: Store>(inbox: &mut Inbox<S>) {
    let mut pauses = watch::pauses(&inbox.identity.name);
    let mut record = inbox.store.cluster().map(|cluster| Record {
        cluster,
        host: None,
        tied: None,
    });
    let mut hosts: BoxStream<'static, Option<Host>> = match &record {
        Some(record) => record.cluster.host(&inbox.identity.name),
        None => stream::pending().boxed(),
    };
    loop {
        let view = inbox.view.borrow_and_update().clone();
        let mut pause = None;
        if view.complete {
            match write(inbox, &view, record.as_mut()).await {
                Ok(()) => pauses = watch::pauses(&inbox.identity.name),
                // Somebody was faster, and the view will show it; or nothing was changed, and it will not.
                Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)) => {
                    pause = pauses.next();
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot write this node's resource; trying again");
                    tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                    continue;
                }
            }
        }
        tokio::select! {
            changed = inbox.view.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            Some(host) = hosts.next() => if let Some(record) = &mut record {
                if host.is_none() {
                    let node = &inbox.identity.name;
                    tracing::warn!(node, "Kubernetes has no such node: nodeName must be what `kubectl get nodes` says");
                }
                inbox.host.send_replace(host.clone());
                record.host = host;
            }
        }
    }
}

async fn write<S: Store>(inbox: &Inbox<S>, view: &View, record: Option<&mut Record>) -> Result<(), Error> {
    let name = &inbox.identity.name;
    let existing = view.nodes.get(name);
    let host = record.as_ref().and_then(|record| record.host.as_ref());
    if record.is_some() && host.is_none() {
        return Ok(());
    }
    let wanted = wanted(&inbox.identity, existing, host);
    match existing {
        Some(existing) if *existing == wanted => {}
        Some(_) => drop(inbox.store.update(Resource::Node(wanted)).await?),
        None => drop(inbox.store.create(Resource::Node(wanted)).await?),
    }
    if let Some(Record {
        cluster,
        host: Some(host),
        tied,
    }) = record
        && tied.as_ref() != Some(&host.uid)
    {
        cluster.tie(name, host).await?;
        *tied = Some(host.uid.clone());
    }
    Ok(())
}

/// The resource that there should be: in a cluster, with the labels of Kubernetes' node and no others of before.
fn wanted(identity: &Identity, existing: Option<&Node>, host: Option<&Host>) -> Node {
    let mut wanted = identity.node(existing);
    if let Some(host) = host {
        wanted.metadata.labels = host.labels.clone();
        wanted.metadata.labels.extend(identity.labels.clone());
        wanted.spec.unschedulable = host.unschedulable;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::identity::Interface;

    use super::*;

    #[test]
    fn a_node_has_the_labels_of_kubernetes_node_and_those_of_its_settings() {
        let interface = Interface {
            index: 2,
            mtu: 1500,
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
            default_route: true,
        };
        let config = Config {
            labels: [("rack".to_owned(), "a".to_owned())].into(),
            ..Config::default()
        };
        let identity = Identity::new(&config, "n1", &[interface]).unwrap();
        let host = |label: &str, unschedulable| Host {
            uid: "u1".to_owned(),
            labels: [(label.to_owned(), "1".to_owned())].into(),
            unschedulable,
            network_unavailable: None,
        };
        let first = wanted(&identity, None, Some(&host("old", true)));
        assert!(first.spec.unschedulable);
        let second = wanted(&identity, Some(&first), Some(&host("new", false)));
        let labels: Vec<&str> = second.metadata.labels.keys().map(String::as_str).collect();
        assert_eq!(labels, ["new", "rack"]);
        assert!(!second.spec.unschedulable);
        assert_eq!(second.spec.bgp, identity.node(None).spec.bgp);
    }
}
