//! What every resource has: a kind, a name, a revision, labels.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::API_VERSION;
use crate::formats::nullable;

/// A point in a datastore's history. Opaque except for equality; the embedded store's are decimal numbers.
///
/// A resource's revision is the history point of its last write; compare-and-swap compares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

impl Revision {
    /// Before all history: a watch from here sees everything that the datastore still remembers.
    #[must_use]
    pub fn start() -> Self {
        Self("0".to_owned())
    }
}

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
    /// Addresses that no pod gets unless it asks.
    #[serde(rename = "IPReservation")]
    IpReservation,
    /// How every node assigns addresses.
    #[serde(rename = "IPAMConfiguration")]
    IpamConfiguration,
    /// A namespace of pods; Kubernetes' own kind.
    Namespace,
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
    /// Rules for routes that come from or go to peers.
    #[serde(rename = "BGPFilter")]
    BgpFilter,
    /// A pod's attachment to the network.
    WorkloadEndpoint,
    /// Policies that decide together.
    Tier,
    /// A policy for pods of its namespace.
    NetworkPolicy,
    /// A policy for pods of all namespaces, and for host endpoints.
    GlobalNetworkPolicy,
    /// A [`Self::NetworkPolicy`] on trial.
    StagedNetworkPolicy,
    /// A [`Self::GlobalNetworkPolicy`] on trial.
    StagedGlobalNetworkPolicy,
    /// A [`Self::KubernetesNetworkPolicy`] on trial.
    StagedKubernetesNetworkPolicy,
    /// Addresses that a namespace's policies speak of.
    NetworkSet,
    /// Addresses that policies speak of.
    GlobalNetworkSet,
    /// A node's interface that policies apply to.
    HostEndpoint,
    /// A policy for pods of its namespace; Kubernetes' own kind.
    #[serde(rename = "NetworkPolicy.networking.k8s.io")]
    KubernetesNetworkPolicy,
    /// A policy of the cluster's administrators; Kubernetes' own kind.
    ClusterNetworkPolicy,
    /// A name and addresses for a set of pods; Kubernetes' own kind.
    Service,
    /// Who is behind a service; Kubernetes' own kind.
    EndpointSlice,
    /// Whom pods act as; Kubernetes' own kind.
    ServiceAccount,
}

/// What a [`Kind`] is called: its name, its plural, and the short forms that the command line takes.
struct Names {
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
}

