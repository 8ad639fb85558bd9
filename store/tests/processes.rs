//! Many processes on one file: they race, they are killed, they wake each other.
//!
//! The processes are this test binary again: [`child`] is a test that does nothing unless its parent says
//! what to do through the environment.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use manx_api::node::{Node, NodeSpec};
use manx_api::{Key, Kind, Metadata, Resource, Revision};
use manx_store::{Error, Event, Events, SqliteStore, Store as _, conformance};
use tempfile::TempDir;

/// What a child does, in its environment variable.
const ROLE: &str = "MANX_STORE_TEST_ROLE";
/// The file it does it to.
const FILE: &str = "MANX_STORE_TEST_FILE";
/// How often each racing process adds one.
const INCREMENTS: usize = 40;
/// How many stamps the latency test takes.
const STAMPS: usize = 200;

/// A write that a child says it made: revision, then the resource's name and value.
type Said = (u64, String);

/// A child process, killed when it is dropped.
struct Process {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, file: &Path) -> Self {
        let command = Command::new(std::env::current_exe().expect("this test"))
            .args(["child", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(FILE, file)
            .stdout(Stdio::piped())
            .spawn();
        let mut child = command.expect("a child process");
        let said = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, said }
    }

    /// Waits for the child to end well.
    fn finish(mut self) {
        assert!(self.child.wait().expect("a child's end").success());
    }

    /// The next write that the child tells of. The test harness speaks on the same pipe, and the last line
    /// of a killed child may be torn.
    fn next_write(&mut self) -> Option<Said> {
        self.said.by_ref().map_while(Result::ok).find_map(|line| {
            let (revision, what) = line.strip_prefix("wrote ")?.strip_suffix('.')?.split_once(' ')?;
            Some((revision.parse().ok()?, what.to_owned()))
        })
    }

