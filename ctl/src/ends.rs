//! The ends of a packet that `manxctl policy explain` is asked about: as the user writes them, and as agents know them.

use std::net::IpAddr;
use std::str::FromStr;

use manx_api::explanation::Party;
use manx_api::host_endpoint::HostEndpoint;
use manx_api::node::Node;
use manx_api::rule::Protocol;
use manx_api::workload::WorkloadEndpoint;
use manx_api::{Kind, Resource};
use manx_store::Store;

use crate::cli::ServiceName;
use crate::error::{CtlError, Result};

/// The interface that a pod is known by.
const INTERFACE: &str = "eth0";

/// What stands before the name of a node, and of a service.
const HOST: &str = "host:";
const SERVICE: &str = "svc:";

/// One end, as the user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `NS/POD`, `POD` of the default namespace, or with another interface than the usual one `NS/POD@INTERFACE`. As
    /// somebody who gets packets also a service, if no pod is called so.
    Pod(Pod, Option<String>),
    /// `host:NODE`.
    Host(String),
    /// `svc:NS/NAME`.
    Service(ServiceName),
    /// An address.
    Address(IpAddr),
}

/// A pod, as the user writes it: `NS/POD`, or `POD` of the default namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl FromStr for Pod {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let is_word = |word: &str| !word.is_empty() && !word.contains(['/', ':', '@', ' ']);
        if !is_word(namespace) || !is_word(name) {
            return Err("it is no pod: write NAMESPACE/POD".to_owned());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let refused = "it is no pod, node, service or address: write NAMESPACE/POD, NAMESPACE/POD@INTERFACE, host:NODE, \
                       svc:NAMESPACE/NAME, 10.0.0.1 or fd00::1";
        if let Some(node) = text.strip_prefix(HOST) {
            let is_word = !node.is_empty() && !node.contains(['/', ':', ' ']);
            return is_word
                .then(|| Self::Host(node.to_owned()))
                .ok_or_else(|| refused.to_owned());
        }
        if let Some(service) = text.strip_prefix(SERVICE) {
            return service.parse().map(Self::Service).map_err(|_| refused.to_owned());
        }
        let (pod, interface) = text.split_once('@').unzip();
        let pod = pod.unwrap_or(text).parse().map_err(|_| refused.to_owned())?;
        if interface.is_some_and(|it| it.is_empty() || it.contains(['/', ':', '@', ' '])) {
            return Err(refused.to_owned());
        }
        Ok(Self::Pod(pod, interface.map(str::to_owned)))
    }
}

/// Where a packet goes, as the user writes it: an end, and `:PORT/PROTOCOL`, as in `NS/POD:80/TCP`, `[fd00::1]:80/TCP` or
/// `host:NODE:22/TCP`; or with a protocol that has no ports, `NS/POD:ICMP`. TCP goes without saying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) end: End,
    pub(crate) protocol: Protocol,
    pub(crate) port: Option<u16>,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let example = "write where to, like shop/web:80/TCP, svc:shop/web:80, [fd00::1]:53/UDP, host:node1:22/TCP or \
                       shop/web:ICMP";
        let (end, what) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or(example)?,
            None => text.rsplit_once(':').ok_or(example)?,
        };
        let end = end.parse()?;
        let (port, protocol) = match what.split_once('/') {
            Some(both) => both,
            None if what.parse::<u16>().is_ok() => (what, "TCP"),
            None => ("", what),
        };
        let protocol: Protocol = protocol
            .parse()
            .map_err(|_| format!("'{protocol}' is no protocol: {example}"))?;
        let port = match port {
            "" => None,
            port => Some(
                port.parse()
                    .map_err(|_| format!("'{port}' is no port: {example}"))?,
            ),
        };
        if port.is_some() != protocol.has_ports() {
            return Err(format!(
                "'{what}' is no port of a protocol that has ports: {example}"
            ));
        }
        Ok(Self { end, protocol, port })
    }
}

/// An end, as the datastore knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// What agents call it, unless it is known by an address.
    endpoint: Option<String>,
    /// Its addresses, that are to be taken first before others.
    addresses: Vec<IpAddr>,
    /// The node that it is on.
    node: Option<String>,
    /// Whether it is that node itself.
    is_host: bool,
}

impl Known {
    /// Whoever has an address, on that node if it is said.
    pub(crate) fn at(address: IpAddr, node: Option<String>) -> Self {
        Self {
            endpoint: None,
            addresses: vec![address],
            node,
            is_host: false,
        }
    }

    /// Whether both have an address of one family.
    pub(crate) fn has_family_of(&self, other: &Self) -> bool {
        let alike = |address: &IpAddr| other.addresses.iter().any(|it| it.is_ipv4() == address.is_ipv4());
        self.addresses.iter().any(alike)
    }

