//! The database file: how it is opened, and the transactions that read and write it.
//!
//! Two tables. `object` holds every resource as it is; `event` holds every write of the recent past, its
//! key the revision. Revisions count writes without a gap, which lets a watch prove that it missed none.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use manx_api::{Key, Kind, Resource, Revision, validate_update};
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior, params};

use crate::{Error, Event, Listing, rules};

/// The schema's version, in SQLite's `user_version`.
const VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE object (
        kind      TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name      TEXT NOT NULL,
        body      TEXT NOT NULL,
        PRIMARY KEY (kind, namespace, name)
    ) STRICT;
    CREATE TABLE event (
        revision INTEGER PRIMARY KEY,
        time     INTEGER NOT NULL,
        kind     TEXT NOT NULL,
        deleted  INTEGER NOT NULL,
        body     TEXT NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;
";

/// How long a statement waits for another process's write. A write takes milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many events are kept at least; also never forgotten sooner than [`KEEP_TIME`].
const KEEP_EVENTS: i64 = 10_000;
/// How long events are kept at least.
const KEEP_TIME: Duration = Duration::from_secs(300);
/// Old events are looked for once in so many writes.
const COMPACT_EVERY: i64 = 64;
/// Events that one read returns at most.
const PAGE: i64 = 256;

/// An open database. Every method is one transaction and blocks.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
}

/// What [`Database::events`] read.
pub(super) struct Page {
    /// Events of the kinds asked for.
    pub(super) events: Vec<Event>,
    /// Everything up to here has been read, other kinds' events included.
    pub(super) through: i64,
}

