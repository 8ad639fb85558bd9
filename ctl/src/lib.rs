//! The operator's command line manxctl.
//!
//! [`cli`] is the grammar, [`target`] finds the cluster that a command is about, [`resources`], [`edit`], [`convert`],
//! [`observe`], [`policy`] (with [`ends`] and [`through`]), [`service`], [`ipam`], [`what_if`], [`topology`] and [`lab`] are the verbs, [`output`] and [`rows`] print what they find.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use serde::Serialize;

mod calico;
mod cli;
mod convert;
mod denies;
mod edit;
mod ends;
mod error;
mod ipam;
mod lab;
mod observe;
mod output;
mod picture;
mod policy;
mod policy_rows;
mod resources;
mod rows;
mod service;
mod service_rows;
mod target;
mod through;
mod topology;
mod what_if;

use cli::{Cli, Color, Command};
use error::{CtlError, Result};
use output::Row;
use resources::Write;
use target::Target;

/// Runs manxctl with the process's arguments: 0 when all went well, 1 when something failed, 2 when the
/// arguments make no sense.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.color {
        // `anstream` looks at the terminal and at NO_COLOR by itself.
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("manxctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.map_err(CtlError::Start)?.block_on(execute(cli))
}

async fn execute(cli: Cli) -> Result<ExitCode> {
    let target = Target::new(cli.target)?;
    match cli.command {
        Command::Get(args) => resources::get(&target, &args).await?,
        Command::Apply(args) => resources::write(&target, &args, Write::Apply).await?,
        Command::Create(args) => resources::write(&target, &args, Write::Create).await?,
        Command::Replace(args) => resources::write(&target, &args, Write::Replace).await?,
        Command::Delete(args) => resources::delete(&target, &args).await?,
        Command::Patch(args) => edit::patch(&target, &args).await?,
        Command::Label(args) => edit::label(&target, &args).await?,
        Command::Validate(args) => convert::validate(&args)?,
        Command::Convert(args) => convert::convert(&args)?,
        Command::Node(command) => observe::node(&target, &command)?,
        Command::Bgp(command) => observe::bgp(&target, &command)?,
        Command::Route(command) => observe::route(&target, &command)?,
        Command::Service(command) => service::run(&target, &command)?,
        Command::Policy(command) => policy::run(&target, &command).await?,
        Command::Ipam(command) => return ipam::run(&target, &command).await,
        Command::Topology(args) => topology::show(&target, args.output).await?,
        Command::Lab(command) => return lab::run(&target, command).await,
        Command::Version(args) => output::print(&[Version::OURS], args.output)?,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "manxctl", &mut script);
            output::emit(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `version` says.
#[derive(Debug, Serialize)]
struct Version {
    client: &'static str,
}

impl Version {
    const OURS: Self = Self {
        client: env!("CARGO_PKG_VERSION"),
    };
}

impl Row for Version {
    const COLUMNS: (&'static [&'static str], usize) = (&["CLIENT VERSION"], 1);

    fn cells(&self) -> Vec<String> {
        vec![self.client.to_owned()]
    }

    fn name(&self) -> String {
        self.client.to_owned()
    }
}
