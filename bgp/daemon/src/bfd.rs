//! BFD on a thread of its own: the sockets and the clock of [`Bfd`].
//!
//! The thread sleeps in `poll(2)`, so that neither routes nor whatever else the runtime does delay a packet.
//! Ports are taken when the first session needs them: hosts without BFD leave them to others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc as channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnetwork::IpNetwork;
use manx_bgp::PeerKey;
use manx_bgp::bfd::{self, Bfd, Input, Key, Output, SOURCE_PORTS, SessionConfig, SessionSnapshot, TTL};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use rand::RngExt as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{oneshot, watch};

use crate::datagram::{self, Datagram};
use crate::{sockets, ttl_filter};

/// Internetwork control: what must get through when all else is queued (RFC 2474 §4.2.2.2).
const TRAFFIC_CLASS: u32 = 0xc0;

/// Datagrams read from a socket before time is let pass: a flood does not stop the clock.
const READ_BATCH: usize = 256;

/// No packet of ours, and none without authentication, is longer; in octets.
const DATAGRAM: usize = 64;

/// How long a port that another program holds is left alone.
const LISTEN_PAUSE: Duration = Duration::from_secs(10);

/// How many source ports are tried for a session.
const PORT_ATTEMPTS: usize = 64;

/// Which peers' paths are watched; the driver's end of the thread, which starts with the first of them.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    sessions: BTreeMap<PeerKey, SessionConfig>,
    service: Option<Service>,
    /// The paths as they were when the thread's word was last looked at.
    seen: Paths,
    /// What has changed since, and was not told yet: one change per path.
    news: VecDeque<Change>,
}

/// How the path of a session is. A neighbour that flaps as fast as it can changes this and adds nothing to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Health {
    up: bool,
    /// The serial number of its last failure, 0 before there is one.
    failure: u64,
}

/// Every path that was ever up, while it is watched.
type Paths = BTreeMap<Key, Health>;

/// What BFD says of the path to a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) peer: PeerKey,
    pub(crate) up: bool,
    /// Whatever relies on the path is to be torn down.
    pub(crate) failed: bool,
}

/// A running thread. When this goes, so does the thread, without a word to the neighbours.
#[derive(Debug)]
struct Service {
    commands: channel::Sender<Command>,
    paths: watch::Receiver<Paths>,
    wake: UnixStream,
}

#[derive(Debug)]
enum Command {
    Input(Input),
    Sessions(oneshot::Sender<Vec<SessionSnapshot>>),
    /// Takes all sessions down, as no failure, and ends.
    Leave(oneshot::Sender<()>),
}

impl Watch {
    /// Watches the path to a peer as `wanted`, or no longer. Whether a session has ended by that.
    pub(crate) fn set(&mut self, peer: PeerKey, wanted: Option<SessionConfig>) -> bool {
        let had = match wanted {
            Some(config) => self.sessions.insert(peer, config),
            None => self.sessions.remove(&peer),
        };
        if had == wanted {
            return false;
        }
        let replaced = had.filter(|had| wanted.is_none_or(|wanted| wanted.key != had.key));
        let removal = replaced.map(|had| Input::RemoveSession(had.key));
        for input in removal.into_iter().chain(wanted.map(Input::SetSession)) {
            if let Some(service) = self.service() {
                service.send(Command::Input(input));
            }
        }
        replaced.is_some()
    }

