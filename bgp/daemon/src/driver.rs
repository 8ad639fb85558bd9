//! The one owner of the speaker: inputs in, outputs carried out.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::HashMap;
use manx_bgp::bfd::{SessionConfig, SessionSnapshot};
use manx_bgp::explain::Explanation;
use manx_bgp::wire::Action;
use manx_bgp::{
    BfdConfig, Choice, Config, ConnId, Fault, Input, Output, PathSnapshot, PeerConfig, PeerKey, PeerSnapshot,
    Prefix, RangeConfig, RangeSnapshot, SessionEnd, Speaker, Transport,
};
use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::bfd::{Change, Watch};
use crate::bmp::{self, Monitor, Opening};
use crate::config::Collector;
use crate::connection::{self, Link};
use crate::discovery::Discovery;
use crate::guard::Guard;
use crate::handle::{Event, Events, Handle, Lost};
use crate::inbox::{Inbox, JOBS, Room};
use crate::interfaces::Interfaces;
use crate::links::{LinkKey, LinkPeer, LinkSnapshot, Links, News};
use crate::places::{Places, Whose};
use crate::sockets;

/// Jobs done before outputs are carried out: enough for the speaker to pack its updates well.
const BATCH: usize = 64;

/// Batches of events that wait for the consumer; what comes later is merged.
const EVENTS: usize = 1;

/// Losses that wait for the consumer; one more is told prefix by prefix only.
const LOSSES: usize = 64;

/// How long a failing listener rests: it fails for want of file descriptors, which come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a shutdown waits for last words to leave.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long what the kernel has refused is left alone: the cure is a sysctl away.
const GUARD_PAUSE: Duration = Duration::from_secs(5);

/// The driver's numbers for connections have this bit, the speaker's have not.
const ACCEPTED: u64 = 1 << 63;

/// What reaches the driver.
#[derive(Debug)]
pub(crate) enum Job {
    /// In order, with the room that they take until they are done.
    Inputs(Vec<Input>, Option<Room>),
    Accepted(TcpStream),
    Dialled(ConnId, io::Result<TcpStream>),
    Link(News),
    SetLinkPeer(Box<LinkPeer>),
    RemoveLinkPeer(LinkKey),
    AllPeers(oneshot::Sender<(Vec<PeerSnapshot>, Vec<LinkSnapshot>)>),
    Peers(oneshot::Sender<Vec<PeerSnapshot>>),
    Paths(oneshot::Sender<Vec<PathSnapshot>>),
    Ranges(oneshot::Sender<Vec<RangeSnapshot>>),
    Explain(Prefix, oneshot::Sender<Option<Explanation>>),
    Bfd(oneshot::Sender<Vec<SessionSnapshot>>),
    /// A peer's OPEN, before what it means comes.
    Opened(ConnId, Bytes),
    NoSelections,
    Collectors(Vec<Collector>),
    Monitoring(bmp::Request),
    DrainAll(Duration, String, oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}

/// Starts the driver and one acceptor per listener; connections are served on `runtime`.
pub(crate) fn spawn(
    config: Config,
    listeners: Vec<TcpListener>,
    listening: Arc<[SocketAddr]>,
    runtime: runtime::Handle,
) -> io::Result<(Handle, Events)> {
    let (inbox, jobs) = Inbox::new();
    let (events, consumer) = mpsc::channel(EVENTS);
    let (losses, lost) = mpsc::channel(LOSSES);
    let stop = CancellationToken::new();
    let guard = Guard::new(&listeners)?;
    let acceptors = Acceptors::default();
    for listener in listeners {
        acceptors.spawn(accept(listener, inbox.clone()));
    }
    let driver = Driver {
        speaker: Speaker::new(config),
        connections: BTreeMap::new(),
        runtime,
        accepted: 0,
        acceptors: acceptors.clone(),
        links: JoinSet::new(),
        places: Places::default(),
        inbox: inbox.clone(),
        watch: Watch::default(),
        monitor: Monitor::default(),
        guard,
        ranges: BTreeMap::new(),
        peers_on_links: Links::default(),
        discovery: Discovery::new(inbox.clone()),
        drained: Vec::new(),
        interfaces: Interfaces::default(),
        pending: Pending::default(),
        losses,
    };
    let stopped = stop.clone();
    tokio::spawn(async move {
        let mut running = pin!(driver.run(jobs, events));
        tokio::select! {
            // First, so that a consumer still gets what it has made room for.
            biased;
            () = &mut running => {}
            () = stopped.cancelled() => acceptors.close().await,
        }
    });
    let handle = Handle {
        inbox,
        listening,
        _alive: Arc::new(stop.drop_guard()),
    };
    Ok((handle, Events::new(consumer, lost)))
}

/// Whoever takes connections in. Clones share them.
#[derive(Clone, Debug, Default)]
struct Acceptors {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Acceptors {
    fn spawn(&self, acceptor: impl Future<Output = ()> + Send + 'static) {
        self.tasks
            .spawn(self.stop.clone().run_until_cancelled_owned(acceptor));
    }

