//! Wake-ups between processes: a file that is touched after every commit.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, future};
use inotify::{Inotify, WatchMask};

use crate::Error;

/// Touches handled as one.
const BATCH: usize = 64;

/// The writer's side.
#[derive(Debug)]
pub(super) struct Notifier {
    file: File,
}

impl Notifier {
    /// Opens the notify file beside the store `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let path = beside(path);
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        match opened {
            Ok(file) => Ok(Self { file }),
            Err(source) => Err(Error::unavailable(
                format!("cannot open {}", path.display()),
                source,
            )),
        }
    }

    /// Wakes every process that watches. A failure delays them until they look by themselves.
    pub(super) fn touch(&self) {
        if let Err(error) = self.file.write_all_at(b".", 0) {
            tracing::warn!(%error, "cannot wake the watches of other processes; they will be late");
        }
    }
}

/// The watchers' side: one item for each batch of touches. Without inotify (its instances are limited per
/// user) the stream stays silent.
pub(super) fn touches(path: &Path) -> BoxStream<'static, ()> {
    match inotify_stream(&beside(path)) {
        Ok(touches) => touches,
        Err(error) => {
            tracing::warn!(
                %error,
                "no inotify: watches will be up to a second late; raise fs.inotify.max_user_instances"
            );
            stream::pending().boxed()
        }
    }
}

fn inotify_stream(path: &Path) -> io::Result<BoxStream<'static, ()>> {
    let inotify = Inotify::init()?;
    inotify.watches().add(path, WatchMask::MODIFY)?;
    let events = inotify.into_event_stream([0; 1024])?;
    Ok(events
        .take_while(|event| future::ready(event.is_ok()))
        .ready_chunks(BATCH)
        .map(drop)
        .boxed())
}

/// `FILE-notify`, as SQLite has `FILE-wal`.
fn beside(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push("-notify");
    name.into()
}