    /// What next happens to the path of a peer that is watched. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Change {
        loop {
            if let Some(change) = self.news.pop_front() {
                return change;
            }
            let Some(service) = &mut self.service else {
                return std::future::pending().await;
            };
            if service.paths.changed().await.is_err() {
                self.service = None;
            } else {
                let paths = service.paths.borrow_and_update().clone();
                self.compare(&paths);
                self.seen = paths;
            }
        }
    }

    /// Notes what has changed at the paths that are still watched.
    fn compare(&mut self, paths: &Paths) {
        for (key, health) in paths {
            let before = self.seen.get(key).copied().unwrap_or_default();
            let current = self.sessions.get(&key.peer).is_some_and(|it| it.key == *key);
            if current && before != *health {
                self.news.push_back(Change {
                    peer: key.peer,
                    up: health.up,
                    failed: before.failure != health.failure,
                });
            }
        }
    }

    /// Answers with every session as it stands.
    pub(crate) fn sessions(&self, reply: oneshot::Sender<Vec<SessionSnapshot>>) {
        match &self.service {
            Some(service) => service.send(Command::Sessions(reply)),
            None => reply.send(Vec::new()).unwrap_or_default(),
        }
    }

    /// Tells all neighbours that this is no failure, and ends.
    pub(crate) async fn leave(&mut self) {
        if let Some(service) = self.service.take() {
            let (told, done) = oneshot::channel();
            service.send(Command::Leave(told));
            // A thread that ended before has nobody to tell any more.
            done.await.unwrap_or_default();
        }
    }

    fn service(&mut self) -> Option<&Service> {
        if self.service.is_none() {
            self.service = Service::start()
                .inspect_err(|error| tracing::error!(%error, "BFD cannot start, no path is watched"))
                .ok();
        }
        self.service.as_ref()
    }
}

impl Service {
    fn start() -> io::Result<Self> {
        let (commands, inbox) = channel::channel();
        let (report, paths) = watch::channel(Paths::new());
        let (wake, bell) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let thread = Thread {
            bfd: Bfd::new(rand::random()),
            commands: inbox,
            report,
            failures: 0,
            bell,
            wanted: BTreeSet::new(),
            listeners: BTreeMap::new(),
            listen_at: None,
            senders: BTreeMap::new(),
        };
        std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(|| thread.run())?;
        Ok(Self {
            commands,
            paths,
            wake,
        })
    }

    fn send(&self, command: Command) {
        // A thread that is gone has said why; a bell that is full rings already.
        self.commands.send(command).unwrap_or_default();
        (&self.wake).write_all(&[0]).unwrap_or_default();
    }
}

/// One of the four ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    v6: bool,
    multihop: bool,
}

/// The socket that a session sends from, and the address that it was bound for.
#[derive(Debug)]
struct Sender {
    from: Option<IpAddr>,
    socket: UdpSocket,
}

#[derive(Debug)]
struct Thread {
    bfd: Bfd,
    commands: channel::Receiver<Command>,
    report: watch::Sender<Paths>,
    /// How many paths have failed so far.
    failures: u64,
    bell: UnixStream,
    wanted: BTreeSet<Port>,
    listeners: BTreeMap<Port, UdpSocket>,
    /// When to try again to listen at a wanted port.
    listen_at: Option<Instant>,
    senders: BTreeMap<Key, Sender>,
}

impl Thread {
    fn run(mut self) {
        loop {
            if let Err(error) = self.sleep() {
                return tracing::error!(%error, "BFD stops, no path is watched");
            }
            self.receive();
            loop {
                match self.commands.try_recv() {
                    Ok(command) => match self.obey(command) {
                        None => {}
                        Some(told) => return told.send(()).unwrap_or_default(),
                    },
                    Err(channel::TryRecvError::Empty) => break,
                    Err(channel::TryRecvError::Disconnected) => return,
                }
            }
            let now = Instant::now();
            if self.listen_at.is_some_and(|at| at <= now) {
                self.listen(now);
            }
            if self.bfd.deadline().is_some_and(|at| at <= now) {
                self.bfd.handle(now, Input::Tick);
            }
            self.carry_out();
        }
    }

