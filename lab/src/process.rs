//! The lab's processes: started to outlive us, and stopped only when they are surely ours.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use manx_linux::Netns;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::error::{LabError, Result};
use crate::layout::netns_path;
use crate::state::Started;

/// How long a process may take to leave by itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often we look whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Starts `program` in a namespace, in a session of its own so that the terminal's signals pass it by.
pub(crate) fn start(
    netns: &Netns,
    (host, name): (&str, &str),
    program: &Path,
    args: &[String],
    log: &Path,
) -> Result<Started> {
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(LabError::file("open", log))?;
    let errors = output.try_clone().map_err(LabError::file("open", log))?;
    let child = netns
        .command("setsid")
        .arg(program)
        .args(args)
        // The lab's configuration names its nodes; the caller's environment does not.
        .env_remove("MANX_NODE_NAME")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(LabError::file("start", program))?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    let start_time = start_time(pid).unwrap_or(0);
    Ok(Started {
        host: host.to_owned(),
        name: name.to_owned(),
        pid,
        start_time,
    })
}

/// When a living process started; none once it has ended, even if nobody has asked how.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows it are the fields from the third on.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start_time)
}

/// Whether the process that was started still runs.
#[must_use]
pub fn is_alive(process: &Started) -> bool {
    // Only our own children are waited for; of anybody else's there is nothing to reap.
    waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG)).ok();
    start_time(process.pid) == Some(process.start_time)
}

/// Ends processes: asks first.
pub(crate) fn stop(processes: &[Started]) {
    signal_and_wait(processes, Signal::SIGTERM);
    signal_and_wait(processes, Signal::SIGKILL);
    remove_litter(processes);
}

/// Ends the lab's processes, and then whatever else runs in its namespaces: shells, servers in pods.
pub(crate) fn stop_all(processes: &[Started], namespaces: &[String]) {
    stop(processes);
    signal_and_wait(&strays(namespaces), Signal::SIGKILL);
}

fn signal_and_wait(processes: &[Started], signal: Signal) {
    let alive = |process: &&Started| is_alive(process);
    for process in processes.iter().filter(alive) {
        // It may have ended since.
        kill(Pid::from_raw(process.pid), signal).ok();
    }
    let deadline = Instant::now() + PATIENCE;
    while processes.iter().any(|process| alive(&process)) && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
}

/// Removes what FRR's daemons leave beside their own folder, whoever tells them otherwise: a folder each, named
/// after the process, for their last words.
fn remove_litter(processes: &[Started]) {
    const FRR: &str = "/var/tmp/frr";
    for Started { name, pid, .. } in processes {
        // Others have none, and nobody misses what is not there.
        fs::remove_dir_all(Path::new(FRR).join(format!("{name}.{pid}"))).ok();
    }
}

/// Every process whose network namespace is one of these.
fn strays(namespaces: &[String]) -> Vec<Started> {
    let inode = |name: &String| Netns::open(netns_path(name)).and_then(|netns| netns.inode()).ok();
    let mut inodes: BTreeSet<u64> = namespaces.iter().filter_map(inode).collect();
    // Our own is not the lab's, whatever the names say.
    if let Ok(own) = Netns::current().and_then(|netns| netns.inode()) {
        inodes.remove(&own);
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|found| inodes.contains(&found.ino()))
        })
        .filter_map(|pid| {
            let start_time = start_time(pid)?;
            Some(Started {
                host: String::new(),
                name: String::new(),
                pid,
                start_time,
            })
        })
        .collect()
}

/// The end of a log.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read(log)
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    if lines.is_empty() {
        format!("(nothing in {})", log.display())
    } else {
        lines[from..].join("\n")
    }
}
