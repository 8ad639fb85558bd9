//! The one form in which the policy engine meets a policy, whichever kind of resource it was written as.
//!
//! `NetworkPolicy` of Kubernetes and of Manx, `GlobalNetworkPolicy`, `ClusterNetworkPolicy` and the staged kinds are
//! each converted into a [`Policy`]; nothing below `manx-api` knows which of them it was, except to name it to
//! people ([`Origin`]).
//!
//! How policies decide: a packet meets its endpoint's policies tier by tier ([`Tier::order`], then name), in a
//! tier by [`Policy::order`], then [`Origin`]. The first rule that matches with an action other than [`Action::Log`]
//! decides: `Allow` and `Deny` are final, `Pass` goes on with the next tier. A tier in which a policy selects
//! the endpoint for that direction, and no rule decided, ends with its [`Tier::default_action`]; a tier that has
//! no such policy is skipped. An endpoint that no enforced policy selects for a direction is open in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;

use crate::{Kind, Selector};

/// Where a policy comes from: its identity, and what people are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Its name.
    pub name: String,
    /// Its namespace, if its kind has any.
    pub namespace: Option<String>,
    /// Its kind.
    pub kind: Kind,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// A place in an order: lower comes first, and none given comes last.
///
/// A finite number; Calico's `order` fields are fractions, so that a policy always fits between two others.
#[derive(Clone, Copy, Debug)]
pub struct Order(f64);

impl Order {
    /// After everything that has a number.
    pub const LAST: Self = Self(f64::INFINITY);

    /// The place of a number; none if it is not finite.
    #[must_use]
    pub fn new(order: f64) -> Option<Self> {
        // -0.0 and 0.0 are one place.
        order.is_finite().then_some(Self(order + 0.0))
    }

    /// The number, if one was given.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        self.0.is_finite().then_some(self.0)
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Order {}

/// Policies that decide together, before those of the next tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its place among the tiers.
    pub order: Order,
    /// What becomes of a packet that no rule of the tier decided.
    pub default_action: DefaultAction,
}

/// The end of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultAction {
    /// Dropped.
    #[default]
    Deny,
    /// Left to the next tier.
    Pass,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name of its tier.
    pub tier: String,
    /// Its place in the tier.
    pub order: Order,
    /// Whom it applies to.
    pub subject: Subject,
    /// Where on the packets' way it acts.
    pub hook: Hook,
    /// Decides nothing; what it would decide is reported.
    pub staged: bool,
    /// Rules for packets to the subject; none: it says nothing of them.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for packets from the subject; none: it says nothing of them.
    pub egress: Option<Vec<Rule>>,
}

/// Where on the packets' way a policy acts.
///
/// Pods meet [`Hook::Normal`] and [`Hook::Forwarded`] alike; the others are for host endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// A pod's packets; of a host endpoint those that a process of the host sends or gets.
    #[default]
    Normal,
    /// As [`Hook::Normal`], and what is forwarded through a host endpoint (`applyOnForward`).
    Forwarded,
    /// What enters a host endpoint, before destination NAT; ingress only (`preDNAT`).
    PreDnat,
    /// Before connection tracking, and without it (`doNotTrack`).
    Untracked,
}

/// Labelled things: endpoints, and as peers of a rule also network sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// By where they are.
    pub scope: Scope,
    /// By their own labels.
    pub labels: Selector,
    /// By the service account of a pod; none: any, and things that have none.
    pub service_accounts: Option<ServiceAccounts>,
}

/// One text for equal subjects, and no other's.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.labels)?;
        match &self.scope {
            Scope::Anywhere => {}
            Scope::Namespace(name) => write!(f, " in namespace {name}")?,
            Scope::Namespaces(labels) => write!(f, " in namespaces with {labels}")?,
            Scope::Global => f.write_str(" in no namespace")?,
        }
        if let Some(ServiceAccounts { names, labels }) = &self.service_accounts {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            write!(f, " of service accounts [{}] with {labels}", names.join(", "))?;
        }
        Ok(())
    }
}