    /// Closes the listeners. Comes before the connections' end: a peer that lost one may dial at once, and had better be
    /// refused than accepted and reset (OpenBGPD 7.7 then begins its next connection with the OPEN of this one).
    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, inbox: Inbox) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if !inbox.send(Job::Accepted(stream)).await {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection, as far as it has come.
#[derive(Debug)]
enum Connection {
    /// Dropping it gives the attempt up.
    Dialling(#[expect(dead_code, reason = "held for its drop")] AbortOnDropHandle<()>),
    Open(Open),
}

/// An open connection.
#[derive(Debug)]
struct Open {
    link: Link,
    /// Whose it is.
    peer: PeerKey,
    /// The socket of one that is signed: its key may change.
    socket: Option<Socket>,
    opening: Opening,
}

#[derive(Debug)]
struct Driver {
    speaker: Speaker,
    /// What the speaker and we both hold to be alive.
    connections: BTreeMap<ConnId, Connection>,
    /// Where open ones are read and written.
    runtime: runtime::Handle,
    /// How many connections were accepted.
    accepted: u64,
    acceptors: Acceptors,
    /// Open connections, and closed ones whose last bytes are still leaving.
    links: JoinSet<Whose>,
    places: Places,
    inbox: Inbox,
    watch: Watch,
    monitor: Monitor,
    guard: Guard,
    /// How the peers of a range are watched.
    ranges: BTreeMap<Prefix, Option<BfdConfig>>,
    /// Neighbours that are known by interface.
    peers_on_links: Links,
    discovery: Discovery,
    /// Who waits for all peers to be drained.
    drained: Vec<oneshot::Sender<()>>,
    interfaces: Interfaces,
    pending: Pending,
    /// Past what is pending, and before anything is worked out.
    losses: mpsc::Sender<Lost>,
}

impl Driver {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>, events: mpsc::Sender<Event>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self
                .speaker
                .deadline()
                .into_iter()
                .chain(self.monitor.deadline())
                .min();
            tokio::select! {
                _ = jobs.recv_many(&mut batch, BATCH) => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {}
                Ok(permit) = events.reserve(), if !self.pending.is_empty() => self.pending.deliver(permit),
                Some(ended) = self.links.join_next() => self.ended(ended),
                () = sleep(GUARD_PAUSE), if self.guard.has_problems() => self.guard.update_listeners(true),
                change = self.watch.changed() => self.path_changed(change),
                interfaces = self.interfaces.changed() => self.handle(Input::Interfaces(interfaces)),
            }
            let mut done = self.perform_all(&mut batch);
            if done.is_none() && self.speaker.deadline().is_some_and(|at| at <= Instant::now()) {
                // Whom we have not come to hear was not silent: what lies here counts before timers do.
                batch.extend(std::iter::from_fn(|| jobs.try_recv().ok()).take(JOBS));
                done = self.perform_all(&mut batch);
                self.handle(Input::Tick);
            }
            if let Some(done) = done {
                jobs.close();
                self.inbox.close();
                self.leave().await;
                return report_gone(done.send(()));
            }
            // All of them: one a turn would fall behind where connections come and go by the batch.
            while let Some(ended) = self.links.try_join_next() {
                self.ended(ended);
            }
            self.guard.update_listeners(false);
            self.carry_out();
            self.monitor.turn(&mut self.speaker);
        }
    }

    fn handle(&mut self, input: Input) {
        if let Some((peer, routers)) = self.speaker.foresee(&input) {
            report_gone(self.losses.try_send(Lost { peer, routers }));
        }
        self.speaker.handle(Instant::now(), input);
    }

    /// Does these jobs, up to one to end with.
    fn perform_all(&mut self, jobs: &mut Vec<Job>) -> Option<oneshot::Sender<()>> {
        jobs.drain(..).find_map(|job| self.perform(job))
    }

    /// Does a job; one to end with is given back to be answered at the end.
    fn perform(&mut self, job: Job) -> Option<oneshot::Sender<()>> {
        match job {
            Job::Inputs(inputs, _room) => inputs.into_iter().for_each(|input| self.input(input)),
            Job::Accepted(stream) => self.accepted(stream),
            Job::Dialled(conn, stream) => self.dialled(conn, stream),
            Job::Link(news) => {
                let inputs = self.peers_on_links.take(news, Instant::now());
                self.on_links(inputs);
            }
            Job::SetLinkPeer(peer) => {
                let inputs = self.peers_on_links.set(*peer);
                self.on_links(inputs);
            }
            Job::RemoveLinkPeer(key) => {
                let inputs = self.peers_on_links.remove(&key);
                self.on_links(inputs);
            }
            Job::AllPeers(reply) => {
                report_gone(reply.send((self.peers(), self.peers_on_links.snapshot())));
            }
            Job::Peers(reply) => report_gone(reply.send(self.peers())),
            Job::Explain(prefix, reply) => report_gone(reply.send(self.speaker.explain(prefix))),
            Job::Paths(reply) => report_gone(reply.send(self.speaker.paths())),
            Job::Ranges(reply) => report_gone(reply.send(self.speaker.ranges())),
            Job::Bfd(reply) => self.watch.sessions(reply),
            Job::Opened(conn, open) => {
                if let Some(Connection::Open(Open { opening, .. })) = self.connections.get_mut(&conn) {
                    opening.receives(open);
                }
            }
            Job::NoSelections => self.speaker.select(false),
            Job::Collectors(wanted) => self.monitor.configure(wanted, &self.inbox),
            Job::Monitoring(request) => self.monitor.perform(request, &mut self.speaker),
            Job::DrainAll(time, words, done) => {
                self.drained.push(done);
                self.handle(Input::Drain {
                    peer: None,
                    time,
                    words,
                });
            }
            Job::Shutdown(done) => return Some(done),
        }
        None
    }

    /// An input from a user, or from a connection; a connection that the speaker has closed has no say.
    fn input(&mut self, input: Input) {
        let wanted = match &input {
            Input::Closed { conn } => self.connections.remove(conn).is_some(),
            Input::Faulty { conn, faults } => {
                self.pending.faulty(faults);
                self.connections.contains_key(conn)
            }
            Input::Received { conn, .. } | Input::Drained { conn } => self.connections.contains_key(conn),
            Input::SetPeer(config) => {
                self.watch_path(config.key, config.bfd_session());
                self.guard_peer(config);
                self.show_interfaces(config);
                true
            }
            Input::RemovePeer(key) => {
                self.watch_path(*key, None);
                self.guard.remove_peer(*key);
                true
            }
            Input::SetRange(config) => {
                self.guard_range(config);
                self.show_interfaces(&config.template);
                true
            }
            Input::RemoveRange(range) => {
                self.guard.remove_range(range.network());
                self.ranges.remove(range);
                true
            }
            Input::Originate(_)
            | Input::Unoriginate(_)
            | Input::Connected { .. }
            | Input::ConnectFailed { .. }
            | Input::Accepted { .. }
            | Input::Unfound(_)
            | Input::PathDown(_)
            | Input::Drain { .. }
            | Input::Undrain(_)
            | Input::Reset { .. }
            | Input::Refresh(_)
            | Input::Interfaces(_)
            | Input::Tick
            | Input::Shutdown => true,
        };
        if wanted {
            self.handle(input);
        }
    }

    /// Neighbours on links have come or gone.
    fn on_links(&mut self, inputs: Vec<Input>) {
        for input in inputs {
            self.input(input);
        }
        self.input(Input::Unfound(self.peers_on_links.lacks_some()));
        self.discovery.want(self.peers_on_links.wanted());
    }

    /// The first policy that asks for interfaces gets to know them.
    fn show_interfaces(&mut self, config: &PeerConfig) {
        if config.asks_for_interfaces()
            && let Some(interfaces) = self.interfaces.start()
        {
            self.handle(Input::Interfaces(interfaces));
        }
    }

    /// Whoever connects from a range is guarded like a peer.
    fn guard_range(&mut self, config: &RangeConfig) {
        let transport = config.template.transport.clone();
        self.ranges.insert(config.range, config.template.bfd);
        if let Some(before) = self.guard.set_range(config.range.network(), transport.clone()) {
            self.rekey(&before, &transport, |guard, peer| {
                guard.range_of(peer) == Some(config.range.network())
            });
        }
    }

    /// A peer's connections are to be as its settings say from now on, and live ones get its new key.
    fn guard_peer(&mut self, config: &PeerConfig) {
        let Some(before) = self.guard.set_peer(config.key, config.transport.clone()) else {
            return;
        };
        self.rekey(&before, &config.transport, |_, peer| peer == config.key);
    }

    /// Gives live connections their new keys.
    fn rekey(&self, before: &Transport, after: &Transport, whose: impl Fn(&Guard, PeerKey) -> bool) {
        if before.needs_new_connection(after) || before == after {
            return;
        }
        for connection in self.connections.values() {
            if let Connection::Open(Open {
                peer,
                socket: Some(socket),
                ..
            }) = connection
                && whose(&self.guard, *peer)
            {
                Guard::rekey(socket, *peer, before, after);
            }
        }
    }

    /// Every peer as it stands. What keeps one from connecting at all comes before how its last attempt ended.
    fn peers(&self) -> Vec<PeerSnapshot> {
        let mut peers = self.speaker.peers();
        for peer in &mut peers {
            if let Some(problem) = self.guard.problem(peer.key) {
                peer.last_error = Some(problem.to_string());
            }
        }
        peers
    }

    fn accepted(&mut self, stream: TcpStream) {
        let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else {
            return;
        };
        let scope = sockets::scope(remote);
        let peer = PeerKey::of(remote.ip(), scope);
        if !self.places.is_free(self.whose(peer)) {
            tracing::debug!(%remote, "connection reset: there are too many like it");
            // Even its end would take the kernel's room for a while.
            let reset = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return reset.unwrap_or_else(|error| tracing::debug!(%error, "closing without a reset"));
        }
        let found = self.peers_on_links.connected(peer, Instant::now());
        if !found.is_empty() {
            self.on_links(found);
        }
        if let Err(problem) = self.guard.admit(peer, &stream) {
            tracing::debug!(%remote, %problem, "connection refused");
            return;
        }
        let conn = ConnId(ACCEPTED | self.accepted);
        self.accepted += 1;
        // First the speaker: who is welcome from a range is a peer from then on.
        self.handle(Input::Accepted {
            conn,
            local,
            remote,
            scope,
        });
        self.open(conn, peer, stream, Opening::new(local, remote));
    }

    /// Among whose connections one with `peer` counts.
    fn whose(&self, peer: PeerKey) -> Whose {
        if self.speaker.has_peer(peer) {
            return Whose::Peer(peer);
        }
        self.guard.range_of(peer).map_or(Whose::Stranger, Whose::Range)
    }

    /// A connection has ended; its tasks' own panics are reported by it.
    fn ended(&mut self, ended: Result<Whose, JoinError>) {
        match ended {
            Ok(whose) => self.places.give_back(whose),
            Err(error) => tracing::error!(%error, "a connection's task failed"),
        }
    }

    fn dialled(&mut self, conn: ConnId, stream: io::Result<TcpStream>) {
        if self.connections.remove(&conn).is_none() {
            return;
        }
        match stream.and_then(|stream| Ok((stream.local_addr()?, stream.peer_addr()?, stream))) {
            Ok((local, remote, stream)) => {
                let peer = PeerKey::of(remote.ip(), sockets::scope(remote));
                self.open(conn, peer, stream, Opening::new(local, remote));
                self.handle(Input::Connected { conn, local });
            }
            Err(error) => {
                tracing::debug!(?conn, %error, "dialling failed");
                self.handle(Input::ConnectFailed { conn });
            }
        }
    }

    fn open(&mut self, conn: ConnId, peer: PeerKey, stream: TcpStream, opening: Opening) {
        let socket = self.guard.signs(peer).then(|| SockRef::from(&stream).try_clone());
        let (link, service) = connection::open(conn, stream, connection::decode, self.inbox.clone());
        let whose = self.whose(peer);
        self.places.take(whose);
        let served = async move {
            service.await;
            whose
        };
        self.links.spawn_on(served, &self.runtime);
        let socket = socket.and_then(|socket| {
            socket
                .inspect_err(
                    |error| tracing::warn!(peer = %peer.address, %error, "a new key needs a new session"),
                )
                .ok()
        });
        let open = Open {
            link,
            peer,
            socket,
            opening,
        };
        self.connections.insert(conn, Connection::Open(open));
    }

    fn watch_path(&mut self, peer: PeerKey, wanted: Option<SessionConfig>) {
        if self.watch.set(peer, wanted) {
            self.pending.paths.insert(peer, false);
        }
    }

    /// The path to a peer from a range is watched while its session is up.
    fn watch_dynamic(&mut self, peer: PeerKey, up: bool) {
        let range = self.guard.range_of(peer).map(Prefix::new);
        let Some(bfd) = range.and_then(|range| *self.ranges.get(&range)?) else {
            return;
        };
        self.watch_path(peer, up.then(|| bfd.session(peer, None)));
    }

    fn path_changed(&mut self, change: Change) {
        let Change { peer, up, failed } = change;
        let address = peer.address;
        match (failed, up) {
            (true, _) => tracing::warn!(peer = %address, up, "BFD: the path has failed"),
            (false, true) => tracing::info!(peer = %address, "BFD: the path is up"),
            (false, false) => tracing::info!(peer = %address, "BFD: the peer no longer watches the path"),
        }
        self.pending.paths.insert(peer, up);
        if failed {
            self.handle(Input::PathDown(peer));
        }
    }

    /// Carries out all that the speaker asks for.
    fn carry_out(&mut self) {
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Dial { conn, remote, local } => self.dial(conn, remote, local),
                Output::Decode { conn, context } => {
                    if let Some(Connection::Open(Open { link, .. })) = self.connections.get(&conn) {
                        link.set_context(context);
                    }
                }
                Output::Send { conn, bytes } => {
                    if let Some(Connection::Open(open)) = self.connections.get_mut(&conn) {
                        open.opening.sends(&bytes);
                        open.link.send(bytes);
                    }
                }
                Output::Close { conn } => drop(self.connections.remove(&conn)),
                Output::Selected { prefix, choice } => self.pending.selected(prefix, choice),
                Output::RangeFull(range) => {
                    tracing::warn!(%range, "a peer was turned away: raise the range's limit if it is welcome");
                }
                Output::Drained => {
                    tracing::info!("all sessions are drained");
                    self.drained.drain(..).for_each(|done| report_gone(done.send(())));
                }
                Output::Converged => self.pending.converged = true,
                Output::Session {
                    peer,
                    up,
                    reason,
                    end,
                } => {
                    self.watch_dynamic(peer, up);
                    self.monitor_session(peer, end.as_ref());
                    self.peers_on_links.session(peer, up);
                    self.pending.session(peer, up, reason);
                }
            }
        }
    }

