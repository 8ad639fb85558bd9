//! Why policies let a packet through or not, as `manxctl policy explain -o json` shows it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::rule::{Action, Direction, Protocol};

/// What `policy.explain` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyExplainCall {
    /// Who sends.
    pub from: Party,
    /// Who gets.
    pub to: Party,
    /// The packet's protocol.
    pub protocol: Protocol,
    /// The port that it goes to, if the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// One end of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Party {
    /// The attachment with this WorkloadEndpoint: `<namespace>/<name>`.
    Endpoint(String),
    /// Whoever has this address.
    Address(IpAddr),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyExplanation {
    /// The address that the packet comes from.
    pub source: IpAddr,
    /// The address that it goes to.
    pub destination: IpAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Who decided; none: no policy speaks of the packet, or its node drops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deciding: Option<Deciding>,
    /// What a node does with what its own pod sends to it (`policy.endpointToHost`); none: the packet is for somebody
    /// else, or other rules of the node's decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_node: Option<Verdict>,
    /// What the packet met, as egress of who sends and as ingress of who gets, as far as these are pods.
    pub walks: Vec<PolicyWalk>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It arrives.
    Allow,
    /// It is dropped.
    Deny,
}

impl Verdict {
    /// The verdict on a packet that may go on, or may not.
    #[must_use]
    pub const fn of(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Deny }
    }
}

/// A policy, as people know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyName {
    /// The group and version of its kind.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace, if its kind has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deciding {
    /// The policy; where the end of a tier decided, the first of it that applies to the pod.
    #[serde(flatten)]
    pub policy: PolicyName,
    /// The rule's number, counted from 0; none: no rule did, and the tier ended.
    pub rule: Option<usize>,
    /// The tier.
    pub tier: String,
    /// Whose policy: of who sends (`Egress`), or of who gets (`Ingress`).
    pub direction: Direction,
}

/// The policies of one end, as a packet meets them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyWalk {
    /// Whose: `<namespace>/<name>` of the WorkloadEndpoint.
    pub endpoint: String,
    /// As what the packet is seen there.
    pub direction: Direction,
    /// Whether it may go on.
    pub verdict: Verdict,
    /// Tier by tier, up to the one that decided.
    pub tiers: Vec<TierWalk>,
}

/// A tier's part of a walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierWalk {
    /// The tier.
    pub tier: String,
    /// Its policies that apply to the end, in order, up to the one that decided.
    pub policies: Vec<PolicyStep>,
    /// What the tier's end does, if no rule decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Action>,
}

/// A policy's part of a walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStep {
    /// The policy.
    #[serde(flatten)]
    pub policy: PolicyName,
    /// Whether it is on trial, and decides nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
    /// Its first rule that is for the packet, counted from 0; none: none is.
    pub rule: Option<usize>,
    /// What that does.
    pub action: Option<Action>,
    /// Its rules before that which log the packet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logged: Vec<usize>,
}

/// What a staged policy would have done, as a node's kernel counted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagedCount {
    /// On which node.
    pub node: String,
    /// The policy.
    #[serde(flatten)]
    pub policy: PolicyName,
    /// What the packets were to its pods.
    pub direction: Direction,
    /// The first of its rules that was for them, counted from 0; none: none was, and the tier's end would have
    /// decided unless another policy of it does.
    pub rule: Option<usize>,
    /// What that rule does.
    pub action: Option<Action>,
    /// Packets that began something, as far as no policy before it decided.
    pub packets: u64,
}