impl Database {
    /// Opens the file, making it if need be.
    ///
    /// `synchronous=FULL`: a commit is on disk before it returns. With NORMAL a power cut may undo the last
    /// commits, and with them a block's claim that the claimer has already advertised by BGP; another node
    /// would then claim the same addresses.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Self::try_open(path)
            .map_err(|source| Error::unavailable(format!("cannot open {}", path.display()), source))
    }

    fn try_open(path: &Path) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        into_wal_mode(&connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.set_prepared_statement_cache_capacity(32);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match transaction.pragma_query_value(None, "user_version", |row| row.get(0))? {
            0 => transaction.execute_batch(SCHEMA)?,
            VERSION => {}
            other => {
                let advice =
                    format!("its format is {other}, this program's is {VERSION}: use one release throughout");
                return Err(advice.into());
            }
        }
        transaction.commit()?;
        Ok(Self { connection })
    }

    /// The revision of the last write.
    pub(super) fn head(&self) -> Result<i64, Error> {
        head(&self.connection).map_err(failed("read the revision"))
    }

    pub(super) fn get(&self, key: &Key) -> Result<Resource, Error> {
        find(&self.connection, key)?.ok_or_else(|| Error::NotFound(key.clone()))
    }

    pub(super) fn list(&mut self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        let context = failed("list resources");
        let snapshot = self.connection.transaction().map_err(&context)?;
        let revision = head(&snapshot).map_err(&context)?;
        Ok(Listing {
            revision: Revision(revision.to_string()),
            items: items(&snapshot, kind, namespace)?,
        })
    }

    /// Events of `kinds` behind `from`, at most a page.
    pub(super) fn events(&mut self, kinds: &[Kind], from: i64) -> Result<Page, Error> {
        let context = failed("read events");
        let snapshot = self.connection.transaction().map_err(&context)?;
        let head = head(&snapshot).map_err(&context)?;
        let oldest: i64 = snapshot
            .query_row("SELECT COALESCE(MIN(revision), 1) FROM event", [], |row| {
                row.get(0)
            })
            .map_err(&context)?;
        // A revision beyond the head is of another history: the file was replaced.
        if from > head || from + 1 < oldest {
            return Err(Error::Expired(Revision(from.to_string())));
        }
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        let kinds = serde_json::to_string(&kinds).map_err(failed("name kinds"))?;
        let rows: Vec<(i64, bool, String)> = select(
            &snapshot,
            "SELECT revision, deleted, body FROM event
             WHERE revision > ?1 AND kind IN (SELECT value FROM json_each(?2))
             ORDER BY revision LIMIT ?3",
            params![from, kinds, PAGE],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(&context)?;
        let full = i64::try_from(rows.len()).is_ok_and(|count| count == PAGE);
        let through = rows
            .last()
            .filter(|_| full)
            .map_or(head, |(revision, ..)| *revision);
        let event = |(_, deleted, body): (i64, bool, String)| {
            let resource = decode(&body)?;
            Ok(if deleted {
                Event::Deleted(resource)
            } else {
                Event::Applied(resource)
            })
        };
        let events = rows.into_iter().map(event).collect::<Result<_, Error>>()?;
        Ok(Page { events, through })
    }

    pub(super) fn create(&mut self, mut resource: Resource) -> Result<Resource, Error> {
        let key = resource.key();
        rules::creatable(&key, &resource)?;
        let metadata = resource.metadata_mut();
        metadata.uid = Some(uuid::Uuid::new_v4().to_string());
        metadata.creation_timestamp = Some(Timestamp::now().strftime("%FT%TZ").to_string());
        self.write(&key, |transaction| {
            if find(transaction, &key)?.is_some() {
                return Err(Error::AlreadyExists(key.clone()));
            }
            writable(transaction, &key, &resource)?;
            store(transaction, resource)
        })
    }

    pub(super) fn update(&mut self, mut resource: Resource) -> Result<Resource, Error> {
        let key = resource.key();
        let expected = rules::replaceable(&key, &resource)?;
        self.write(&key, |transaction| {
            let old = existing(transaction, &key, Some(&expected))?;
            rules::refuse(&key, validate_update(&old, &resource))?;
            writable(transaction, &key, &resource)?;
            resource.keep_status(&old);
            let metadata = resource.metadata_mut();
            metadata.uid.clone_from(&old.metadata().uid);
            metadata
                .creation_timestamp
                .clone_from(&old.metadata().creation_timestamp);
            if resource == old {
                return Ok(old);
            }
            store(transaction, resource)
        })
    }

    pub(super) fn update_status(&mut self, resource: &Resource) -> Result<Resource, Error> {
        let key = resource.key();
        self.write(&key, |transaction| {
            let old = existing(transaction, &key, resource.metadata().resource_version.as_ref())?;
            let mut new = old.clone();
            new.keep_status(resource);
            if new == old {
                return Ok(old);
            }
            store(transaction, new)
        })
    }

    pub(super) fn delete(&mut self, key: &Key, expected: Option<&Revision>) -> Result<Resource, Error> {
        self.write(key, |transaction| {
            let mut resource = existing(transaction, key, expected)?;
            let others = all(transaction, rules::compared_at_deletion(key.kind))?;
            rules::deletable(key, &resource, &others)?;
            transaction
                .prepare_cached("DELETE FROM object WHERE kind = ?1 AND namespace = ?2 AND name = ?3")
                .and_then(|mut delete| delete.execute(columns(key)))
                .map_err(failed("delete a resource"))?;
            log(transaction, &mut resource, true)?;
            Ok(resource)
        })
    }

    /// Runs `change` alone among all processes; what it wrote is on disk when this returns `Ok`.
    fn write<T>(
        &mut self,
        key: &Key,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let context = |source| Error::unavailable(format!("cannot write {key}"), source);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(context)?;
        let result = change(&transaction)?;
        transaction.commit().map_err(context)?;
        Ok(result)
    }
}

/// Switching a new file to WAL needs it for oneself, and SQLite does not wait for that: others that open the
/// file in the same moment are retried.
fn into_wal_mode(connection: &Connection) -> rusqlite::Result<()> {
    const TRIES: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 1..TRIES {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
    connection.pragma_update(None, "journal_mode", "WAL")
}

/// Turns a lower layer's error into [`Error::Unavailable`].
fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &str) -> impl Fn(E) -> Error {
    move |source| Error::unavailable(format!("cannot {what}"), source)
}

fn select<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection
        .prepare_cached(sql)?
        .query_map(parameters, read)?
        .collect()
}

fn head(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT COALESCE(MAX(revision), 0) FROM event")?
        .query_row([], |row| row.get(0))
}

/// A key's columns; no namespace is an empty one.
fn columns(key: &Key) -> [&str; 3] {
    [
        key.kind.name(),
        key.namespace.as_deref().unwrap_or_default(),
        &key.name,
    ]
}