    /// What agents call it, where it talks to `other`.
    pub(crate) fn party(&self, other: &Self) -> Party {
        match &self.endpoint {
            Some(endpoint) => Party::Endpoint(endpoint.clone()),
            None => Party::Address(self.address(other)),
        }
    }

    /// The address by which it talks to `other`: of a family that both have, if there is one.
    fn address(&self, other: &Self) -> IpAddr {
        let alike = |address: &&IpAddr| other.addresses.iter().any(|it| it.is_ipv4() == address.is_ipv4());
        let found = self
            .addresses
            .iter()
            .find(alike)
            .or_else(|| self.addresses.first());
        found.copied().unwrap_or_else(|| IpAddr::from([0; 4]))
    }

    /// If it is a node itself, and the other one of its pods: the addresses by which they talk.
    pub(crate) fn to_own_pod(&self, other: &Self) -> Option<(IpAddr, IpAddr)> {
        self.own_node(other)?;
        self.has_family_of(other)
            .then(|| (self.address(other), other.address(self)))
    }

    /// If it is a node itself, and the other one of its pods: the node.
    pub(crate) fn own_node(&self, other: &Self) -> Option<String> {
        let is_own = self.is_host && !other.is_host && self.node == other.node;
        self.node.clone().filter(|_| is_own)
    }
}

/// What the datastore knows of an end that sends, or gets.
///
/// # Errors
/// There is no such pod, interface or node, or the datastore cannot be read.
pub(crate) async fn find(store: &impl Store, end: &End) -> Result<Known> {
    match end {
        End::Pod(pod, interface) => attachment(store, pod, interface.as_deref()).await,
        End::Host(node) => host(store, node).await,
        End::Address(address) => host_at(store, *address).await,
        End::Service(ServiceName { namespace, name }) => Err(CtlError::NoSender {
            service: format!("{namespace}/{name}"),
        }),
    }
}

/// Which node the other end of a packet from or to a node itself is on, where it is known by its address alone.
///
/// # Errors
/// The datastore cannot be read.
pub(crate) async fn place(store: &impl Store, known: Known, other: &Known) -> Result<Known> {
    if known.endpoint.is_some() || known.node.is_some() || !other.is_host {
        return Ok(known);
    }
    let endpoints = all::<WorkloadEndpoint>(store, Kind::WorkloadEndpoint, None).await?;
    let has = |endpoint: &WorkloadEndpoint| {
        endpoint
            .spec
            .addresses
            .iter()
            .any(|it| known.addresses.contains(it))
    };
    let node = endpoints.into_iter().find(has).map(|endpoint| endpoint.spec.node);
    Ok(Known { node, ..known })
}

/// All resources of a kind.
pub(crate) async fn all<T: TryFrom<Resource>>(
    store: &impl Store,
    kind: Kind,
    namespace: Option<&str>,
) -> Result<Vec<T>> {
    let items = store.list(kind, namespace).await?.items.into_iter();
    Ok(items.filter_map(|resource| T::try_from(resource).ok()).collect())
}

/// The WorkloadEndpoint of a pod's interface.
async fn attachment(store: &impl Store, pod: &Pod, interface: Option<&str>) -> Result<Known> {
    let Pod { namespace, name } = pod;
    let mut of_pod: Vec<WorkloadEndpoint> = all(store, Kind::WorkloadEndpoint, Some(namespace)).await?;
    of_pod.retain(|endpoint| endpoint.spec.pod == *name);
    // Whose only interface is called otherwise is known by that.
    of_pod.sort_by_key(|endpoint| endpoint.spec.endpoint != INTERFACE);
    let wanted = |endpoint: &&WorkloadEndpoint| interface.is_none_or(|it| endpoint.spec.endpoint == it);
    let pod = format!("{namespace}/{name}");
    match (of_pod.iter().find(wanted), interface) {
        (Some(endpoint), _) => Ok(Known {
            endpoint: Some(format!("{namespace}/{}", endpoint.metadata.name)),
            addresses: endpoint.spec.addresses.clone(),
            node: Some(endpoint.spec.node.clone()),
            is_host: false,
        }),
        (None, Some(interface)) if !of_pod.is_empty() => Err(CtlError::NoInterface {
            pod,
            interface: interface.to_owned(),
            known: of_pod
                .into_iter()
                .map(|endpoint| endpoint.spec.endpoint)
                .collect(),
        }),
        (None, _) => Err(CtlError::NoPod { pod }),
    }
}

