//! The command line, as clap reads it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use manx_api::rule::{NamedPort, ProtocolError};
use manx_lab::{Name, Software};

use crate::edit::PatchType;
use crate::ends::{Destination, End, Pod};
use crate::ipam::args::IpamCommand;
use crate::output::Format;
use crate::what_if::Without;

/// Operates Manx: resources, sessions, routes, addresses, and labs on one machine.
#[derive(Debug, Parser)]
#[command(name = "manxctl", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Where to look.
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// When to colour.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster a command is about.
#[derive(Clone, Debug, Args)]
pub(crate) struct TargetArgs {
    /// The lab that the command is about.
    #[arg(
        long,
        visible_alias = "name",
        global = true,
        value_name = "NAME",
        env = "MANX_LAB"
    )]
    pub(crate) lab: Option<Name>,
    /// The datastore's file.
    #[arg(long, global = true, value_name = "PATH", env = "MANX_STORE")]
    pub(crate) store: Option<PathBuf>,
    /// A kubeconfig: the datastore is that cluster's API server.
    #[arg(long, global = true, value_name = "PATH", env = "MANX_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig, unless its current one.
    #[arg(long, global = true, value_name = "NAME", requires = "kubeconfig")]
    pub(crate) context: Option<String>,
    /// The agent's control socket.
    #[arg(long, global = true, value_name = "PATH", env = "MANX_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

/// Which namespace.
#[derive(Clone, Debug, Args)]
pub(crate) struct NamespaceArgs {
    /// The Kubernetes namespace.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show resources: `manxctl get ippools`, `manxctl get node node1 -o yaml`.
    Get(GetArgs),
    /// Create resources, or replace those that exist.
    Apply(FileArgs),
    /// Create resources; it is an error if one exists.
    Create(FileArgs),
    /// Replace resources; it is an error if one does not exist.
    Replace(FileArgs),
    /// Delete resources, by kind and name or as a file names them.
    Delete(DeleteArgs),
    /// Change fields of one resource.
    Patch(PatchArgs),
    /// Set and remove labels of one resource: `manxctl label node node1 rack=a spare-`.
    Label(LabelArgs),
    /// Say whether files are right, without a datastore.
    Validate(FileArgs),
    /// Say Calico's resources in Manx's words, without a datastore.
    Convert(ConvertArgs),
    /// How nodes are.
    #[command(subcommand)]
    Node(NodeCommand),
    /// BGP: sessions and routes.
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// Routes in the kernel.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Pods' addresses.
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// Policies: why packets pass or do not.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Services: who announces their addresses.
    #[command(subcommand, name = "svc", visible_alias = "service")]
    Service(ServiceCommand),
    /// Who peers with whom.
    Topology(TopologyArgs),
    /// Clusters in network namespaces on this machine.
    #[command(subcommand)]
    Lab(LabCommand),
    /// Print the version.
    Version(OutputArgs),
    /// Print a script that completes manxctl's words in a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// A kind of resource: ippools, nodes, bgppeers, networkpolicies, networkpolicies.networking.k8s.io, and so on.
    #[arg(required_unless_present = "file")]
    pub(crate) kind: Option<String>,
    /// Only those of these names.
    pub(crate) names: Vec<String>,
    /// Those that a file names: a path, a folder or `-` for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "kind")]
    pub(crate) file: Vec<PathBuf>,
    /// The namespace of namespaced kinds.
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `apply`, `create`, `replace`.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// A file, a folder of .yaml, .yml and .json files, or `-` for standard input; may be given again.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,
    /// The namespace of namespaced resources that name none.
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The kind of resource.
    #[arg(required_unless_present = "file", requires = "names")]
    pub(crate) kind: Option<String>,
    /// Their names.
    pub(crate) names: Vec<String>,
    /// Those that a file names: a path, a folder or `-` for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "kind")]
    pub(crate) file: Vec<PathBuf>,
    /// What does not exist is no error.
    #[arg(short, long)]
    pub(crate) skip_not_exists: bool,
    /// The namespace of namespaced kinds.
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

/// `patch`.
#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    /// The kind of resource.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// The patch, as JSON or YAML: `{"spec": {"disabled": true}}`.
    #[arg(short, long)]
    pub(crate) patch: String,
    /// How the patch is written.
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "merge")]
    pub(crate) patch_type: PatchType,
    /// The namespace of namespaced kinds.
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

