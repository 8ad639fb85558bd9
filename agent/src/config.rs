//! `manxd.yaml`: what one node's agent is told. Every field has a default; an empty file is a valid one.
//!
//! Cluster-wide wishes do not stand here: they are resources in the datastore, and changing them needs no
//! restart. Two variables of the environment override the file, for pods that are told by Kubernetes:
//! `MANX_NODE_NAME` and `MANX_LOG_LEVEL`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnetwork::{Ipv4Network, Ipv6Network};
use manx_api::host_endpoint::FailsafePort;
use manx_api::ipam::{IpPool, IpPoolSpec};
use manx_api::manifest::{ManifestError, load_settings};
use manx_api::{Metadata, Resource, validate};
use serde::Deserialize;

/// The node's settings, as the user writes them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// The node's name in the cluster. Default: the host's name.
    pub node_name: Option<String>,
    /// Where the cluster's resources are. Default: the embedded store in `/var/lib/manx/store.db`.
    pub datastore: Datastore,
    /// The control socket. Default `/run/manx/manxd.sock`.
    pub socket: PathBuf,
    /// What must outlive the agent: the address journal, tombstones. Default `/var/lib/manx`.
    pub state_dir: PathBuf,
    /// Where secrets are that resources refer to: `NAME/KEY`. Default `/etc/manx/secrets`.
    pub secrets_dir: PathBuf,
    /// Where the kernel's network settings can be written. Default `/proc/sys/net`, which containers may only read.
    pub sysctl_dir: PathBuf,
    /// Where `/healthz`, `/readyz` and `/metrics` answer; `null` for nowhere. Default `127.0.0.1:9099`.
    pub http: Option<SocketAddr>,
    /// The node's IPv4 address with its on-link prefix. Default: that of the interface with the default route.
    #[serde(rename = "ipv4Address")]
    pub ipv4_address: Option<Ipv4Network>,
    /// The same for IPv6.
    #[serde(rename = "ipv6Address")]
    pub ipv6_address: Option<Ipv6Network>,
    /// The node's AS. Default: the cluster's.
    pub as_number: Option<u32>,
    /// The speaker's identifier. Default: the IPv4 address, or one made from the node's name.
    pub router_id: Option<Ipv4Addr>,
    /// The node's labels, for selectors.
    pub labels: BTreeMap<String, String>,
    /// The pods' MTU in bytes. Default: the smallest of the node's own interfaces.
    pub mtu: Option<u32>,
    /// Whether the kernel tells of every route that moves with its group of next hops
    /// (`net.ipv4.nexthop_compat_mode`). Default: as the system has it.
    pub nexthop_compat_mode: Option<bool>,
    /// How rules are written.
    pub iptables: Iptables,
    /// How policies are enforced.
    pub policy: PolicySettings,
    /// How `manxd controller` works.
    pub controller: ControllerSettings,
    /// How much to log. Default `info`.
    pub log_level: LogLevel,
}

/// How rules are written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Iptables {
    /// The back end. Default `auto`.
    pub backend: IptablesBackend,
    /// How often the kernel's rules are compared with what they should be, in seconds: 1 to 3600. Default 60.
    pub refresh_seconds: u16,
}

impl Default for Iptables {
    fn default() -> Self {
        Self {
            backend: IptablesBackend::default(),
            refresh_seconds: 60,
        }
    }
}

