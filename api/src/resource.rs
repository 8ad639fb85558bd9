//! One type for a resource of any kind.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::bgp::{BgpConfiguration, BgpPeer};
use crate::filter::BgpFilter;
use crate::ipam::{IpBlock, IpPool, IpReservation, IpamConfiguration};
use crate::namespace::Namespace;
use crate::node::Node;
use crate::workload::WorkloadEndpoint;
use crate::{Key, Kind, Metadata};

/// A resource of any kind; serialized, it carries `apiVersion` ([`Kind::api_version`], checked) and `kind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// See [`IpPool`].
    IpPool(IpPool),
    /// See [`IpReservation`].
    IpReservation(IpReservation),
    /// See [`IpamConfiguration`].
    IpamConfiguration(IpamConfiguration),
    /// See [`Namespace`].
    Namespace(Namespace),
    /// See [`IpBlock`].
    IpBlock(IpBlock),
    /// See [`Node`].
    Node(Node),
    /// See [`BgpConfiguration`].
    BgpConfiguration(BgpConfiguration),
    /// See [`BgpPeer`].
    BgpPeer(BgpPeer),
    /// See [`BgpFilter`].
    BgpFilter(BgpFilter),
    /// See [`WorkloadEndpoint`].
    WorkloadEndpoint(WorkloadEndpoint),
}

impl Resource {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::IpPool(_) => Kind::IpPool,
            Self::IpReservation(_) => Kind::IpReservation,
            Self::IpamConfiguration(_) => Kind::IpamConfiguration,
            Self::Namespace(_) => Kind::Namespace,
            Self::IpBlock(_) => Kind::IpBlock,
            Self::Node(_) => Kind::Node,
            Self::BgpConfiguration(_) => Kind::BgpConfiguration,
            Self::BgpPeer(_) => Kind::BgpPeer,
            Self::BgpFilter(_) => Kind::BgpFilter,
            Self::WorkloadEndpoint(_) => Kind::WorkloadEndpoint,
        }
    }

    /// The shared part.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::IpPool(r) => &r.metadata,
            Self::IpReservation(r) => &r.metadata,
            Self::IpamConfiguration(r) => &r.metadata,
            Self::Namespace(r) => &r.metadata,
            Self::IpBlock(r) => &r.metadata,
            Self::Node(r) => &r.metadata,
            Self::BgpConfiguration(r) => &r.metadata,
            Self::BgpPeer(r) => &r.metadata,
            Self::BgpFilter(r) => &r.metadata,
            Self::WorkloadEndpoint(r) => &r.metadata,
        }
    }

    /// The shared part, to change.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::IpPool(r) => &mut r.metadata,
            Self::IpReservation(r) => &mut r.metadata,
            Self::IpamConfiguration(r) => &mut r.metadata,
            Self::Namespace(r) => &mut r.metadata,
            Self::IpBlock(r) => &mut r.metadata,
            Self::Node(r) => &mut r.metadata,
            Self::BgpConfiguration(r) => &mut r.metadata,
            Self::BgpPeer(r) => &mut r.metadata,
            Self::BgpFilter(r) => &mut r.metadata,
            Self::WorkloadEndpoint(r) => &mut r.metadata,
        }
    }

    /// Reads what stands beside `apiVersion` and `kind`: `metadata` and `spec` of a resource of that kind.
    ///
    /// # Errors
    /// What `deserializer` says of a field that is wrong, unknown or missing.
    pub fn deserialize_as<'de, D: Deserializer<'de>>(kind: Kind, deserializer: D) -> Result<Self, D::Error> {
        Ok(match kind {
            Kind::IpPool => Self::IpPool(Deserialize::deserialize(deserializer)?),
            Kind::IpReservation => Self::IpReservation(Deserialize::deserialize(deserializer)?),
            Kind::IpamConfiguration => Self::IpamConfiguration(Deserialize::deserialize(deserializer)?),
            Kind::Namespace => Self::Namespace(Deserialize::deserialize(deserializer)?),
            Kind::IpBlock => Self::IpBlock(Deserialize::deserialize(deserializer)?),
            Kind::Node => Self::Node(Deserialize::deserialize(deserializer)?),
            Kind::BgpConfiguration => Self::BgpConfiguration(Deserialize::deserialize(deserializer)?),
            Kind::BgpPeer => Self::BgpPeer(Deserialize::deserialize(deserializer)?),
            Kind::BgpFilter => Self::BgpFilter(Deserialize::deserialize(deserializer)?),
            Kind::WorkloadEndpoint => Self::WorkloadEndpoint(Deserialize::deserialize(deserializer)?),
        })
    }

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

/// Lets each type be taken out of a [`Resource`].
macro_rules! taken_out {
    ($($kind:ident),*) => {
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

taken_out!(
    IpPool,
    IpReservation,
    IpamConfiguration,
    Namespace,
    IpBlock,
    Node,
    BgpConfiguration,
    BgpPeer,
    BgpFilter,
    WorkloadEndpoint
);

/// A resource as it is written: the type's own fields behind `apiVersion` and `kind`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a, T> {
    api_version: &'static str,
    kind: Kind,
    #[serde(flatten)]
    body: &'a T,
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn write<T: Serialize, S: Serializer>(
            kind: Kind,
            body: &T,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            let api_version = kind.api_version();
            Written {
                api_version,
                kind,
                body,
            }
            .serialize(serializer)
        }
        let kind = self.kind();
        match self {
            Self::IpPool(body) => write(kind, body, serializer),
            Self::IpReservation(body) => write(kind, body, serializer),
            Self::IpamConfiguration(body) => write(kind, body, serializer),
            Self::Namespace(body) => write(kind, body, serializer),
            Self::IpBlock(body) => write(kind, body, serializer),
            Self::Node(body) => write(kind, body, serializer),
            Self::BgpConfiguration(body) => write(kind, body, serializer),
            Self::BgpPeer(body) => write(kind, body, serializer),
            Self::BgpFilter(body) => write(kind, body, serializer),
            Self::WorkloadEndpoint(body) => write(kind, body, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Read {
            api_version: String,
            kind: Kind,
            #[serde(flatten)]
            body: serde_json::Map<String, Value>,
        }
        let Read {
            api_version,
            kind,
            body,
        } = Read::deserialize(deserializer)?;
        if api_version != kind.api_version() {
            return Err(D::Error::custom(format!(
                "apiVersion '{api_version}' is not right: {kind} is of {}",
                kind.api_version()
            )));
        }
        Self::deserialize_as(kind, Value::Object(body)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