/// `label`.
#[derive(Debug, Args)]
pub(crate) struct LabelArgs {
    /// The kind of resource.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// KEY=VALUE sets a label, KEY- removes one.
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    pub(crate) labels: Vec<String>,
    /// Labels that have another value get the new one.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Remove the labels, which are then written as KEY.
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) remove: bool,
    /// The namespace of namespaced kinds.
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

/// `convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A file, a folder of .yaml, .yml and .json files, or `-` for standard input; may be given again.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    pub(crate) output: ManifestFormat,
    /// Print what can be said in Manx's words, also where something cannot.
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Of Calico's blocks, print those of this node alone, which is about to become Manx's.
    #[arg(long, value_name = "NODE")]
    pub(crate) blocks_of: Option<String>,
    /// The namespace of namespaced resources that name none.
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

/// How to print manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManifestFormat {
    /// YAML, one document a resource.
    Yaml,
    /// JSON, one list.
    Json,
}

/// `node …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// The agent's health and its sessions: of this machine's agent or, of a lab, every node's.
    Status {
        /// Only this node of a lab.
        #[arg(conflicts_with = "all")]
        node: Option<String>,
        /// Every node whose agent is on this machine.
        #[arg(long)]
        all: bool,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Which nodes, and how to print.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Only these nodes.
    pub(crate) nodes: Vec<String>,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// One speaker, and how to print what it says.
#[derive(Debug, Args)]
pub(crate) struct SpeakerArgs {
    /// Whose speaker; may be left out where there is one.
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `bgp …`.
#[derive(Debug, Subcommand)]
pub(crate) enum BgpCommand {
    /// Every session.
    Peers(NodesArgs),
    /// Every path, the best ones marked.
    Routes(NodesArgs),
    /// Why a prefix is reached as it is: every path, what filters did to it, and which peers are told of it.
    Explain {
        /// The prefix, as in 10.244.0.0/26.
        prefix: ipnetwork::IpNetwork,
        /// Where, and how to print.
        #[command(flatten)]
        args: NodesArgs,
    },
    /// Write every path to a file that tools for routing tables read: MRT (RFC 6396).
    Dump {
        /// The file.
        file: PathBuf,
        /// Whose paths; may be left out where there is one speaker.
        #[arg(long)]
        node: Option<String>,
    },
    /// Empty a session before it ends (RFC 8326): its routes are marked as the last to be taken, then withdrawn; then it ends, and
    /// stays away until `undrain` or the speaker's next start.
    Drain {
        /// The peer's address; all peers of the speaker where absent.
        peer: Option<std::net::IpAddr>,
        /// Seconds between mark and withdrawal: as long as others need to find other ways.
        #[arg(long = "for", value_name = "SECONDS", default_value_t = 30)]
        seconds: u32,
        /// What the peer reads when the session ends, 255 octets at most.
        #[arg(long, default_value = "")]
        message: String,
        /// Where, and how to print.
        #[command(flatten)]
        args: SpeakerArgs,
    },
    /// Have drained peers back.
    Undrain {
        /// The peer's address; all peers of the speaker where absent.
        peer: Option<std::net::IpAddr>,
        /// Where, and how to print.
        #[command(flatten)]
        args: SpeakerArgs,
    },
    /// End a session and begin it anew.
    Reset {
        /// The peer's address.
        peer: std::net::IpAddr,
        /// Keep the session: ask for all routes again, and send ours again.
        #[arg(long, conflicts_with = "message")]
        soft: bool,
        /// What the peer reads when the session ends, 255 octets at most.
        #[arg(long, default_value = "")]
        message: String,
        /// Where, and how to print.
        #[command(flatten)]
        args: SpeakerArgs,
    },
    /// Have manx-bgpd read its configuration again; a wrong file changes nothing.
    Reload(OutputArgs),
}

/// `route …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// The routes that Manx wants in the kernel, and whether they are there.
    Show(NodesArgs),
}

/// `topology`.
#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: PictureFormat,
}

