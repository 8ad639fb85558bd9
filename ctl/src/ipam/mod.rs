//! `ipam …`: pools, blocks and addresses.
//!
//! The datastore knows every block, as of its owner's last checkpoint; an owner's agent knows what is newer. Every
//! verb reads the datastore, so that it works for the whole cluster and also while agents are away.

pub(crate) mod args;
mod check;
mod cluster;
mod configure;
mod evidence;
mod holder;
mod release;
mod show;
pub(crate) mod split;
mod usage;

use std::process::ExitCode;

use args::IpamCommand;

use crate::error::Result;
use crate::target::Target;

/// Does what is asked.
pub(crate) async fn run(target: &Target, command: &IpamCommand) -> Result<ExitCode> {
    match command {
        IpamCommand::Show(args) => show::show(target, args).await?,
        IpamCommand::Check(args) => return check::run(target, args).await,
        IpamCommand::Release(args) => release::run(target, args).await?,
        IpamCommand::Configure(args) => configure::configure(target, args).await?,
        IpamCommand::Cordon(args) => configure::cordon(target, &args.pool, true).await?,
        IpamCommand::Uncordon(args) => configure::cordon(target, &args.pool, false).await?,
        IpamCommand::Split(args) => split::run(target, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
