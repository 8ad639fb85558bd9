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
//! no such policy is skipped. An endpoint that no enforced policy selects for a direction is open in it, unless it is
//! [`Endpoint::closed`]. A tier that policies name and that is not there comes last,
//! and ends with `Deny`; the store keeps tiers that policies are in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

mod cluster;
mod convert;
mod kubernetes;
mod tiered;

pub use convert::namespace_labels;

use ipnetwork::IpNetwork;

pub use crate::network_policy::DEFAULT_TIER;
pub use crate::rule::{
    Action, DefaultAction, Direction, Family, Icmp, NamedPort, Order, Port, PortRange, Protocol,
};
use crate::{Kind, Selector};

/// The tier of administrators' policies that come first.
pub const ADMIN_TIER: &str = "kube-admin";
/// The tier of administrators' policies that come last.
pub const BASELINE_TIER: &str = "kube-baseline";

/// The label by which a pod's namespace is found.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// The label that pods alone have: `k8s`.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
/// The label by which a pod's service account is found.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";
/// The labels that a pod is given, whatever labels it has.
pub const GIVEN_LABELS: [&str; 3] = [NAMESPACE_LABEL, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL];

/// The tiers that are always there, by their names.
#[must_use]
pub fn built_in_tiers() -> [(&'static str, Tier); 3] {
    let tier = |order: u32, default_action| Tier {
        order: order.into(),
        default_action,
    };
    [
        (ADMIN_TIER, tier(1_000, DefaultAction::Pass)),
        (DEFAULT_TIER, tier(1_000_000, DefaultAction::Deny)),
        (BASELINE_TIER, tier(10_000_000, DefaultAction::Pass)),
    ]
}

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

/// Policies that decide together, before those of the next tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its place among the tiers.
    pub order: Order,
    /// What becomes of a packet that no rule of the tier decided.
    pub default_action: DefaultAction,
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

impl Rule {
    /// One for all packets.
    #[must_use]
    pub fn of(action: Action) -> Self {
        Self {
            action,
            family: None,
            protocol: None,
            icmp: None,
            not_icmp: None,
            source: Side::default(),
            destination: Side::default(),
        }
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
    /// It is an endpoint behind this service: as a destination address, protocol and port as the service's endpoints
    /// have them, as a source the address alone.
    pub service: Option<NamespacedName>,
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
    /// A packet of its own that no tier decided is dropped, instead of let through: a host endpoint without a profile
    /// that allows. What a host endpoint forwards is not meant.
    pub closed: bool,
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
