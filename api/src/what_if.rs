//! What policies would change, as `manxctl policy explain --what-if -o json` shows it.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::explanation::{Deciding, Verdict};
use crate::rule::{Family, Protocol};
use crate::{Key, Resource};

/// What `policy.whatIf` takes: resources that would be written, and others that would be deleted before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhatIfCall {
    /// Written, in this order.
    #[serde(default)]
    pub put: Vec<Resource>,
    /// Deleted.
    #[serde(default)]
    pub without: Vec<Key>,
}

/// The answer: what would be treated otherwise, between all pods, host endpoints and addresses outside.
///
/// A flow is one sort of packets from one end to another. Sorts are what the cluster's rules tell apart: ports by the
/// protocol, messages of ICMP, and all that no rule speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIf {
    /// How many flows there are.
    pub flows: u64,
    /// How many of them would be treated otherwise.
    pub changed: u64,
    /// How many of them nobody looked at, because that would have taken too long.
    pub left_out: u64,
    /// What was asked about that has no part in policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// How many pods were compared, by their namespaces.
    pub pods: BTreeMap<String, usize>,
    /// The networks outside that rules tell apart: an address belongs to the smallest that it is in.
    pub networks: Vec<IpNetwork>,
    /// Who is meant by the changes.
    pub groups: Vec<WhatIfGroup>,
    /// What would change.
    pub changes: Vec<WhatIfChange>,
}

/// Ends that a change is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIfGroup {
    /// Pods, as `<namespace>/<name>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// Host endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_endpoints: Vec<String>,
    /// Networks outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNetwork>,
}

/// Packets from each end of one group to each other end of another that would be treated otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIfChange {
    /// Who sends them: the group's place in the list.
    pub from: usize,
    /// Who gets them.
    pub to: usize,
    /// In which families, `4` and `6`.
    pub families: Vec<Family>,
    /// Which packets; empty: all.
    pub packets: Vec<WhatIfPackets>,
    /// How many flows they are.
    pub flows: u64,
    /// What becomes of them now.
    pub before: WhatIfVerdict,
    /// What would become of them.
    pub after: WhatIfVerdict,
}

/// Packets of one protocol, or of all but some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIfPackets {
    /// Their protocol; none: any but those of `other_than`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The ports that they go to, as `80` or `8000:8099`; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Types and codes of ICMP, as `8/0`, with `other` for those that no rule speaks of; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// Where there is no protocol: which ones are not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_than: Vec<Protocol>,
}

/// What becomes of packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIfVerdict {
    /// Whether they arrive.
    pub verdict: Verdict,
    /// Who decides; none: no policy does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deciding: Option<Deciding>,
}
