//! `manxd`: the node daemon, and the cluster's controller.

use std::error::Error;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use manx_agent::config::{Config, Datastore, LogLevel};
use manx_agent::identity::Identity;
use manx_agent::startup;
use manx_agent::tasks::{self, Start};
use manx_bgpd::control::Claim;
use manx_store::{AnyStore, KubeOptions, KubeStore, SqliteStore, Store as _};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Where the configuration is looked for.
const CONFIG: &str = "/etc/manx/manxd.yaml";

/// The Manx node daemon: pods' addresses and links, BGP, routes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration. Without this, /etc/manx/manxd.yaml if it exists, else the defaults.
    #[arg(long, env = "MANX_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// What to be; a node's daemon where nothing is named.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// The cluster's controller: gives addresses to services of type LoadBalancer, and forgets nodes that are gone. Of
    /// several that run, one acts.
    Controller,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the configuration, makes the runtimes, and runs the agent to its end.
fn start(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let config = configuration(arguments);
    let level = config.as_ref().map(|config| config.log_level).unwrap_or_default();
    // Libraries have little to say to an operator: each request to an API server, in many lines.
    let quieter = match level {
        LogLevel::Debug => ",hyper_util=info,kube_client=info,tower=info",
        LogLevel::Error | LogLevel::Warn | LogLevel::Info | LogLevel::Trace => "",
    };
    let filter = EnvFilter::try_from_env("RUST_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{}{quieter}", level.as_str())));
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let config = config?;
    if let Some(Command::Controller) = arguments.command {
        return runtime("manx-controller", Some(1))?.block_on(control(&config));
    }
    // Sessions keep their timers whatever the rest of the agent is busy with.
    let bgp = runtime("manx-bgp", Some(1))?;
    let main = runtime("manx", None)?;
    let outcome = main.block_on(run(config, bgp.handle().clone()));
    bgp.shutdown_background();
    main.shutdown_background();
    outcome
}

fn configuration(arguments: &Arguments) -> Result<Config, Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).ok();
    let default = PathBuf::from(CONFIG);
    let config = match &arguments.config {
        Some(path) => Config::load(path, variable)?,
        None if default.exists() => Config::load(&default, variable)?,
        None => Config::parse(&default, "", variable)?,
    };
    Ok(config)
}

fn runtime(name: &str, threads: Option<usize>) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.thread_name(name).enable_all().build()
}

/// The datastore that the settings name.
async fn open(datastore: &Datastore) -> Result<AnyStore, manx_store::Error> {
    match &datastore.kubernetes {
        None => SqliteStore::open(&datastore.sqlite.path)
            .await
            .map(AnyStore::Sqlite),
        Some(kubernetes) => {
            let options = KubeOptions {
                kubeconfig: kubernetes.kubeconfig.clone(),
                context: kubernetes.context.clone(),
            };
            KubeStore::connect(&options).await.map(AnyStore::Kubernetes)
        }
    }
}

/// Until we are told to end.
fn stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn host_name() -> std::io::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(name.trim().to_owned())
}

/// Runs the controller to its end.
async fn control(config: &Config) -> Result<(), Box<dyn Error>> {
    let stop = stop()?;
    let store = open(&config.datastore).await?;
    let cluster = store.cluster().ok_or(
        "the controller is for Kubernetes clusters: write datastore: {kubernetes: {}} into the configuration",
    )?;
    let settings = manx_controller::Settings {
        name: config.node_name.clone().map_or_else(host_name, Ok)?,
        lease_seconds: config.controller.lease_seconds.into(),
        host_endpoints: config.controller.auto_host_endpoints,
        node_grace: Duration::from_secs(config.controller.deleted_node_seconds.into()),
        default_pools: config.controller.pools(),
    };
    tracing::info!(
        name = settings.name,
        version = env!("CARGO_PKG_VERSION"),
        "the controller starts"
    );
    manx_controller::run(&store, &cluster, &settings, stop).await;
    Ok(())
}

async fn run(config: Config, bgp_runtime: Handle) -> Result<(), Box<dyn Error>> {
    let stop = stop()?;
    let claim = Claim::new(&config.socket)?;
    std::fs::create_dir_all(&config.state_dir)
        .map_err(|error| format!("cannot make stateDir {}: {error}", config.state_dir.display()))?;
    let machine = startup::survey()?;
    let identity = Identity::new(&config, &host_name()?, &machine.interfaces)?;
    manx_linux::sysctl::use_directory(config.sysctl_dir.clone());
    manx_linux::sysctl::enable_forwarding()?;
    let store = open(&config.datastore).await?;
    tracing::info!(
        node = identity.name,
        ipv4 = identity.ipv4.map(|network| network.to_string()),
        ipv6 = identity.ipv6.map(|network| network.to_string()),
        version = env!("CARGO_PKG_VERSION"),
        "manxd starts"
    );
    let start = Start {
        config,
        claim,
        machine,
        identity,
        store,
        bgp_runtime,
    };
    Ok(tasks::run(start, stop).await?)
}
