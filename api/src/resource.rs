//! One type for a resource of any kind.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::bgp::{BgpConfiguration, BgpPeer};
use crate::cluster_policy::ClusterNetworkPolicy;
use crate::condition::Status;
use crate::filter::BgpFilter;
use crate::host_endpoint::HostEndpoint;
use crate::ipam::{IpBlock, IpPool, IpReservation, IpamConfiguration};
use crate::kubernetes::{KubernetesNetworkPolicy, StagedKubernetesNetworkPolicy};
use crate::meta::UnknownKind;
use crate::namespace::Namespace;
use crate::network_policy::{
    GlobalNetworkPolicy, NetworkPolicy, StagedGlobalNetworkPolicy, StagedNetworkPolicy, Tier,
};
use crate::network_set::{GlobalNetworkSet, NetworkSet};
use crate::node::Node;
use crate::service::{EndpointSlice, Service, ServiceAccount};
use crate::workload::WorkloadEndpoint;
use crate::{Key, Kind, Metadata};

/// Writes [`Resource`] and everything that has a line for each kind; a kind's type and its [`Kind`] are called the same.
macro_rules! resource {
    ($($kind:ident),* $(,)?) => {
        /// A resource of any kind; serialized, it carries `apiVersion` ([`Kind::api_version`], checked) and `kind`.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Resource {
            $(#[doc = concat!("See [`", stringify!($kind), "`].")]
            $kind($kind),)*
        }

        impl Resource {
            /// The kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// The shared part.
            #[must_use]
            pub fn metadata(&self) -> &Metadata {
                match self {
                    $(Self::$kind(resource) => &resource.metadata,)*
                }
            }

            /// The shared part, to change.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
                match self {
                    $(Self::$kind(resource) => &mut resource.metadata,)*
                }
            }

            /// Reads what stands beside `apiVersion` and `kind`: `metadata` and `spec` of a resource of that kind.
            ///
            /// # Errors
            /// What `deserializer` says of a field that is wrong, unknown or missing.
            pub fn deserialize_as<'de, D: Deserializer<'de>>(kind: Kind, deserializer: D) -> Result<Self, D::Error> {
                match kind {
                    $(Kind::$kind => Deserialize::deserialize(deserializer).map(Self::$kind),)*
                }
            }
        }

        impl Serialize for Resource {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$kind(body) => Written::new(self.kind(), body).serialize(serializer),)*
                }
            }
        }

        $(impl TryFrom<Resource> for $kind {
            type Error = OtherKind;

            fn try_from(resource: Resource) -> Result<Self, OtherKind> {
                let found = resource.kind();
                if let Resource::$kind(resource) = resource {
                    return Ok(resource);
                }
                Err(OtherKind { expected: Kind::$kind, found })
            }
        })*
    };
}

resource!(
    IpPool,
    IpReservation,
    IpamConfiguration,
    Namespace,
    IpBlock,
    Node,
    BgpConfiguration,
    BgpPeer,
    BgpFilter,
    WorkloadEndpoint,
    Tier,
    NetworkPolicy,
    GlobalNetworkPolicy,
    StagedNetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    NetworkSet,
    GlobalNetworkSet,
    HostEndpoint,
    KubernetesNetworkPolicy,
    ClusterNetworkPolicy,
    Service,
    EndpointSlice,
    ServiceAccount,
);

#[expect(clippy::wildcard_enum_match_arm, reason = "of other kinds nothing is said")]
impl Resource {
    /// What is said of a policy; none of other kinds.
    #[must_use]
    pub const fn status(&self) -> Option<&Status> {
        Some(match self {
            Self::NetworkPolicy(policy) => &policy.status,
            Self::GlobalNetworkPolicy(policy) => &policy.status,
            Self::StagedNetworkPolicy(policy) => &policy.status,
            Self::StagedGlobalNetworkPolicy(policy) => &policy.status,
            Self::StagedKubernetesNetworkPolicy(policy) => &policy.status,
            Self::KubernetesNetworkPolicy(policy) => &policy.status,
            Self::ClusterNetworkPolicy(policy) => &policy.status,
            _ => return None,
        })
    }