/// Where labelled things are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In any namespace or in none.
    #[default]
    Anywhere,
    /// In one namespace.
    Namespace(String),
    /// In the namespaces with such labels; things of no namespace are not meant.
    Namespaces(Selector),
    /// In no namespace: host endpoints and global network sets.
    Global,
}

/// Service accounts, of the pod's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceAccounts {
    /// Any of these names; empty: any name.
    pub names: BTreeSet<String>,
    /// And with such labels.
    pub labels: Selector,
}

/// What to do with packets like these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What to do.
    pub action: Action,
    /// Only packets of one family.
    pub family: Option<Family>,
    /// Only packets of this protocol, or of all others.
    pub protocol: Option<Not<Protocol>>,
    /// Only ICMP (or `ICMPv6`, as `protocol` says) messages like this one; [`Self::not_icmp`] all others.
    pub icmp: Option<Icmp>,
    /// See [`Self::icmp`].
    pub not_icmp: Option<Icmp>,
    /// Who sends.
    pub source: Side,
    /// Who gets.
    pub destination: Side,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The packet may go on.
    Allow,
    /// The packet is dropped.
    Deny,
    /// The next tier decides.
    Pass,
    /// The packet is logged, and the next rule is asked.
    Log,
}

/// An address family: each has programs, chains and sets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of a network's addresses.
    #[must_use]
    pub const fn of(net: IpNetwork) -> Self {
        match net {
            IpNetwork::V4(_) => Self::V4,
            IpNetwork::V6(_) => Self::V6,
        }
    }

    /// The name of this family's set: `mx4-…`, `mx6-…`.
    #[must_use]
    pub fn set_name(self, what: &str) -> String {
        match self {
            Self::V4 => format!("mx4-{what}"),
            Self::V6 => format!("mx6-{what}"),
        }
    }

    /// What ipset calls it.
    #[must_use]
    pub const fn ipset_name(self) -> &'static str {
        match self {
            Self::V4 => "inet",
            Self::V6 => "inet6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A condition or its opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Not<T> {
    /// This one.
    Is(T),
    /// Any but this one.
    Not(T),
}

/// An IP protocol, by its number (IANA "Protocol Numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Those whose packets have ports.
    pub const WITH_PORTS: [Self; 4] = [Self::TCP, Self::UDP, Self::SCTP, Self::UDPLITE];

    /// ICMP of IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP of IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDPLITE: Self = Self(136);

    /// Whether its packets have ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        Self::WITH_PORTS.contains(&self)
    }
}

/// ICMP messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Icmp {
    /// The type.
    pub kind: u8,
    /// The code; none: any.
    pub code: Option<u8>,
}

/// One end of a packet: every condition holds. The default holds for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Its address is that of one of these.
    pub of: Option<Subject>,
    /// Its address is that of none of these.
    pub not_of: Option<Subject>,
    /// Its address is in one of these; empty: any.
    pub nets: Vec<IpNetwork>,
    /// Its address is in none of these.
    pub not_nets: Vec<IpNetwork>,
    /// Its port is one of these; empty: any, and packets that have none.
    pub ports: Vec<Port>,
    /// It has a port, and that is none of these; empty: any, and packets that have none.
    pub not_ports: Vec<Port>,
    /// It is an endpoint behind this service: address, protocol and port as the service's endpoints have them.
    pub service: Option<NamespacedName>,
}

/// Ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// These numbers.
    Numbers(PortRange),
    /// What the endpoint at that side calls so, for the packet's protocol.
    Named(String),
}

/// Port numbers from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl From<PortRange> for RangeInclusive<u16> {
    fn from(PortRange { first, last }: PortRange) -> Self {
        first..=last
    }
}

/// A namespaced thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A thing that policies apply to: a pod's attachment or an interface of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's namespace; none: a host endpoint.
    pub namespace: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The pod's service account.
    pub service_account: Option<String>,
    /// What its ports are called.
    pub ports: Vec<NamedPort>,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
}

/// A port that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// Addresses with labels, for rules to speak of (`NetworkSet`, `GlobalNetworkSet`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    /// Its namespace; none: a global set.
    pub namespace: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub nets: Vec<IpNetwork>,
}
