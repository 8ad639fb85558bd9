//! Addresses of services of type LoadBalancer: which one gets which, as a pure function of services, pools and reservations.
//!
//! [`decide`] says what each service's status should be. What a service has stays its own: an address moves only when its
//! service asks for another, and is anybody else's only after the write that took it away is seen. So the decisions of one
//! moment may be carried out in any order, in part, or twice.

mod decision;
#[cfg(test)]
mod tests;
mod wish;

use std::net::IpAddr;

use manx_api::policy::NamespacedName;
use manx_api::service::IpFamily;

pub use self::decision::{Decision, Known, decide};

/// The `loadBalancerClass` of services that are ours. Those that name none are as well, unless somebody else sees to them.
pub const CLASS: &str = "manx.network/bgp";

/// The addresses that a service asks for: a list with commas, or of JSON. Ours, and Calico's.
pub const ADDRESSES: [&str; 2] = [
    "manx.network/load-balancer-ips",
    "projectcalico.org/loadBalancerIPs",
];

/// The pools of IPv4 addresses that a service asks for, by name or CIDR, in order of preference.
pub const IPV4_POOLS: [&str; 2] = ["manx.network/ipv4pools", "projectcalico.org/ipv4pools"];

/// The same of IPv6 addresses.
pub const IPV6_POOLS: [&str; 2] = ["manx.network/ipv6pools", "projectcalico.org/ipv6pools"];

/// Services that say the same here may share an address where their ports differ.
pub const SHARING_KEY: &str = "manx.network/sharing-key";

/// Why a service has not the addresses that it should have, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An annotation cannot be read.
    #[error("{annotation} is '{value}', which is no list: write {example}")]
    List {
        /// Its name.
        annotation: &'static str,
        /// What it says.
        value: String,
        /// What would be right.
        example: &'static str,
    },
    /// What should be an address is none.
    #[error("{place} names '{text}', which is no address: write it without a prefix length")]
    Address {
        /// Where it stands.
        place: &'static str,
        /// What stands there.
        text: String,
    },
    /// More than one address of a family is asked for.
    #[error("{place} names two {family} addresses, {} and {}: a service has one of a family", .addresses[0], .addresses[1])]
    Two {
        /// Where they stand.
        place: &'static str,
        /// The family.
        family: IpFamily,
        /// The addresses.
        addresses: [IpAddr; 2],
    },
    /// It asks for an address of a family that it is not of.
    #[error(
        "{place} names {address}, and the service has no {family} addresses: add {family} to its ipFamilies"
    )]
    Family {
        /// Where it stands.
        place: &'static str,
        /// The address.
        address: IpAddr,
        /// Its family.
        family: IpFamily,
    },
    /// It names a pool that there is not.
    #[error("{annotation} names '{entry}', which is neither name nor CIDR of an IPPool for load balancers: there are [{}]", .known.join(", "))]
    UnknownPool {
        /// The annotation.
        annotation: &'static str,
        /// What it names.
        entry: String,
        /// The pools of the family.
        known: Vec<String>,
    },
    /// No pool has such addresses.
    #[error("no IPPool gives {family} addresses to services: make one with allowedUses: [LoadBalancer]")]
    NoPool {
        /// The family.
        family: IpFamily,
    },
    /// All pools that could have given one are disabled, or give to those that name them alone.
    #[error("no IPPool for load balancers gives {family} addresses by itself ([{}] are disabled or Manual): enable one, or name one by an annotation", .pools.join(", "))]
    NoneGives {
        /// The family.
        family: IpFamily,
        /// The pools.
        pools: Vec<String>,
    },
    /// Every address is taken.
    #[error("every address of IPPools [{}] is taken or reserved: make another pool, or delete services", .pools.join(", "))]
    Full {
        /// The pools.
        pools: Vec<String>,
    },
    /// An address that was asked for is in no pool that may give it.
    #[error(
        "{address} is in no enabled IPPool for load balancers that the service may have addresses of: ask for another, or make a pool that has it"
    )]
    NotOurs {
        /// The address.
        address: IpAddr,
    },
    /// An address that was asked for is in use, and not by a service that we see to.
    #[error(
        "{address} is in the status of a service that is not ours, or no longer of type LoadBalancer: ask for another"
    )]
    InUse {
        /// The address.
        address: IpAddr,
    },
    /// An address that was asked for is another service's.
    #[error(
        "{address} is service {}/{}'s: ask for another, or give both the same {SHARING_KEY}, different ports and the same \
         externalTrafficPolicy (with Local, the same selector as well)", .by.namespace, .by.name
    )]
    Taken {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        by: NamespacedName,
    },
}
