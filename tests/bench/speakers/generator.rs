//! Everybody that the speaker talks to, in one thread.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::lines::{Letter, Line, Peer, SPEAKER_AS};
use crate::programs::Running;
use crate::report::Round;
use crate::updates::{self, Seen, Table};
use crate::world::SPEAKER;

/// How much is read at once.
const READ: usize = 1 << 20;

/// After a refused or broken attempt.
const RETRY: Duration = Duration::from_millis(20);

/// For an attempt: a listener whose backlog is full lets the kernel wait ever longer.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Between KEEPALIVEs.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// For the speaker to become quiet once all sessions are up.
const SETTLE: Duration = Duration::from_millis(500);

/// How long nothing happens: two KEEPALIVEs of every peer each way.
const REST: Duration = Duration::from_secs(60);

/// What the sessions tell the one who waits for them.
#[derive(Debug, Default)]
struct Progress {
    up: Cell<usize>,
    /// How many peers have all that they shall have.
    complete: Cell<usize>,
    announcements: Cell<u64>,
    /// Read from the speaker since the sessions are up.
    octets: Cell<u64>,
    failure: RefCell<Option<String>>,
    changed: Notify,
}

impl Progress {
    fn fail(&self, failure: String) {
        self.failure.borrow_mut().get_or_insert(failure);
        self.changed.notify_one();
    }

    fn count(&self, counter: &Cell<usize>, up: bool) {
        counter.set(if up { counter.get() + 1 } else { counter.get() - 1 });
        self.changed.notify_one();
    }

    /// Waits until `holds`; the instant when it does.
    async fn wait(&self, limit: Duration, holds: impl Fn(&Self) -> bool) -> Result<Instant, String> {
        let wait = async {
            loop {
                if let Some(failure) = &*self.failure.borrow() {
                    return Err(failure.clone());
                }
                if holds(self) {
                    return Ok(Instant::now());
                }
                self.changed.notified().await;
            }
        };
        let waited = timeout(limit, wait).await;
        waited.unwrap_or_else(|_| {
            let (up, complete) = (self.up.get(), self.complete.get());
            Err(format!(
                "not within {limit:?}: {up} sessions are up, {complete} complete"
            ))
        })
    }
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    progress: Progress,
    /// What has been read and not looked at is somewhere in here.
    scratch: RefCell<Vec<u8>>,
    prefixes: u32,
    best: Rc<[u32]>,
}

impl Shared {
    fn of(line: &Line) -> Rc<Self> {
        Rc::new(Self {
            progress: Progress::default(),
            scratch: RefCell::new(vec![0; READ]),
            prefixes: line.prefixes(),
            best: updates::best_paths(line),
        })
    }
}

/// Reads messages off a connection.
struct Reader<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    /// The beginning of a message whose end has not come.
    rest: Vec<u8>,
}

impl Reader<'_> {
    /// Reads what has come, and shows each whole message.
    async fn read(&mut self, mut show: impl FnMut(Seen<'_>) -> Result<(), String>) -> Result<(), String> {
        loop {
            let readable = self.stream.readable().await;
            readable.map_err(|error| error.to_string())?;
            let mut scratch = self.shared.scratch.borrow_mut();
            let kept = self.rest.len();
            scratch[..kept].copy_from_slice(&self.rest);
            let end = match self.stream.try_read(&mut scratch[kept..]) {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(octets) => {
                    let heard = &self.shared.progress.octets;
                    heard.set(heard.get() + octets as u64);
                    kept + octets
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.to_string()),
            };
            let mut from = 0;
            while let Some((seen, length)) = updates::next(&scratch[from..end]) {
                show(seen)?;
                from += length;
            }
            self.rest.clear();
            self.rest.extend_from_slice(&scratch[from..end]);
            return Ok(());
        }
    }
}