/// How to print a topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PictureFormat {
    /// Boxes and lines.
    Text,
    /// Scalable vector graphics.
    Svg,
    /// For Graphviz.
    Dot,
    /// For scripts.
    Json,
}

/// `lab …`.
#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Build a cluster, and wait until every session and every route is there.
    Up(UpArgs),
    /// Take a lab down; nothing of it stays.
    Down,
    /// What there is: nodes, routers, pods.
    Status(OutputArgs),
    /// Prove it: TCP and ICMP between all pods and from all nodes, and what the wire carried.
    Verify(OutputArgs),
    /// Start a node's agent, or a router's daemons, again; one that runs is ended first.
    Restart {
        /// The node or router.
        host: String,
    },
    /// Run a command on a node or a router.
    Exec {
        /// The node or router.
        host: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Pods of a lab.
    #[command(subcommand)]
    Pod(PodCommand),
}

/// `lab up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: u16,
    /// Who peers with whom.
    #[arg(long, default_value = "mesh")]
    pub(crate) topology: TopologyKind,
    /// What routers run; with `--topology tor`.
    #[arg(long, default_value = "manx")]
    pub(crate) tor: Router,
    /// How many racks; with `--topology tor`. Default 2, or 1 for a single node.
    #[arg(long)]
    pub(crate) racks: Option<u16>,
    /// How many reflectors; with `--topology rr`.
    #[arg(long, default_value_t = 2)]
    pub(crate) reflectors: u16,
    /// How many pods each node gets.
    #[arg(long, default_value_t = 1)]
    pub(crate) pods_per_node: u16,
    /// IPv6 beside IPv4.
    #[arg(long)]
    pub(crate) dual_stack: bool,
    /// Seconds to wait for agents, for sessions and for routes.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

/// Who peers with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopologyKind {
    /// Every node with every other.
    Mesh,
    /// Every node with its rack's router only.
    Tor,
    /// Every node with route reflectors only.
    Rr,
}

/// What routers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Router {
    /// manx-bgpd.
    Manx,
    /// BIRD 2.
    Bird,
    /// FRR.
    Frr,
    /// GoBGP.
    Gobgp,
}

impl From<Router> for Software {
    fn from(router: Router) -> Self {
        match router {
            Router::Manx => Self::Manx,
            Router::Bird => Self::Bird,
            Router::Frr => Self::Frr,
            Router::Gobgp => Self::Gobgp,
        }
    }
}

/// `svc …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Which nodes announce each address of a service, and why or why not.
    Explain {
        /// The service.
        #[arg(value_name = "NAMESPACE/NAME")]
        service: ServiceName,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// A service, as the user writes it: `NAMESPACE/NAME`, or `NAME` of the default namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceName {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl FromStr for ServiceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err("it is no service: write NAMESPACE/NAME");
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// `policy …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Why a packet passes, or does not: the policies that it meets, and the rule that decides. With --what-if: which
    /// packets would be treated otherwise if some resources were applied.
    Explain(ExplainArgs),
    /// What staged policies would have done on each node, in packets that began something.
    Staged(NodesArgs),
    /// Packets that were denied: by which policy, from whom and to whom.
    Denies(DeniesArgs),
}

