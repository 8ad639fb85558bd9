//! What the agent knows of the cluster: the last state of each resource that the store told of.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "resources of other kinds are no part of it"
)]

use std::collections::BTreeMap;

use manx_api::bgp::{BgpConfigurationSpec, BgpPeer};
use manx_api::filter::BgpFilter;
use manx_api::ipam::{IpBlock, IpPool, IpReservation, IpamConfigurationSpec, PoolUse};
use manx_api::namespace::Namespace;
use manx_api::node::Node;
use manx_api::{Key, Kind, Resource};

/// The kinds that make up the view.
pub const KINDS: [Kind; 9] = [
    Kind::IpPool,
    Kind::IpReservation,
    Kind::IpamConfiguration,
    Kind::Namespace,
    Kind::IpBlock,
    Kind::Node,
    Kind::BgpConfiguration,
    Kind::BgpPeer,
    Kind::BgpFilter,
];

/// The only BGPConfiguration and IPAMConfiguration that are honoured.
const CONFIGURATION: &str = "default";

/// The last state of each resource, by name. Readers get it whole, through a last-writer-wins channel, and
/// compare with what they have done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whether the store has been listed; before that, absence means nothing.
    pub complete: bool,
    /// The pools of pods' addresses; those for load balancers are the controller's.
    pub pools: BTreeMap<String, IpPool>,
    /// Addresses that no pod gets unless it asks.
    pub reservations: BTreeMap<String, IpReservation>,
    /// How addresses are assigned.
    pub ipam: IpamConfigurationSpec,
    /// The namespaces.
    pub namespaces: BTreeMap<String, Namespace>,
    /// The blocks of all nodes.
    pub blocks: BTreeMap<String, IpBlock>,
    /// The nodes.
    pub nodes: BTreeMap<String, Node>,
    /// The speakers' common settings.
    pub configuration: BgpConfigurationSpec,
    /// The sessions beside the mesh.
    pub peers: BTreeMap<String, BgpPeer>,
    /// Filters that sessions name.
    pub filters: BTreeMap<String, BgpFilter>,
}

impl View {
    /// Takes in a resource's new state.
    pub fn put(&mut self, resource: Resource) {
        let name = resource.metadata().name.clone();
        match resource {
            Resource::IpPool(pool) if pool.spec.allowed_use() == PoolUse::Workload => {
                drop(self.pools.insert(name, pool));
            }
            Resource::IpPool(_) => drop(self.pools.remove(&name)),
            Resource::IpReservation(reservation) => drop(self.reservations.insert(name, reservation)),
            Resource::IpamConfiguration(c) if name == CONFIGURATION => self.ipam = c.spec,
            Resource::Namespace(namespace) => drop(self.namespaces.insert(name, namespace)),
            Resource::IpBlock(block) => drop(self.blocks.insert(name, block)),
            Resource::Node(node) => drop(self.nodes.insert(name, node)),
            Resource::BgpConfiguration(c) if name == CONFIGURATION => self.configuration = c.spec,
            Resource::BgpPeer(peer) => drop(self.peers.insert(name, peer)),
            Resource::BgpFilter(filter) => drop(self.filters.insert(name, filter)),
            _ => {}
        }
    }

    /// Forgets all resources of a kind.
    pub fn forget(&mut self, kind: Kind) {
        match kind {
            Kind::IpPool => self.pools.clear(),
            Kind::IpReservation => self.reservations.clear(),
            Kind::IpamConfiguration => self.ipam = IpamConfigurationSpec::default(),
            Kind::Namespace => self.namespaces.clear(),
            Kind::IpBlock => self.blocks.clear(),
            Kind::Node => self.nodes.clear(),
            Kind::BgpConfiguration => self.configuration = BgpConfigurationSpec::default(),
            Kind::BgpPeer => self.peers.clear(),
            Kind::BgpFilter => self.filters.clear(),
            _ => {}
        }
    }

    /// Forgets a resource.
    pub fn remove(&mut self, key: &Key) {
        match key.kind {
            Kind::IpPool => drop(self.pools.remove(&key.name)),
            Kind::IpReservation => drop(self.reservations.remove(&key.name)),
            Kind::IpamConfiguration if key.name == CONFIGURATION => {
                self.ipam = IpamConfigurationSpec::default();
            }
            Kind::Namespace => drop(self.namespaces.remove(&key.name)),
            Kind::IpBlock => drop(self.blocks.remove(&key.name)),
            Kind::Node => drop(self.nodes.remove(&key.name)),
            Kind::BgpConfiguration if key.name == CONFIGURATION => {
                self.configuration = BgpConfigurationSpec::default()
            }
            Kind::BgpPeer => drop(self.peers.remove(&key.name)),
            Kind::BgpFilter => drop(self.filters.remove(&key.name)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(name: &str) -> Resource {
        let text = format!(
            r#"{{"kind": "BGPConfiguration", "apiVersion": "manx.network/v1",
            "metadata": {{"name": "{name}"}}, "spec": {{"asNumber": 65001}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn pools_for_load_balancers_are_none_of_the_agents() {
        let pool = |allowed: &str| {
            let text = format!(
                r#"{{"kind": "IPPool", "apiVersion": "manx.network/v1", "metadata": {{"name": "main"}},
                "spec": {{"cidr": "10.0.0.0/16", "allowedUses": ["{allowed}"]}}}}"#
            );
            serde_json::from_str::<Resource>(&text).unwrap()
        };
        let mut view = View::default();
        view.put(pool("Workload"));
        assert!(view.pools.contains_key("main"));
        // Made anew for services, which a watch that begins anew may show as one change.
        view.put(pool("LoadBalancer"));
        assert!(view.pools.is_empty());
    }

    #[test]
    fn a_kind_is_forgotten_and_no_other() {
        let namespace = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}"#;
        let mut view = View::default();
        view.put(configuration("default"));
        view.put(serde_json::from_str(namespace).unwrap());
        for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Namespace) {
            view.forget(kind);
        }
        assert_eq!(view.configuration, BgpConfigurationSpec::default());
        assert!(view.namespaces.contains_key("shop"));
        view.forget(Kind::Namespace);
        assert_eq!(view, View::default());
    }

    #[test]
    fn only_the_default_bgp_configuration_counts_and_its_end_restores_the_defaults() {
        let mut view = View::default();
        view.put(configuration("other"));
        assert_eq!(view, View::default());
        view.put(configuration("default"));
        assert_eq!(view.configuration.as_number, 65001);
        view.remove(&configuration("other").key());
        assert_eq!(view.configuration.as_number, 65001);
        view.remove(&configuration("default").key());
        assert_eq!(view, View::default());
    }
}