/// How policies are enforced.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicySettings {
    /// When. Default `whenUsed`.
    pub enforcement: PolicyEnforcement,
    /// The bits of packets' marks that Manx may use, two at least: it takes the lowest. Default `0xffff0000`.
    pub mark_mask: u32,
    /// What becomes of what a pod sends to its own node, once its policies let it out. Default `accept`.
    pub endpoint_to_host: EndpointToHost,
    /// The NFLOG group that logged packets go to. Default 4.
    pub log_group: u16,
    /// How many denied packets a second each rule logs, 1 to 10000. Default: none.
    pub log_denied: Option<u16>,
    /// The ports of the node that no host endpoint's policy closes. Default: those of SSH, DHCP, BGP, BFD, etcd and the
    /// API server.
    pub failsafe_inbound_host_ports: Option<Vec<FailsafePort>>,
    /// The ports elsewhere that none keeps the node from. Default: the same with DNS in place of SSH.
    pub failsafe_outbound_host_ports: Option<Vec<FailsafePort>>,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            enforcement: PolicyEnforcement::default(),
            mark_mask: 0xffff_0000,
            endpoint_to_host: EndpointToHost::default(),
            log_group: 4,
            log_denied: None,
            failsafe_inbound_host_ports: None,
            failsafe_outbound_host_ports: None,
        }
    }
}

/// How `manxd controller` works.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ControllerSettings {
    /// The lease's length in seconds, 3 to 300: so long at most nobody acts when the one who did is gone. Default 15.
    pub lease_seconds: u16,
    /// Whether each node is to have a host endpoint for all its interfaces. Default false.
    pub auto_host_endpoints: bool,
    /// For how many seconds Kubernetes must have had no Node for ours to be deleted, 2 to 86400. Default 300.
    pub deleted_node_seconds: u32,
    /// The pools, by their names, that a cluster which has none for pods is given when a controller first acts, and never
    /// again. Default: none.
    pub default_pools: BTreeMap<String, IpPoolSpec>,
}

impl ControllerSettings {
    /// [`ControllerSettings::default_pools`] as resources.
    #[must_use]
    pub fn pools(&self) -> Vec<IpPool> {
        let pool = |(name, spec): (&String, &IpPoolSpec)| IpPool {
            metadata: Metadata {
                name: name.clone(),
                ..Metadata::default()
            },
            spec: spec.clone(),
        };
        self.default_pools.iter().map(pool).collect()
    }

    fn wrong(&self) -> Option<Wrong> {
        if !(3..=300).contains(&self.lease_seconds) {
            let problem = "is out of range: 3 to 300";
            return Some(("controller.leaseSeconds", self.lease_seconds.to_string(), problem));
        }
        let deleted = self.deleted_node_seconds;
        if !(2..=86_400).contains(&deleted) {
            let problem = "is out of range: 2 to 86400";
            return Some(("controller.deletedNodeSeconds", deleted.to_string(), problem));
        }
        self.pools().into_iter().find_map(|pool| {
            let name = pool.metadata.name.clone();
            let problem = validate(&Resource::IpPool(pool)).into_iter().next()?;
            let what = "(an IPPool that says so would be refused)";
            Some(("controller.defaultPools", format!("{name}: {problem}"), what))
        })
    }
}

impl Default for ControllerSettings {
    fn default() -> Self {
        Self {
            lease_seconds: 15,
            auto_host_endpoints: false,
            deleted_node_seconds: 300,
            default_pools: BTreeMap::new(),
        }
    }
}

/// When policies are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyEnforcement {
    /// As long as the cluster has a policy: until then Manx writes no rule for pods.
    #[default]
    WhenUsed,
    /// Always: also without policies, pods send from their own addresses alone, and an interface that looks like a
    /// pod's and is none is closed.
    Always,
    /// Never: somebody else sees to them.
    Never,
}

/// What becomes of what a pod sends to its own node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointToHost {
    /// It is let through.
    #[default]
    Accept,
    /// It is dropped.
    Drop,
    /// The host's own rules decide.
    Return,
}

/// The back end of iptables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IptablesBackend {
    /// The one that the node uses: the kubelet's, or the one with the others' rules.
    #[default]
    Auto,
    /// The tables of nftables.
    Nft,
    /// The kernel's old tables.
    Legacy,
}

/// Where the cluster's resources are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Datastore {
    /// The embedded store.
    pub sqlite: Sqlite,
    /// A Kubernetes API server instead; `{}` for the cluster that this is a pod of. Default: the embedded store.
    pub kubernetes: Option<Kubernetes>,
}

