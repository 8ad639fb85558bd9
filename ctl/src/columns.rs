//! The columns of resources: `calicoctl`'s where it has them.

use manx_api::{Kind, Resource};

use crate::output::{Cell, Heads};

/// The heads of a kind's table; a namespaced kind's has the namespace first.
pub(crate) fn heads(kind: Kind) -> Heads {
    let (narrow, wide): (&[&str], &[&str]) = match kind {
        Kind::IpPool => (&["NAME", "CIDR", "SELECTOR"], &["BLOCKSIZE", "DISABLED", "DISABLEBGPEXPORT"]),
        Kind::IpBlock => (&["NAME", "CIDR", "NODE"], &["POOL", "GENERATION", "IN USE"]),
        Kind::Node => (&["NAME"], &["ASN", "IPV4", "IPV6"]),
        Kind::BgpConfiguration => {
            (&["NAME", "MESHENABLED", "ASNUMBER"], &["LISTENPORT", "HOLDTIME", "MAXRESTARTTIME"])
        }
        Kind::BgpPeer => (&["NAME", "PEERIP", "NODE", "ASN"], &["NEXTHOPMODE", "PASSIVE", "HOLDTIME"]),
        Kind::WorkloadEndpoint => {
            (&["NAMESPACE", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE"], &["NAME", "CONTAINERID"])
        }
    };
    Heads { narrow, wide }
}

/// The cells of a resource, under [`heads`].
pub(crate) fn cells(resource: &Resource) -> Vec<Cell> {
    let name = Cell::from(&resource.metadata().name);
    match resource {
        Resource::IpPool(pool) => vec![
            name,
            pool.spec.cidr.into(),
            Cell::from(&pool.spec.node_selector),
            pool.block_size().into(),
            pool.spec.disabled.into(),
            pool.spec.disable_bgp_export.into(),
        ],
        Resource::IpBlock(block) => vec![
            name,
            block.spec.cidr.into(),
            Cell::or_dash(block.spec.node.as_ref()),
            Cell::from(&block.spec.pool),
            block.spec.generation.into(),
            block.spec.allocations.len().into(),
        ],
        Resource::Node(node) => {
            let bgp = node.spec.bgp.as_ref();
            vec![
                name,
                Cell::or_dash(bgp.and_then(|bgp| bgp.as_number)),
                Cell::or_dash(bgp.and_then(|bgp| bgp.ipv4_address)),
                Cell::or_dash(bgp.and_then(|bgp| bgp.ipv6_address)),
            ]
        }
        Resource::BgpConfiguration(configuration) => vec![
            name,
            configuration.spec.node_to_node_mesh_enabled.into(),
            configuration.spec.as_number.into(),
            configuration.spec.listen_port.into(),
            configuration.spec.hold_time.into(),
            configuration.spec.node_mesh_max_restart_time.into(),
        ],
        Resource::BgpPeer(peer) => vec![
            name,
            peer.spec.peer_ip.into(),
            peer_nodes(&peer.spec).into(),
            peer.spec.as_number.into(),
            format!("{:?}", peer.spec.next_hop_mode).into(),
            peer.spec.passive.into(),
            peer.spec.hold_time.into(),
        ],
        Resource::WorkloadEndpoint(endpoint) => vec![
            Cell::or_dash(endpoint.metadata.namespace.as_ref()),
            Cell::from(&endpoint.spec.pod),
            Cell::from(&endpoint.spec.node),
            endpoint.spec.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",").into(),
            Cell::from(&endpoint.spec.interface_name),
            name,
            Cell::from(&endpoint.spec.container_id),
        ],
    }
}

/// Which nodes have the session, as `calicoctl` words it.
fn peer_nodes(spec: &manx_api::bgp::BgpPeerSpec) -> String {
    match (&spec.node, &spec.node_selector) {
        (Some(node), _) => node.clone(),
        (None, Some(selector)) => selector.to_string(),
        (None, None) => "(global)".to_owned(),
    }
}
