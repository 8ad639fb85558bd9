//! Which nodes and pods Kubernetes has, for those who may forget a node only when it is really gone.

use std::collections::BTreeSet;

use kube::api::ListParams;
use manx_api::{Key, Kind};
use serde_json::json;

use super::{Cluster, PAGE, object, paths};
use crate::Error;

impl Cluster {
    /// The names of Kubernetes' nodes.
    ///
    /// # Errors
    /// Those of [`crate::Store::list`].
    pub async fn hosts(&self) -> Result<BTreeSet<String>, Error> {
        let key = object::all(Kind::Node, None);
        let mut parameters = ListParams::default().limit(PAGE);
        let mut names = BTreeSet::new();
        loop {
            // Names are all that is needed, and a Node is large.
            let request = paths::nodes().list_metadata(&parameters);
            let page = self.store.ask("list Kubernetes'", &key, request).await?;
            let items = page["items"].as_array().into_iter().flatten();
            names.extend(items.filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)));
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token.to_owned()),
                Some(_) | None => return Ok(names),
            }
        }
    }

    /// Whether Kubernetes is done with a node: there is no Node of that name, and no Pod that is on it. The API server
    /// looks that up in its own store, not in a cache that may be behind.
    ///
    /// # Errors
    /// Those of [`crate::Store::list`].
    pub async fn is_done_with(&self, node: &str) -> Result<bool, Error> {
        let key = Key::cluster(Kind::Node, node);
        let places = [
            (paths::nodes(), format!("metadata.name={node}")),
            (
                paths::of(Kind::WorkloadEndpoint, None),
                format!("spec.nodeName={node}"),
            ),
        ];
        for (place, selector) in places {
            let request = place.list_metadata(&ListParams::default().fields(&selector));
            let found = self.store.ask("look up Kubernetes'", &key, request).await?;
            // Of nothing, the real server writes null where it lists metadata alone.
            let none = found
                .get("items")
                .is_some_and(|items| items.is_null() || *items == json!([]));
            if !none {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
