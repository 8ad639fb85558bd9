//! The tombstone task: carries out DELs that the agent was not there to hear ([`manx_cni::tombstone`]).

use std::io;
use std::path::Path;

use futures_util::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};
use manx_cni::{Attachment, tombstone};
use tokio::sync::mpsc;

use crate::cni::Job;

/// Bytes for events: room for the longest name, many times.
const BUFFER: usize = 4096;

/// The tombstones' directory, watched.
#[derive(Debug)]
pub struct Tombstones(EventStream<Vec<u8>>);

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
        Ok((Self(inotify.into_event_stream(vec![0; BUFFER])?), found))
    }

    /// Hands every new tombstone to the cni task, until that has ended.
    ///
    /// # Errors
    /// The directory cannot be watched any more.
    pub async fn run(mut self, jobs: mpsc::Sender<Job>) -> io::Result<()> {
        while let Some(event) = self.0.next().await {
            let name = event?.name;
            let Some(attachment) = name
                .as_ref()
                .and_then(|name| name.to_str())
                .and_then(tombstone::parse)
            else {
                continue;
            };
            if jobs.send(Job::Bury(attachment)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The tombstones that lie in this state directory.
///
/// # Errors
/// The directory cannot be read.
pub fn found(state_dir: &Path) -> io::Result<Vec<Attachment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(tombstone::directory(state_dir))? {
        found.extend(entry?.file_name().to_str().and_then(tombstone::parse));
    }
    Ok(found)
}