async fn connect(peer: &Peer) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((peer.address, 0).into())?;
    let stream = socket.connect((SPEAKER, 179).into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects until a session is Established.
async fn establish(peer: &Peer, shared: &Shared) -> TcpStream {
    loop {
        let attempt = timeout(ATTEMPT, async {
            let stream = connect(peer).await.map_err(|error| error.to_string())?;
            handshake(peer, &stream, shared).await?;
            Ok::<_, String>(stream)
        });
        if let Ok(Ok(stream)) = attempt.await {
            return stream;
        }
        sleep(RETRY).await;
    }
}

async fn handshake(peer: &Peer, stream: &TcpStream, shared: &Shared) -> Result<(), String> {
    write(stream, &updates::open(peer)).await?;
    let mut reader = Reader {
        stream,
        shared,
        rest: Vec::new(),
    };
    let (mut opened, mut alive) = (false, false);
    while !alive {
        reader
            .read(|seen| {
                match seen {
                    Seen::Open => opened = true,
                    Seen::Keepalive => alive = true,
                    Seen::Notification(code, subcode) => {
                        return Err(format!("NOTIFICATION {code}/{subcode}"));
                    }
                    // An End-of-RIB may be close behind.
                    Seen::Update(_) | Seen::Other => {}
                }
                Ok(())
            })
            .await?;
        if std::mem::take(&mut opened) {
            write(stream, &updates::keepalive()).await?;
        }
    }
    if reader.rest.is_empty() {
        Ok(())
    } else {
        Err("half a message followed the handshake".to_owned())
    }
}

async fn write(stream: &TcpStream, mut octets: &[u8]) -> Result<(), String> {
    while !octets.is_empty() {
        stream.writable().await.map_err(|error| error.to_string())?;
        match stream.try_write(octets) {
            Ok(written) => octets = &octets[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Sends when told to, and keeps the session alive; ends when the other half of `go` is dropped.
async fn speak(stream: &TcpStream, octets: Bytes, mut go: watch::Receiver<bool>) -> Result<(), String> {
    let mut octets = Some(octets);
    loop {
        match timeout(KEEPALIVE, go.changed()).await {
            Ok(Ok(())) => {
                if let Some(octets) = octets.take() {
                    write(stream, &octets).await?;
                }
            }
            Ok(Err(_)) => return Ok(()),
            Err(_) => write(stream, &updates::keepalive()).await?,
        }
    }
}

/// Counts what is announced until the connection ends.
async fn listen(stream: &TcpStream, hears: u32, mut table: Table, shared: &Shared) -> String {
    let mut reader = Reader {
        stream,
        shared,
        rest: Vec::new(),
    };
    let progress = &shared.progress;
    loop {
        let (was, before) = (table.count() == hears, table.announcements);
        let read = reader.read(|seen| match seen {
            Seen::Update(update) => {
                table.take(&update);
                Ok(())
            }
            Seen::Notification(code, subcode) => Err(format!("NOTIFICATION {code}/{subcode}")),
            Seen::Open | Seen::Keepalive | Seen::Other => Ok(()),
        });
        if let Err(error) = read.await {
            return error;
        }
        let announced = table.announcements - before;
        progress
            .announcements
            .set(progress.announcements.get() + announced);
        let is = table.count() == hears;
        if hears > 0 && is != was {
            progress.count(&progress.complete, is);
        }
    }
}

/// A peer's life: a session, what it announces, what it hears.
async fn live(peer: Peer, octets: Bytes, shared: Rc<Shared>, go: watch::Receiver<bool>) {
    let stream = establish(&peer, &shared).await;
    let progress = &shared.progress;
    progress.count(&progress.up, true);
    let table = Table::new(shared.prefixes, shared.best.clone(), peer.announces.clone());
    let failure = tokio::select! {
        spoken = speak(&stream, octets, go) => match spoken {
            Ok(()) => return,
            Err(error) => error,
        },
        error = listen(&stream, peer.hears, table, &shared) => error,
    };
    progress.fail(format!("the session of {}: {failure}", peer.address));
}

fn internal(peer: &Peer) -> bool {
    peer.asn == SPEAKER_AS
}

/// What each peer announces.
fn encoded(line: &Line) -> impl Iterator<Item = Bytes> {
    let peers = line.peers.iter();
    peers.map(|peer| updates::announcements(line, peer, internal(peer)))
}

/// Runs something in this thread.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime can be made"), work)
}

/// Plays all peers of a line for one round.
///
/// # Errors
/// What went wrong.
pub(crate) fn round(line: &Line, running: &Running, limit: Duration) -> Result<Round, String> {
    let shared = Shared::of(line);
    let kernel = Kernel::of(running);
    let empty = kernel.routes();
    let encoded: Vec<Bytes> = encoded(line).collect();
    let told = encoded.iter().map(|octets| octets.len() as u64).sum();
    block_on(async {
        let (go, going) = watch::channel(false);
        let begun = Instant::now();
        for (peer, octets) in line.peers.iter().zip(encoded) {
            tokio::task::spawn_local(live(peer.clone(), octets, shared.clone(), going.clone()));
        }
        drop(going);
        let (progress, all) = (&shared.progress, line.peers.len());
        let up = progress.wait(limit, |it| it.up.get() == all).await? - begun;
        sleep(SETTLE).await;
        let mut round = Round::begin(running);
        progress.octets.set(0);
        go.send_replace(true);
        let begun = Instant::now();
        if line.fib {
            let took = kernel.becomes(empty + line.prefixes(), begun, limit).await?;
            round.phase("in", took, running);
            if line.letter == Letter::B {
                let begun = Instant::now();
                drop(go);
                let took = kernel.becomes(empty, begun, limit).await?;
                round.phase("out", took, running);
            } else {
                round.established("up", up);
            }
            if line.letter == Letter::G {
                // The last routes are being booked, and the table is being waited for.
                sleep(SETTLE * 4).await;
                round.skip(running);
                sleep(REST).await;
                round.phase("at rest", REST, running);
            }
        } else {
            let hearing = line.peers.iter().filter(|peer| peer.hears > 0).count();
            let end = progress.wait(limit, |it| it.complete.get() == hearing).await?;
            round.phase("all heard", end - begun, running);
        }
        round.announcements = progress.announcements.get();
        round.octets = [told, progress.octets.get()];
        Ok(round)
    })
}

/// How long the generator takes by itself: from one socket of its to another, what the peers of a line announce, as often
/// as it takes to be no less than what they have to hear.
pub(crate) fn bare(line: &Line) -> Duration {
    let shared = Shared::of(line);
    let encoded: Vec<Bytes> = encoded(line).collect();
    block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        let sender = TcpStream::connect(address).await.expect("we listen");
        let (receiver, _) = listener.accept().await.expect("it connects");
        let begun = Instant::now();
        let heard = shared.clone();
        let table = Table::new(shared.prefixes, shared.best.clone(), Vec::new());
        tokio::task::spawn_local(async move { listen(&receiver, u32::MAX, table, &heard).await });
        for octets in std::iter::repeat_n(&encoded, line.passes()).flatten() {
            write(&sender, octets).await.expect("somebody reads");
        }
        while shared.progress.announcements.get() < line.moved() {
            tokio::task::yield_now().await;
        }
        begun.elapsed()
    })
}

/// The kernel's table of the speaker's namespace.
#[derive(Debug)]
struct Kernel {
    statistics: String,
}

impl Kernel {
    fn of(running: &Running) -> Self {
        let process = running.groups()[0];
        Self {
            statistics: format!("/proc/{process}/net/fib_triestat"),
        }
    }

    /// How many IPv4 prefixes there are.
    fn routes(&self) -> u32 {
        let text = fs::read_to_string(&self.statistics).unwrap_or_default();
        // The local table may be the same tree, and is shown once more then.
        let main = text.lines().skip_while(|line| !line.starts_with("Main:"));
        let mut counts = main.filter_map(|line| line.trim().strip_prefix("Prefixes:"));
        let count = counts.next().and_then(|count| count.trim().parse().ok());
        count.unwrap_or_default()
    }

    /// Waits until there are so many; how long after `begun`. It looks seldom where looking is slow.
    async fn becomes(&self, wanted: u32, begun: Instant, limit: Duration) -> Result<Duration, String> {
        loop {
            let look = Instant::now();
            let routes = self.routes();
            if routes == wanted {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > limit {
                return Err(format!(
                    "not within {limit:?}: {routes} routes instead of {wanted}"
                ));
            }
            sleep((look.elapsed() * 4).max(Duration::from_millis(1))).await;
        }
    }
}
