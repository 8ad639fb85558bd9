//! Kubernetes' namespaces, as far as they matter here.

use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::formats::ignored;

/// A namespace of pods. In a cluster Kubernetes has them; a lab takes the same manifests.
///
/// Its labels are what `namespaceSelector` selects by; its annotations may name pools for its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// The shared part.
    pub metadata: Metadata,
    /// What a cluster wants of it; forgotten.
    #[serde(default, deserialize_with = "ignored", skip_serializing)]
    pub spec: (),
    /// What a cluster says of it; forgotten.
    #[serde(default, deserialize_with = "ignored", skip_serializing)]
    pub status: (),
}