/// A Kubernetes API server, and who we are to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kubernetes {
    /// A kubeconfig. Default: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it. Default: its current one.
    pub context: Option<String>,
}

/// The embedded store: an SQLite file that all agents of the machine share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sqlite {
    /// The file; made when there is none. Default `/var/lib/manx/store.db`.
    pub path: PathBuf,
}

/// How much to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed for good.
    Error,
    /// And what failed and is tried again.
    Warn,
    /// And what changed.
    #[default]
    Info,
    /// And what was decided.
    Debug,
    /// And every message.
    Trace,
}

impl LogLevel {
    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The level as a filter directive.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Default for Sqlite {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/manx/store.db"),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: None,
            datastore: Datastore::default(),
            socket: PathBuf::from("/run/manx/manxd.sock"),
            state_dir: PathBuf::from("/var/lib/manx"),
            secrets_dir: PathBuf::from("/etc/manx/secrets"),
            sysctl_dir: PathBuf::from(manx_linux::sysctl::DIRECTORY),
            http: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9099))),
            ipv4_address: None,
            ipv6_address: None,
            as_number: None,
            router_id: None,
            labels: BTreeMap::new(),
            mtu: None,
            nexthop_compat_mode: None,
            iptables: Iptables::default(),
            policy: PolicySettings::default(),
            controller: ControllerSettings::default(),
            log_level: LogLevel::default(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is no configuration.
    #[error(transparent)]
    Parse(#[from] Box<ManifestError>),
    /// A variable of the environment.
    #[error("MANX_LOG_LEVEL: '{0}' is no level: write error, warn, info, debug or trace")]
    Level(String),
    /// A value that no node can use.
    #[error("{path}: {field}: {value} {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
}

impl Config {
    /// The configuration in `path`, overridden by the environment as `variable` shows it.
    ///
    /// # Errors
    /// Names the file, the place and what would be right.
    pub fn load(path: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text, variable)
    }

    /// [`Config::load`] for a text that was read already; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(
        path: &Path,
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut config: Self = load_settings(&path.to_string_lossy(), text)?;
        if let Some(name) = variable("MANX_NODE_NAME") {
            config.node_name = Some(name);
        }
        if let Some(level) = variable("MANX_LOG_LEVEL") {
            let known = LogLevel::ALL.into_iter().find(|known| known.as_str() == level);
            config.log_level = known.ok_or(ConfigError::Level(level))?;
        }
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = self
            .wrong()
            .or_else(|| self.datastore.wrong())
            .or_else(|| self.policy.wrong());
        wrong.map_or(Ok(()), |(field, value, problem)| {
            Err(ConfigError::Value {
                path: path.to_owned(),
                field,
                value,
                problem,
            })
        })
    }

    fn wrong(&self) -> Option<Wrong> {
        if let Some(mtu) = self.mtu.filter(|mtu| !(576..=65535).contains(mtu)) {
            let problem = "is out of range: 576 to 65535, and 1280 at least with IPv6";
            return Some(("mtu", mtu.to_string(), problem));
        }
        if !self.sysctl_dir.is_absolute() {
            let problem = "is no absolute path: write where /proc/sys/net is mounted, or leave it out";
            return Some(("sysctlDir", self.sysctl_dir.display().to_string(), problem));
        }
        let refresh = self.iptables.refresh_seconds;
        if !(1..=3600).contains(&refresh) {
            let problem = "is out of range: 1 to 3600";
            return Some(("iptables.refreshSeconds", refresh.to_string(), problem));
        }
        if let Some(wrong) = self.controller.wrong() {
            return Some(wrong);
        }
        let id = self.router_id.filter(Ipv4Addr::is_unspecified)?;
        let problem = "is no identifier; any other IPv4 address is";
        Some(("routerId", id.to_string(), problem))
    }
}

