//! What Calico's resources are in Manx: `projectcalico.org/v3` and `crd.projectcalico.org/v1`.
//!
//! Fields that mean the same are called the same and stay. [`FIELDS`] has those that do not, [`KINDS`] the kinds that have no
//! counterpart. Nothing that forbids something is left out in silence: what only costs a feature is a [note](Converted::notes),
//! and what would leave a door open is [refused](Refused).

pub(crate) mod blocks;

use jiff::SignedDuration;
use serde_json::{Map, Value, json};

/// The API groups whose resources these are.
const GROUPS: [&str; 2] = ["projectcalico.org/", "crd.projectcalico.org/"];

/// Annotations with which other programs remember what they wrote.
const MEMORIES: [&str; 2] = [
    "projectcalico.org/metadata",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// What stands in `metadata` that users write.
const METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];

/// Prefixes of the names by which Calico shows policies that are Kubernetes' own.
const KUBERNETES: [&str; 5] = ["knp.default.", "kcnp.", "kanp.", "kbanp.", "kubernetes-"];

/// What becomes of a field.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is forgotten: it says nothing that is not so in Manx.
    Idle,
    /// It is left out, and the user is told, unless it says what is so in Manx anyway.
    Lost {
        /// The values that say so.
        unless: &'static [&'static str],
        /// What is lost, or what to do instead.
        why: &'static str,
    },
    /// A duration with units becomes seconds.
    Seconds,
    /// Where it says anything, the resource would mean something else without it.
    Needed(&'static str),
}

use Fate::{Idle, Lost, Needed, Seconds};

const ENCAPSULATION: Fate = Lost {
    unless: &["Never"],
    why: "Manx adds nothing to packets: nodes reach each other directly, or routers between them peer with them",
};
const WRITE_A_FILTER: Fate =
    lost("write a BGPFilter with addCommunity, and name it in filters or nodeMeshFilters");
const KERNEL: Fate = lost("Manx writes what it learns into the kernel itself, with metric 1025");

const fn lost(why: &'static str) -> Fate {
    Lost { unless: &[], why }
}

/// Fields of `spec` that are not kept as they are: kind, path, fate.
const FIELDS: &[(&str, &str, Fate)] = &[
    ("IPPool", "ipipMode", ENCAPSULATION),
    ("IPPool", "vxlanMode", ENCAPSULATION),
    (
        "IPAMConfiguration",
        "kubeVirtVMAddressPersistence",
        lost("addresses do not move with virtual machines"),
    ),
    ("BGPConfiguration", "logSeverityScreen", Idle),
    ("BGPConfiguration", "nodeMeshMaxRestartTime", Seconds),
    ("BGPConfiguration", "communities", WRITE_A_FILTER),
    ("BGPConfiguration", "prefixAdvertisements", WRITE_A_FILTER),
    (
        "BGPConfiguration",
        "bindMode",
        Lost {
            unless: &["None"],
            why: "the speaker listens on every address",
        },
    ),
    (
        "BGPConfiguration",
        "ignoredInterfaces",
        lost("Manx announces blocks, not interfaces' networks"),
    ),
    (
        "BGPConfiguration",
        "localWorkloadPeeringIPV4",
        lost("pods cannot be peers"),
    ),
    (
        "BGPConfiguration",
        "localWorkloadPeeringIPV6",
        lost("pods cannot be peers"),
    ),
    ("BGPConfiguration", "programClusterRoutes", Idle),
    ("BGPConfiguration", "ipv4NormalRoutePriority", KERNEL),
    ("BGPConfiguration", "ipv6NormalRoutePriority", KERNEL),
    ("BGPPeer", "maxRestartTime", Seconds),
    (
        "BGPPeer",
        "reachableBy",
        lost("give the node a route to the peer, or name the interface in spec.interface"),
    ),
    (
        "BGPPeer",
        "localWorkloadSelector",
        Needed("pods cannot be peers in Manx"),
    ),
    ("BGPPeer", "reversePeering", Idle),
    ("Node", "addresses", Idle),
    ("Node", "orchRefs", Idle),
    (
        "Node",
        "wireguard",
        lost("Manx adds nothing to packets, encryption neither"),
    ),
    ("Node", "ipv4VXLANTunnelAddr", Idle),
    ("Node", "ipv6VXLANTunnelAddr", Idle),
    ("Node", "vxlanTunnelMACAddr", Idle),
    ("Node", "vxlanTunnelMACAddrV6", Idle),
    ("Node", "bgp.ipv4IPIPTunnelAddr", Idle),
    ("NetworkPolicy", "performanceHints", Idle),
    ("GlobalNetworkPolicy", "performanceHints", Idle),
    ("StagedNetworkPolicy", "performanceHints", Idle),
    ("StagedGlobalNetworkPolicy", "performanceHints", Idle),
];

