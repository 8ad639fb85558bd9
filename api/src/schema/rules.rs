//! What a schema by fields cannot say: names that mean something, fields that only some kinds have, and fields that
//! have to do with each other (in CEL, which API servers since 1.25 ask).
//!
//! The rules speak of single values alone, never of all elements of a list: what a rule may cost is estimated from the
//! longest list that fits into a request, and a definition whose estimate is too high is refused altogether.

use serde_json::{Value, json};

use crate::Kind;

/// A rule: what has to hold, and what people are told where it does not.
type Rule = (&'static str, &'static str);

/// What the schema says of `metadata`: where a name is more than a name.
pub(super) fn metadata(kind: Kind) -> Value {
    let name = if matches!(kind, Kind::BgpConfiguration | Kind::IpamConfiguration) {
        json!({"type": "string", "enum": ["default"]})
    } else if kind == Kind::Tier {
        json!({"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"})
    } else if kind == Kind::IpBlock {
        json!({"type": "string", "pattern": "^([0-9]+(-[0-9]+){3}|[0-9a-f]+(-[0-9a-f]+){7})-[0-9]+$"})
    } else {
        return json!({"type": "object"});
    };
    json!({"type": "object", "properties": {"name": name}})
}

/// Takes fields away that the kind has not, and adds its rules.
pub(super) fn apply(kind: Kind, schema: &mut Value) {
    if let Some(fields) = schema
        .pointer_mut("/properties/spec/properties")
        .and_then(Value::as_object_mut)
    {
        for absent in absent(kind) {
            fields.remove(*absent);
        }
    }
    for (pointer, rules) in of(kind) {
        if let Some(place) = schema.pointer_mut(pointer) {
            let rule = |(rule, message): &Rule| json!({"rule": rule, "message": message});
            place["x-kubernetes-validations"] = rules.iter().map(rule).collect();
        }
    }
}

/// Fields of the specification that the type has and the kind has not.
fn absent(kind: Kind) -> &'static [&'static str] {
    if kind == Kind::NetworkPolicy {
        &[
            "namespaceSelector",
            "doNotTrack",
            "preDNAT",
            "applyOnForward",
            "stagedAction",
        ]
    } else if kind == Kind::StagedNetworkPolicy {
        &["namespaceSelector", "doNotTrack", "preDNAT", "applyOnForward"]
    } else if kind == Kind::GlobalNetworkPolicy {
        &["stagedAction"]
    } else {
        &[]
    }
}

const SPEC: &str = "/properties/spec";
const ROOT: &str = "";

const POOL: &[Rule] = &[
    (
        "self.cidr == oldSelf.cidr",
        "cidr may not change: delete the pool and create it anew",
    ),
    (
        "(has(self.blockSize) ? self.blockSize : self.cidr.contains(':') ? 122 : 26) == (has(oldSelf.blockSize) ? \
         oldSelf.blockSize : oldSelf.cidr.contains(':') ? 122 : 26)",
        "blockSize may not change: delete the pool and create it anew",
    ),
    (
        "!has(self.blockSize) || (self.cidr.contains(':') ? self.blockSize >= 116 : self.blockSize <= 32)",
        "blockSize is 20 to 32 for IPv4, 116 to 128 for IPv6",
    ),
    (
        "(has(self.allowedUses) && 'LoadBalancer' in self.allowedUses) == (has(oldSelf.allowedUses) && 'LoadBalancer' in \
         oldSelf.allowedUses)",
        "allowedUses may not change: delete the pool and create it anew",
    ),
];

const BLOCK: &[Rule] = &[
    ("self.cidr == oldSelf.cidr", "cidr may not change"),
    (
        "self.generation >= oldSelf.generation && (!has(self.node) || (has(oldSelf.node) && self.node == oldSelf.node) \
         || self.generation > oldSelf.generation)",
        "generation never falls, and grows when a node claims the block",
    ),
    (
        "!has(self.lease) || has(self.node)",
        "a lease has a borrower: node is missing",
    ),
];

const MESH: &[Rule] = &[(
    "!has(self.nodeMeshLongLivedStaleTime) || self.nodeMeshLongLivedStaleTime == 0 || self.nodeMeshMaxRestartTime > 0",
    "nodeMeshLongLivedStaleTime needs graceful restart (RFC 9494): choose a nodeMeshMaxRestartTime",
)];