impl Kind {
    /// Every kind, in the order in which a manifest is best applied: what others refer to comes first.
    #[must_use]
    pub const fn all() -> &'static [Self] {
        &[
            Self::BgpFilter,
            Self::BgpConfiguration,
            Self::Namespace,
            Self::IpamConfiguration,
            Self::IpReservation,
            Self::IpPool,
            Self::Node,
            Self::BgpPeer,
            Self::IpBlock,
            Self::Tier,
            Self::GlobalNetworkSet,
            Self::NetworkSet,
            Self::ServiceAccount,
            Self::Service,
            Self::EndpointSlice,
            Self::ClusterNetworkPolicy,
            Self::GlobalNetworkPolicy,
            Self::NetworkPolicy,
            Self::KubernetesNetworkPolicy,
            Self::StagedGlobalNetworkPolicy,
            Self::StagedNetworkPolicy,
            Self::StagedKubernetesNetworkPolicy,
            Self::HostEndpoint,
            Self::WorkloadEndpoint,
        ]
    }

    const fn names(self) -> Names {
        let (name, plural, short): (_, _, &[&str]) = match self {
            Self::IpPool => ("IPPool", "ippools", &["ipp"]),
            Self::IpReservation => ("IPReservation", "ipreservations", &["ipr"]),
            Self::IpamConfiguration => (
                "IPAMConfiguration",
                "ipamconfigurations",
                &["ipamconfig", "ipamconfigs"],
            ),
            Self::Namespace => ("Namespace", "namespaces", &["ns"]),
            Self::IpBlock => ("IPBlock", "ipblocks", &["ipb"]),
            Self::Node => ("Node", "nodes", &["no"]),
            Self::BgpConfiguration => (
                "BGPConfiguration",
                "bgpconfigurations",
                &["bgpconfig", "bgpconfigs"],
            ),
            Self::BgpPeer => ("BGPPeer", "bgppeers", &["bgpp"]),
            Self::BgpFilter => ("BGPFilter", "bgpfilters", &["bgpf"]),
            Self::WorkloadEndpoint => ("WorkloadEndpoint", "workloadendpoints", &["wep", "weps"]),
            Self::Tier => ("Tier", "tiers", &[]),
            Self::NetworkPolicy => ("NetworkPolicy", "networkpolicies", &["np", "policy", "policies"]),
            Self::GlobalNetworkPolicy => ("GlobalNetworkPolicy", "globalnetworkpolicies", &["gnp", "gnps"]),
            Self::StagedNetworkPolicy => ("StagedNetworkPolicy", "stagednetworkpolicies", &["snp", "snps"]),
            Self::StagedGlobalNetworkPolicy => (
                "StagedGlobalNetworkPolicy",
                "stagedglobalnetworkpolicies",
                &["sgnp", "sgnps"],
            ),
            Self::StagedKubernetesNetworkPolicy => (
                "StagedKubernetesNetworkPolicy",
                "stagedkubernetesnetworkpolicies",
                &["sknp", "sknps"],
            ),
            Self::NetworkSet => ("NetworkSet", "networksets", &["netset", "netsets"]),
            Self::GlobalNetworkSet => ("GlobalNetworkSet", "globalnetworksets", &["gns"]),
            Self::HostEndpoint => ("HostEndpoint", "hostendpoints", &["hep", "heps"]),
            Self::KubernetesNetworkPolicy => ("NetworkPolicy", "networkpolicies", &["netpol", "netpols"]),
            Self::ClusterNetworkPolicy => {
                ("ClusterNetworkPolicy", "clusternetworkpolicies", &["cnp", "cnps"])
            }
            Self::Service => ("Service", "services", &["svc"]),
            Self::EndpointSlice => ("EndpointSlice", "endpointslices", &["eps"]),
            Self::ServiceAccount => ("ServiceAccount", "serviceaccounts", &["sa"]),
        };
        Names { name, plural, short }
    }

    /// The name, which no other kind has: as in a manifest, or with its group where two are called the same there.
    #[must_use]
    pub const fn name(self) -> &'static str {
        if matches!(self, Self::KubernetesNetworkPolicy) {
            "NetworkPolicy.networking.k8s.io"
        } else {
            self.written()
        }
    }

    /// The lower-case plural, as in a URL or on the command line: `ippools`.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        self.names().plural
    }

    /// The short forms that the command line takes: `ipp`.
    #[must_use]
    pub const fn short_names(self) -> &'static [&'static str] {
        self.names().short
    }

    /// What a manifest's `kind` says: `IPPool`.
    #[must_use]
    pub const fn written(self) -> &'static str {
        self.names().name
    }

    /// The kind of a manifest's `kind`, and of its `apiVersion` where two are called the same; none if nothing is.
    #[must_use]
    pub fn of(written: &str, api_version: Option<&str>) -> Option<Self> {
        let called = |kind: &&Self| kind.written() == written;
        let whole = |kind: &&Self| called(kind) && Some(kind.api_version()) == api_version;
        let kinds = || Self::all().iter();
        kinds().find(whole).or_else(|| kinds().find(called)).copied()
    }

    /// API group and version, as in a manifest's `apiVersion`: [`API_VERSION`], or Kubernetes' for its own kinds.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Service | Self::ServiceAccount => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::KubernetesNetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
            Self::IpPool
            | Self::IpReservation
            | Self::IpamConfiguration
            | Self::IpBlock
            | Self::Node
            | Self::BgpConfiguration
            | Self::BgpPeer
            | Self::BgpFilter
            | Self::WorkloadEndpoint
            | Self::Tier
            | Self::NetworkPolicy
            | Self::GlobalNetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedGlobalNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy
            | Self::NetworkSet
            | Self::GlobalNetworkSet
            | Self::HostEndpoint => API_VERSION,
        }
    }

    /// The API group, as in `networking.k8s.io`; empty for Kubernetes' oldest kinds.
    #[must_use]
    pub fn group(self) -> &'static str {
        self.api_version().rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Whether resources of this kind belong to a namespace.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        matches!(
            self,
            Self::WorkloadEndpoint
                | Self::NetworkPolicy
                | Self::StagedNetworkPolicy
                | Self::StagedKubernetesNetworkPolicy
                | Self::NetworkSet
                | Self::KubernetesNetworkPolicy
                | Self::Service
                | Self::EndpointSlice
                | Self::ServiceAccount
        )
    }

    /// The kind whose name is spelled most like `text`, if any is close.
    #[must_use]
    pub fn nearest(text: &str) -> Option<Self> {
        let name = nearest(text, Self::all().iter().map(|kind| kind.name()))?;
        Self::all().iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no kind of resource{}; the kinds are {}",
    suggestion(nearest.map(Kind::name)),
    Kind::all().iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
)]
pub struct UnknownKind {
    /// The word.
    pub text: String,
    /// What may have been meant.
    pub nearest: Option<Kind>,
}

impl FromStr for Kind {
    type Err = UnknownKind;

