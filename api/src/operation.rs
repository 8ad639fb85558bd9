//! What operators ask of a running speaker: drains and resets of sessions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What `bgp.drain` takes: a session is emptied before it ends (RFC 8326).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainCall {
    /// With whom; all sessions where absent, and those that would come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Seconds for which routes are marked before they are withdrawn.
    pub seconds: u32,
    /// What the peer reads when the session ends (RFC 9003), 255 octets at most.
    #[serde(default)]
    pub message: String,
}

/// What `bgp.undrain` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndrainCall {
    /// Who may come back; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
}

/// What `bgp.reset` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetCall {
    /// Whose session.
    pub peer: IpAddr,
    /// It stays: routes are asked for again, and sent again (RFC 2918).
    #[serde(default)]
    pub soft: bool,
    /// What the peer reads when the session ends (RFC 9003), 255 octets at most.
    #[serde(default)]
    pub message: String,
}

/// Whose sessions something was done to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operated {
    /// The peers, in order.
    pub peers: Vec<IpAddr>,
}

/// How far a drain is, as `manxctl bgp peers` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// `marked`: routes carry GRACEFUL_SHUTDOWN. `withdrawn`: they are being withdrawn. `down`: the session has ended and stays
    /// away.
    pub phase: String,
    /// Seconds until the next phase; 0 where it is the last.
    pub seconds_left: u64,
}