/// The agents make these anew.
const MADE_ANEW: &str = "manxd makes its own";

/// Kinds for which no counterpart is needed, and why.
const NEEDLESS: &[(&str, &str)] = &[
    ("WorkloadEndpoint", MADE_ANEW),
    ("IPAMHandle", "the blocks say who holds what"),
    ("ClusterInformation", MADE_ANEW),
    (
        "CalicoNodeStatus",
        "'manxctl node status' asks the agents themselves",
    ),
    (
        "Profile",
        "what no policy selects is let through, as a namespace's profile does",
    ),
    (
        "FelixConfiguration",
        "an agent's settings are in /etc/manx/manxd.yaml: docs/node.md has them all",
    ),
    (
        "KubeControllersConfiguration",
        "manxd needs no controllers of this kind",
    ),
];

/// What Calico notes on Kubernetes' Nodes, and where it says so of its own.
const NODE_ANNOTATIONS: [(&str, &str); 4] = [
    ("IPv4Address", "ipv4Address"),
    ("IPv6Address", "ipv6Address"),
    ("ASNumber", "asNumber"),
    ("RouteReflectorClusterID", "routeReflectorClusterID"),
];

/// Tiers that are always there.
const TIERS: [&str; 3] = ["default", "kube-admin", "kube-baseline"];

/// A resource in Manx's words.
#[derive(Debug, PartialEq)]
pub(crate) struct Converted {
    /// The resource; none where none is needed.
    pub(crate) resource: Option<Value>,
    /// What the user should know: a field, and what is to be said of it.
    pub(crate) notes: Vec<(String, String)>,
}

/// A resource that cannot be had in Manx.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{}{what}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub(crate) struct Refused {
    /// The field that is in the way; empty for the whole.
    pub(crate) field: String,
    /// Why, and what to do.
    pub(crate) what: String,
}

fn refused(field: &str, what: impl Into<String>) -> Refused {
    Refused {
        field: field.to_owned(),
        what: what.into(),
    }
}

/// Whether a resource is Calico's, or Kubernetes' Node on which Calico has noted its own.
pub(crate) fn is_calicos(resource: &Value) -> bool {
    let api_version = resource["apiVersion"].as_str().unwrap_or_default();
    GROUPS.iter().any(|group| api_version.starts_with(group)) || is_node(resource)
}

/// Whether a resource only makes sense together with others of its kind and the pools: see [`blocks`].
pub(crate) fn is_block(resource: &Value) -> bool {
    is_calicos(resource)
        && ["IPAMBlock", "BlockAffinity"]
            .iter()
            .any(|kind| resource["kind"] == *kind)
}

fn is_node(resource: &Value) -> bool {
    resource["apiVersion"] == "v1" && resource["kind"] == "Node"
}

/// What Calico notes on Kubernetes' Node, in its Node's words.
fn noted(resource: &Value) -> Result<Value, Refused> {
    let annotations = &resource["metadata"]["annotations"];
    let fields = NODE_ANNOTATIONS.iter().filter_map(|(annotation, field)| {
        let value = annotations[format!("projectcalico.org/{annotation}")].as_str()?;
        Some(((*field).to_owned(), json!(value)))
    });
    let bgp: Map<String, Value> = fields.collect();
    if !bgp.keys().any(|field| field.ends_with("Address")) {
        let field = "metadata.annotations";
        let message = "neither projectcalico.org/IPv4Address nor IPv6Address is there: Calico peers with nobody on this node";
        return Err(refused(field, message));
    }
    Ok(json!({"kind": "Node", "metadata": {"name": resource["metadata"]["name"]}, "spec": {"bgp": bgp}}))
}