/// A value that no node can use: its field, what it says, what is wrong with it and what would be right.
type Wrong = (&'static str, String, &'static str);

impl Datastore {
    fn wrong(&self) -> Option<Wrong> {
        let kubernetes = self.kubernetes.as_ref()?;
        if let (None, Some(context)) = (&kubernetes.kubeconfig, &kubernetes.context) {
            let problem = "is in no file: name one in datastore.kubernetes.kubeconfig, or leave it out";
            return Some(("datastore.kubernetes.context", context.clone(), problem));
        }
        if self.sqlite == Sqlite::default() {
            return None;
        }
        let problem = "stands beside datastore.kubernetes: the cluster has one datastore, leave one out";
        let path = self.sqlite.path.display().to_string();
        Some(("datastore.sqlite.path", path, problem))
    }
}

impl PolicySettings {
    fn wrong(&self) -> Option<Wrong> {
        let mask = self.mark_mask;
        if mask.count_ones() < 2 {
            let problem = "has fewer than two bits: write one such as 0xffff0000";
            return Some(("policy.markMask", format!("{mask:#x}"), problem));
        }
        let inbound = (
            "policy.failsafeInboundHostPorts",
            &self.failsafe_inbound_host_ports,
        );
        let outbound = (
            "policy.failsafeOutboundHostPorts",
            &self.failsafe_outbound_host_ports,
        );
        for (field, ports) in [inbound, outbound] {
            let wrong = |it: &&FailsafePort| it.port == 0 || !it.protocol.has_ports();
            if let Some(FailsafePort { protocol, port }) = ports.iter().flatten().find(wrong) {
                let problem =
                    "is no port: write protocol TCP, UDP, SCTP or UDPLite and a port from 1 to 65535";
                return Some((field, format!("{protocol} {port}"), problem));
            }
        }
        let rate = self.log_denied.filter(|rate| !(1..=10_000).contains(rate))?;
        let problem = "is out of range: 1 to 10000 packets a second, or leave it out";
        Some(("policy.logDenied", rate.to_string(), problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("manxd.yaml"), text, |_| None).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse("\n"), Ok(Config::default()));
        assert_eq!(parse("{}"), Ok(Config::default()));
    }