/// `policy explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Who sends it.
    #[arg(
        long,
        value_name = "NAMESPACE/POD[@INTERFACE]|host:NODE|ADDRESS",
        required_unless_present = "what_if"
    )]
    pub(crate) from: Option<End>,
    /// Where to.
    #[arg(
        long,
        value_name = "NAMESPACE/POD[@INTERFACE]|svc:NAMESPACE/NAME|host:NODE|ADDRESS:PORT/PROTOCOL",
        required_unless_present = "what_if"
    )]
    pub(crate) to: Option<Destination>,
    /// What would change.
    #[command(flatten)]
    pub(crate) what_if: WhatIfArgs,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `policy explain --what-if`.
#[derive(Debug, Args)]
pub(crate) struct WhatIfArgs {
    /// Which packets between pods, and from or to others, would be treated otherwise if -f were applied. Nothing is
    /// written.
    #[arg(long, conflicts_with_all = ["from", "to"], requires = "SupposedArgs")]
    what_if: bool,
    /// What would be otherwise.
    #[command(flatten)]
    pub(crate) supposed: SupposedArgs,
    /// The namespace of resources that name none.
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        default_value = "default",
        requires = "what_if"
    )]
    pub(crate) namespace: String,
}

/// What would be otherwise.
#[derive(Debug, Args)]
pub(crate) struct SupposedArgs {
    /// What would be applied: a file, a folder or `-` for standard input; may be given again.
    #[arg(short, long, value_name = "FILE", requires = "what_if")]
    pub(crate) file: Vec<PathBuf>,
    /// What would be deleted; may be given again.
    #[arg(long, value_name = "KIND/[NAMESPACE/]NAME", requires = "what_if")]
    pub(crate) without: Vec<Without>,
}

/// `policy denies`.
#[derive(Debug, Args)]
pub(crate) struct DeniesArgs {
    /// Have denied packets logged, and print them as they come, until interrupted.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only this node's; may be given several times.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Vec<String>,
    /// Only those from or to pods of this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Only those from or to this pod.
    #[arg(long, value_name = "NAMESPACE/POD")]
    pub(crate) pod: Option<Pod>,
    /// How to print; with `--follow`, JSON is one object a line.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `lab pod …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PodCommand {
    /// Add a pod, through the CNI plugin.
    Add {
        /// Its name.
        name: String,
        /// Where it runs.
        #[arg(long)]
        node: String,
        /// Its namespace.
        #[command(flatten)]
        namespace: NamespaceArgs,
        /// An annotation of it; may be given several times.
        #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
        annotations: Vec<(String, String)>,
        /// A label of it; may be given several times.
        #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// What one of its ports is called; may be given several times.
        #[arg(long = "port", value_name = "NAME=PORT/PROTOCOL", value_parser = port)]
        ports: Vec<NamedPort>,
        /// Its service account.
        #[arg(long)]
        service_account: Option<String>,
    },
    /// Every pod.
    List(OutputArgs),
    /// Remove a pod, through the CNI plugin.
    Delete {
        /// Its name.
        name: String,
        /// Its namespace.
        #[command(flatten)]
        namespace: NamespaceArgs,
    },
    /// Run a command in a pod.
    Exec {
        /// The pod.
        name: String,
        /// Its namespace.
        #[command(flatten)]
        namespace: NamespaceArgs,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// `KEY=VALUE`.
fn port(text: &str) -> Result<NamedPort, String> {
    let (name, rest) = pair(text).map_err(|_| "it is no NAME=PORT/PROTOCOL".to_owned())?;
    let (number, protocol) = rest.split_once('/').unwrap_or((&rest, "TCP"));
    Ok(NamedPort {
        name,
        protocol: protocol
            .parse()
            .map_err(|error: ProtocolError| error.to_string())?,
        port: number
            .parse()
            .map_err(|_| format!("'{number}' is no port: 1 to 65535"))?,
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("it is no KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn no_two_words_of_the_command_line_are_the_same() {
        super::Cli::command().debug_assert();
    }
}
