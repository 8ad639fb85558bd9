//! Who this node is: what the configuration says, and what the machine says where it is silent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use manx_api::node::{Node, NodeSpec};
use manx_api::{Metadata, Resource};
use sha1::{Digest as _, Sha1};

use crate::config::Config;

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name in the cluster.
    pub name: String,
    /// Its IPv4 address: where sessions run, and the next hop of its blocks.
    pub ipv4: Option<Ipv4Network>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Network>,
    /// Its AS, if it is not the cluster's.
    pub as_number: Option<u32>,
    /// The speaker's identifier.
    pub router_id: Ipv4Addr,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The pods' MTU in bytes.
    pub mtu: u32,
}

/// An interface of the node, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses of global scope, each with the prefix that is on the link.
    pub addresses: Vec<IpNetwork>,
    /// Whether a default route leaves through it.
    pub default_route: bool,
}

/// Why a node cannot be identified.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The name, an address, the AS or a label cannot stand in a Node resource.
    #[error("this node cannot be described: {0}; correct it in the configuration")]
    Invalid(String),
    /// No address.
    #[error("no interface has a global address: set ipv4Address or ipv6Address in the configuration")]
    NoAddress,
}

/// The smallest MTU that IPv6 allows, and IPv4 hosts take.
const MIN_MTU: u32 = 1280;

/// The index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

impl Identity {
    /// The node of this configuration on a machine with this host name and these interfaces.
    ///
    /// # Errors
    /// The machine lacks something that the configuration leaves to it.
    pub fn new(config: &Config, host_name: &str, interfaces: &[Interface]) -> Result<Self, IdentityError> {
        let name = config
            .node_name
            .clone()
            .unwrap_or_else(|| host_name.to_lowercase());
        let detected = |wanted: fn(&IpNetwork) -> bool| detect(interfaces, wanted);
        let ipv4 = config
            .ipv4_address
            .or_else(|| match detected(IpNetwork::is_ipv4) {
                Some(IpNetwork::V4(network)) => Some(network),
                Some(IpNetwork::V6(_)) | None => None,
            });
        let ipv6 = config
            .ipv6_address
            .or_else(|| match detected(IpNetwork::is_ipv6) {
                Some(IpNetwork::V6(network)) => Some(network),
                Some(IpNetwork::V4(_)) | None => None,
            });
        if ipv4.is_none() && ipv6.is_none() {
            return Err(IdentityError::NoAddress);
        }
        let chosen = [
            ipv4.map(|network| network.ip().into()),
            ipv6.map(|network| network.ip().into()),
        ];
        let identity = Self {
            router_id: config
                .router_id
                .or_else(|| ipv4.map(|network| network.ip()))
                .unwrap_or_else(|| made_of(&name)),
            mtu: config.mtu.unwrap_or_else(|| mtu(interfaces, &chosen)),
            as_number: config.as_number,
            labels: config.labels.clone(),
            name,
            ipv4,
            ipv6,
        };
        let problems = manx_api::validate(&Resource::Node(identity.node(None)));
        match problems.as_slice() {
            [] => Ok(identity),
            [problem, ..] => Err(IdentityError::Invalid(problem.to_string())),
        }
    }

    /// The node's resource, made from the one in the datastore: what this node says of itself is set, what
    /// others said of it stays.
    #[must_use]
    pub fn node(&self, existing: Option<&Node>) -> Node {
        let mut node = existing.cloned().unwrap_or_else(|| Node {
            metadata: Metadata {
                name: self.name.clone(),
                ..Metadata::default()
            },
            spec: NodeSpec::default(),
        });
        node.metadata.labels.extend(self.labels.clone());
        let bgp = node.spec.bgp.get_or_insert_default();
        bgp.ipv4_address = self.ipv4;
        bgp.ipv6_address = self.ipv6;
        bgp.as_number = self.as_number.or(bgp.as_number);
        node
    }
}

/// The first wanted address of an interface with a default route, else of any.
fn detect(interfaces: &[Interface], wanted: fn(&IpNetwork) -> bool) -> Option<IpNetwork> {
    let address = |interface: &Interface| interface.addresses.iter().copied().find(wanted);
    let first_choice = interfaces
        .iter()
        .filter(|interface| interface.default_route)
        .find_map(address);
    first_choice.or_else(|| interfaces.iter().find_map(address))
}

/// The smallest MTU of the links that carry the node's addresses. An address of the loopback interface is
/// reached over any link, so the smallest of all counts then.
fn mtu(interfaces: &[Interface], addresses: &[Option<IpAddr>]) -> u32 {
    let carries = |interface: &&Interface| {
        interface
            .addresses
            .iter()
            .any(|own| addresses.contains(&Some(own.ip())))
    };
    let links = || interfaces.iter().filter(|interface| interface.index != LOOPBACK);
    let carrying = links().filter(carries).map(|interface| interface.mtu).min();
    let smallest = carrying.or_else(|| links().map(|interface| interface.mtu).min());
    smallest.unwrap_or(1500).max(MIN_MTU)
}

