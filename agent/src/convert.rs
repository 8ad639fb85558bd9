//! The only place where one domain's types become another's, by plain named functions.

pub mod filter;
mod policy;
mod what_if;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use manx_api::bgp::{BfdSpec, NextHopMode};
use manx_api::ipam::AttachmentId;
use manx_api::status::KernelRoute;
use manx_api::workload::{WorkloadEndpoint, WorkloadEndpointSpec};
use manx_api::{Key, Kind, Metadata};
use manx_bgp::transport::{Authentication, Distance};
use manx_bgp::{BfdConfig, Choice, Family, Features, Gateway, PeerConfig, PeerKey, Prefix, Transport};
use manx_cni::{Code, Dns, Interface, IpConfig, MacAddress, Success};
use manx_linux::link::Mac;
use manx_linux::pod::{GATEWAY_V4, GATEWAY_V6};
use manx_linux::{Attached, Backend, PodLink};
use manx_routes::{Hop, METRIC, Route, Source, State, Target, Update};

use self::filter::Policies;
pub use self::policy::{
    denied, enforcement, explanation, failsafes, milliseconds, party, policy_name, policy_pool, traffic,
};
pub use self::what_if::what_if;
use crate::cni::Traits;
use crate::config::IptablesBackend;
use crate::identity::Identity;
use crate::names;
use crate::peering::Session;

/// The key of the peer at an address.
#[must_use]
pub fn peer_key(address: IpAddr) -> PeerKey {
    PeerKey { address, scope: 0 }
}

/// A session as the speaker wants it told.
#[must_use]
pub fn peer_config(
    session: &Session,
    identity: &Identity,
    policies: Policies,
    authentication: Option<Authentication>,
) -> PeerConfig {
    let families = [
        identity.ipv4.map(|_| Family::Ipv4Unicast),
        identity.ipv6.map(|_| Family::Ipv6Unicast),
    ];
    PeerConfig {
        key: peer_key(session.remote.ip()),
        port: session.remote.port(),
        asn: session.asn,
        local_address: session.local,
        // Over a link whose addresses are IPv6 only, ours of IPv4 leads nowhere: it has an IPv6 next hop (RFC 8950).
        next_hop_v4: identity
            .ipv4
            .filter(|_| session.interface.is_none())
            .map(|network| network.ip()),
        next_hop_v6: identity.ipv6.map(|network| network.ip()),
        passive: session.passive,
        hold_time: session.hold_time,
        min_hold_time: Duration::ZERO,
        families: families.into_iter().flatten().collect(),
        route_reflector_client: session.client,
        graceful_restart: session.restart_time,
        long_lived_graceful_restart: session.stale_time,
        next_hop: match session.next_hop {
            NextHopMode::Auto => manx_bgp::NextHopMode::Auto,
            NextHopMode::SelfAddress => manx_bgp::NextHopMode::SelfAddress,
            NextHopMode::Keep => manx_bgp::NextHopMode::Keep,
        },
        import: policies.import,
        export: policies.export,
        bfd: session.bfd.map(bfd_config),
        transport: Transport {
            authentication,
            distance: session.ttl_security.map_or(Distance::Any, Distance::Secured),
            interface: session.interface.clone(),
        },
        features: Features::default(),
        handling: session.handling.clone(),
    }
}

/// BFD's settings as the speaker wants them told.
fn bfd_config(spec: BfdSpec) -> BfdConfig {
    BfdConfig {
        multihop: spec.multihop,
        min_tx: Duration::from_millis(spec.min_tx.into()),
        min_rx: Duration::from_millis(spec.min_rx.into()),
        multiplier: spec.multiplier,
    }
}

/// What the route table shall do about a prefix whose best paths changed.
#[must_use]
pub fn learned(prefix: Prefix, choice: &Choice) -> Update {
    let (prefix, source) = (prefix.network(), Source::Bgp);
    if choice.next_hops.is_empty() {
        return Update::Remove { prefix, source };
    }
    Update::Set(Route {
        prefix,
        target: Target::Via(choice.next_hops.iter().map(router).collect()),
        backup: choice.backup.as_ref().map(router),
        source,
        metric: choice.priority,
    })
}

/// The router that a next hop is. A global address is enough for the kernel to find the interface.
#[must_use]
pub fn router(&Gateway { address, scope }: &Gateway) -> Hop {
    Hop {
        gateway: address,
        device: (scope != 0).then_some(scope),
    }
}

/// The covering route of a block of ours.
#[must_use]
pub fn block_route(cidr: IpNetwork) -> Route {
    Route {
        prefix: cidr,
        target: Target::Unreachable,
        backup: None,
        source: Source::Block,
        metric: METRIC,
    }
}

/// The route to a pod's address, out of the host's end of its veth pair.
#[must_use]
pub fn pod_route(address: IpAddr, ifindex: u32) -> Route {
    Route {
        prefix: address.into(),
        target: Target::Device(ifindex),
        backup: None,
        source: Source::Pod,
        metric: METRIC,
    }
}

