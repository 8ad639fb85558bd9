//! The operator's command line manxctl.
//!
//! Two sources answer it: the datastore (`get`, `apply` and their like) and the agents' control sockets
//! (`node status`, `bgp …`, `route …`). [`cluster::Cluster`] knows where both are: on this machine, or in a
//! lab (`--lab`). Every list is rows that [`output`] prints as a table or as what scripts read.

use std::process::ExitCode;

use clap::Parser as _;

mod agent;
mod cli;
mod cluster;
mod columns;
mod error;
mod ipam;
mod output;
mod resources;
mod rows;

use cli::{Cli, Command};
use cluster::Cluster;
use error::Error;

/// Runs the command line; the exit code is 0 for success, 1 for failure, 2 for a usage error.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.color.write_global();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    let cluster = Cluster::new(cli.location)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::runtime)?;
    match cli.command {
        Command::Get(arguments) => runtime.block_on(resources::get(&cluster, &arguments)),
        Command::Create(arguments) => runtime.block_on(resources::create(&cluster, &arguments)),
        Command::Apply(arguments) => runtime.block_on(resources::apply(&cluster, &arguments)),
        Command::Replace(arguments) => runtime.block_on(resources::replace(&cluster, &arguments)),
        Command::Delete(arguments) => runtime.block_on(resources::delete(&cluster, &arguments)),
        Command::Validate(arguments) => resources::validate(&arguments),
        Command::Node(cli::Node::Status(arguments)) => agent::node_status(&cluster, &arguments),
        Command::Bgp(cli::Bgp::Peers(arguments)) => agent::peers(&cluster, &arguments),
        Command::Bgp(cli::Bgp::Routes(arguments)) => agent::routes(&cluster, &arguments),
        Command::Route(cli::Route::Show(arguments)) => agent::kernel_routes(&cluster, &arguments),
        Command::Ipam(cli::Ipam::Show(arguments)) => runtime.block_on(ipam::show(&cluster, &arguments)),
        Command::Completion { shell } => cli::completion(shell),
        Command::Version => output::line(&format!("manxctl {}", env!("CARGO_PKG_VERSION"))),
    }
}