    /// Kills the child and returns the writes that it told of since.
    fn kill(mut self) -> Vec<Said> {
        self.child.kill().expect("a living child");
        std::iter::from_fn(|| self.next_write()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when the child has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("store.db")
}

fn node(name: &str, value: &str) -> Resource {
    Resource::Node(Node {
        metadata: Metadata {
            name: name.to_owned(),
            labels: BTreeMap::from([("value".to_owned(), value.to_owned())]),
            ..Metadata::default()
        },
        spec: NodeSpec::default(),
    })
}

fn value(resource: &Resource) -> &str {
    &resource.metadata().labels["value"]
}

/// What is written, in a child's words.
fn words(resource: &Resource) -> String {
    format!("{} {}", resource.metadata().name, value(resource))
}

async fn next(events: &mut Events) -> Event {
    let next = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
    let event = next.expect("an event in time").expect("a watch that lives");
    event.expect("a healthy watch")
}

fn nanoseconds() -> u128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos()
}

#[tokio::test]
async fn child() {
    let (Ok(role), Ok(file)) = (std::env::var(ROLE), std::env::var(FILE)) else {
        return;
    };
    let store = SqliteStore::open(Path::new(&file)).await.unwrap();
    match role.as_str() {
        "increment" => increment(store).await,
        "write" => write_for_ever(store).await,
        "stamp" => stamp(store).await,
        other => panic!("{other}"),
    }
}

async fn increment(store: SqliteStore) {
    match store.create(node("counter", "0")).await {
        Ok(_) | Err(Error::AlreadyExists(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let key = Key::cluster(Kind::Node, "counter");
    conformance::increment(store, key, INCREMENTS).await;
}

/// Creates, changes and deletes a few nodes in turn and tells of each write once it is made.
async fn write_for_ever(store: SqliteStore) {
    for i in 0_usize.. {
        let key = Key::cluster(Kind::Node, format!("n{}", i % 5));
        let fresh = node(&key.name, &format!("{i}-{}", std::process::id()));
        let written = match store.get(&key).await {
            Err(Error::NotFound(_)) => store.create(fresh).await,
            Ok(_) if i % 3 == 0 => store.delete(&key, None).await,
            Ok(mut old) => {
                old.metadata_mut().labels.clone_from(&fresh.metadata().labels);
                store.update(old).await
            }
            Err(error) => panic!("{error}"),
        };
        match written {
            Ok(written) => {
                let revision = written.metadata().resource_version.as_ref().expect("a revision");
                let mut out = std::io::stdout().lock();
                writeln!(out, "\nwrote {revision} {}.", words(&written)).expect("a parent that listens");
            }
            // The other writer was quicker.
            Err(Error::NotFound(_) | Error::AlreadyExists(_) | Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes the time, again and again.
async fn stamp(store: SqliteStore) {
    let mut stamped = store.create(node("stamped", "0")).await.expect("a new node");
    for _ in 0..STAMPS {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let labels = &mut stamped.metadata_mut().labels;
        labels.insert("value".to_owned(), nanoseconds().to_string());
        stamped = store.update(stamped).await.expect("nobody else writes");
    }
}

#[tokio::test]
async fn processes_that_race_from_the_first_moment_lose_no_change() {
    const PROCESSES: usize = 4;
    let folder = TempDir::new().unwrap();
    let processes: Vec<Process> = (0..PROCESSES)
        .map(|_| Process::start("increment", &file(&folder)))
        .collect();
    let store = SqliteStore::open(&file(&folder)).await.unwrap();
    let mut events = store.watch(&[Kind::Node], Revision::start());
    for expected in 0..=PROCESSES * INCREMENTS {
        assert_eq!(
            value(next(&mut events).await.resource().unwrap()),
            expected.to_string()
        );
    }
    processes.into_iter().for_each(Process::finish);
}

#[tokio::test]
async fn a_watch_hears_of_another_process_at_once() {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&file(&folder)).await.unwrap();
    let mut events = store.watch(&[Kind::Node], Revision::start());
    let process = Process::start("stamp", &file(&folder));
    next(&mut events).await;
    let mut latencies = Vec::new();
    for _ in 0..STAMPS {
        let event = next(&mut events).await;
        let sent: u128 = value(event.resource().unwrap()).parse().unwrap();
        latencies.push(nanoseconds().saturating_sub(sent) / 1_000);
    }
    process.finish();
    latencies.sort_unstable();
    let (median, p99) = (latencies[STAMPS / 2], latencies[STAMPS * 99 / 100]);
    println!("from before the write to the other process's watch: median {median} µs, p99 {p99} µs");
    // Polling once a second would have a median of half a second.
    assert!(median < 100_000, "{median} µs");
}

#[tokio::test]
async fn writers_killed_at_any_instant_leave_the_store_whole() {
    const KILLS: u64 = 40;
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&file(&folder)).await.unwrap();
    let mut live = store.watch(&[Kind::Node], Revision::start());
    let mut said = BTreeMap::new();
    for kill in 0..KILLS {
        let mut writers = [(); 2].map(|()| Process::start("write", &file(&folder)));
        // Until both are at it, then an instant that differs from kill to kill.
        said.extend(writers.iter_mut().filter_map(Process::next_write));
        std::thread::sleep(Duration::from_micros(kill * 7_919 % 15_000));
        said.extend(writers.into_iter().flat_map(Process::kill));
        let check: String = rusqlite::Connection::open(file(&folder))
            .unwrap()
            .pragma_query_value(None, "integrity_check", |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok", "after kill {kill}");
    }
    let listing = store.list(Kind::Node, None).await.unwrap();
    let head: u64 = listing.revision.0.parse().unwrap();
    println!("{KILLS} kills, {head} writes, {} told of", said.len());

    // The watch that saw it all, and one that reads the log afterwards: every revision once, in order.
    let mut log = store.watch(&[Kind::Node], Revision::start());
    let mut state = BTreeMap::new();
    for revision in 1..=head {
        let event = next(&mut log).await;
        assert_eq!(event.revision().0, revision.to_string());
        assert_eq!(next(&mut live).await, event);
        if let Some(said) = said.remove(&revision) {
            assert_eq!(
                said,
                words(event.resource().unwrap()),
                "a write told of is a write made"
            );
        }
        match event {
            Event::Applied(resource) => drop(state.insert(resource.key(), resource)),
            Event::Deleted(resource) => assert!(state.remove(&resource.key()).is_some()),
            Event::Listed(kind, _) => panic!("{kind} is listed, and nothing was forgotten"),
        }
    }
    assert_eq!(said, BTreeMap::new(), "no write told of is lost");
    assert!(
        state.into_values().eq(listing.items),
        "the log and the resources agree"
    );
}
