//! The kinds of object that the fake server serves: those of Manx, and those of Kubernetes that Manx has no type for.

use manx_api::Kind;

/// A kind of object, as the API names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sort {
    /// Group and version: `apps/v1`, or `v1`.
    pub api_version: &'static str,
    /// What an object calls itself.
    pub kind: &'static str,
    /// What the path calls it.
    pub plural: &'static str,
    /// Whether it is of a namespace.
    pub namespaced: bool,
}

impl Sort {
    /// Pods, which Manx reads as WorkloadEndpoints.
    pub const POD: Self = Self::core("Pod", "pods", true);
    /// Kubernetes' own nodes.
    pub const NODE: Self = Self::core("Node", "nodes", false);

    /// What happened.
    pub const EVENT: Self = Self::core("Event", "events", true);

    /// Who leads.
    pub const LEASE: Self = Self {
        api_version: "coordination.k8s.io/v1",
        kind: "Lease",
        plural: "leases",
        namespaced: true,
    };

    const fn core(kind: &'static str, plural: &'static str, namespaced: bool) -> Self {
        Self {
            api_version: "v1",
            kind,
            plural,
            namespaced,
        }
    }

    /// All that are served.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let ours = Kind::all().iter().map(|kind| Self::from(*kind));
        ours.chain([Self::POD, Self::NODE, Self::EVENT, Self::LEASE])
    }
}

impl From<Kind> for Sort {
    fn from(kind: Kind) -> Self {
        Self {
            api_version: kind.api_version(),
            kind: kind.written(),
            plural: kind.plural(),
            namespaced: kind.is_namespaced(),
        }
    }
}
