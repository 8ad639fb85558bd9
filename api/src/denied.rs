//! Packets that policies denied, as `manxctl policy denies -o json` shows them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::explanation::PolicyName;
use crate::rule::{Direction, Protocol};

/// What `policy.denies` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeniesCall {
    /// Whether to have denied packets logged, from now until nobody has asked so for some seconds. The answer waits a
    /// second at most for something new.
    #[serde(default)]
    pub follow: bool,
    /// Only what comes after this, the `next` of an earlier answer; none: what is remembered, or nothing with `follow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Denies {
    /// Whose.
    pub node: String,
    /// Whether denied packets are logged at present.
    pub recording: bool,
    /// Which life of the agent this is: in another one, `next` counts from 0 again.
    pub life: u64,
    /// What to ask for next time.
    pub next: u64,
    /// How many of the entries that were asked for are forgotten.
    pub lost: u64,
    /// How many packets this life has had to leave out of its entries.
    pub omitted: u64,
    /// What there is, oldest first.
    pub entries: Vec<DeniedPacket>,
}

/// Packets that one rule logged, alike but for the port that they came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedPacket {
    /// When the last of them came (RFC 3339).
    pub time: String,
    /// On which node.
    pub node: String,
    /// How many of them were logged since the entry before this one that is alike.
    pub count: u64,
    /// What became of them.
    pub verdict: LogVerdict,
    /// As whose they were: of who sends (`Egress`), or of who gets (`Ingress`).
    pub direction: Direction,
    /// Why.
    pub reason: DenyReason,
    /// The policy; none: none decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyName>,
    /// The rule's number, counted from 0, if a rule decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// The tier, if policies decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Who sent them.
    pub source: DeniedEnd,
    /// Whom they were for.
    pub destination: DeniedEnd,
    /// Their protocol.
    pub protocol: Protocol,
    /// The interface that they came by; none: the node sent them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_interface: Option<String>,
    /// The interface that they would have left by; none: they were for the node, or nobody knew yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_interface: Option<String>,
}

/// What became of a logged packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogVerdict {
    /// It was dropped.
    Deny,
    /// A rule's action `Log` wanted it to be told of, and the next rule was asked.
    Log,
}

/// Why a packet was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DenyReason {
    /// A rule of a policy says so.
    Rule,
    /// No rule of the tier was for it, and the tier ends so; the policy is the first that applies.
    EndOfTier,
    /// No policy opens the host endpoint for it.
    HostEndpoint,
    /// Its sender may not send from that address.
    SourceAddress,
    /// No pod is known behind the interface.
    UnknownInterface,
    /// `policy.endpointToHost` of the node is `drop`.
    EndpointToHost,
    /// The rule that logged it is gone meanwhile.
    Gone,
}

/// An end of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedEnd {
    /// Its address.
    pub address: IpAddr,
    /// Its port, if the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The host endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_endpoint: Option<String>,
    /// The network sets that the address is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_sets: Vec<String>,
}
