//! `manx-bgpd`: the speaker on its own, for route reflectors, labs and benchmarks.

mod fib;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use manx_bgpd::config::{ConfigError, Settings};
use manx_bgpd::{Event, Events, Handle};
use tokio::signal::unix::{SignalKind, signal};

use crate::fib::Fib;

/// A BGP speaker.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The speaker's configuration, YAML or JSON.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Forwarding went on while we were away: ask peers to keep our routes (RFC 4724). With `fib: true` the
    /// routes that are found in the kernel say so.
    #[arg(long)]
    restarted: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}:{error}", path.display())]
    Config { path: PathBuf, error: ConfigError },
    #[error("{0}")]
    Start(#[from] io::Error),
    #[error("best paths cannot be put into the kernel: {0}")]
    Kernel(#[from] manx_linux::Error),
    #[error("the speaker stopped by itself; its log says why")]
    Stopped,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = &arguments.config;
    let text = std::fs::read_to_string(path).map_err(|error| Failure::Unreadable {
        path: path.clone(),
        error,
    })?;
    let settings = Settings::parse(&text).map_err(|error| Failure::Config {
        path: path.clone(),
        error,
    })?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let fib = Fib::start(settings.fib)?;
    let restarted = arguments.restarted || fib.outlived();
    let (handle, events) = manx_bgpd::start(settings.options(restarted))?;
    tracing::info!(asn = settings.asn, restarted, listen = ?handle.listening(), "started");
    configure(&handle, &settings).await;
    tokio::select! {
        failed = serve(events, fib) => return failed,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    handle.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

async fn configure(handle: &Handle, settings: &Settings) {
    for &prefix in &settings.routes {
        handle.originate(prefix).await;
    }
    for peer in settings.peers() {
        handle.set_peer(peer).await;
    }
}

/// Carries events to the kernel and to the log; ends only with a failure.
async fn serve(mut events: Events, mut fib: Fib) -> Result<(), Failure> {
    loop {
        tokio::select! {
            event = events.next() => {
                let event = event.ok_or(Failure::Stopped)?;
                log(&event);
                fib.apply(&event).await?;
            }
            kept = fib.keep() => kept?,
        }
    }
}

fn log(event: &Event) {
    match event {
        Event::Session {
            peer,
            up: true,
            reason: _,
        } => tracing::info!(peer = %peer.address, "session up"),
        Event::Session {
            peer,
            up: false,
            reason,
        } => {
            let reason = reason.as_deref().unwrap_or("unknown");
            tracing::warn!(peer = %peer.address, reason, "session down");
        }
        Event::Converged => tracing::info!("converged"),
        // BFD has said so itself.
        Event::Bfd { .. } => {}
        Event::Selected(paths) => tracing::debug!(prefixes = paths.len(), "best paths changed"),
    }
}
