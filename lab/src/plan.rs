//! A lab as a value: namespaces, links, addresses, files, processes and resources, from its options alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use manx_api::bgp::{
    BgpConfiguration, BgpConfigurationSpec, BgpPeer, BgpPeerSpec, NextHopMode, SourceAddress,
};
use manx_api::ipam::{IpPool, IpPoolSpec};
use manx_api::{Metadata, Resource};

use crate::address::{self, ROUTER, SPINE};
use crate::layout::Layout;
use crate::options::{Options, OptionsError, Software, Topology};
use crate::pods::ANNOTATIONS;
use crate::routers::{self, Router, Session, Setup};

/// The AS of a cluster that is one AS, and what a rack's number is added to.
const CLUSTER_AS: u32 = 64512;
/// The first rack's segment; a cluster without racks is one rack.
const FIRST_SEGMENT: u8 = 1;
const BGP_PORT: u16 = 179;
/// The pods' Kubernetes namespace.
const POD_NAMESPACE: &str = "default";
/// The bridge of a host that has one.
pub const BRIDGE: &str = "br0";
/// A node's link to its segment.
pub const UPLINK: &str = "eth0";

/// A lab as a value.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was asked for.
    pub options: Options,
    /// Where its files are.
    pub layout: Layout,
    /// Every host, those with bridges before those that plug into them.
    pub hosts: Vec<Host>,
    /// What the datastore holds before the first agent starts.
    pub resources: Vec<Resource>,
    /// The first pods.
    pub pods: Vec<PodPlan>,
}

/// A network namespace that plays a machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name in the lab.
    pub name: String,
    /// The namespace's name.
    pub netns: String,
    /// What it is for.
    pub role: Role,
    /// Its AS, for those that speak BGP.
    pub asn: Option<u32>,
    /// Its links.
    pub interfaces: Vec<Interface>,
    /// The addresses of its bridge, when it has one.
    pub bridge: Option<Vec<IpNetwork>>,
    /// Its default routes.
    pub gateways: Vec<IpAddr>,
    /// The peers that it must reach `Established` with, by address.
    pub peers: BTreeMap<IpAddr, String>,
    /// Its files.
    pub files: Vec<File>,
    /// Its processes, in the order in which they start.
    pub processes: Vec<Process>,
}

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Carries a segment and nothing else.
    Fabric,
    /// A rack's router.
    Router(Software),
    /// A route reflector.
    Reflector,
    /// A member of the cluster.
    Node,
}

/// A link's end that has addresses; the other end is a port of a bridge.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
    /// The namespace of the bridge.
    pub bridge_netns: String,
    /// The name of the bridge's port.
    pub port: String,
}

/// A file in a host's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path in the host's folder.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// The user that must own it and the folder, when not root.
    pub owner: Option<&'static str>,
}

impl File {
    /// Root's file.
    pub(crate) fn new(path: &str, text: String) -> Self {
        Self {
            path: path.into(),
            text,
            owner: None,
        }
    }

    /// A file of `owner`, a user of the machine.
    pub(crate) fn owned(path: &str, text: String, owner: &'static str) -> Self {
        Self {
            path: path.into(),
            text,
            owner: Some(owner),
        }
    }
}

/// A process of a host.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name; its log is `<name>.log`.
    pub name: String,
    /// What it runs.
    pub program: Program,
    /// With which arguments.
    pub args: Vec<String>,
    /// A file, usually a socket of an earlier process, that must exist before it starts.
    pub needs: Option<PathBuf>,
}

impl Process {
    /// A process that can start at once.
    pub(crate) fn new(name: &str, program: Program, args: &[&str]) -> Self {
        let args = args.iter().copied().map(str::to_owned).collect();
        Self {
            name: name.to_owned(),
            program,
            args,
            needs: None,
        }
    }
}

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Our agent.
    Manxd,
    /// Our speaker.
    ManxBgpd,
    /// BIRD.
    Bird,
    /// FRR's hand in the kernel.
    Zebra,
    /// FRR's speaker.
    FrrBgpd,
    /// GoBGP's speaker.
    Gobgpd,
}

/// A pod that comes with the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlan {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub node: String,
}

impl Host {
    /// Its addresses, those of its bridge first.
    pub fn addresses(&self) -> impl Iterator<Item = IpNetwork> {
        let bridge = self.bridge.iter().flatten();
        bridge
            .chain(self.interfaces.iter().flat_map(|i| &i.addresses))
            .copied()
    }