fn decode(body: &str) -> Result<Resource, Error> {
    serde_json::from_str(body).map_err(failed("read a stored resource"))
}

/// All resources of a kind, in order.
fn items(connection: &Connection, kind: Kind, namespace: Option<&str>) -> Result<Vec<Resource>, Error> {
    let bodies: Vec<String> = select(
        connection,
        "SELECT body FROM object WHERE kind = ?1 AND (?2 IS NULL OR namespace = ?2)
         ORDER BY namespace, name",
        params![kind.name(), namespace],
        |row| row.get(0),
    )
    .map_err(failed("list resources"))?;
    bodies.iter().map(|body| decode(body)).collect()
}

fn find(connection: &Connection, key: &Key) -> Result<Option<Resource>, Error> {
    let body: Option<String> = connection
        .prepare_cached("SELECT body FROM object WHERE kind = ?1 AND namespace = ?2 AND name = ?3")
        .and_then(|mut select| select.query_row(columns(key), |row| row.get(0)).optional())
        .map_err(failed("read a resource"))?;
    body.as_deref().map(decode).transpose()
}

/// The stored resource, which must be at the `expected` revision if one is.
fn existing(connection: &Connection, key: &Key, expected: Option<&Revision>) -> Result<Resource, Error> {
    let resource = find(connection, key)?.ok_or_else(|| Error::NotFound(key.clone()))?;
    match (expected, &resource.metadata().resource_version) {
        (Some(expected), Some(actual)) if expected != actual => Err(Error::Conflict {
            key: key.clone(),
            expected: expected.clone(),
            actual: actual.clone(),
        }),
        (Some(_) | None, _) => Ok(resource),
    }
}

/// Refuses a resource that does not go with others that are stored.
fn writable(connection: &Connection, key: &Key, resource: &Resource) -> Result<(), Error> {
    let others = all(connection, rules::compared_at_write(key.kind))?;
    rules::writable(key, resource, &others)
}

/// All resources of these kinds.
fn all(connection: &Connection, kinds: &[Kind]) -> Result<Vec<Resource>, Error> {
    let mut all = Vec::new();
    for kind in kinds {
        all.extend(items(connection, *kind, None)?);
    }
    Ok(all)
}

/// Writes a resource at a new revision.
fn store(transaction: &Transaction<'_>, mut resource: Resource) -> Result<Resource, Error> {
    let body = log(transaction, &mut resource, false)?;
    let key = resource.key();
    let [kind, namespace, name] = columns(&key);
    transaction
        .prepare_cached("INSERT OR REPLACE INTO object (kind, namespace, name, body) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut insert| insert.execute([kind, namespace, name, &body]))
        .map_err(failed("write a resource"))?;
    Ok(resource)
}

/// Gives the resource the next revision, logs the write, and returns the resource's JSON.
fn log(transaction: &Transaction<'_>, resource: &mut Resource, deleted: bool) -> Result<String, Error> {
    let context = failed("log a write");
    let revision = head(transaction).map_err(&context)? + 1;
    resource.metadata_mut().resource_version = Some(Revision(revision.to_string()));
    let body = serde_json::to_string(resource).map_err(failed("write a resource as JSON"))?;
    transaction
        .prepare_cached("INSERT INTO event (revision, time, kind, deleted, body) VALUES (?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut insert| {
            insert.execute(params![
                revision,
                seconds(),
                resource.kind().name(),
                deleted,
                body
            ])
        })
        .map_err(&context)?;
    if revision % COMPACT_EVERY == 0 {
        compact(transaction, revision).map_err(failed("forget old events"))?;
    }
    Ok(body)
}

/// Forgets events that are both old and many. The last ones always stay, so the head is never lost.
fn compact(transaction: &Transaction<'_>, head: i64) -> rusqlite::Result<usize> {
    let horizon = seconds().saturating_sub_unsigned(KEEP_TIME.as_secs());
    // Whole prefixes only, though clocks may jump: revisions must stay without a gap.
    transaction
        .prepare_cached(
            "DELETE FROM event WHERE revision <= ?1 AND revision <
             (SELECT COALESCE(MIN(revision), ?1 + 1) FROM event WHERE time > ?2)",
        )?
        .execute(params![head - KEEP_EVENTS, horizon])
}

/// Seconds since 1970.
fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