    /// The same, to change.
    pub const fn status_mut(&mut self) -> Option<&mut Status> {
        Some(match self {
            Self::NetworkPolicy(policy) => &mut policy.status,
            Self::GlobalNetworkPolicy(policy) => &mut policy.status,
            Self::StagedNetworkPolicy(policy) => &mut policy.status,
            Self::StagedGlobalNetworkPolicy(policy) => &mut policy.status,
            Self::StagedKubernetesNetworkPolicy(policy) => &mut policy.status,
            Self::KubernetesNetworkPolicy(policy) => &mut policy.status,
            Self::ClusterNetworkPolicy(policy) => &mut policy.status,
            _ => return None,
        })
    }

    /// Has nothing else said of it than of another version of it.
    pub fn keep_status(&mut self, other: &Self) {
        if let (Some(status), Some(kept)) = (self.status_mut(), other.status()) {
            status.clone_from(kept);
        }
    }
}

impl Resource {
    /// What identifies it.
    #[must_use]
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key {
            kind: self.kind(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }
}

/// A resource that is of another kind than was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found a {found} where a {expected} was expected")]
pub struct OtherKind {
    /// What was expected.
    pub expected: Kind,
    /// What was there.
    pub found: Kind,
}

/// A resource as it is written: the type's own fields behind `apiVersion` and `kind`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

impl<'a, T> Written<'a, T> {
    fn new(kind: Kind, body: &'a T) -> Self {
        Self {
            api_version: kind.api_version(),
            kind: kind.written(),
            body,
        }
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Read {
            api_version: String,
            kind: String,
            #[serde(flatten)]
            body: serde_json::Map<String, Value>,
        }
        let Read {
            api_version,
            kind,
            body,
        } = Read::deserialize(deserializer)?;
        let kind = match Kind::of(&kind, Some(&api_version)) {
            Some(known) if known.api_version() == api_version => known,
            Some(known) => {
                return Err(D::Error::custom(format!(
                    "apiVersion '{api_version}' is not right: {known} is of {}",
                    known.api_version()
                )));
            }
            None => {
                let nearest = Kind::nearest(&kind);
                return Err(D::Error::custom(UnknownKind { text: kind, nearest }));
            }
        };
        Self::deserialize_as(kind, Value::Object(body)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_that_are_called_the_same_are_told_apart_by_their_version() {
        for (version, kind) in [
            ("manx.network/v1", Kind::NetworkPolicy),
            ("networking.k8s.io/v1", Kind::KubernetesNetworkPolicy),
        ] {
            let json = json!({
                "apiVersion": version, "kind": "NetworkPolicy", "metadata": {"name": "a", "namespace": "b"},
            });
            let policy: Resource = serde_json::from_value(json).unwrap();
            assert_eq!(policy.key(), Key::namespaced(kind, "b", "a"));
            let written = serde_json::to_value(&policy).unwrap();
            assert_eq!(
                (&written["apiVersion"], &written["kind"]),
                (&json!(version), &json!("NetworkPolicy"))
            );
            assert_eq!(serde_json::from_value::<Resource>(written).unwrap(), policy);
        }
    }

    #[test]
    fn json_carries_api_version_and_kind_and_checks_both() {
        let json = json!({
            "apiVersion": "manx.network/v1",
            "kind": "IPPool",
            "metadata": {"name": "main"},
            "spec": {"cidr": "10.244.0.0/16", "disabled": false, "disableBGPExport": false},
        });
        let pool: Resource = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(pool.key(), Key::cluster(Kind::IpPool, "main"));
        let written = serde_json::to_value(&pool).unwrap();
        assert_eq!(written["apiVersion"], "manx.network/v1");
        assert_eq!(written["kind"], "IPPool");
        assert_eq!(serde_json::from_value::<Resource>(written).unwrap(), pool);

        for (field, value) in [
            ("apiVersion", json!("v1")),
            ("kind", json!("Pod")),
            ("speck", json!({})),
        ] {
            let mut wrong = json.clone();
            wrong[field] = value;
            let error = serde_json::from_value::<Resource>(wrong).unwrap_err();
            assert!(error.to_string().contains(field) || field == "kind", "{error}");
        }
        for field in ["apiVersion", "kind", "metadata", "spec"] {
            let mut missing = json.clone();
            missing.as_object_mut().unwrap().remove(field);
            assert!(serde_json::from_value::<Resource>(missing).is_err(), "{field}");
        }
    }
}
