//! What every resource has: a kind, a name, a revision, labels.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in a datastore's history. Opaque except for equality; the embedded store's are decimal numbers.
///
/// A resource's revision is the history point of its last write; compare-and-swap compares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kinds of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Addresses that pods may get.
    #[serde(rename = "IPPool")]
    IpPool,
    /// A slice of a pool, owned by one node.
    #[serde(rename = "IPBlock")]
    IpBlock,
    /// A member of the cluster.
    Node,
    /// Settings of every node's speaker.
    #[serde(rename = "BGPConfiguration")]
    BgpConfiguration,
    /// A session beside the mesh.
    #[serde(rename = "BGPPeer")]
    BgpPeer,
    /// A pod's attachment to the network.
    WorkloadEndpoint,
}

/// What identifies a resource: kind, namespace (none for cluster-wide kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The namespace, for namespaced kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name, a DNS-1123 subdomain.
    pub name: String,
}

/// The part that all resources share; field names are Kubernetes' own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Unique among resources of the kind (and namespace). A DNS-1123 subdomain.
    pub name: String,
    /// The namespace, for namespaced kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Given by the datastore at creation; a name used again has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The revision of the last write, given by the datastore; what an update must name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<Revision>,
    /// When the datastore created it (RFC 3339, UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// What selectors select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes that selectors do not see.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