/// A wanted route as `route.show` shows it; `interface` names an interface by its index.
#[must_use]
pub fn kernel_route(
    node: &str,
    route: &Route,
    state: State,
    interface: impl Fn(u32) -> Option<String>,
) -> KernelRoute {
    let name = |index: u32| interface(index).unwrap_or_else(|| index.to_string());
    let hop = |hop: &Hop| match hop.device {
        Some(device) => format!("via {} dev {}", hop.gateway, name(device)),
        None => format!("via {}", hop.gateway),
    };
    let (state, error) = match state {
        State::Installed => ("installed", None),
        State::Pending => ("pending", None),
        State::Failed(refusal) => ("failed", Some(refusal)),
    };
    let mut target = match &route.target {
        Target::Via(hops) => hops.iter().map(hop).collect::<Vec<_>>().join(" "),
        Target::Device(device) => format!("dev {}", name(*device)),
        Target::Unreachable => "unreachable".to_owned(),
        Target::Group(id) => format!("nhid {id}"),
    };
    if route.metric != METRIC {
        target.push_str(&format!(" metric {}", route.metric));
    }
    KernelRoute {
        node: node.to_owned(),
        prefix: route.prefix,
        target,
        source: match route.source {
            Source::Pod => "pod",
            Source::Block => "block",
            Source::Bgp => "bgp",
        }
        .to_owned(),
        state: state.to_owned(),
        error,
    }
}

/// What ADD answers about a pod's link: the node's end, the pod's end, the pod's addresses and default routes.
#[must_use]
pub fn cni_success(link: &PodLink, attached: &Attached, dns: Option<Dns>) -> Success {
    let interface = |name: &str, mac: String, sandbox| Interface {
        name: name.to_owned(),
        mac: Some(mac),
        mtu: Some(attached.mtu),
        sandbox,
    };
    let sandbox = link.netns.to_string_lossy().into_owned();
    let gateway = |address: &IpAddr| match address {
        IpAddr::V4(_) => IpAddr::from(GATEWAY_V4),
        IpAddr::V6(_) => IpAddr::from(GATEWAY_V6),
    };
    let ip = |address: &IpAddr| IpConfig {
        address: (*address).into(),
        gateway: Some(gateway(address)),
        interface: Some(1),
    };
    let route = |address: &IpAddr| manx_cni::Route {
        dst: everywhere(address),
        gw: Some(gateway(address)),
    };
    Success {
        interfaces: vec![
            interface(&link.host_ifname, attached.host_mac.to_string(), None),
            interface(&link.ifname, attached.pod_mac.to_string(), Some(sandbox)),
        ],
        ips: link.addresses.iter().map(ip).collect(),
        routes: link.addresses.iter().map(route).collect(),
        dns,
    }
}

/// The prefix that holds every address of this one's family.
fn everywhere(address: &IpAddr) -> IpNetwork {
    match address {
        IpAddr::V4(_) => Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).map(IpNetwork::V4),
        IpAddr::V6(_) => Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).map(IpNetwork::V6),
    }
    .unwrap_or_else(|_| (*address).into())
}

/// The back end of iptables that a setting stands for; none for the one that the node uses.
#[must_use]
pub const fn backend(setting: IptablesBackend) -> Option<Backend> {
    match setting {
        IptablesBackend::Auto => None,
        IptablesBackend::Nft => Some(Backend::Nft),
        IptablesBackend::Legacy => Some(Backend::Legacy),
    }
}

/// A MAC that a runtime names, as the kernel has it.
#[must_use]
pub const fn mac(mac: MacAddress) -> Mac {
    Mac(mac.octets())
}

/// A kernel's refusal, as CNI has it: what it means to the runtime, and the kernel's words as details.
#[must_use]
pub fn cni_error(error: manx_linux::Error) -> manx_cni::Error {
    use manx_linux::Error;
    let (code, message) = match &error {
        Error::NoNetns(_) => (
            Code::UnknownContainer,
            "the container's network namespace is gone: make the container anew, or DEL it",
        ),
        Error::Taken { .. } => (
            Code::InvalidEnvironment,
            "CNI_IFNAME is taken in the container: name another interface, or delete that one",
        ),
        Error::Overrun | Error::Interrupted => (
            Code::TryAgainLater,
            "the kernel's tables were changing: try again",
        ),
        Error::Refused { .. }
        | Error::Os { .. }
        | Error::Malformed(_)
        | Error::NoProgram(_)
        | Error::Program { .. }
        | Error::Late { .. }
        | Error::Broken(_) => (
            Code::Internal,
            "the pod's link cannot be made or looked at: manxd's log says more",
        ),
    };
    manx_cni::Error::new(code, message).with_details(error)
}