/// Says one of Calico's resources in Manx's words. What is wrong in it stays so, for a manifest's own checks to find.
///
/// # Errors
/// What there is no way to say.
pub(crate) fn convert(resource: &Value) -> Result<Converted, Refused> {
    if is_node(resource) {
        return convert(&noted(resource)?);
    }
    let stated = resource["kind"].as_str().unwrap_or_default();
    // As the definitions of `crd.projectcalico.org` call it.
    let kind = if stated == "IPAMConfig" {
        "IPAMConfiguration"
    } else {
        stated
    };
    let name = resource["metadata"]["name"].as_str().unwrap_or_default();
    let needless = |why: &str| Converted {
        resource: None,
        notes: vec![(String::new(), why.to_owned())],
    };
    if let Some((_, why)) = NEEDLESS.iter().find(|(other, _)| *other == kind) {
        return Ok(needless(why));
    }
    if kind == "Tier" && TIERS.contains(&name) {
        return Ok(needless("this tier is always there"));
    }
    let is_policy = kind.ends_with("NetworkPolicy");
    if is_policy && KUBERNETES.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(needless(
            "it is Kubernetes' own policy, which Manx reads as it is",
        ));
    }
    let mut notes = Vec::new();
    let mut spec = resource["spec"].as_object().cloned().unwrap_or_default();
    fields(kind, &mut spec, &mut notes)?;
    match kind {
        "IPPool" => uses(&mut spec)?,
        "BGPPeer" => peer(&mut spec, &mut notes),
        "BGPConfiguration" if name != "default" => {
            return Err(refused(
                "metadata.name",
                format!("'{name}' is for one node: write its asNumber into that Node's spec.bgp"),
            ));
        }
        _ => {}
    }
    let mut metadata = metadata(&resource["metadata"]);
    if is_policy && let Some(short) = name.strip_prefix("default.") {
        metadata.insert("name".to_owned(), json!(short));
    }
    let api_version = manx_api::API_VERSION;
    Ok(Converted {
        resource: Some(json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})),
        notes,
    })
}

/// Does what [`FIELDS`] says.
fn fields(
    kind: &str,
    spec: &mut Map<String, Value>,
    notes: &mut Vec<(String, String)>,
) -> Result<(), Refused> {
    for (_, path, fate) in FIELDS.iter().filter(|(of, ..)| *of == kind) {
        let (outer, inner) = path.split_once('.').map_or((None, *path), |(a, b)| (Some(a), b));
        let map = match outer {
            Some(outer) => spec.get_mut(outer).and_then(Value::as_object_mut),
            None => Some(&mut *spec),
        };
        let Some((map, value)) = map.and_then(|map| map.remove(inner).map(|value| (map, value))) else {
            continue;
        };
        let field = format!("spec.{path}");
        match fate {
            Idle => {}
            Lost { unless, why } if !is_nothing(&value) && !says(&value, unless) => {
                notes.push((field, format!("{} is left out: {why}", shown(&value))));
            }
            Lost { .. } => {}
            Seconds => drop(map.insert(inner.to_owned(), seconds(&field, &value)?)),
            Needed(why) if !is_nothing(&value) => return Err(refused(&field, *why)),
            Needed(_) => {}
        }
    }
    Ok(())
}

/// What stands for not being there.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn says(value: &Value, any: &[&str]) -> bool {
    value.as_str().is_some_and(|text| any.contains(&text))
}

/// A value in a sentence.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{text}'"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// A duration as Go writes it, in whole seconds.
fn seconds(field: &str, value: &Value) -> Result<Value, Refused> {
    let text = value.as_str().unwrap_or_default();
    let duration: Option<SignedDuration> = text.parse().ok();
    let whole = duration.filter(|it| it.subsec_nanos() == 0 && !it.is_negative());
    whole.map(|duration| json!(duration.as_secs())).ok_or_else(|| {
        refused(
            field,
            format!("{} is no duration in whole seconds, as in '120s'", shown(value)),
        )
    })
}