    /// The prefixes of its bridge: of a router, its rack's.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNetwork> {
        let addresses = self.bridge.iter().flatten();
        addresses.filter_map(|network| IpNetwork::new(network.network(), network.prefix()).ok())
    }

    /// Its first address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses().next().map(|network| network.ip())
    }

    /// The ports of its bridge, among `hosts`.
    pub fn ports<'a>(&'a self, hosts: &'a [Self]) -> impl Iterator<Item = &'a str> {
        let interfaces = hosts.iter().flat_map(|host| &host.interfaces);
        interfaces
            .filter(|interface| interface.bridge_netns == self.netns)
            .map(|interface| interface.port.as_str())
    }

    /// The kernel's settings before the first link: path below `/proc/sys/net`, value.
    #[must_use]
    pub fn sysctls(&self) -> &'static [(&'static str, &'static str)] {
        /// Addresses are ours to give: they work at once, without duplicate detection.
        const PLAIN: [(&str, &str); 2] = [
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
        ];
        const ROUTER: [(&str, &str); 6] = [
            PLAIN[0],
            PLAIN[1],
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // A router that sends packets back where they came from does so because it was told to.
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ];
        match self.role {
            Role::Router(_) => &ROUTER,
            Role::Fabric | Role::Reflector | Role::Node => &PLAIN,
        }
    }
}