/// The addresses by which other nodes know a node.
fn addresses(node: &Node) -> Vec<IpAddr> {
    let bgp = node.spec.bgp.as_ref();
    let v4 = bgp.and_then(|bgp| bgp.ipv4_address).map(|net| net.ip().into());
    let v6 = bgp.and_then(|bgp| bgp.ipv6_address).map(|net| net.ip().into());
    [v4, v6].into_iter().flatten().collect()
}

/// A node itself, by its name.
async fn host(store: &impl Store, name: &str) -> Result<Known> {
    let nodes: Vec<Node> = all(store, Kind::Node, None).await?;
    let Some(node) = nodes.iter().find(|node| node.metadata.name == *name) else {
        return Err(CtlError::NoNode {
            name: name.to_owned(),
            known: nodes.into_iter().map(|node| node.metadata.name).collect(),
        });
    };
    let addresses = addresses(node);
    if addresses.is_empty() {
        return Err(CtlError::NoAddress {
            node: name.to_owned(),
        });
    }
    Ok(Known {
        endpoint: None,
        addresses,
        node: Some(name.to_owned()),
        is_host: true,
    })
}

/// Whoever has an address; a node itself, if it is one's own or that of one of its host endpoints.
async fn host_at(store: &impl Store, address: IpAddr) -> Result<Known> {
    let nodes: Vec<Node> = all(store, Kind::Node, None).await?;
    let mut node = nodes
        .into_iter()
        .find(|node| addresses(node).contains(&address))
        .map(|node| node.metadata.name);
    if node.is_none() {
        let hosts: Vec<HostEndpoint> = all(store, Kind::HostEndpoint, None).await?;
        let found = hosts
            .into_iter()
            .find(|host| host.spec.expected_ips.contains(&address));
        node = found.map(|host| host.spec.node);
    }
    Ok(Known {
        is_host: node.is_some(),
        ..Known::at(address, node)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str, interface: Option<&str>) -> End {
        let pod = Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        End::Pod(pod, interface.map(str::to_owned))
    }

    #[test]
    fn ends_are_pods_nodes_services_or_addresses() {
        let address = |text: &str| End::Address(text.parse().unwrap());
        let host = End::Host("node1".to_owned());
        let service = End::Service("shop/web".parse().unwrap());
        let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
        for (text, end, protocol, port) in [
            ("shop/web:80/TCP", pod("shop", "web", None), tcp, Some(80)),
            ("web:80", pod("default", "web", None), tcp, Some(80)),
            (
                "shop/web@net1:80",
                pod("shop", "web", Some("net1")),
                tcp,
                Some(80),
            ),
            ("host:node1:22", host.clone(), tcp, Some(22)),
            ("host:node1:ICMP", host, Protocol::ICMP, None),
            ("svc:shop/web:80", service, tcp, Some(80)),
            ("10.0.0.1:53/udp", address("10.0.0.1"), udp, Some(53)),
            ("[fd00::1]:53/UDP", address("fd00::1"), udp, Some(53)),
            ("shop/web:ICMP", pod("shop", "web", None), Protocol::ICMP, None),
        ] {
            assert_eq!(text.parse(), Ok(Destination { end, protocol, port }), "{text}");
        }
        for text in [
            "shop/web",
            "shop/web:ICMP/80",
            "shop/web:80/ICMP",
            "web:TCP",
            "a/b/c:80",
            "web:70000",
            ":80",
            "host::80",
            "svc:/:80",
            "shop/web@:80",
            "shop/web@a@b:80",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_node_beside_its_own_pod_is_told_from_one_beside_another() {
        let pod = |node: &str, addresses: &[&str]| Known {
            endpoint: Some("shop/web".to_owned()),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            node: Some(node.to_owned()),
            is_host: false,
        };
        let node = Known {
            endpoint: None,
            addresses: ["192.0.2.1", "2001:db8::1"].map(|it| it.parse().unwrap()).into(),
            node: Some("node1".to_owned()),
            is_host: true,
        };
        let [v4, v6] = [0, 1].map(|it| node.addresses[it]);
        let own = pod("node1", &["10.0.0.1", "fd00::1"]);
        assert_eq!(node.to_own_pod(&own), Some((v4, own.addresses[0])));
        assert_eq!(
            (node.own_node(&own), own.own_node(&node)),
            (Some("node1".to_owned()), None)
        );
        let other = pod("node2", &["fd00::1"]);
        assert_eq!(
            (node.to_own_pod(&other), node.party(&other)),
            (None, Party::Address(v6))
        );
        assert_eq!(other.party(&node), Party::Endpoint("shop/web".to_owned()));
        assert_eq!(
            (node.own_node(&node), node.party(&node)),
            (None, Party::Address(v4))
        );
    }
}
