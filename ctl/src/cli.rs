//! What can be typed.

use std::path::PathBuf;

use anstream::ColorChoice;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use manx_api::Kind;

use crate::error::Error;
use crate::output::Format;

/// Operates a Manx cluster.
#[derive(Debug, Parser)]
#[command(name = "manxctl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) location: Location,
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the cluster is.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Location {
    /// The lab to operate, instead of this machine's node.
    #[arg(long, global = true, env = "MANX_LAB", value_name = "NAME")]
    pub(crate) lab: Option<String>,
    /// The datastore's file.
    #[arg(long, global = true, env = "MANX_STORE", value_name = "FILE", conflicts_with = "lab")]
    pub(crate) store: Option<PathBuf>,
    /// The agent's control socket.
    #[arg(long, global = true, env = "MANX_SOCKET", value_name = "FILE", conflicts_with = "lab")]
    pub(crate) socket: Option<PathBuf>,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    pub(crate) fn write_global(self) {
        let choice = match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows resources.
    Get(Get),
    /// Creates resources; fails for those that exist.
    Create(Manifests),
    /// Creates resources, or changes those that exist.
    Apply(Manifests),
    /// Changes resources; fails for those that do not exist.
    Replace(Manifests),
    /// Deletes resources.
    Delete(Delete),
    /// Checks manifests and changes nothing.
    Validate(Manifests),
    /// Looks at nodes.
    #[command(subcommand)]
    Node(Node),
    /// Looks at BGP.
    #[command(subcommand)]
    Bgp(Bgp),
    /// Looks at the routes that Manx wants in the kernel.
    #[command(subcommand)]
    Route(Route),
    /// Looks at addresses.
    #[command(subcommand)]
    Ipam(Ipam),
    /// Prints a shell's completion script.
    Completion {
        /// Which shell.
        shell: Shell,
    },
    /// Prints the version.
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What kind: ippool, node, bgppeer, bgpconfiguration, ipblock, workloadendpoint.
    pub(crate) kind: Kind,
    /// Only these.
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Manifests {
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// What kind.
    #[arg(required_unless_present = "files", conflicts_with = "files")]
    pub(crate) kind: Option<Kind>,
    /// Which.
    #[arg(required_unless_present = "files")]
    pub(crate) names: Vec<String>,
    /// Those that these files name.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The namespace, for namespaced kinds.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// What does not exist is deleted already.
    #[arg(short = 's', long, alias = "ignore-not-found")]
    pub(crate) skip_not_exists: bool,
}

/// Which namespaces.
#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// The namespace, for namespaced kinds.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// The form.
    #[arg(short, long = "output", value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// What an agent is asked for, and how to print it.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// Only this node's; every node's of the lab otherwise.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Shows how nodes and their sessions are.
    Status(NodeStatus),
}

#[derive(Debug, Args)]
pub(crate) struct NodeStatus {
    /// Only this node.
    pub(crate) node: Option<String>,
    /// Every node of the lab; the default there.
    #[arg(long, conflicts_with = "node")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// Shows sessions.
    Peers(Ask),
    /// Shows paths, the best of each prefix marked.
    Routes(BgpRoutes),
}

#[derive(Debug, Args)]
pub(crate) struct BgpRoutes {
    /// Only paths to this prefix.
    pub(crate) prefix: Option<ipnetwork::IpNetwork>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Route {
    /// Shows each wanted route and whether the kernel has it.
    Show(Ask),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Shows how full pools and blocks are, or who holds an address.
    Show(IpamShow),
}

#[derive(Debug, Args)]
pub(crate) struct IpamShow {
    /// Each block, too.
    #[arg(long)]
    pub(crate) show_blocks: bool,
    /// Who holds this address.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "show_blocks")]
    pub(crate) ip: Option<std::net::IpAddr>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Prints a shell's completion script.
pub(crate) fn completion(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "manxctl", &mut script);
    crate::output::line(String::from_utf8_lossy(&script).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