const PEER: &[Rule] = &[
    (
        "!(has(self.node) && has(self.nodeSelector))",
        "name one node or select some by nodeSelector, not both",
    ),
    (
        "has(self.peerIP) || has(self.peerSelector) || has(self.interface)",
        "write the peer's address in peerIP, its link in interface, or select nodes with peerSelector",
    ),
    (
        "!has(self.peerSelector) || !(has(self.peerIP) || has(self.interface) || has(self.asNumber))",
        "peerSelector stands alone: peerIP, interface and asNumber are of one peer",
    ),
    (
        "!has(self.peerIP) || has(self.interface) || has(self.asNumber)",
        "asNumber is missing: write the peer's AS",
    ),
    (
        "!(has(self.peerSelector) && has(self.passive) && self.passive)",
        "with passive both nodes of a peerSelector would wait and neither connect: leave it out",
    ),
    (
        "!has(self.longLivedStaleTime) || self.longLivedStaleTime == 0 || !has(self.maxRestartTime) || \
         self.maxRestartTime > 0",
        "longLivedStaleTime needs graceful restart (RFC 9494): choose a maxRestartTime",
    ),
    (
        "!has(self.bfd) || !has(self.ttlSecurity) || (has(self.bfd.multihop) && self.bfd.multihop) == \
         (self.ttlSecurity > 1)",
        "bfd.multihop and ttlSecurity disagree about how far the peer is",
    ),
    (
        "!has(self.interface) || ((!has(self.ttlSecurity) || self.ttlSecurity == 1) && !(has(self.bfd) && \
         has(self.bfd.multihop) && self.bfd.multihop))",
        "a peer on a link is one hop away: ttlSecurity and bfd.multihop say otherwise",
    ),
];

const LIMIT: &[Rule] = &[
    (
        "has(self.ipv4) || has(self.ipv6)",
        "write ipv4 or ipv6, or leave maxPrefixes out",
    ),
    (
        "!has(self.action) || self.action != 'Restart' || !has(self.restartAfter) || self.restartAfter > 0",
        "restartAfter 0 would have the session come and go without end",
    ),
];

const POLICY: &[Rule] = &[
    (
        "!has(self.types) || size(self.types) == 0 || !has(self.ingress) || size(self.ingress) == 0 || 'Ingress' in \
         self.types",
        "ingress would never be asked: add Ingress to types, or leave types out",
    ),
    (
        "!has(self.types) || size(self.types) == 0 || !has(self.egress) || size(self.egress) == 0 || 'Egress' in \
         self.types",
        "egress would never be asked: add Egress to types, or leave types out",
    ),
];

const GLOBAL_POLICY: &[Rule] = &[
    POLICY[0],
    POLICY[1],
    (
        "!(has(self.preDNAT) && self.preDNAT && has(self.doNotTrack) && self.doNotTrack)",
        "preDNAT stands beside doNotTrack: choose one, or write two policies",
    ),
    (
        "!(has(self.preDNAT) && self.preDNAT) || !((has(self.egress) && size(self.egress) > 0) || (has(self.types) && \
         'Egress' in self.types))",
        "preDNAT is for packets that come in: leave egress out",
    ),
    (
        "!((has(self.preDNAT) && self.preDNAT) || (has(self.doNotTrack) && self.doNotTrack)) || \
         (has(self.applyOnForward) && self.applyOnForward)",
        "preDNAT and doNotTrack act before it is known what is forwarded: write applyOnForward: true",
    ),
];

const TIER: &[Rule] = &[
    (
        "!(self.metadata.name in ['default', 'kube-admin', 'kube-baseline']) || (has(self.spec.order) && \
         self.spec.order == (self.metadata.name == 'default' ? 1000000.0 : self.metadata.name == 'kube-admin' ? 1000.0 : \
         10000000.0))",
        "this tier is always there: default with order 1000000, kube-admin 1000, kube-baseline 10000000",
    ),
    (
        "!(self.metadata.name in ['default', 'kube-admin', 'kube-baseline']) || (has(self.spec.defaultAction) ? \
         self.spec.defaultAction : 'Deny') == (self.metadata.name == 'default' ? 'Deny' : 'Pass')",
        "this tier is always there: default ends with Deny, kube-admin and kube-baseline with Pass",
    ),
];

const HOST_ENDPOINT: &[Rule] = &[(
    "has(self.interfaceName) || (has(self.expectedIPs) && size(self.expectedIPs) > 0)",
    "name the interface, '*' for all, or write its addresses in expectedIPs",
)];

/// The rules of a kind, with the places in its schema where they stand.
fn of(kind: Kind) -> &'static [(&'static str, &'static [Rule])] {
    match kind {
        Kind::IpPool => &[(SPEC, POOL)],
        Kind::IpBlock => &[(SPEC, BLOCK)],
        Kind::BgpConfiguration => &[(SPEC, MESH)],
        Kind::BgpPeer => &[(SPEC, PEER), ("/properties/spec/properties/maxPrefixes", LIMIT)],
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => &[(SPEC, POLICY)],
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => &[(SPEC, GLOBAL_POLICY)],
        Kind::Tier => &[(ROOT, TIER)],
        Kind::HostEndpoint => &[(SPEC, HOST_ENDPOINT)],
        Kind::IpReservation
        | Kind::IpamConfiguration
        | Kind::Namespace
        | Kind::Node
        | Kind::BgpFilter
        | Kind::WorkloadEndpoint
        | Kind::NetworkSet
        | Kind::GlobalNetworkSet
        | Kind::KubernetesNetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::StagedKubernetesNetworkPolicy
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::ServiceAccount => &[],
    }
}
