//! The resources as Kubernetes has to know them: a CustomResourceDefinition for each kind of ours.
//!
//! Made from the types that manifests are read into, so that `kubectl` refuses what Manx would refuse: the types'
//! fields, defaults and descriptions come from serde and the doc comments, bounds and forms from attributes beside the
//! fields ([`words`]), what fields have to do with each other from [`rules`]. What remains beyond a schema
//! (selectors' grammar, host bits of networks, resources beside each other) is [`validate`](crate::validate())'s alone;
//! the tests of the validation tables list it.

mod columns;
mod rules;
mod structural;
mod words;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::Kind;
use crate::bgp::{BgpConfiguration, BgpPeer};
use crate::condition::Status;
use crate::filter::BgpFilter;
use crate::host_endpoint::HostEndpoint;
use crate::ipam::{IpBlock, IpPool, IpReservation, IpamConfiguration};
use crate::kubernetes::StagedKubernetesNetworkPolicy;
use crate::network_policy::{
    GlobalNetworkPolicy, NetworkPolicy, StagedGlobalNetworkPolicy, StagedNetworkPolicy, Tier,
};
use crate::network_set::{GlobalNetworkSet, NetworkSet};
use crate::node::Node;
use crate::workload::WorkloadEndpoint;

pub(crate) use words::{
    AsNumber, Cidr, Interface, InterfacePattern, Label, Name, Network, PeerAddress, PortName, Profile,
    SecretKey, Set, TierName,
};

/// The CustomResourceDefinition of a kind of ours; none for kinds that Kubernetes has itself, as WorkloadEndpoints are
/// its Pods.
#[must_use]
pub fn definition(kind: Kind) -> Option<Value> {
    if kind == Kind::WorkloadEndpoint {
        return None;
    }
    let schema = structural_of(kind)?;
    let (group, version) = kind.api_version().split_once('/')?;
    let singular = kind.written().to_lowercase();
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{group}", kind.plural())},
        "spec": {
            "group": group,
            "names": {
                "kind": kind.written(),
                "listKind": format!("{}List", kind.written()),
                "plural": kind.plural(),
                "singular": singular,
                "shortNames": kind.short_names(),
                "categories": ["manx"],
            },
            "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns::of(kind),
            }],
        },
    }))
}

/// The schema of a kind's resources.
fn structural_of(kind: Kind) -> Option<Value> {
    let mut schema = match kind {
        Kind::IpPool => of::<IpPool>(),
        Kind::IpReservation => of::<IpReservation>(),
        Kind::IpamConfiguration => of::<IpamConfiguration>(),
        Kind::IpBlock => of::<IpBlock>(),
        Kind::Node => of::<Node>(),
        Kind::BgpConfiguration => of::<BgpConfiguration>(),
        Kind::BgpPeer => of::<BgpPeer>(),
        Kind::BgpFilter => of::<BgpFilter>(),
        Kind::WorkloadEndpoint => of::<WorkloadEndpoint>(),
        Kind::Tier => of::<Tier>(),
        Kind::NetworkPolicy => of::<NetworkPolicy>(),
        Kind::GlobalNetworkPolicy => of::<GlobalNetworkPolicy>(),
        Kind::StagedNetworkPolicy => of::<StagedNetworkPolicy>(),
        Kind::StagedGlobalNetworkPolicy => of::<StagedGlobalNetworkPolicy>(),
        Kind::StagedKubernetesNetworkPolicy => of::<StagedKubernetesNetworkPolicy>(),
        Kind::NetworkSet => of::<NetworkSet>(),
        Kind::GlobalNetworkSet => of::<GlobalNetworkSet>(),
        Kind::HostEndpoint => of::<HostEndpoint>(),
        Kind::Namespace
        | Kind::KubernetesNetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::ServiceAccount => return None,
    };
    let properties = &mut schema["properties"];
    properties["apiVersion"] = json!({"type": "string"});
    properties["kind"] = json!({"type": "string"});
    properties["metadata"] = rules::metadata(kind);
    properties["status"] = of::<Status>();
    // The API server wants metadata of everything; a schema may not say so again.
    if let Some(fields) = schema.as_object_mut()
        && let Some(Value::Array(mut required)) = fields.remove("required")
    {
        required.retain(|field| field != "metadata");
        if !required.is_empty() {
            fields.insert("required".to_owned(), Value::Array(required));
        }
    }
    rules::apply(kind, &mut schema);
    Some(schema)
}

fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    structural::rewrite(&mut schema);
    schema
}

#[cfg(test)]
pub(crate) mod tests;
