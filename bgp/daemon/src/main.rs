//! `manx-bgpd`: the speaker on its own, for route reflectors, labs and benchmarks.

mod answers;
mod fib;
mod notify;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use manx_api::status::Reload;
use manx_bgpd::config::Settings;
use manx_bgpd::control::{self, Claim, SocketError};
use manx_bgpd::reload::{self, FileError, Running};
use manx_bgpd::{Event, Events};
use tokio::runtime::{self, Builder};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::answers::Answers;
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
    #[error("{0}")]
    File(#[from] FileError),
    #[error("{0}")]
    Start(#[from] io::Error),
    #[error("{0}")]
    Socket(#[from] SocketError),
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
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the runtimes: one for the speaker, and one for its connections.
fn start(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = |name| Builder::new_multi_thread().enable_all().thread_name(name).build();
    let connections = runtime("connections")?;
    runtime("speaker")?.block_on(run(arguments, connections.handle().clone()))
}

async fn run(arguments: &Arguments, connections: runtime::Handle) -> Result<(), Failure> {
    let settings = reload::read(&arguments.config)?;
    let claim = settings.socket.as_deref().map(Claim::new).transpose()?;
    let [mut terminate, mut interrupt, mut hangup] = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    let fib = kernel(&settings)?;
    let restarted = arguments.restarted || fib.outlived();
    let (handle, events) = manx_bgpd::start_beside(settings.options(restarted), connections)?;
    tracing::info!(asn = settings.asn, restarted, listen = ?handle.listening(), "started");
    if !settings.fib {
        handle.leave_selections_out().await;
    }
    let (router_id, asn) = (settings.router_id, settings.asn);
    let mut running = Running::start(handle.clone(), &arguments.config, settings).await;
    let (reload, mut reloads) = mpsc::channel(1);
    let answers = Answers {
        node: hostname()?,
        router_id,
        asn,
        handle: handle.clone(),
        reload,
    };
    if let Some(claim) = claim {
        let listener = claim.listen()?;
        tokio::spawn(async move {
            let _claim = claim;
            control::serve(&listener, &answers, &TaskTracker::new()).await;
        });
    }
    notify::ready()?;
    let mut serving = pin!(serve(events, fib));
    let drain_time = loop {
        tokio::select! {
            failed = &mut serving => return failed,
            _ = terminate.recv() => break running.settings().drain_time,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => drop(reread(&mut running).await),
            Some(reply) = reloads.recv() => {
                // Whoever asked and does not wait any more finds the answer in the log.
                reply.send(reread(&mut running).await).unwrap_or_default();
            }
        }
    };
    if let Some(time) = drain_time {
        tracing::info!(seconds = time.get(), "draining; another signal ends at once");
        let words = running.settings().shutdown_communication.clone();
        tokio::select! {
            () = handle.drain_all(Duration::from_secs(time.get().into()), words) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            failed = &mut serving => return failed,
        }
    }
    handle.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

/// The kernel's routes, after it was told how to announce them.
fn kernel(settings: &Settings) -> Result<Fib, Failure> {
    if let Some(tells) = settings.nexthop_compat_mode {
        manx_linux::sysctl::set_nexthop_compat_mode(tells)?;
    }
    Ok(Fib::start(settings.fib)?)
}

fn hostname() -> io::Result<String> {
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(node.trim().to_owned())
}

async fn reread(running: &mut Running) -> Result<Reload, FileError> {
    let done = running.reload().await;
    match &done {
        Ok(changes) => tracing::info!(?changes, "configuration read again"),
        Err(error) => tracing::error!("nothing changes: {error}"),
    }
    done
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
        } => tracing::info!(%peer, "session up"),
        Event::Session {
            peer,
            up: false,
            reason,
        } => {
            let reason = reason.as_deref().unwrap_or("unknown");
            tracing::warn!(%peer, reason, "session down");
        }
        Event::Converged => tracing::info!("converged"),
        // BFD and the connections have said so themselves, and how the session ends follows.
        Event::Bfd { .. } | Event::Faults(_) | Event::Lost(_) => {}
        Event::Selected(paths) => tracing::debug!(prefixes = paths.len(), "best paths changed"),
    }
}