    #[test]
    fn every_field_is_read() {
        let config = parse(
            "nodeName: n1\ndatastore: {sqlite: {path: /x/s.db}}\nsocket: /x/s\nstateDir: /x\nsecretsDir: /y\nsysctlDir: /z\nhttp: null\n\
             ipv4Address: 192.0.2.1/24\nipv6Address: 2001:db8::1/64\nasNumber: 65001\nrouterId: 192.0.2.9\n\
             labels: {rack: a}\nmtu: 1400\nnexthopCompatMode: false\n\
             iptables: {backend: legacy, refreshSeconds: 5}\n\
             policy: {enforcement: always, markMask: 0xf00, endpointToHost: return, logGroup: 7, logDenied: 10,\n  \
             failsafeInboundHostPorts: [{protocol: TCP, port: 2222}], failsafeOutboundHostPorts: []}\n\
             controller: {leaseSeconds: 30, autoHostEndpoints: true, deletedNodeSeconds: 60,\n  \
             defaultPools: {v4: {cidr: 10.1.0.0/16}}}\nlogLevel: debug\n",
        );
        let expected = Config {
            node_name: Some("n1".into()),
            datastore: Datastore {
                sqlite: Sqlite {
                    path: "/x/s.db".into(),
                },
                kubernetes: None,
            },
            socket: "/x/s".into(),
            state_dir: "/x".into(),
            secrets_dir: "/y".into(),
            sysctl_dir: "/z".into(),
            http: None,
            ipv4_address: Some("192.0.2.1/24".parse().unwrap()),
            ipv6_address: Some("2001:db8::1/64".parse().unwrap()),
            as_number: Some(65001),
            router_id: Some(Ipv4Addr::new(192, 0, 2, 9)),
            labels: BTreeMap::from([("rack".into(), "a".into())]),
            mtu: Some(1400),
            nexthop_compat_mode: Some(false),
            policy: PolicySettings {
                enforcement: PolicyEnforcement::Always,
                mark_mask: 0xf00,
                endpoint_to_host: EndpointToHost::Return,
                log_group: 7,
                log_denied: Some(10),
                failsafe_inbound_host_ports: Some(vec![FailsafePort {
                    protocol: manx_api::rule::Protocol::TCP,
                    port: 2222,
                }]),
                failsafe_outbound_host_ports: Some(Vec::new()),
            },
            iptables: Iptables {
                backend: IptablesBackend::Legacy,
                refresh_seconds: 5,
            },
            controller: ControllerSettings {
                lease_seconds: 30,
                auto_host_endpoints: true,
                deleted_node_seconds: 60,
                default_pools: [("v4".to_owned(), IpPoolSpec::new("10.1.0.0/16".parse().unwrap()))].into(),
            },
            log_level: LogLevel::Debug,
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn a_default_pool_is_one_that_could_be_made() {
        let told =
            parse("controller: {defaultPools: {main: {cidr: 10.1.0.0/16, blockSize: 12}}}").unwrap_err();
        assert!(
            told.contains("controller.defaultPools: main: spec.blockSize: '12' is no block size"),
            "{told}"
        );
        let told =
            parse("controller: {defaultPools: {main: {cidr: 10.1.0.0/16, blocksize: 26}}}").unwrap_err();
        assert!(told.contains("blocksize"), "{told}");
    }

    #[test]
    fn a_cluster_may_be_the_datastore() {
        let config = parse("datastore: {kubernetes: {kubeconfig: /x, context: a}}").unwrap();
        let expected = Kubernetes {
            kubeconfig: Some("/x".into()),
            context: Some("a".into()),
        };
        assert_eq!(config.datastore.kubernetes, Some(expected));
        let config = parse("datastore: {kubernetes: {}}").unwrap();
        assert_eq!(config.datastore.kubernetes, Some(Kubernetes::default()));
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_place_and_the_nearest_known_one() {
        let error = parse("nodeName: n1\nsockett: /x\n").unwrap_err();
        for part in ["manxd.yaml:2", "sockett", "did you mean 'socket'?"] {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }

    #[test]
    fn values_that_no_node_can_use_are_refused_by_name() {
        for (text, part) in [
            ("mtu: 10", "mtu: 10"),
            ("routerId: 0.0.0.0", "routerId"),
            ("sysctlDir: net", "sysctlDir: net is no absolute path"),
            ("iptables: {refreshSeconds: 0}", "iptables.refreshSeconds: 0"),
            ("policy: {markMask: 0x10}", "policy.markMask: 0x10"),
            ("policy: {logDenied: 0}", "policy.logDenied: 0"),
            (
                "datastore: {kubernetes: {context: a}}",
                "datastore.kubernetes.context: a",
            ),
            (
                "datastore: {kubernetes: {}, sqlite: {path: /x}}",
                "datastore.sqlite.path: /x",
            ),
            (
                "policy: {failsafeInboundHostPorts: [{protocol: ICMP, port: 8}]}",
                "policy.failsafeInboundHostPorts: ICMP 8",
            ),
            (
                "policy: {failsafeOutboundHostPorts: [{protocol: UDP, port: 0}]}",
                "policy.failsafeOutboundHostPorts: UDP 0",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let variable = |name: &str| match name {
            "MANX_NODE_NAME" => Some("from-env".to_owned()),
            "MANX_LOG_LEVEL" => Some("trace".to_owned()),
            _ => None,
        };
        let config = Config::parse(Path::new("manxd.yaml"), "nodeName: n1\n", variable).unwrap();
        assert_eq!(config.node_name.as_deref(), Some("from-env"));
        assert_eq!(config.log_level, LogLevel::Trace);
    }
}
