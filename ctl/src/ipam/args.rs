//! The words of `manxctl ipam`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use crate::cli::OutputArgs;

/// `ipam …`.
#[derive(Debug, Subcommand)]
pub(crate) enum IpamCommand {
    /// How full pools are, and who holds an address.
    Show(ShowArgs),
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
