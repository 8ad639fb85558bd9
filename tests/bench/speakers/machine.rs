//! What a speaker costs, and what else the machine is doing meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use crate::programs::Running;
use crate::report::Round;

/// Ticks of the kernel's accounting in a second: 100 on every architecture that Linux shows to programs.
const TICKS: u32 = 100;

fn ticks(count: u64) -> Duration {
    Duration::from_secs(1) * u32::try_from(count).unwrap_or(u32::MAX) / TICKS
}

/// The processes of a speaker.
fn processes(running: &Running) -> Vec<u32> {
    let groups = running.groups();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process| {
            stat(*process, 2).is_some_and(|group| groups.iter().any(|it| u64::from(*it) == group))
        })
        .collect()
}

/// A field of `/proc/PROCESS/stat`, counted from the one behind the program's name.
fn stat(process: u32, field: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(field)?.parse().ok()
}

fn processor_time(process: u32) -> Duration {
    let times = [11, 12].map(|field| stat(process, field).unwrap_or_default());
    ticks(times.iter().sum())
}

/// The time that all threads of all of a speaker's processes have run.
pub(crate) fn running_time(running: &Running) -> Duration {
    processes(running).into_iter().map(processor_time).sum()
}

/// The most memory that they had resident at any time, together, in KiB.
pub(crate) fn peak_memory(running: &Running) -> u64 {
    let peak = |process: u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    processes(running).into_iter().filter_map(peak).sum()
}

/// The time that all processors were busy, and how many there are.
fn busy() -> (Duration, u32) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let processors = text.lines().filter(|line| line.starts_with("cpu")).count();
    let fields = text.lines().next().unwrap_or_default().split_whitespace();
    let fields: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // All but idle and waiting, up to stolen; what guests take is among the first.
    let busy = [0, 1, 2, 5, 6, 7].map(|field| fields.get(field).copied().unwrap_or_default());
    (
        ticks(busy.iter().sum()),
        u32::try_from(processors.saturating_sub(1)).unwrap_or(1).max(1),
    )
}

/// The machine at an instant.
#[derive(Debug)]
pub(crate) struct Machine {
    at: Instant,
    others: Duration,
}

/// What everybody else has run for.
fn others(running: &Running) -> Duration {
    busy()
        .0
        .saturating_sub(running_time(running) + processor_time(std::process::id()))
}

impl Machine {
    pub(crate) fn look(running: &Running) -> Self {
        Self {
            at: Instant::now(),
            others: others(running),
        }
    }

    /// Says how much of the machine others have had since then.
    pub(crate) fn since(&self, running: &Running, round: &mut Round) {
        let theirs = others(running).saturating_sub(self.others);
        let all = self.at.elapsed() * busy().1;
        round.others = theirs.as_secs_f64() / all.as_secs_f64().max(0.001);
    }
}