/// The key of an attachment's WorkloadEndpoint.
#[must_use]
pub fn workload_key(node: &str, owner: &AttachmentId) -> Key {
    Key {
        kind: Kind::WorkloadEndpoint,
        namespace: Some(owner.namespace.clone()),
        name: names::workload(node, owner),
    }
}

/// What Kubernetes' runtimes call a pod's first interface.
const PRIMARY: &str = "eth0";

/// An attachment's WorkloadEndpoint. The first interface of a cluster's pod is called as the pod is, like everywhere.
#[must_use]
pub fn workload_endpoint(
    node: &str,
    owner: &AttachmentId,
    interface: &str,
    addresses: Vec<IpAddr>,
    traits: Traits,
) -> WorkloadEndpoint {
    let Traits {
        uid,
        labels,
        service_account,
        ports,
        allowed_source_prefixes,
    } = traits;
    let key = workload_key(node, owner);
    WorkloadEndpoint {
        metadata: Metadata {
            name: match uid {
                Some(_) if owner.ifname == PRIMARY => owner.pod.clone(),
                Some(_) | None => key.name,
            },
            namespace: key.namespace,
            uid,
            labels,
            ..Metadata::default()
        },
        spec: WorkloadEndpointSpec {
            node: node.to_owned(),
            pod: names::pod(&owner.pod),
            container_id: owner.container_id.clone(),
            endpoint: owner.ifname.clone(),
            interface_name: interface.to_owned(),
            addresses,
            service_account,
            ports,
            allowed_source_prefixes,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::new(text.parse().unwrap())
    }

    #[test]
    fn a_next_hop_becomes_a_gateway_and_none_a_withdrawal() {
        for (address, scope, device) in [
            ("192.0.2.2", 0, None),
            ("2001:db8::2", 0, None),
            ("fe80::2", 7, Some(7)),
        ] {
            let address = address.parse().unwrap();
            let hops = vec![Hop {
                gateway: address,
                device,
            }];
            let route = Route {
                prefix: "10.0.0.0/26".parse().unwrap(),
                target: Target::Via(hops.clone()),
                backup: hops.first().copied(),
                source: Source::Bgp,
                metric: 512,
            };
            let choice = Choice {
                next_hops: vec![Gateway { address, scope }],
                backup: Some(Gateway { address, scope }),
                priority: 512,
            };
            assert_eq!(learned(prefix("10.0.0.0/26"), &choice), Update::Set(route));
        }
        let gone = Update::Remove {
            prefix: "10.0.0.0/26".parse().unwrap(),
            source: Source::Bgp,
        };
        let nowhere = Choice {
            next_hops: Vec::new(),
            backup: None,
            priority: METRIC,
        };
        assert_eq!(learned(prefix("10.0.0.0/26"), &nowhere), gone);
        assert_eq!(METRIC, manx_bgp::filter::NORMAL_PRIORITY);
    }

    #[test]
    fn kernel_routes_read_as_ip_route_writes_them() {
        let hop = |gateway: &str, device| Hop {
            gateway: gateway.parse().unwrap(),
            device,
        };
        let names = |index| (index == 7).then(|| "mx0".to_owned());
        for (target, metric, expected) in [
            (Target::Unreachable, METRIC, "unreachable"),
            (Target::Device(7), METRIC, "dev mx0"),
            (Target::Device(8), METRIC, "dev 8"),
            (
                Target::Via(vec![hop("192.0.2.1", None), hop("192.0.2.2", Some(7))]),
                512,
                "via 192.0.2.1 via 192.0.2.2 dev mx0 metric 512",
            ),
        ] {
            let route = Route {
                prefix: "10.0.0.0/26".parse().unwrap(),
                target,
                backup: None,
                source: Source::Block,
                metric,
            };
            assert_eq!(
                kernel_route("n1", &route, State::Installed, names).target,
                expected
            );
        }
    }

    #[test]
    fn an_answer_to_add_names_both_ends_and_a_default_route_per_family() {
        let link = PodLink {
            netns: "/run/netns/pod".into(),
            ifname: "eth0".to_owned(),
            host_ifname: "mx0".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            mtu: Some(1500),
            mac: None,
        };
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let attached = Attached {
            host_ifindex: 7,
            host_mac: mac,
            pod_ifindex: 2,
            pod_mac: mac,
            netns_inode: 1,
            mtu: 1500,
        };
        let success = cni_success(&link, &attached, None);
        let ips: Vec<_> = success.ips.iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(ips, ["10.0.0.1/32", "fd00::1/128"]);
        let routes: Vec<_> = success
            .routes
            .iter()
            .map(|r| format!("{} {}", r.dst, r.gw.unwrap()))
            .collect();
        assert_eq!(routes, ["0.0.0.0/0 169.254.1.1", "::/0 fe80::1"]);
        assert_eq!(success.interfaces[1].sandbox.as_deref(), Some("/run/netns/pod"));
        assert!(success.ips.iter().all(|ip| ip.interface == Some(1)));
    }
}