impl Plan {
    /// The lab that `options` ask for, with its files under `base`.
    ///
    /// # Errors
    /// When there can be no such lab.
    pub fn new(options: &Options, base: &Path) -> Result<Self, OptionsError> {
        options.check()?;
        let layout = Layout::new(base, &options.name);
        let mut plan = Self {
            options: options.clone(),
            layout,
            hosts: Vec::new(),
            resources: Vec::new(),
            pods: Vec::new(),
        };
        plan.add_pools();
        let fabric = plan.host("fabric", Role::Fabric, None);
        plan.hosts.push(Host {
            bridge: Some(Vec::new()),
            ..fabric
        });
        match options.topology {
            Topology::Mesh => plan.add_mesh(),
            Topology::Tor { software, racks } => plan.add_racks(software, racks),
            Topology::Rr { reflectors } => plan.add_reflected(reflectors),
        }
        plan.add_pods();
        Ok(plan)
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.role == Role::Node)
    }

    /// The host of this name.
    #[must_use]
    pub fn host_named(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The namespace of a pod.
    #[must_use]
    pub fn pod_netns(&self, namespace: &str, name: &str) -> String {
        format!("{}-pod-{namespace}-{name}", self.options.name)
    }

    fn host(&self, name: &str, role: Role, asn: Option<u32>) -> Host {
        Host {
            name: name.to_owned(),
            netns: format!("{}-{name}", self.options.name),
            role,
            asn,
            interfaces: Vec::new(),
            bridge: None,
            gateways: Vec::new(),
            peers: BTreeMap::new(),
            files: Vec::new(),
            processes: Vec::new(),
        }
    }

    fn add_pools(&mut self) {
        let mut add = |name: &str, cidr: &str| {
            let Ok(cidr) = cidr.parse() else { return };
            self.resources.push(Resource::IpPool(IpPool {
                metadata: named(name),
                spec: IpPoolSpec::new(cidr),
            }));
        };
        add("default-ipv4-ippool", address::POOL_V4);
        if self.options.dual_stack {
            add("default-ipv6-ippool", address::POOL_V6);
        }
    }

    fn add_pods(&mut self) {
        for node in 1..=self.options.nodes {
            self.pods
                .extend((1..=self.options.pods_per_node).map(|pod| PodPlan {
                    namespace: POD_NAMESPACE.to_owned(),
                    name: format!("pod{node}-{pod}"),
                    node: node_name(node),
                }));
        }
    }

    fn set_mesh(&mut self, node_to_node_mesh_enabled: bool) {
        let spec = BgpConfigurationSpec {
            node_to_node_mesh_enabled,
            as_number: CLUSTER_AS,
            ..BgpConfigurationSpec::default()
        };
        let configuration = BgpConfiguration {
            metadata: named("default"),
            spec,
        };
        self.resources.push(Resource::BgpConfiguration(configuration));
    }

    fn add_mesh(&mut self) {
        self.set_mesh(true);
        let mut nodes: Vec<Host> = self.nodes_of_segment(CLUSTER_AS);
        let addresses: Vec<(String, Option<IpAddr>)> = nodes
            .iter()
            .map(|node| (node.name.clone(), node.address()))
            .collect();
        for node in &mut nodes {
            let others = addresses.iter().filter(|(name, _)| *name != node.name);
            node.peers = others
                .filter_map(|(name, address)| Some(((*address)?, name.clone())))
                .collect();
        }
        self.hosts.append(&mut nodes);
    }

    fn add_reflected(&mut self, reflectors: u16) {
        self.set_mesh(false);
        let mut nodes = self.nodes_of_segment(CLUSTER_AS);
        let clients: Vec<Session> = nodes
            .iter()
            .filter_map(|node| session(node, CLUSTER_AS))
            .collect();
        for index in 0..small(reflectors) {
            let name = format!("rr{}", index + 1);
            let host = address::reflector_host(index);
            let mut reflector = self.host(&name, Role::Reflector, Some(CLUSTER_AS));
            self.plug(
                &mut reflector,
                UPLINK,
                address::interface(FIRST_SEGMENT, host, self.options.dual_stack),
            );
            let id = address::v4(FIRST_SEGMENT, host);
            let setup = routers::reflector(CLUSTER_AS, id, &clients, &self.layout.host(&name));
            reflector.install(setup);
            for node in &mut nodes {
                node.peers.insert(id.into(), name.clone());
            }
            self.add_peer(&name, None, id.into(), CLUSTER_AS);
            self.hosts.push(reflector);
        }
        self.hosts.append(&mut nodes);
    }

    fn add_racks(&mut self, software: Software, racks: u16) {
        self.set_mesh(false);
        let nodes = self.options.nodes;
        for rack in 0..racks {
            let members: Vec<u16> = (0..nodes).filter(|node| node * racks / nodes == rack).collect();
            self.add_rack(software, small(racks), small(rack), &members);
        }
    }

    fn add_rack(&mut self, software: Software, racks: u8, rack: u8, members: &[u16]) {
        let (segment, dual_stack) = (FIRST_SEGMENT + rack, self.options.dual_stack);
        let (name, asn) = (router_name(rack), rack_as(rack));
        let own = address::interface(segment, ROUTER, dual_stack);
        let mut router = self.host(&name, Role::Router(software), Some(asn));
        self.plug(
            &mut router,
            "spine",
            address::interface(SPINE, segment, dual_stack),
        );
        let mut sessions = Vec::new();
        let mut nodes = Vec::new();
        for index in members {
            let mut node = self.node(*index, segment, asn);
            node.interfaces
                .iter_mut()
                .for_each(|link| link.bridge_netns.clone_from(&router.netns));
            node.gateways = address::bare(&own);
            for gateway in address::bare(&own) {
                let suffix = if gateway.is_ipv4() { "" } else { "-v6" };
                node.peers.insert(gateway, name.clone());
                self.add_peer(
                    &format!("{}-{name}{suffix}", node.name),
                    Some(&node.name),
                    gateway,
                    asn,
                );
            }
            sessions.extend(all_sessions(&node, asn));
            nodes.push(node);
        }
        for other in (0..racks).filter(|other| *other != rack) {
            let addresses = address::bare(&address::interface(SPINE, FIRST_SEGMENT + other, dual_stack));
            sessions.extend(addresses.into_iter().map(|address| Session {
                name: router_name(other),
                address,
                asn: rack_as(other),
            }));
        }
        let setup = routers::setup(
            software,
            &Router {
                name: &name,
                asn,
                id: address::v4(SPINE, segment),
                rack: &own,
                sessions: &sessions,
                dir: &self.layout.host(&name),
            },
        );
        router.bridge = Some(own);
        router.install(setup);
        self.hosts.push(router);
        self.hosts.append(&mut nodes);
    }

    fn add_peer(&mut self, name: &str, node: Option<&str>, address: IpAddr, as_number: u32) {
        let spec = BgpPeerSpec {
            node: node.map(str::to_owned),
            node_selector: None,
            peer_ip: Some(SocketAddr::new(address, BGP_PORT)),
            interface: None,
            peer_selector: None,
            as_number: Some(as_number),
            next_hop_mode: NextHopMode::Auto,
            passive: false,
            hold_time: BgpConfigurationSpec::default().hold_time,
            max_restart_time: BgpConfigurationSpec::default().node_mesh_max_restart_time,
            long_lived_stale_time: 0,
            filters: Vec::new(),
            local_as_number: None,
            allowed_local_as_numbers: 0,
            enforce_first_as: false,
            as_override: false,
            remove_private_as: false,
            max_prefixes: None,
            bfd: None,
            password: None,
            ttl_security: None,
            source_address: SourceAddress::UseNodeIp,
        };
        self.resources.push(Resource::BgpPeer(BgpPeer {
            metadata: named(name),
            spec,
        }));
    }

    fn nodes_of_segment(&self, asn: u32) -> Vec<Host> {
        (0..self.options.nodes)
            .map(|index| self.node(index, FIRST_SEGMENT, asn))
            .collect()
    }

    fn node(&self, index: u16, segment: u8, asn: u32) -> Host {
        let name = node_name(index + 1);
        let mut node = self.host(&name, Role::Node, Some(asn));
        let host = address::node_host(small(index));
        self.plug(
            &mut node,
            UPLINK,
            address::interface(segment, host, self.options.dual_stack),
        );
        node.files = vec![
            File::new("manxd.yaml", self.agent_configuration(&node)),
            File::new("cni/net.d/10-manx.conflist", self.cni_configuration(&name)),
        ];
        let file = self.layout.host(&name).join("manxd.yaml").display().to_string();
        node.processes = vec![Process::new("manxd", Program::Manxd, &["--config", &file])];
        node
    }

    /// Plugs `host` into the fabric; nodes of racks are plugged into their router afterwards.
    fn plug(&self, host: &mut Host, interface: &str, addresses: Vec<IpNetwork>) {
        host.interfaces.push(Interface {
            name: interface.to_owned(),
            addresses,
            bridge_netns: format!("{}-fabric", self.options.name),
            port: host.name.clone(),
        });
    }

    fn agent_configuration(&self, node: &Host) -> String {
        let mut text = format!(
            "nodeName: {name}
datastore:
  sqlite:
    path: {store}
socket: {socket}
stateDir: {state}
",
            name = node.name,
            store = self.layout.store().display(),
            socket = self.layout.socket(&node.name).display(),
            state = self.layout.state_dir(&node.name).display(),
        );
        for network in node.addresses() {
            let family = if network.is_ipv4() {
                "ipv4Address"
            } else {
                "ipv6Address"
            };
            let _infallible = writeln!(text, "{family}: {network}");
        }
        if let Some(asn) = node.asn.filter(|asn| *asn != CLUSTER_AS) {
            let _infallible = writeln!(text, "asNumber: {asn}");
        }
        text
    }

    fn cni_configuration(&self, node: &str) -> String {
        let list = serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "manx",
            "plugins": [{
                "type": "manx",
                "socket": self.layout.socket(node),
                "stateDir": self.layout.state_dir(node),
                "capabilities": { ANNOTATIONS: true },
            }],
        });
        format!("{list:#}\n")
    }
}