/// A pool is for pods, which is what it is for where nothing is said, or for load balancers; there are no tunnels.
fn uses(spec: &mut Map<String, Value>) -> Result<(), Refused> {
    let field = "allowedUses";
    let stated = spec.remove(field).unwrap_or_default();
    let uses: Vec<&str> = stated
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let (pods, services) = (uses.contains(&"Workload"), uses.contains(&"LoadBalancer"));
    if uses.is_empty() || (pods && !services) {
        return Ok(());
    }
    if services && !pods {
        spec.insert(field.to_owned(), json!(["LoadBalancer"]));
        return Ok(());
    }
    let message = format!(
        "is {}: Manx's pools are for pods or for load balancers",
        uses.join(", ")
    );
    Err(refused("spec.allowedUses", message))
}

/// What Calico says of a session by other fields.
fn peer(spec: &mut Map<String, Value>, notes: &mut Vec<(String, String)>) {
    if spec.remove("keepOriginalNextHop") == Some(json!(true)) {
        spec.entry("nextHopMode").or_insert_with(|| json!("Keep"));
    }
    // Where it is no duration, our own checks name the field.
    let Some(keepalive) = spec
        .get("keepaliveTime")
        .and_then(|it| seconds("", it).ok()?.as_u64())
    else {
        return;
    };
    spec.remove("keepaliveTime");
    let hold = keepalive.saturating_mul(3);
    spec.insert("holdTime".to_owned(), json!(hold));
    let note = format!("becomes holdTime: {hold}: KEEPALIVEs are a third of the hold time apart");
    notes.push(("spec.keepaliveTime".to_owned(), note));
}