/// An identifier for a node without an IPv4 address. RFC 6286 §2.1 asks only that it is not zero and differs within
/// the AS; speakers in the field refuse what is no host's address.
fn made_of(name: &str) -> Ipv4Addr {
    let hash = Sha1::digest(name);
    // 1 to 223 without 127.
    let first = 1 + hash[0] % 222;
    Ipv4Addr::new(first + u8::from(first >= 127), hash[1], hash[2], hash[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, mtu: u32, addresses: &[&str], default_route: bool) -> Interface {
        Interface {
            index,
            mtu,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            default_route,
        }
    }

    #[test]
    fn the_address_is_that_of_the_interface_with_the_default_route() {
        let interfaces = [
            interface(2, 9000, &["198.51.100.1/24", "2001:db8:1::1/64"], false),
            interface(3, 1400, &["192.0.2.1/24"], true),
        ];
        let identity = Identity::new(&Config::default(), "N1", &interfaces).unwrap();
        assert_eq!(identity.name, "n1");
        assert_eq!(identity.ipv4, Some("192.0.2.1/24".parse().unwrap()));
        assert_eq!(
            identity.ipv6,
            Some("2001:db8:1::1/64".parse().unwrap()),
            "the first that there is"
        );
        assert_eq!(identity.router_id, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(identity.mtu, 1400);
    }

    #[test]
    fn a_nodes_address_on_the_loopback_interface_gives_pods_the_smallest_links_mtu() {
        let interfaces = [
            interface(1, 65536, &["198.51.100.1/32"], false),
            interface(2, 9000, &[], true),
            interface(3, 1500, &[], false),
        ];
        let identity = Identity::new(&Config::default(), "n1", &interfaces).unwrap();
        assert_eq!(identity.ipv4, Some("198.51.100.1/32".parse().unwrap()));
        assert_eq!(identity.mtu, 1500);
    }

    #[test]
    fn what_the_configuration_says_counts() {
        let config = Config {
            node_name: Some("n7".to_owned()),
            ipv4_address: Some("198.51.100.1/24".parse().unwrap()),
            mtu: Some(1300),
            ..Config::default()
        };
        let identity =
            Identity::new(&config, "host", &[interface(3, 1500, &["192.0.2.1/24"], true)]).unwrap();
        assert_eq!((identity.name.as_str(), identity.mtu), ("n7", 1300));
        assert_eq!(identity.router_id, Ipv4Addr::new(198, 51, 100, 1));
    }

    #[test]
    fn a_node_without_ipv4_gets_an_identifier_of_its_name() {
        let interfaces = [interface(2, 1500, &["2001:db8::1/64"], true)];
        let id = |name: &str| {
            Identity::new(&Config::default(), name, &interfaces)
                .unwrap()
                .router_id
        };
        assert_eq!(id("n1"), id("n1"));
        assert_ne!(id("n1"), id("n2"));
    }

    /// RFC 6286 §2.1: any number but zero will do.
    /// nasty case 60: neither multicast nor reserved nor loopback.
    #[test]
    fn an_identifier_made_of_a_name_could_be_a_hosts() {
        let mut firsts = std::collections::BTreeSet::new();
        for number in 0..20_000 {
            let [first, ..] = made_of(&format!("node{number}")).octets();
            assert!(
                (1..=223).contains(&first) && first != 127,
                "node{number}: {first}"
            );
            firsts.insert(first);
        }
        assert_eq!(firsts.len(), 222, "all of them occur");
    }

    #[test]
    fn a_node_without_address_or_name_is_told_what_to_set() {
        let error = Identity::new(&Config::default(), "n1", &[]).unwrap_err();
        assert_eq!(error, IdentityError::NoAddress);
        let interfaces = [interface(3, 1500, &["192.0.2.1/24"], true)];
        let error = Identity::new(&Config::default(), "(none)", &interfaces).unwrap_err();
        assert!(error.to_string().contains("(none)"), "{error}");
    }

    #[test]
    fn what_others_said_of_the_node_stays() {
        let interfaces = [interface(3, 1500, &["192.0.2.1/24"], true)];
        let config = Config {
            labels: BTreeMap::from([("rack".to_owned(), "a".to_owned())]),
            ..Config::default()
        };
        let identity = Identity::new(&config, "n1", &interfaces).unwrap();
        let mut existing = identity.node(None);
        existing.metadata.labels.insert("zone".to_owned(), "z".to_owned());
        existing.spec.bgp.as_mut().unwrap().as_number = Some(65001);
        assert_eq!(identity.node(Some(&existing)), existing);
    }
}
