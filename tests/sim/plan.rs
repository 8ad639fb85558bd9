//! What a network is to be: its speakers, who peers with whom and how, and what each originates.
//!
//! A plan is data. [`Plan::boot`] makes a host of a [`Network`] follow it; [`model`](crate::model) says what its tables come to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use manx_bgp::wire::Role;
use manx_bgp::{AddPathConfig, Config, Family, Input, PeerConfig, Prefix, RoleConfig};

use crate::laws::{Code, Way};
use crate::network::{ASN, Network, Node, block, config, peer};

/// A network as it is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Each speaker's own settings.
    pub(crate) speakers: Vec<Config>,
    /// How each speaker treats its peers.
    pub(crate) peers: Vec<BTreeMap<Node, PeerConfig>>,
    /// What each speaker originates.
    pub(crate) origins: Vec<BTreeSet<Prefix>>,
    /// What stands behind the filters of sessions: of whom, with whom, which way.
    pub(crate) laws: BTreeMap<(Node, Node, Way), Code>,
    /// Who has been told to drain whose session, and keeps it away.
    pub(crate) drained: BTreeSet<(Node, Node)>,
}

/// Where speaker `node` is, in IPv6: its next hop for IPv6 prefixes on sessions over IPv4.
pub(crate) fn address_v6(node: Node) -> Ipv6Addr {
    Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(u32::try_from(node).unwrap()) + 1)
}

/// The block of IPv6 pod addresses that speaker `node` originates.
pub(crate) fn block_v6(node: Node) -> Prefix {
    let first = (0xfd80_u128 << 112) + (u128::from(u32::try_from(node).unwrap()) << 6);
    Prefix::v6(Ipv6Addr::from(first), 122).unwrap()
}