    /// A session has ended, or one has begun, and may have ended since.
    fn monitor_session(&mut self, peer: PeerKey, end: Option<&SessionEnd>) {
        if let Some(end) = end {
            self.monitor.down(peer, end);
        } else if let Some(session) = self.speaker.established(peer)
            && let Some(Connection::Open(open)) = self.connections.get(&session.conn)
        {
            self.monitor.up(peer, session, &open.opening);
        }
    }

    fn dial(&mut self, conn: ConnId, remote: SocketAddr, local: Option<IpAddr>) {
        let inbox = self.inbox.clone();
        let socket = self.guard.dialler(remote, local);
        let attempt = tokio::spawn(async move {
            let stream = match socket {
                Ok(socket) => sockets::dial(socket, remote).await,
                Err(error) => Err(error),
            };
            inbox.send(Job::Dialled(conn, stream)).await;
        });
        self.connections
            .insert(conn, Connection::Dialling(AbortOnDropHandle::new(attempt)));
    }

    /// Ends every session and waits until all last words have left, or have had the time to.
    async fn leave(&mut self) {
        self.acceptors.close().await;
        self.handle(Input::Shutdown);
        self.carry_out();
        self.connections.clear();
        self.monitor.stop();
        let left = async {
            while self.links.join_next().await.is_some() {}
            self.monitor.left().await;
        };
        if timeout(SHUTDOWN_TIMEOUT, left).await.is_err() {
            tracing::info!(
                connections = self.links.len(),
                "peers did not close their side in time"
            );
        }
        // Last: a peer that took AdminDown for a failure would end a session that we leave gracefully.
        self.watch.leave().await;
    }
}

