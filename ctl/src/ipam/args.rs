//! The words of `manxctl ipam`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::OutputArgs;

/// `ipam …`.
#[derive(Debug, Subcommand)]
pub(crate) enum IpamCommand {
    /// How full pools are, and who holds an address.
    Show(ShowArgs),
    /// Compare what the datastore says with what agents know and what interfaces carry: leaks, addresses in use that
    /// nobody holds, two pods with one address, blocks that cannot be. Leaves with 0 if all is well, with 3 if problems
    /// were found, with 4 if none were found but not every node could be asked, with 1 if nothing could be checked.
    Check(CheckArgs),
}

/// `ipam show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// What to show instead of pools, or beside them.
    #[command(flatten)]
    pub(crate) what: ShowWhat,
    /// Only this pool, by name or CIDR.
    #[arg(long, value_name = "POOL", conflicts_with_all = ["ip", "show_configuration"])]
    pub(crate) pool: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `ipam check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Every address that was checked, too.
    #[arg(long)]
    pub(crate) show_all_ips: bool,
    /// Every problem; without, the first ten of each kind.
    #[arg(long)]
    pub(crate) show_problem_ips: bool,
    /// Write a report to this file: what `ipam release --from-report` takes.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What `ipam show` shows; pools where nothing is asked for.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ShowWhat {
    /// Blocks, too, with their nodes.
    #[arg(long)]
    pub(crate) show_blocks: bool,
    /// Blocks that one node lends another.
    #[arg(long)]
    pub(crate) show_borrowed: bool,
    /// How nodes assign addresses.
    #[arg(long)]
    pub(crate) show_configuration: bool,
    /// Who holds this address, or why nobody does.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<IpAddr>,
}
