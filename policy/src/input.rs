//! What the engine is told, beside the form of policies (`manx_api::policy`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::policy::Protocol;

/// What the engine wants to know of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its addresses.
    pub cidr: IpNetwork,
    /// Whether its pods' packets to the world outside all pools carry the node's address.
    pub nat_outgoing: bool,
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The host's end of its veth pair: `mx` and 11 characters.
    pub interface: String,
    /// What it may send from, beside its own addresses. At most 64 pods may share one of these.
    pub sources: Vec<IpNetwork>,
}

/// What of the kernel's a pod of this node needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: no policy and no NAT is for it, and nobody looks where packets come from.
    Nothing,
    /// To be a member of sets.
    Sets,
    /// And rules of its own.
    Rules,
}

/// The interface that a host endpoint of this node is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostInterface {
    /// The one of this name.
    Named(String),
    /// Every one that no other host endpoint is, but for pods' and the loopback.
    All,
}

/// A port that no host endpoint's policy closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failsafe {
    /// Its protocol, one that has ports.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// The ports that no host endpoint's policy closes. The default is what a node is not to lose, and others are not to
/// lose of it: SSH, DHCP, DNS, BGP and BFD, etcd and the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafes {
    /// What may always reach this node's host endpoints.
    pub inbound: BTreeSet<Failsafe>,
    /// What they may always reach.
    pub outbound: BTreeSet<Failsafe>,
}

impl Default for Failsafes {
    fn default() -> Self {
        let tcp = [179, 2379, 2380, 5473, 6443, 6666, 6667].map(|port| (Protocol::TCP, port));
        let udp = [3784, 4784].map(|port| (Protocol::UDP, port));
        let with = |own: [(Protocol, u16); 2]| {
            tcp.into_iter()
                .chain(udp)
                .chain(own)
                .map(Failsafe::from)
                .collect()
        };
        Self {
            inbound: with([(Protocol::TCP, 22), (Protocol::UDP, 68)]),
            outbound: with([(Protocol::UDP, 53), (Protocol::UDP, 67)]),
        }
    }
}

impl From<(Protocol, u16)> for Failsafe {
    fn from((protocol, port): (Protocol, u16)) -> Self {
        Self { protocol, port }
    }
}

/// A process behind a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its protocol, one that has ports.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
}

/// How policies are enforced on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The bits of packets' marks that are ours.
    pub marks: Marks,
    /// What becomes of what a pod sends to the node itself, once the pod's own policies let it out.
    pub to_host: HostAction,
    /// The group of listeners that gets copies of packets (NFLOG).
    pub log_group: u16,
    /// How many denied packets each second and rule the listeners get; none: none at all.
    pub log_denied: Option<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            marks: Marks::default(),
            to_host: HostAction::default(),
            log_group: 4,
            log_denied: None,
        }
    }
}

/// What becomes of what a pod sends to its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostAction {
    /// It is let through.
    #[default]
    Accept,
    /// It is dropped.
    Drop,
    /// The host's own rules decide.
    Return,
}

/// Two bits of packets' marks, the lowest of those that we may use. Others' bits are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub(crate) allowed: u32,
    pub(crate) passed: u32,
}

impl Marks {
    /// The bits that Manx takes where nobody says otherwise: `0xffff0000`, of which it uses `0x10000` and `0x20000`.
    pub const DEFAULT_MASK: u32 = 0xffff_0000;

    /// Two bits of this mask; none if it has fewer.
    #[must_use]
    pub const fn of(mask: u32) -> Option<Self> {
        let allowed = mask & mask.wrapping_neg();
        let rest = mask & !allowed;
        let passed = rest & rest.wrapping_neg();
        if passed == 0 {
            None
        } else {
            Some(Self { allowed, passed })
        }
    }

    pub(crate) const fn both(self) -> u32 {
        self.allowed | self.passed
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            allowed: 0x1_0000,
            passed: 0x2_0000,
        }
    }
}