    /// Takes name, plural and short forms in any case, and any of them with the kind's group: `IPPool`, `ippools`,
    /// `ipp`, `networkpolicies.networking.k8s.io`. Of kinds that are called the same, ours is meant.
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let (word, group) = text
            .split_once('.')
            .map_or((text, None), |(word, group)| (word, Some(group)));
        let is = |name: &str| name.eq_ignore_ascii_case(word);
        Self::all()
            .iter()
            .copied()
            .filter(|kind| group.is_none_or(|group| group.eq_ignore_ascii_case(kind.group())))
            .find(|kind| {
                let names = kind.names();
                is(names.name) || is(names.plural) || names.short.iter().any(|short| is(short))
            })
            .ok_or_else(|| UnknownKind {
                text: text.to_owned(),
                nearest: Self::nearest(text),
            })
    }
}

/// The candidate spelled most like `text`, ignoring case; none when even the best is not close.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this a suggestion puzzles more than it helps (Jaro-Winkler similarity, 0 to 1).
    const CLOSE: f64 = 0.75;
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&text, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= CLOSE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean 'x'?)` or nothing, for the inside of an error message.
pub(crate) fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |word| format!(" (did you mean '{word}'?)"))
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

impl Key {
    /// The key of a cluster-wide resource.
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.into(),
        }
    }

    /// The key of a namespaced resource.
    pub fn namespaced(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }
}

/// `IPPool/main`, `WorkloadEndpoint/default/web`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// The part that all resources share; field names are Kubernetes' own. What else Kubernetes writes there is read and
/// forgotten, so that what was got from a cluster can be applied elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "Read")]
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

/// [`Metadata`] as Kubernetes may have written it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Read {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    resource_version: Option<Revision>,
    #[serde(default)]
    creation_timestamp: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    annotations: BTreeMap<String, String>,
    #[serde(default, rename = "generation")]
    _generation: IgnoredAny,
    #[serde(default, rename = "managedFields")]
    _managed_fields: IgnoredAny,
    #[serde(default, rename = "ownerReferences")]
    _owner_references: IgnoredAny,
    #[serde(default, rename = "finalizers")]
    _finalizers: IgnoredAny,
    #[serde(default, rename = "selfLink")]
    _self_link: IgnoredAny,
    #[serde(default, rename = "generateName")]
    _generate_name: IgnoredAny,
    #[serde(default, rename = "deletionTimestamp")]
    _deletion_timestamp: IgnoredAny,
    #[serde(default, rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period: IgnoredAny,
}

impl From<Read> for Metadata {
    fn from(read: Read) -> Self {
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            creation_timestamp: read.creation_timestamp,
            labels: read.labels,
            annotations: read.annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_every_form_of_their_name() {
        for (word, kind) in [
            ("IPPool", Kind::IpPool),
            ("ippool", Kind::IpPool),
            ("ippools", Kind::IpPool),
            ("IPP", Kind::IpPool),
            ("ipblocks", Kind::IpBlock),
            ("IPReservation", Kind::IpReservation),
            ("ipamconfig", Kind::IpamConfiguration),
            ("ns", Kind::Namespace),
            ("Node", Kind::Node),
            ("nodes", Kind::Node),
            ("bgpconfig", Kind::BgpConfiguration),
            ("BGPConfigurations", Kind::BgpConfiguration),
            ("bgpPeer", Kind::BgpPeer),
            ("bgpfilters", Kind::BgpFilter),
            ("wep", Kind::WorkloadEndpoint),
            ("workloadendpoints", Kind::WorkloadEndpoint),
            ("networkpolicy", Kind::NetworkPolicy),
            ("networkpolicies.manx.network", Kind::NetworkPolicy),
            ("networkpolicies.networking.k8s.io", Kind::KubernetesNetworkPolicy),
            ("NetworkPolicy.networking.k8s.io", Kind::KubernetesNetworkPolicy),
            ("netpol", Kind::KubernetesNetworkPolicy),
            ("cnp", Kind::ClusterNetworkPolicy),
            ("gnp", Kind::GlobalNetworkPolicy),
            ("hep", Kind::HostEndpoint),
            ("tiers", Kind::Tier),
        ] {
            assert_eq!(word.parse(), Ok(kind), "{word}");
        }
        for kind in Kind::all() {
            assert_eq!(kind.to_string().parse(), Ok(*kind));
            assert_eq!(
                serde_json::to_value(kind).unwrap(),
                kind.name(),
                "serde and Display agree"
            );
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_nearest() {
        let error = "ipool".parse::<Kind>().unwrap_err();
        assert_eq!(error.nearest, Some(Kind::IpPool));
        assert!(
            error
                .to_string()
                .starts_with("'ipool' is no kind of resource (did you mean 'IPPool'?); the kinds are"),
            "{error}"
        );
        assert!("ippools.networking.k8s.io".parse::<Kind>().is_err());
        assert_eq!("zzz".parse::<Kind>().unwrap_err().nearest, None);
    }
}
