//! What operators see: peers and paths at one instant.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::handling::LimitState;
use crate::wire::{Action, Attributes, NextHop, Problem, attr};
use crate::{DrainPhase, Family, PeerKey, Prefix};

/// The state of a session (RFC 4271 §8.2.2), the farther of the two where two connections are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing under way; a timer or a change of settings starts it.
    Idle,
    /// Waiting for the next attempt, or for the peer to connect.
    Active,
    /// A dial is under way.
    Connect,
    /// Connected; our OPEN is out.
    OpenSent,
    /// Both OPENs agree; waiting for the peer's KEEPALIVE.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Active => "Active",
            Self::Connect => "Connect",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// A peer as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// Who.
    pub key: PeerKey,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier, while there is a session.
    pub router_id: Option<Ipv4Addr>,
    /// How far the session is.
    pub state: State,
    /// Since when it is Established.
    pub established_since: Option<Instant>,
    /// Paths that the peer announces: one per prefix, or several with Add-Path.
    pub received: u64,
    /// Those among them that may be selected: not looped, not refused by the import policy.
    pub accepted: u64,
    /// Paths announced to the peer.
    pub advertised: u64,
    /// The negotiated hold time; the proposed one while there is no session. Zero: none.
    pub hold_time: Duration,
    /// How far its drain is, where there is one.
    pub drain: Option<DrainPhase>,
    /// How what it announces stands to what it may.
    pub limits: Vec<LimitSnapshot>,
    /// Why the last attempt or session ended.
    pub last_error: Option<String>,
    /// What was wrong with the peer's UPDATEs short of ending the session, and how often, since it was configured. One
    /// entry at most per attribute type and cost.
    pub faults: BTreeMap<Fault, u64>,
}

/// A kind of error in an UPDATE that did not end the session (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    /// The type code of the attribute; none where it was about the message's own fields.
    pub attribute: Option<u8>,
    /// What it cost.
    pub action: Action,
}

impl Fault {
    /// The kind of a problem, as [`decode_with`](crate::wire::decode_with) reports it.
    #[must_use]
    pub fn new(problem: &Problem, action: Action) -> Self {
        Self {
            attribute: problem.code(),
            action,
        }
    }
}

impl fmt::Display for Fault {
    /// The attribute's name, or its number; `message` where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute {
            Some(code) => f.write_str(&attr::name(code)),
            None => f.write_str("message"),
        }
    }
}

/// How many paths of a family a peer announces, and may announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSnapshot {
    /// Which family.
    pub family: Family,
    /// How many there are.
    pub received: u64,
    /// How many there may be.
    pub max: u32,
    /// How the one stands to the other.
    pub state: LimitState,
}

/// A path as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSnapshot {
    /// To where.
    pub prefix: Prefix,
    /// Through whom; absent for our own prefixes.
    pub next_hop: Option<NextHop>,
    /// From which peer; absent for our own prefixes.
    pub peer: Option<PeerKey>,
    /// The identifier that the peer gave it, where the session has such (RFC 7911).
    pub path_id: Option<u32>,
    /// With which attributes.
    pub attributes: Arc<Attributes>,
    /// Its rank in the kernel, the lowest first.
    pub priority: u32,
    /// It is the best path.
    pub best: bool,
    /// It shares traffic with the best path.
    pub multipath: bool,
    /// The peer is restarting or lost, and the path outlives its session for a while (RFC 4724 §4.2, RFC 9494 §4.2).
    pub stale: bool,
    /// Why it is not the best.
    pub reason: Option<String>,
}
