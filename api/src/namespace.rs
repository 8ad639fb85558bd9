//! Kubernetes' namespaces, as far as they matter here.

use serde::{Deserialize, Serialize};

use crate::Metadata;

/// A namespace of pods. In a cluster Kubernetes has them; a lab takes the same manifests.
///
/// Its labels are what `namespaceSelector` selects by; its annotations may name pools for its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// The shared part.
    pub metadata: Metadata,
}
