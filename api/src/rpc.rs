//! The agent's control socket: JSON-RPC 2.0, one object a line, over a Unix stream.
//!
//! A client writes one [`Request`] line and reads one [`Response`] line; it may send more over the same
//! stream. Methods and their types are listed in [`Method`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The methods of the control socket, with what they take and give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// CNI ADD: the plugin's call (`manx_cni::Call`) → a CNI result.
    #[serde(rename = "cni.add")]
    CniAdd,
    /// CNI DEL: the plugin's call → null.
    #[serde(rename = "cni.del")]
    CniDel,
    /// CNI CHECK: the plugin's call, with the result of ADD in `config.prevResult` → null.
    #[serde(rename = "cni.check")]
    CniCheck,
    /// CNI STATUS: the plugin's configuration (`manx_cni::NetConf`) → null while an ADD could succeed.
    #[serde(rename = "cni.status")]
    CniStatus,
    /// CNI GC: the plugin's configuration, with every attachment still alive → null.
    #[serde(rename = "cni.gc")]
    CniGc,
    /// Nothing → [`crate::status::NodeStatus`].
    #[serde(rename = "node.status")]
    NodeStatus,
    /// Nothing → a list of [`crate::status::PeerStatus`].
    #[serde(rename = "bgp.peers")]
    BgpPeers,
    /// Nothing → a list of [`crate::status::BgpRoute`].
    #[serde(rename = "bgp.routes")]
    BgpRoutes,
    /// Nothing → a list of [`crate::status::KernelRoute`].
    #[serde(rename = "route.show")]
    RouteShow,
    /// Nothing → a list of [`crate::status::BlockStatus`].
    #[serde(rename = "ipam.show")]
    IpamShow,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// Returned as it came.
    pub id: u64,
    /// What to do.
    pub method: Method,
    /// What to do it with.
    #[serde(default)]
    pub params: Value,
}

/// An answer: exactly one of `result` and `error`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// The request's.
    pub id: u64,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RpcError>,
}

/// What went wrong. CNI calls carry the CNI error code; others the JSON-RPC ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// A JSON-RPC or CNI error code.
    pub code: i64,
    /// One sentence for people.
    pub message: String,
    /// More: for CNI calls, the `details` string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}
