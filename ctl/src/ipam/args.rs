//! The words of `manxctl ipam`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;

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
    /// Have lost addresses freed by the owners of their blocks, who keep what an interface carries.
    Release(ReleaseArgs),
    /// Change how nodes assign addresses.
    Configure(ConfigureArgs),
    /// Have a pool give nothing new; what is held stays. `ipam show` tells how far it is drained.
    Cordon(PoolArgs),
    /// Have a cordoned pool give addresses again.
    Uncordon(PoolArgs),
    /// Split a pool into several of one size; pods go on. Run it again if it was interrupted.
    Split(SplitArgs),
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

/// `ipam release`.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// This address, if it looks lost.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "from_report")]
    pub(crate) ip: Option<IpAddr>,
    /// Only this allocation of it; without, the one that `ipam show --ip` shows.
    #[arg(long, value_name = "NUMBER", requires = "ip")]
    pub(crate) sequence: Option<u64>,
    /// What the reports of `ipam check --report` call leaked; of several, what all of them do.
    #[arg(long, value_name = "FILE", num_args(1..), conflicts_with = "ip")]
    pub(crate) from_report: Vec<PathBuf>,
    /// Have owners asked also about an address that looks in use, and about those without a WorkloadEndpoint on nodes
    /// whose agents the check did not reach. Owners still keep what an interface carries.
    #[arg(long)]
    pub(crate) force: bool,
    /// How long to wait for owners. What they have not dealt with then stays asked for.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `ipam configure`.
#[derive(Debug, Args)]
pub(crate) struct ConfigureArgs {
    /// What to change.
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Settings to be changed; the others stay.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Settings {
    /// Whether nodes keep to their own blocks, and lease none of another's.
    #[arg(long, visible_alias = "strictaffinity", value_name = "true|false")]
    pub(crate) strict_affinity: Option<bool>,
    /// The most blocks of each family that a node may own; 0 is no limit.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_blocks_per_host: Option<u32>,
    /// How long a freed address is given to nobody else, 0 to 1200.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ip_cooldown_seconds: Option<u32>,
    /// Whether nodes claim blocks as they need them.
    #[arg(long, value_name = "true|false")]
    pub(crate) auto_allocate_blocks: Option<bool>,
}

/// `ipam cordon`, `ipam uncordon`.
#[derive(Debug, Args)]
pub(crate) struct PoolArgs {
    /// The pool, by name or CIDR.
    pub(crate) pool: String,
}

/// `ipam split`.
#[derive(Debug, Args)]
pub(crate) struct SplitArgs {
    /// Into how many: a power of two.
    pub(crate) number: u32,
    /// Which pool.
    #[command(flatten)]
    pub(crate) which: WhichPool,
}

/// A pool, by one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichPool {
    /// The pool with these addresses.
    #[arg(long)]
    pub(crate) cidr: Option<IpNetwork>,
    /// The pool of this name (calicoctl's `--name`, which names a lab here).
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<String>,
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