    /// Until a packet comes, a command, or the next deadline.
    fn sleep(&mut self) -> io::Result<()> {
        let deadline = self.bfd.deadline().into_iter().chain(self.listen_at).min();
        let timeout = deadline.map_or(PollTimeout::NONE, |at| {
            // Rounded up: waking before the deadline would have us spin.
            let wait = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
        });
        let bell = self.bell.as_fd();
        let sockets = self.listeners.values().map(UdpSocket::as_fd);
        let mut waiting: Vec<_> = sockets
            .chain([bell])
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match nix::poll::poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The commands say what it rang for.
        match self.bell.read(&mut [0; 64]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Hands in all that has come.
    fn receive(&mut self) {
        let now = Instant::now();
        for (port, socket) in &self.listeners {
            for _ in 0..READ_BATCH {
                match receive(socket, port.multihop) {
                    Ok(Some(input)) => self.bfd.handle(now, input),
                    Ok(None) => {}
                    Err(error) => {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            tracing::debug!(%error, "receiving BFD packets");
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Obeys a command; a last one is given back to be answered.
    fn obey(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        let now = Instant::now();
        match command {
            Command::Sessions(reply) => reply.send(self.bfd.sessions()).unwrap_or_default(),
            Command::Input(input) => {
                if let Input::SetSession(config) = &input {
                    self.wanted.insert(Port {
                        v6: config.key.peer.address.is_ipv6(),
                        multihop: config.key.multihop,
                    });
                    self.listen(now);
                }
                self.bfd.handle(now, input);
                self.carry_out();
            }
            Command::Leave(told) => {
                for session in self.bfd.sessions() {
                    self.bfd.handle(now, Input::RemoveSession(session.key));
                }
                self.carry_out();
                return Some(told);
            }
        }
        None
    }

    /// Takes the ports that are wanted and not ours yet.
    fn listen(&mut self, now: Instant) {
        self.listen_at = None;
        for &port in &self.wanted {
            if self.listeners.contains_key(&port) {
                continue;
            }
            match listener(port) {
                Ok(socket) => drop(self.listeners.insert(port, socket)),
                Err(error) => {
                    let number = bfd::port(port.multihop);
                    tracing::warn!(%error, port = number, "cannot listen for BFD: end the program that does");
                    self.listen_at = Some(now + LISTEN_PAUSE);
                }
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.bfd.poll() {
            match output {
                Output::Send { key, from, bytes } => {
                    if let Err(error) = self.send(key, from, &bytes) {
                        tracing::debug!(peer = %key.peer.address, %error, "sending a BFD packet");
                    }
                }
                Output::Gone(key) => {
                    self.senders.remove(&key);
                    self.report.send_if_modified(|paths| paths.remove(&key).is_some());
                }
                Output::Up(key) => {
                    tracing::debug!(peer = %key.peer.address, "BFD: the path is up");
                    self.tell(key, |health| health.up = true);
                }
                Output::NeighborAdminDown(key) => {
                    tracing::debug!(peer = %key.peer.address, "BFD: the peer no longer watches the path");
                    self.tell(key, |health| health.up = false);
                }
                Output::Down(key, diagnostic) => {
                    tracing::debug!(peer = %key.peer.address, %diagnostic, "BFD: the path has failed");
                    self.failures += 1;
                    let failure = self.failures;
                    self.tell(key, |health| *health = Health { up: false, failure });
                }
            }
        }
    }

    /// Tells the driver how a path is.
    fn tell(&self, key: Key, change: impl FnOnce(&mut Health)) {
        self.report
            .send_modify(|paths| change(paths.entry(key).or_default()));
    }

    fn send(&mut self, key: Key, from: Option<IpAddr>, bytes: &[u8]) -> io::Result<()> {
        if self.senders.get(&key).is_none_or(|sender| sender.from != from) {
            let socket = sender(key, from)?;
            self.senders.insert(key, Sender { from, socket });
        }
        if let Some(sender) = self.senders.get(&key) {
            sender.socket.send_to(bytes, key.remote())?;
        }
        Ok(())
    }
}

fn open(v6: bool) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if v6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn unspecified(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// A socket that listens at one of the ports and tells how far each packet has come. Over one hop the kernel lets in what
/// was not forwarded only (RFC 5881 §5): what strangers send from afar takes no room that neighbours' packets need.
fn listener(port: Port) -> io::Result<UdpSocket> {
    let socket = open(port.v6)?;
    if !port.multihop {
        let everybody = IpNetwork::new(unspecified(port.v6), 0).map_err(io::Error::other)?;
        let filter = ttl_filter::program(port.v6, &BTreeMap::from([(everybody, TTL)]));
        socket.attach_filter(&filter)?;
    }
    if port.v6 {
        socket.set_recv_hoplimit_v6(true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
    }
    let address = SocketAddr::new(unspecified(port.v6), bfd::port(port.multihop));
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket to send a session's packets from, at a source port of its own (RFC 5881 §4).
fn sender(key: Key, from: Option<IpAddr>) -> io::Result<UdpSocket> {
    let remote = key.remote();
    let v6 = remote.is_ipv6();
    let socket = open(v6)?;
    if v6 {
        socket.set_unicast_hops_v6(TTL.into())?;
        socket.set_tclass_v6(TRAFFIC_CLASS)?;
    } else {
        socket.set_ttl_v4(TTL.into())?;
        socket.set_tos_v4(TRAFFIC_CLASS)?;
    }
    let mut address = sockets::source(from.unwrap_or_else(|| unspecified(v6)), remote);
    let mut attempts = 0;
    loop {
        address.set_port(rand::rng().random_range(SOURCE_PORTS));
        attempts += 1;
        match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < PORT_ATTEMPTS => {}
            bound => return bound.map(|()| socket.into()),
        }
    }
}

/// The next datagram; none if it lacks what it is judged by.
fn receive(socket: &UdpSocket, multihop: bool) -> io::Result<Option<Input>> {
    let mut buffer = [0; DATAGRAM];
    let datagram = datagram::receive(socket, &mut buffer)?;
    Ok(datagram.map(|Datagram { from, ttl, length }| Input::Received {
        from: from.ip(),
        scope: sockets::scope(from),
        multihop,
        ttl,
        bytes: Bytes::copy_from_slice(&buffer[..length]),
    }))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;

    fn session(host: u8) -> SessionConfig {
        SessionConfig {
            key: Key {
                peer: PeerKey::of([192, 0, 2, host].into(), 0),
                multihop: false,
            },
            local: None,
            min_tx: Duration::from_secs(1),
            min_rx: Duration::from_secs(1),
            multiplier: NonZeroU8::MIN,
        }
    }

    /// A neighbour that takes its session up and down as fast as it can adds nothing to what waits for the driver, which
    /// hears that the path failed and how it is now.
    #[tokio::test]
    async fn a_path_that_flaps_is_one_change() {
        let (commands, _inbox) = channel::channel();
        let (report, paths) = watch::channel(Paths::new());
        let (wake, _bell) = UnixStream::pair().unwrap();
        let watched = session(1);
        let mut watch = Watch {
            sessions: BTreeMap::from([(watched.key.peer, watched)]),
            service: Some(Service {
                commands,
                paths,
                wake,
            }),
            ..Watch::default()
        };
        for failure in 1..=10_000 {
            for health in [Health { up: false, failure }, Health { up: true, failure }] {
                report.send_modify(|paths| paths.extend([(watched.key, health)]));
            }
        }
        let other = Health { up: true, failure: 0 };
        report.send_modify(|paths| paths.extend([(session(2).key, other)]));
        let Change { peer, up, failed } = watch.changed().await;
        assert_eq!((peer, up, failed), (watched.key.peer, true, true));
        report.send_modify(|paths| {
            for health in paths.values_mut() {
                health.up = false;
            }
        });
        let Change { peer, up, failed } = watch.changed().await;
        assert_eq!(
            (peer, up, failed),
            (watched.key.peer, false, false),
            "nobody asked about the other one"
        );
        drop(report);
        tokio::time::timeout(Duration::from_millis(20), watch.changed())
            .await
            .expect_err("a thread that is gone has no more to tell");
    }
}