/// What users write into `metadata`, without other programs' memories.
fn metadata(metadata: &Value) -> Map<String, Value> {
    let kept = METADATA
        .iter()
        .filter_map(|field| Some((*field, metadata.get(field)?.clone())));
    let mut kept: Map<String, Value> = kept.map(|(field, value)| (field.to_owned(), value)).collect();
    if let Some(annotations) = kept.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !MEMORIES.contains(&name.as_str()));
    }
    kept.retain(|_, value| !is_nothing(value));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: &str, name: &str, spec: Value) -> Value {
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec})
    }

    /// What becomes of a resource's `spec`, and the notes.
    fn spec(kind: &str, spec: Value) -> (Value, Vec<String>) {
        let converted = convert(&resource(kind, "default", spec)).unwrap();
        let notes = converted
            .notes
            .into_iter()
            .map(|(field, note)| format!("{field}: {note}"));
        (converted.resource.unwrap()["spec"].clone(), notes.collect())
    }

    #[test]
    fn fields_that_say_nothing_new_are_forgotten_and_others_are_told_of() {
        let (pool, notes) = spec(
            "IPPool",
            json!({"cidr": "10.1.0.0/16", "ipipMode": "Always", "vxlanMode": "Never", "natOutgoing": true,
                   "allowedUses": ["Workload", "Tunnel"]}),
        );
        assert_eq!(pool, json!({"cidr": "10.1.0.0/16", "natOutgoing": true}));
        let services = json!({"cidr": "10.2.0.0/24", "allowedUses": ["LoadBalancer"]});
        assert_eq!(spec("IPPool", services.clone()), (services, Vec::new()));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].starts_with("spec.ipipMode: 'Always' is left out: Manx adds nothing"),
            "{notes:?}"
        );
    }

    #[test]
    fn durations_become_seconds_and_keepalives_hold_times() {
        let (peer, notes) = spec(
            "BGPPeer",
            json!({"peerIP": "192.0.2.1", "asNumber": "1.10", "maxRestartTime": "1m30s", "keepaliveTime": "20s",
                   "keepOriginalNextHop": true}),
        );
        assert_eq!(
            peer,
            json!({"peerIP": "192.0.2.1", "asNumber": "1.10", "maxRestartTime": 90, "holdTime": 60, "nextHopMode": "Keep"})
        );
        assert_eq!(
            notes,
            ["spec.keepaliveTime: becomes holdTime: 60: KEEPALIVEs are a third of the hold time apart"]
        );
        for wrong in [json!("soon"), json!("1500ms"), json!(90)] {
            let peer = resource(
                "BGPPeer",
                "p",
                json!({"peerIP": "192.0.2.1", "maxRestartTime": wrong}),
            );
            let told = convert(&peer).unwrap_err().to_string();
            assert!(told.starts_with("spec.maxRestartTime: "), "{told}");
            assert!(
                told.ends_with("is no duration in whole seconds, as in '120s'"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_field_inside_another_is_found() {
        let (node, notes) = spec(
            "Node",
            json!({"bgp": {"asNumber": 64513, "ipv4Address": "192.0.2.1/24", "ipv4IPIPTunnelAddr": "10.1.0.1"},
                   "orchRefs": [{"nodeName": "n", "orchestrator": "k8s"}]}),
        );
        assert_eq!(
            node,
            json!({"bgp": {"asNumber": 64513, "ipv4Address": "192.0.2.1/24"}})
        );
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn what_calico_notes_on_kubernetes_nodes_is_its_node() {
        let node = |annotations: Value| {
            let metadata = json!({"name": "n1", "labels": {"rack": "a"}, "annotations": annotations});
            convert(
                &json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"podCIDR": "10.1.0.0/24"}}),
            )
        };
        let noted = node(
            json!({"projectcalico.org/IPv4Address": "192.0.2.1/24", "projectcalico.org/ASNumber": "64513",
            "projectcalico.org/IPv4IPIPTunnelAddr": "10.1.0.1"}),
        );
        assert_eq!(
            noted.unwrap().resource,
            Some(
                json!({"apiVersion": "manx.network/v1", "kind": "Node", "metadata": {"name": "n1"},
                        "spec": {"bgp": {"ipv4Address": "192.0.2.1/24", "asNumber": "64513"}}})
            ),
            "labels are the cluster's"
        );
        let told = node(json!({})).unwrap_err().to_string();
        assert!(told.ends_with("Calico peers with nobody on this node"), "{told}");
    }

    #[test]
    fn what_users_did_not_write_into_metadata_goes() {
        let mut policy = resource("GlobalNetworkPolicy", "default.deny", json!({"tier": "default"}));
        policy["apiVersion"] = json!("crd.projectcalico.org/v1");
        policy["metadata"]["uid"] = json!("0");
        policy["metadata"]["resourceVersion"] = json!("17");
        policy["metadata"]["annotations"] = json!({"projectcalico.org/metadata": "{}", "team": "red"});
        policy["metadata"]["labels"] = json!({});
        let converted = convert(&policy).unwrap().resource.unwrap();
        assert_eq!(
            converted["metadata"],
            json!({"name": "deny", "annotations": {"team": "red"}}),
            "nor the tier's prefix"
        );
        assert_eq!(converted["apiVersion"], "manx.network/v1");
    }

    #[test]
    fn what_would_leave_a_door_open_is_refused_and_what_is_not_needed_is_not() {
        let refused = |kind: &str, name: &str, spec: Value| {
            convert(&resource(kind, name, spec)).unwrap_err().to_string()
        };
        let told = refused("BGPPeer", "p", json!({"localWorkloadSelector": "all()"}));
        assert_eq!(told, "spec.localWorkloadSelector: pods cannot be peers in Manx");
        let told = refused("BGPConfiguration", "node.one", json!({"asNumber": 1}));
        assert!(
            told.starts_with("metadata.name: 'node.one' is for one node"),
            "{told}"
        );
        let told = refused(
            "IPPool",
            "lb",
            json!({"cidr": "10.2.0.0/24", "allowedUses": ["Tunnel"]}),
        );
        assert_eq!(
            told,
            "spec.allowedUses: is Tunnel: Manx's pools are for pods or for load balancers"
        );
        for (kind, name) in [
            ("Profile", "kns.default"),
            ("Tier", "default"),
            ("NetworkPolicy", "knp.default.web"),
            ("IPAMHandle", "k8s-pod-network.4f2c"),
        ] {
            let converted = convert(&resource(kind, name, json!({}))).unwrap();
            assert_eq!((converted.resource, converted.notes.len()), (None, 1), "{kind}");
        }
    }
}
