//! The tombstone task: carries out DELs that the agent was not there to hear ([`manx_cni::tombstone`]).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};
use manx_cni::{Attachment, tombstone};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cni::Job;

/// Bytes for events: room for the longest name, many times.
const BUFFER: usize = 4096;

/// How often the directory is read, for tombstones whose attachment could not be removed the first time.
const AGAIN: Duration = Duration::from_secs(10);

/// The tombstones' directory, watched.
#[derive(Debug)]
pub struct Tombstones {
    state_dir: PathBuf,
    events: EventStream<Vec<u8>>,
}

impl Tombstones {
    /// Watches the directory of this state directory; returns what lies there already.
    ///
    /// # Errors
    /// The directory cannot be made, watched or read.
    pub fn open(state_dir: &Path) -> io::Result<(Self, Vec<Attachment>)> {
        let directory = tombstone::directory(state_dir);
        std::fs::create_dir_all(&directory)?;
        let inotify = Inotify::init()?;
        // Watching comes first: what is written during the reading is seen twice rather than never.
        inotify
            .watches()
            .add(&directory, WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO)?;
        let found = found(state_dir)?;
        let events = inotify.into_event_stream(vec![0; BUFFER])?;
        let state_dir = state_dir.to_owned();
        Ok((Self { state_dir, events }, found))
    }

    /// Hands every new tombstone to the cni task, and again those that stay, until that has ended.
    ///
    /// # Errors
    /// The directory cannot be watched or read any more.
    pub async fn run(mut self, jobs: mpsc::Sender<Job>) -> io::Result<()> {
        let mut again = tokio::time::interval_at(Instant::now() + AGAIN, AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let found = tokio::select! {
                biased;
                Some(event) = self.events.next() => {
                    let name = event?.name;
                    let found = name.as_ref().and_then(|name| name.to_str()).and_then(tombstone::parse);
                    found.into_iter().collect()
                }
                _ = again.tick() => found(&self.state_dir)?,
            };
            for attachment in found {
                if jobs.send(Job::Bury(attachment)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// The tombstones that lie in this state directory, in order.
///
/// # Errors
/// The directory cannot be read.
pub fn found(state_dir: &Path) -> io::Result<Vec<Attachment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(tombstone::directory(state_dir))? {
        found.extend(entry?.file_name().to_str().and_then(tombstone::parse));
    }
    found.sort_unstable();
    Ok(found)
}