impl Plan {
    /// Speakers of one AS with a block per family each, who know nobody yet.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        Self {
            speakers: (0..count).map(|node| config(node, seed)).collect(),
            peers: vec![BTreeMap::new(); count],
            origins: (0..count)
                .map(|node| [block(node), block_v6(node)].into())
                .collect(),
            laws: BTreeMap::new(),
            drained: BTreeSet::new(),
        }
    }

    /// Makes two speakers peers, of both families.
    pub(crate) fn link(&mut self, a: Node, b: Node) {
        for (node, with) in [(a, b), (b, a)] {
            let settings = PeerConfig {
                asn: self.speakers[with].asn,
                families: Family::ALL.to_vec(),
                next_hop_v6: Some(address_v6(node)),
                ..peer(with)
            };
            self.peers[node].insert(with, settings);
        }
    }

    /// Makes two speakers peers, of which the first reflects for the second.
    pub(crate) fn client(&mut self, reflector: Node, client: Node) {
        self.link(reflector, client);
        self.treats(reflector, client, |peer| peer.route_reflector_client = true);
    }

    /// Changes how `node` treats its peer `with`.
    pub(crate) fn treats(&mut self, node: Node, with: Node, change: impl FnOnce(&mut PeerConfig)) {
        change(self.peers[node].get_mut(&with).expect("a peer"));
    }

    /// Gives `node` laws for its peer `with`; the settings that they come to, if it knows that peer.
    pub(crate) fn enact(&mut self, node: Node, with: Node, way: Way, code: Code) -> Option<PeerConfig> {
        let settings = self.peers[node].get_mut(&with)?;
        let policy = match way {
            Way::In => &mut settings.import,
            Way::Out => &mut settings.export,
        };
        *policy = code.policy();
        let settings = settings.clone();
        self.laws.insert((node, with, way), code);
        Some(settings)
    }

    /// Lets two peers of different ASes say what they are to each other (RFC 9234).
    pub(crate) fn relate(&mut self, a: Node, b: Node, role: Role) {
        let other = match role {
            Role::Provider => Role::Customer,
            Role::Customer => Role::Provider,
            Role::RouteServer => Role::RouteServerClient,
            Role::RouteServerClient => Role::RouteServer,
            Role::Peer | Role::Unassigned(_) => role,
        };
        for (node, with, role) in [(a, b, role), (b, a, other)] {
            let role = Some(RoleConfig { role, strict: true });
            self.treats(node, with, |peer| peer.features.role = role);
        }
    }

    /// Every pair of peers, once.
    pub(crate) fn links(&self) -> Vec<(Node, Node)> {
        let links = self.peers.iter().enumerate();
        links
            .flat_map(|(a, peers)| peers.range(a + 1..).map(move |(&b, _)| (a, b)))
            .collect()
    }

    /// Everybody is everybody's peer.
    pub(crate) fn mesh(count: usize, seed: u64) -> Self {
        let mut plan = Self::new(count, seed);
        for (a, b) in (0..count).flat_map(|a| (0..a).map(move |b| (a, b))) {
            plan.link(a, b);
        }
        plan
    }

    /// Two levels of reflectors (RFC 4456): two at the top, meshed; below them clusters with two reflectors each,
    /// which share a cluster id in every other cluster; below those `clients` nodes per cluster.
    pub(crate) fn reflectors(clusters: usize, clients: usize, seed: u64) -> Self {
        let size = 2 + clients;
        let mut plan = Self::new(2 + clusters * size, seed);
        plan.link(0, 1);
        for cluster in 0..clusters {
            let first = 2 + cluster * size;
            let reflectors = [first, first + 1];
            for reflector in reflectors {
                if cluster % 2 == 0 {
                    plan.speakers[reflector].cluster_id =
                        Some(Ipv4Addr::new(1, 0, 0, 1 + u8::try_from(cluster).unwrap()));
                }
                plan.client(0, reflector);
                plan.client(1, reflector);
                for client in first + 2..first + size {
                    plan.client(reflector, client);
                }
            }
        }
        plan
    }

    /// Two reflectors of one cluster, which tell their clients of all paths (RFC 7911).
    pub(crate) fn hub(clients: usize, seed: u64) -> Self {
        let mut plan = Self::new(2 + clients, seed);
        plan.link(0, 1);
        let several = |receive, send| {
            let of = move |family| AddPathConfig {
                family,
                receive,
                send,
            };
            Family::ALL.map(of).to_vec()
        };
        for reflector in [0, 1] {
            plan.speakers[reflector].cluster_id = Some(Ipv4Addr::new(1, 0, 0, 1));
            for client in 2..2 + clients {
                plan.client(reflector, client);
                plan.treats(reflector, client, |peer| {
                    peer.features.add_path = several(false, usize::MAX);
                });
                plan.treats(client, reflector, |peer| {
                    peer.features.add_path = several(true, 0)
                });
            }
        }
        plan
    }

    /// A fabric of eBGP (RFC 7938): the spines share an AS, every leaf and every node has its own; all leaves hang
    /// on all spines, and `nodes` on each leaf. Numbers go up: spines, leaves, nodes.
    pub(crate) fn fabric(spines: usize, leaves: usize, nodes: usize, seed: u64) -> Self {
        let mut plan = Self::new(spines + leaves + leaves * nodes, seed);
        for (node, speaker) in plan.speakers.iter_mut().enumerate() {
            let number = u32::try_from(node.max(spines)).unwrap();
            speaker.asn = 4_200_000_000 + number;
        }
        for leaf in spines..spines + leaves {
            for spine in 0..spines {
                plan.link(spine, leaf);
            }
            let first = spines + leaves + (leaf - spines) * nodes;
            for node in first..first + nodes {
                plan.link(leaf, node);
            }
        }
        plan
    }

    /// Racks of nodes: all nodes are of one AS, meshed within their rack and reflected between racks by the first
    /// node of each, and speak eBGP to their rack's router, to which they announce their own blocks only; the
    /// routers are meshed by eBGP.
    pub(crate) fn racks(racks: usize, nodes: usize, seed: u64) -> Self {
        let mut plan = Self::new(racks * (1 + nodes), seed);
        let routers: Vec<Node> = (0..racks).collect();
        let rack = |router: Node| {
            let first = racks + router * nodes;
            first..first + nodes
        };
        for &router in &routers {
            plan.speakers[router].asn = ASN + 1 + u32::try_from(router).unwrap();
        }
        for &router in &routers {
            (0..router).for_each(|other| plan.link(router, other));
            for node in rack(router) {
                plan.link(router, node);
                let own = plan.origins[node].iter().copied().collect();
                plan.treats(node, router, |peer| peer.export = manx_bgp::Policy::Within(own));
                (rack(router).start..node).for_each(|other| plan.link(other, node));
            }
            // The first of each rack passes on what the others of its rack and the other firsts know.
            let first = rack(router).start;
            for other in rack(router).skip(1) {
                plan.treats(first, other, |peer| peer.route_reflector_client = true);
            }
            (0..router).for_each(|other| plan.link(rack(other).start, first));
        }
        plan
    }

    /// Starts the speaker of `node`; one that `restarted` kept forwarding meanwhile.
    pub(crate) fn boot(&self, network: &mut Network, node: Node, restarted: bool) {
        network.start(
            node,
            Config {
                restarted,
                ..self.speakers[node].clone()
            },
        );
        for &prefix in &self.origins[node] {
            network.input(node, Input::Originate(prefix));
        }
        for settings in self.peers[node].values() {
            network.input(node, Input::SetPeer(Box::new(settings.clone())));
        }
    }
}
