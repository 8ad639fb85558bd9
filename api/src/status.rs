//! What an agent says of itself; the JSON that scripts may rely on.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::ipam::Allocation;
use crate::operation::DrainStatus;

/// A session, as `manxctl bgp peers -o json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Whose session.
    pub node: String,
    /// With whom; `::` for a neighbour that has not been found on its interface yet.
    pub address: IpAddr,
    /// The interface that leads to it, where it is on a link: link-local addresses mean nothing without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The peer's AS.
    pub asn: u32,
    /// `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm` or `Established`.
    pub state: String,
    /// Seconds since the session was established; 0 when it is not.
    pub uptime_seconds: u64,
    /// Prefixes in the Adj-RIB-In, before import policy.
    pub received: u64,
    /// Prefixes that import policy let in.
    pub accepted: u64,
    /// Prefixes in the Adj-RIB-Out.
    pub advertised: u64,
    /// Where it comes from: `mesh` or the BGPPeer's name.
    pub origin: String,
    /// The hold time in force, in seconds.
    pub hold_time: u16,
    /// How far its drain is, where an operator asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// How many paths the peer announces of each family that has a limit, and may announce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitStatus>,
    /// Why the session last ended, if it ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What was wrong with the peer's UPDATEs short of ending the session (RFC 7606), and how often.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultStatus>,
    /// How BFD sees the path, where it watches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdStatus>,
    /// The range that a dynamic neighbour has connected from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeStatus>,
}

/// A range of dynamic neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RangeStatus {
    /// Its addresses.
    pub prefix: IpNetwork,
    /// How many neighbours there are.
    pub peers: usize,
    /// How many there may be.
    pub limit: usize,
    /// How many connections the limit has turned away.
    pub refused: u64,
}

impl PeerStatus {
    /// What the peer is called: `192.0.2.1`, `fe80::1%swp1`, `swp1` while nobody has been found there.
    #[must_use]
    pub fn peer(&self) -> String {
        match &self.interface {
            None => self.address.to_string(),
            Some(interface) if self.address.is_unspecified() => interface.clone(),
            Some(interface) => format!("{}%{interface}", self.address),
        }
    }
}

/// A kind of error in UPDATEs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultStatus {
    /// The attribute's name, or its number; `message` where it was about the message's own fields.
    pub attribute: String,
    /// What it cost: `discard` the attribute or prefix, `withdraw` the routes.
    pub action: String,
    /// In how many messages.
    pub count: u64,
}

/// A BFD session (RFC 5880 §6.8.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdStatus {
    /// `AdminDown`, `Down`, `Init` or `Up`.
    pub state: String,
    /// The peer's, where it is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_state: Option<String>,
    /// Why the session last left Up.
    pub diagnostic: String,
    /// Over several hops.
    pub multihop: bool,
    /// Milliseconds between our packets; none where the peer wants none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_interval: Option<u64>,
    /// Milliseconds that the peer may be silent; none while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection_time: Option<u64>,
}

/// What `bgp.explain` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainCall {
    /// Which prefix.
    pub prefix: IpNetwork,
}

/// Why a prefix is reached as it is, as `manxctl bgp explain -o json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpExplanation {
    /// On which node.
    pub node: String,
    /// Which prefix.
    pub prefix: IpNetwork,
    /// Every path, the best first; `reason` says at which step it lost, or why it cannot be used.
    pub paths: Vec<ExplainedPath>,
    /// Every peer.
    pub peers: Vec<ExplainedPeer>,
}

/// A path, and the import rule that touched it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedPath {
    /// The path as it is used.
    #[serde(flatten)]
    pub path: BgpRoute,
    /// The rule: `FILTER importV4[0]`; none where a default decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// What a peer is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedPeer {
    /// Who.
    pub peer: IpAddr,
    /// Whether it is told of the prefix.
    pub advertised: bool,
    /// The export rule that decided: `FILTER exportV4[0]`; none where a default did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How many paths of a family a peer announces, and may announce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitStatus {
    /// `IPv4 unicast` or `IPv6 unicast`.
    pub family: String,
    /// How many there are.
    pub received: u64,
    /// How many there may be.
    pub max: u32,
    /// `below`, `near` or `over`.
    pub state: String,
}

/// A path, as `manxctl bgp routes` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpRoute {
    /// On which node.
    pub node: String,
    /// To where.
    pub prefix: IpNetwork,
    /// Through whom; none for the node's own.
    pub next_hop: Option<IpAddr>,
    /// From which peer; none for the node's own.
    pub peer: Option<IpAddr>,
    /// Whether it is the best path.
    pub best: bool,
    /// AS_PATH, leftmost first, as text: `65001 65002 {1 2}`.
    pub as_path: String,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// The metric that a filter gave it in the node's kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// `IGP`, `EGP` or `Incomplete`.
    pub origin: String,
    /// Communities as text, of all kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// Why the path lost, or why it is unusable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Kept from a restarting peer (RFC 4724).
    #[serde(default)]
    pub stale: bool,
}

/// All paths of a speaker, as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDump {
    /// TABLE_DUMP_V2 (RFC 6396), in base64 (RFC 4648 §4).
    pub mrt: String,
}

/// What reading a speaker's configuration again has changed. All that is not named noticed nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reload {
    /// Neighbours that are new, by address or interface.
    pub peers_added: Vec<String>,
    /// Neighbours whose settings differ.
    pub peers_changed: Vec<String>,
    /// Neighbours that are gone.
    pub peers_removed: Vec<String>,
    /// Prefixes that are originated from now on.
    pub routes_added: Vec<IpNetwork>,
    /// Prefixes that are no longer originated.
    pub routes_removed: Vec<IpNetwork>,
    /// Monitoring stations that are new, or whose settings differ.
    pub collectors_added: Vec<String>,
    /// Monitoring stations that are gone, or whose settings differed.
    pub collectors_removed: Vec<String>,
}

/// A route that Manx wants in the kernel, as `manxctl route show` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelRoute {
    /// On which node.
    pub node: String,
    /// To where.
    pub prefix: IpNetwork,
    /// `via 192.0.2.1 dev eth0`, `dev mx0123…`, `unreachable`.
    pub target: String,
    /// `bgp`, `block` or `pod`.
    pub source: String,
    /// `installed`, `pending` or `failed`.
    pub state: String,
    /// The kernel's last answer, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A block held by a node, as `manxctl ipam show` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockStatus {
    /// Whose.
    pub node: String,
    /// Which.
    pub cidr: IpNetwork,
    /// Cut from which pool.
    pub pool: String,
    /// Addresses that pods may get.
    pub capacity: u64,
    /// Free addresses that have not rested since their last holder.
    #[serde(default)]
    pub cooling: u64,
    /// Who holds what.
    pub allocations: Vec<Allocation>,
}

/// An agent's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Which node.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// Whether `/readyz` says yes.
    pub ready: bool,
    /// What `/readyz` still waits for.
    pub waiting_for: Vec<String>,
    /// The speaker's AS.
    pub asn: u32,
    /// The speaker's identifier.
    pub router_id: IpAddr,
    /// Sessions established, and configured.
    pub peers_established: u64,
    /// Sessions configured.
    pub peers_configured: u64,
    /// Routes in the kernel that Manx put there.
    pub routes_installed: u64,
    /// Routes wanted.
    pub routes_wanted: u64,
    /// Pods attached.
    pub pods: u64,
}
