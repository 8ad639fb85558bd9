//! The embedded store: one SQLite file in WAL mode, shared by many processes.
//!
//! ```text
//!  async callers ── get, list, events ──► reader thread ─┐
//!        │                                                ├─► the file
//!        └───────── create, update, delete ► writer thread┘
//!                                             │ touches FILE-notify, publishes the head
//!  FILE-notify ── inotify ──► waker task ─────┴─► head (watch channel) ──► every watch's stream
//! ```
//!
//! SQLite blocks, so it lives on two threads of its own: reads do not wait behind a write that waits for
//! another process. A writer touches `FILE-notify` once its commit is visible; the waker task of every other
//! process sees that by inotify, reads the head revision and wakes its watches. The file's own WAL would not
//! do: it is written before the commit can be read. A writer killed between commit and touch wakes nobody, so
//! the waker also looks by itself once a second.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use manx_api::{Key, Kind, Resource, Revision};
use tokio::sync::watch;

mod database;
mod notify;
mod worker;
use self::database::Database;
use self::notify::Notifier;
use self::worker::Worker;
use crate::{Error, Event, Events, Listing, Store};

/// How late a watch may be when a writer was killed before it could wake us.
const SAFETY_POLL: Duration = Duration::from_secs(1);

/// A store in a SQLite file. Clones share its threads, which end with the last clone and watch.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    reader: Worker<Database>,
    writer: Worker<Writer>,
    /// The last revision known to be in the file.
    head: watch::Receiver<i64>,
}

/// What the writer thread owns.
#[derive(Debug)]
struct Writer {
    database: Database,
    notifier: Notifier,
}

impl SqliteStore {
    /// Opens the store in the file `path`, making it if need be; its folder must exist. Must be called
    /// within a Tokio runtime with time and I/O, which then runs the task that wakes watches.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the file or its neighbours cannot be made, read or written.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let file = path.to_owned();
        let opening = tokio::task::spawn_blocking(move || {
            let reader = Database::open(&file)?;
            let writer = Writer {
                database: Database::open(&file)?,
                notifier: Notifier::open(&file)?,
            };
            Ok((reader, writer))
        });
        let (reader, writer) = opening
            .await
            .map_err(|source| Error::unavailable("cannot open the store", source))??;
        let touches = notify::touches(path);
        let reader = Worker::spawn("manx-store-read", reader)?;
        let writer = Worker::spawn("manx-store-write", writer)?;
        let known = reader.run(|database| database.head()).await?;
        let (publish, head) = watch::channel(known);
        tokio::spawn(wake(reader.clone(), touches, publish));
        Ok(Self { reader, writer, head })
    }

    /// Runs a write, then wakes every process's watches, our own too.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let written = self.writer.run(move |writer| {
            let written = change(&mut writer.database)?;
            writer.notifier.touch();
            Ok(written)
        });
        written.await
    }
}

impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Resource, Error> {
        let key = key.clone();
        self.reader.run(move |database| database.get(&key)).await
    }

    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        let namespace = namespace.map(str::to_owned);
        self.reader
            .run(move |database| database.list(kind, namespace.as_deref()))
            .await
    }

    async fn create(&self, resource: Resource) -> Result<Resource, Error> {
        self.write(move |database| database.create(resource)).await
    }

    async fn update(&self, resource: Resource) -> Result<Resource, Error> {
        self.write(move |database| database.update(resource)).await
    }

    async fn update_status(&self, resource: Resource) -> Result<Resource, Error> {
        self.write(move |database| database.update_status(&resource))
            .await
    }

    async fn delete(&self, key: &Key, revision: Option<&Revision>) -> Result<Resource, Error> {
        let (key, revision) = (key.clone(), revision.cloned());
        self.write(move |database| database.delete(&key, revision.as_ref()))
            .await
    }

    fn watch(&self, kinds: &[Kind], from: Revision) -> Events {
        let Ok(cursor) = from.0.parse() else {
            return stream::once(async { Err(Error::Expired(from)) }).boxed();
        };
        let watch = Watch {
            reader: self.reader.clone(),
            head: self.head.clone(),
            kinds: kinds.into(),
            cursor,
        };
        stream::try_unfold(watch, async |mut watch| {
            let events = watch.next().await?;
            Ok(Some((stream::iter(events.into_iter().map(Ok)), watch)))
        })
        .try_flatten()
        .boxed()
    }
}

/// A watch: reads a page of events, then waits until there are more.
struct Watch {
    reader: Worker<Database>,
    head: watch::Receiver<i64>,
    kinds: Arc<[Kind]>,
    /// Everything up to this revision has been yielded.
    cursor: i64,
}

impl Watch {
    /// The next page; it may be empty when the news was of other kinds.
    async fn next(&mut self) -> Result<Vec<Event>, Error> {
        let (kinds, from) = (Arc::clone(&self.kinds), self.cursor);
        let page = self
            .reader
            .run(move |database| database.events(&kinds, from))
            .await?;
        self.cursor = page.through;
        if page.events.is_empty() {
            let ended = |source| Error::unavailable("cannot go on watching", source);
            self.head
                .wait_for(|head| *head > page.through)
                .await
                .map_err(ended)?;
        }
        Ok(page.events)
    }
}

/// The waker task: publishes the file's head whenever another commit may have moved it, until no store and
/// no watch is left to care.
async fn wake(reader: Worker<Database>, mut touches: BoxStream<'static, ()>, publish: watch::Sender<i64>) {
    loop {
        tokio::select! {
            () = publish.closed() => return,
            Some(()) = touches.next() => {}
            () = tokio::time::sleep(SAFETY_POLL) => {}
        }
        match reader.run(|database| database.head()).await {
            Ok(head) => {
                publish.send_if_modified(|known| std::mem::replace(known, head) != head);
            }
            Err(error) => tracing::warn!(%error, "cannot read the store's revision; trying again"),
        }
    }
}

#[cfg(test)]
mod tests;