/// Whoever asked no longer waits for the answer: nothing is wrong.
fn report_gone<T>(sent: Result<(), T>) {
    if sent.is_err() {
        tracing::debug!("nobody waits for the answer");
    }
}

/// What the consumer has not taken yet, merged.
#[derive(Debug, Default)]
struct Pending {
    /// In no order: sorted by address, they would be what the kernel's trie of routes takes longest to let go.
    selected: HashMap<Prefix, Choice>,
    sessions: BTreeMap<PeerKey, (bool, Option<String>)>,
    /// What BFD sees.
    paths: BTreeMap<PeerKey, bool>,
    /// How many UPDATEs cost what.
    faults: BTreeMap<Action, u64>,
    converged: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        let nothing = self.selected.is_empty() && self.sessions.is_empty() && self.paths.is_empty();
        nothing && self.faults.is_empty() && !self.converged
    }

    fn selected(&mut self, prefix: Prefix, choice: Choice) {
        self.selected.insert(prefix, choice);
    }

    fn session(&mut self, peer: PeerKey, up: bool, reason: Option<String>) {
        self.sessions.insert(peer, (up, reason));
    }

    /// An UPDATE was wrong: what that cost.
    fn faulty(&mut self, faults: &[Fault]) {
        if let Some(action) = faults.iter().map(|fault| fault.action).max() {
            *self.faults.entry(action).or_default() += 1;
        }
    }

    /// The next event. Paths come first: whoever hears of convergence has heard of every path.
    fn deliver(&mut self, to: mpsc::Permit<'_, Event>) {
        if !self.selected.is_empty() {
            to.send(Event::Selected(
                std::mem::take(&mut self.selected).into_iter().collect(),
            ));
        } else if let Some((peer, (up, reason))) = self.sessions.pop_first() {
            to.send(Event::Session { peer, up, reason });
        } else if let Some((peer, up)) = self.paths.pop_first() {
            to.send(Event::Bfd { peer, up });
        } else if !self.faults.is_empty() {
            to.send(Event::Faults(std::mem::take(&mut self.faults)));
        } else if std::mem::take(&mut self.converged) {
            to.send(Event::Converged);
        }
    }
}
