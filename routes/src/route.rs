//! What a route is: wanted by us, or found in the kernel.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// The kernel's route protocol number of learned routes; as BGP's TCP port. `ip route` prints `manx-bgp`.
pub const PROTOCOL_BGP: u8 = 179;

/// The kernel's route protocol number of the node's own routes: pods and blocks. `ip route` prints `manx`.
pub const PROTOCOL_OWN: u8 = 180;

/// The metric of every route of ours (docs/adr/0003), but for learned ones that a filter gives another.
///
/// The kernel tells routes of one prefix apart by metric alone. 1024 is what an IPv6 route made by hand or
/// by a router advertisement gets, and what Calico uses; IPv4 routes made by hand get 0. With one more than
/// 1024, a foreign route of the same prefix stands beside ours: it wins as long as it is there, ours takes
/// over when it goes, and neither ever replaces the other.
pub const METRIC: u32 = 1025;

/// Who wants a route, the strongest first.
///
/// For one prefix a pod's route beats a block's, because a block as small as one address must not make its
/// only pod unreachable; and both beat BGP, because what this node holds itself is a fact and what a
/// neighbour says of the same prefix is an echo or a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An address of a pod of this node, through its interface.
    Pod,
    /// A block of this node: unreachable, so that a packet to a free address gets an error and not a loop.
    Block,
    /// A prefix learned from a neighbour.
    Bgp,
}

impl Source {
    /// Every source, the strongest first.
    pub const ALL: [Self; 3] = [Self::Pod, Self::Block, Self::Bgp];

    /// The protocol number that the source's routes carry in the kernel.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Pod | Self::Block => PROTOCOL_OWN,
            Self::Bgp => PROTOCOL_BGP,
        }
    }

    /// The source that a route found in the kernel came from; none if it is not ours.
    #[must_use]
    pub fn of(actual: &Actual) -> Option<Self> {
        match (actual.protocol, &actual.target) {
            (PROTOCOL_BGP, _) => Some(Self::Bgp),
            (PROTOCOL_OWN, Some(Target::Unreachable)) => Some(Self::Block),
            (PROTOCOL_OWN, _) => Some(Self::Pod),
            _ => None,
        }
    }
}

/// A router on the way, reached over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The router's address. It may be of the other family (RFC 8950).
    pub gateway: IpAddr,
    /// The interface's index; the kernel's choice where absent. Link-local gateways need one.
    pub device: Option<u32>,
}

/// Where packets of a prefix go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// To any of these routers, spread by flow with equal weight. The order means nothing.
    Via(Vec<Hop>),
    /// Straight out of the interface with this index.
    Device(u32),
    /// Nowhere: the sender gets an ICMP error.
    Unreachable,
    /// Through the kernel's nexthop object of this number: how a route is written and found, never what is wanted.
    Group(u32),
}

impl Target {
    /// Whether the kernel's `found` does what `self` asks for. A hop without a device matches whichever
    /// device the kernel chose; the kernel may give hops in another order.
    #[must_use]
    pub fn is_met_by(&self, found: &Self) -> bool {
        match (self, found) {
            (Self::Via(want), Self::Via(have)) => are_met_by(want, have),
            (Self::Device(want), Self::Device(have)) => want == have,
            (Self::Unreachable, Self::Unreachable) => true,
            (Self::Group(want), Self::Group(have)) => want == have,
            (Self::Via(_) | Self::Device(_) | Self::Unreachable | Self::Group(_), _) => false,
        }
    }
}

impl Hop {
    /// Whether the kernel's `found` is what `self` asks for.
    pub(crate) fn is_met_by(&self, found: &Self) -> bool {
        self.gateway == found.gateway && self.device.is_none_or(|device| found.device == Some(device))
    }
}

/// Whether the kernel's `found` are the hops that `wanted` asks for, in any order.
pub(crate) fn are_met_by(wanted: &[Hop], found: &[Hop]) -> bool {
    wanted.len() == found.len()
        && wanted
            .iter()
            .all(|hop| found.iter().any(|found| hop.is_met_by(found)))
}

/// `via 192.0.2.1 dev 2 via 192.0.2.2`, `dev 7`, `unreachable`; devices by index.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Via(hops) => {
                for (i, hop) in hops.iter().enumerate() {
                    let space = if i == 0 { "" } else { " " };
                    write!(f, "{space}via {}", hop.gateway)?;
                    if let Some(device) = hop.device {
                        write!(f, " dev {device}")?;
                    }
                }
                Ok(())
            }
            Self::Device(index) => write!(f, "dev {index}"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Group(id) => write!(f, "nhid {id}"),
        }
    }
}

/// A wanted route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// To where.
    pub prefix: IpNetwork,
    /// How.
    pub target: Target,
    /// Where else, as soon as all routers of the target are lost ([`crate::Reconciler::lose`]) and until the source says
    /// what is to be then.
    pub backup: Option<Hop>,
    /// Who wants it.
    pub source: Source,
    /// The kernel's preference among routes of one prefix, the lowest first: [`METRIC`] as a rule.
    pub metric: u32,
}

/// A route in the kernel's main table, ours or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actual {
    /// To where.
    pub prefix: IpNetwork,
    /// How; none for kinds of route that Manx never makes.
    pub target: Option<Target>,
    /// Who made it: the kernel's route protocol number.
    pub protocol: u8,
    /// The kernel's preference among routes of one prefix, the lowest first.
    pub metric: u32,
}

impl Actual {
    /// Whether the protocol number says that Manx made it.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self.protocol, PROTOCOL_BGP | PROTOCOL_OWN)
    }

    /// Whether this is `route` as we would have it.
    #[must_use]
    pub fn meets(&self, route: &Route) -> bool {
        self.prefix == route.prefix
            && self.metric == route.metric
            && self.protocol == route.source.protocol()
            && self
                .target
                .as_ref()
                .is_some_and(|found| route.target.is_met_by(found))
    }
}

/// The prefix without host bits.
pub(crate) fn canonical(prefix: IpNetwork) -> IpNetwork {
    match prefix {
        IpNetwork::V4(v4) => {
            ipnetwork::Ipv4Network::new(v4.network(), v4.prefix()).map_or(prefix, IpNetwork::V4)
        }
        IpNetwork::V6(v6) => {
            ipnetwork::Ipv6Network::new(v6.network(), v6.prefix()).map_or(prefix, IpNetwork::V6)
        }
    }
}