impl Host {
    fn install(&mut self, setup: Setup) {
        self.files.extend(setup.files);
        self.processes.extend(setup.processes);
    }
}

/// The session that carries both families.
fn session(node: &Host, asn: u32) -> Option<Session> {
    all_sessions(node, asn).next()
}

/// One session per family.
fn all_sessions(node: &Host, asn: u32) -> impl Iterator<Item = Session> {
    node.addresses().map(move |network| Session {
        name: node.name.clone(),
        address: network.ip(),
        asn,
    })
}

fn named(name: &str) -> Metadata {
    Metadata {
        name: name.to_owned(),
        ..Metadata::default()
    }
}

fn node_name(number: u16) -> String {
    format!("node{number}")
}

fn router_name(rack: u8) -> String {
    format!("tor{}", rack + 1)
}

fn rack_as(rack: u8) -> u32 {
    CLUSTER_AS + 1 + u32::from(rack)
}

/// A number of hosts or racks; [`Options::check`] has bounded it.
fn small(number: u16) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(topology: Topology, nodes: u16, dual_stack: bool) -> Plan {
        let options = Options {
            name: "x".parse().unwrap(),
            nodes,
            topology,
            pods_per_node: 1,
            dual_stack,
        };
        Plan::new(&options, Path::new("/run/manx-lab")).unwrap()
    }

    fn racks(software: Software) -> Plan {
        plan(Topology::Tor { software, racks: 2 }, 3, true)
    }

    /// Everything that a host is given, as text.
    fn sheet(plan: &Plan, name: &str) -> String {
        let host = plan.host_named(name).unwrap();
        let mut text = format!(
            "# {} ({:?}, AS {:?})\n## sysctl\n",
            host.netns, host.role, host.asn
        );
        for (key, value) in host.sysctls() {
            writeln!(text, "{key} = {value}").unwrap();
        }
        writeln!(
            text,
            "## bridge\n{:?} {:?}",
            host.bridge,
            host.ports(&plan.hosts).collect::<Vec<_>>()
        )
        .unwrap();
        writeln!(
            text,
            "## links\n{:?}\n## gateways {:?}",
            host.interfaces, host.gateways
        )
        .unwrap();
        writeln!(text, "## peers\n{:?}", host.peers).unwrap();
        for file in &host.files {
            write!(
                text,
                "## {} ({:?})\n{}",
                file.path.display(),
                file.owner,
                file.text
            )
            .unwrap();
        }
        for process in &host.processes {
            writeln!(
                text,
                "## {} needs {:?}\n{:?} {}",
                process.name,
                process.needs,
                process.program,
                process.args.join(" ")
            )
            .unwrap();
        }
        text
    }

    #[test]
    fn a_meshs_node_gets_a_link_an_agent_and_all_others_as_peers() {
        let plan = plan(Topology::Mesh, 3, false);
        insta::assert_snapshot!(sheet(&plan, "node2"));
        insta::assert_snapshot!(sheet(&plan, "fabric"));
    }

    #[test]
    fn a_racks_node_talks_to_its_router_in_both_families() {
        insta::assert_snapshot!(sheet(&racks(Software::Bird), "node3"));
    }

    #[test]
    fn every_software_is_told_the_same() {
        insta::assert_snapshot!("tor1_bird", sheet(&racks(Software::Bird), "tor1"));
        insta::assert_snapshot!("tor1_frr", sheet(&racks(Software::Frr), "tor1"));
        insta::assert_snapshot!("tor1_gobgp", sheet(&racks(Software::Gobgp), "tor1"));
        insta::assert_snapshot!("tor1_manx", sheet(&racks(Software::Manx), "tor1"));
    }

    #[test]
    fn reflectors_know_every_node_as_a_client() {
        let plan = plan(Topology::Rr { reflectors: 2 }, 2, true);
        insta::assert_snapshot!(sheet(&plan, "rr2"));
        let peers: Vec<&String> = plan.host_named("node1").unwrap().peers.values().collect();
        assert_eq!(peers, ["rr1", "rr2"]);
    }

    #[test]
    fn the_datastore_starts_with_pools_a_configuration_and_peers() {
        let plan = racks(Software::Frr);
        let keys: Vec<String> = plan.resources.iter().map(|r| r.key().to_string()).collect();
        assert_eq!(
            keys,
            [
                "IPPool/default-ipv4-ippool",
                "IPPool/default-ipv6-ippool",
                "BGPConfiguration/default",
                "BGPPeer/node1-tor1",
                "BGPPeer/node1-tor1-v6",
                "BGPPeer/node2-tor1",
                "BGPPeer/node2-tor1-v6",
                "BGPPeer/node3-tor2",
                "BGPPeer/node3-tor2-v6",
            ]
        );
        for resource in &plan.resources {
            assert_eq!(manx_api::validate(resource), Vec::new(), "{}", resource.key());
        }
    }

    #[test]
    fn every_address_and_every_name_is_given_once() {
        for plan in [
            plan(Topology::Mesh, 200, true),
            plan(Topology::Rr { reflectors: 4 }, 200, true),
            plan(
                Topology::Tor {
                    software: Software::Bird,
                    racks: 200,
                },
                200,
                true,
            ),
            plan(
                Topology::Tor {
                    software: Software::Bird,
                    racks: 7,
                },
                20,
                true,
            ),
        ] {
            let mut addresses: Vec<IpNetwork> = plan.hosts.iter().flat_map(Host::addresses).collect();
            let mut names: Vec<&String> = plan.hosts.iter().map(|host| &host.netns).collect();
            let (all_addresses, all_names) = (addresses.len(), names.len());
            addresses.sort();
            addresses.dedup();
            names.sort();
            names.dedup();
            assert_eq!((addresses.len(), names.len()), (all_addresses, all_names));
            let longest = plan
                .hosts
                .iter()
                .flat_map(|h| &h.interfaces)
                .map(|i| i.port.len())
                .max();
            assert!(
                longest < Some(16),
                "the kernel's names of interfaces have 15 characters"
            );
        }
    }

    #[test]
    fn every_rack_has_its_share_of_nodes() {
        let plan = plan(
            Topology::Tor {
                software: Software::Bird,
                racks: 3,
            },
            7,
            false,
        );
        let mut sizes = BTreeMap::<IpAddr, u32>::new();
        plan.nodes()
            .for_each(|node| *sizes.entry(node.gateways[0]).or_default() += 1);
        assert_eq!(sizes.into_values().collect::<Vec<_>>(), [3, 2, 2]);
    }

    #[test]
    fn pods_are_spread_over_the_nodes() {
        let plan = plan(Topology::Mesh, 2, false);
        let pods: Vec<String> = plan
            .pods
            .iter()
            .map(|p| format!("{}/{} on {}", p.namespace, p.name, p.node))
            .collect();
        assert_eq!(pods, ["default/pod1-1 on node1", "default/pod2-1 on node2"]);
        assert_eq!(plan.pod_netns("default", "pod1-1"), "x-pod-default-pod1-1");
    }
}
