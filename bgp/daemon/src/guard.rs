//! What keeps strangers off: keys, TTLs and interfaces, on every socket of the speaker.
//!
//! A connection is guarded from its first packet on. What we dial is set up before the SYN leaves. What a peer
//! dials meets the listener, which is told of all peers: the kernel answers no SYN that lacks its peer's signature
//! (RFC 2385, RFC 5925) or has come too far (RFC 5082). A SYN that was answered before the listener knew, as by a
//! peer that has just been added, is looked at again when its connection is accepted.
//!
//! What the kernel refuses, as keys beyond its limit, shows in the status of the peers that it concerns. They stay
//! unconnected rather than unguarded.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use ipnetwork::IpNetwork;
use manx_bgp::transport::{Authentication, Distance};
use manx_bgp::{PeerKey, Transport};
use nix::errno::Errno;
use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::ranges::{self, contains, cover};
use crate::syn::Syn;
use crate::{sockets, sockopt, ttl_filter};

/// What a socket's own TTL is to give way to: the system's (ip(7), `IP_TTL`).
const SYSTEM_TTL: u32 = u32::MAX;

/// The guard of all sockets.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    listeners: Vec<Listener>,
    peers: BTreeMap<PeerKey, Transport>,
    /// For whoever comes from a range of addresses and is none of the peers.
    ranges: BTreeMap<IpNetwork, Transport>,
    /// The listeners do not know everything yet.
    stale: bool,
    /// Why a peer cannot dial us.
    refused: BTreeMap<PeerKey, Problem>,
    /// Why we could not dial a peer.
    undialled: BTreeMap<PeerKey, Problem>,
}

/// A listener, and what it was told.
#[derive(Debug)]
struct Listener {
    socket: Socket,
    v6: bool,
    keys: BTreeMap<IpNetwork, Authentication>,
    least_ttl: BTreeMap<IpNetwork, u8>,
}

/// Why a peer stays unconnected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// Its key could not be had.
    #[error("no connection without its key: {0}")]
    KeyMissing(String),
    /// The kernel's limit.
    #[error(
        "the kernel holds no more keys or filters for this listener, so the peer cannot connect to us: raise the \
         sysctl net.core.optmem_max, or let peers with neighbouring addresses share a password"
    )]
    OutOfMemory,
    /// The kernel lacks TCP-AO.
    #[error("this kernel has no TCP-AO (Linux 6.7 with CONFIG_TCP_AO has): use a password (TCP-MD5) instead")]
    NoAo,
    /// The kernel lacks TCP-MD5.
    #[error("this kernel has no TCP-MD5 (CONFIG_TCP_MD5SIG): use one that has, or no password")]
    NoMd5,
    /// Somebody else's key holds for its address.
    #[error(
        "another peer or range that has its address is signed otherwise, and the kernel tells keys apart by \
         address only: give both the same password"
    )]
    KeyConflict,
    /// The kernel refused something else.
    #[error("the kernel refuses to guard its connections: {0}")]
    Refused(String),
    /// A connection that was made before the listener knew better.
    #[error("the connection is not signed")]
    Unsigned,
    /// A connection that was made before the listener knew better.
    #[error("the connection comes from too far away: TTL {ttl}, at least {least} expected")]
    TooFar {
        /// What it had.
        ttl: u8,
        /// What it should have had.
        least: u8,
    },
}

impl Problem {
    fn of(authentication: &Authentication, error: &io::Error) -> Self {
        let absent = matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP)
        );
        match authentication {
            Authentication::Ao(_) if absent => Self::NoAo,
            Authentication::Md5(_) if absent => Self::NoMd5,
            Authentication::Ao(_) | Authentication::Md5(_) | Authentication::Missing(_) => Self::from(error),
        }
    }
}

impl From<&io::Error> for Problem {
    fn from(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOMEM | Errno::ENOBUFS) => Self::OutOfMemory,
            Some(_) | None => Self::Refused(error.to_string()),
        }
    }
}

impl Guard {
    /// A guard of these listeners, with no peers yet.
    pub(crate) fn new(listeners: &[TcpListener]) -> io::Result<Self> {
        let listener = |listener: &TcpListener| {
            let socket = Socket::from(listener.as_fd().try_clone_to_owned()?);
            sockopt::save_syn(&socket)?;
            Ok(Listener {
                socket,
                v6: listener.local_addr()?.is_ipv6(),
                keys: BTreeMap::new(),
                least_ttl: BTreeMap::new(),
            })
        };
        Ok(Self {
            listeners: listeners.iter().map(listener).collect::<io::Result<_>>()?,
            ..Self::default()
        })
    }

    /// A peer's connections are to be like this; gives what they were to be like before.
    pub(crate) fn set_peer(&mut self, peer: PeerKey, transport: Transport) -> Option<Transport> {
        self.undialled.remove(&peer);
        self.stale |= self.peers.get(&peer) != Some(&transport);
        self.peers.insert(peer, transport)
    }

    /// There is no such peer any more.
    pub(crate) fn remove_peer(&mut self, peer: PeerKey) {
        self.undialled.remove(&peer);
        self.stale |= self.peers.remove(&peer).is_some();
    }

    /// Whoever connects from a range is to be like this; gives what they were to be like before.
    pub(crate) fn set_range(&mut self, range: IpNetwork, transport: Transport) -> Option<Transport> {
        self.stale |= self.ranges.get(&range) != Some(&transport);
        self.ranges.insert(range, transport)
    }

    /// There is no such range any more.
    pub(crate) fn remove_range(&mut self, range: IpNetwork) {
        self.stale |= self.ranges.remove(&range).is_some();
    }

    /// The range that a peer without settings of its own is of.
    pub(crate) fn range_of(&self, peer: PeerKey) -> Option<IpNetwork> {
        if self.peers.contains_key(&peer) {
            return None;
        }
        let address = IpNetwork::from(peer.address);
        let around = self.ranges.keys().filter(|range| contains(**range, address));
        around.max_by_key(|range| range.prefix()).copied()
    }

    /// What a peer's connections have to be.
    fn transport(&self, peer: PeerKey) -> Transport {
        let range = || self.ranges.get(&self.range_of(peer)?);
        self.peers.get(&peer).or_else(range).cloned().unwrap_or_default()
    }

    /// What keeps a peer unconnected.
    pub(crate) fn problem(&self, peer: PeerKey) -> Option<&Problem> {
        self.undialled.get(&peer).or_else(|| self.refused.get(&peer))
    }

    /// Whether the kernel may have changed its mind about something.
    pub(crate) fn has_problems(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Tells the listeners what has changed; `again`: also what they have refused.
    pub(crate) fn update_listeners(&mut self, again: bool) {
        if !std::mem::take(&mut self.stale) && !again {
            return;
        }
        let key = |transport: &Transport| transport.authentication.clone().filter(is_key);
        let keys = self.cover(key);
        let ttl = self.cover(|transport| Some(transport.distance.ttl_accepted()));
        // That any TTL will do is worth saying only where one is asked for around.
        let asked = |range: &IpNetwork| {
            ttl.iter()
                .any(|(other, least)| *least > 0 && contains(*other, *range))
        };
        let ttl: BTreeMap<_, _> = ttl
            .iter()
            .filter(|(range, _)| asked(range))
            .map(|(range, least)| (*range, *least))
            .collect();
        let before = std::mem::take(&mut self.refused);
        for listener in &mut self.listeners {
            let mut failed = listener.set_keys(&keys);
            if let Err(error) = listener.set_least_ttl(&ttl) {
                failed.extend(ttl.keys().map(|range| (*range, Problem::from(&error))));
            }
            for (peer, transport) in &self.peers {
                if peer.address.is_ipv6() == listener.v6
                    && let Some(problem) = listener.problem(*peer, transport, &failed)
                {
                    self.refused.insert(*peer, problem);
                }
            }
        }
        for (peer, problem) in &self.refused {
            if before.get(peer) != Some(problem) {
                tracing::warn!(peer = %peer.address, %problem, "the peer cannot connect to us");
            }
        }
    }

    /// A socket to dial a peer with.
    pub(crate) fn dialler(&mut self, remote: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpSocket> {
        let peer = PeerKey::of(remote.ip(), sockets::scope(remote));
        let transport = self.transport(peer);
        let socket = if remote.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        match prepare(&socket, remote, local, &transport) {
            Ok(()) => {
                self.undialled.remove(&peer);
                Ok(socket)
            }
            Err(problem) => {
                let error = io::Error::other(problem.clone());
                self.undialled.insert(peer, problem);
                Err(error)
            }
        }
    }

    /// Makes an accepted connection what its peer's have to be, or says why it is none of its.
    pub(crate) fn admit(&self, peer: PeerKey, connection: &TcpStream) -> Result<(), Problem> {
        let transport = self.transport(peer);
        let syn = sockopt::saved_syn(connection).map_err(|error| Problem::from(&error))?;
        // None is kept where a SYN cookie stood for it; the listener's word counts then.
        if let Some(syn) = Syn::read(&syn) {
            match &transport.authentication {
                Some(Authentication::Md5(_)) if !syn.md5 => return Err(Problem::Unsigned),
                Some(Authentication::Ao(_)) if !syn.ao => return Err(Problem::Unsigned),
                Some(Authentication::Md5(_) | Authentication::Ao(_) | Authentication::Missing(_)) | None => {}
            }
            let least = transport.distance.ttl_accepted();
            if syn.ttl < least {
                return Err(Problem::TooFar { ttl: syn.ttl, least });
            }
        }
        match (&transport.authentication, self.refused.get(&peer)) {
            (Some(Authentication::Missing(why)), _) => return Err(Problem::KeyMissing(why.to_string())),
            (_, Some(problem)) => return Err(problem.clone()),
            (Some(Authentication::Md5(_) | Authentication::Ao(_)) | None, None) => {}
        }
        adopt(connection, peer, &transport).map_err(|error| Problem::from(&error))
    }

    /// Whether a peer's connections are signed.
    pub(crate) fn signs(&self, peer: PeerKey) -> bool {
        self.transport(peer).authentication.is_some()
    }

    /// Replaces the keys of a live connection.
    pub(crate) fn rekey(connection: &Socket, peer: PeerKey, old: &Transport, new: &Transport) {
        let (old, new) = (old.authentication.as_ref(), new.authentication.as_ref());
        if let Err(error) = sign(connection, IpNetwork::from(peer.address), old, new, true) {
            tracing::warn!(peer = %peer.address, %error, "the connection keeps its old key");
        }
    }

    /// The fewest ranges that say something of all peers.
    fn cover<T: Clone + PartialEq>(&self, of: impl Fn(&Transport) -> Option<T>) -> BTreeMap<IpNetwork, T> {
        let entries: Vec<ranges::Entry<T>> = self
            .peers
            .iter()
            .map(|(peer, transport)| (IpNetwork::from(peer.address), of(transport)))
            .chain(
                self.ranges
                    .iter()
                    .map(|(range, transport)| (*range, of(transport))),
            )
            .collect();
        cover(&entries)
    }
}

impl Listener {
    /// Tells it the keys of its family; gives the ranges that it did not take them for.
    fn set_keys(&mut self, wanted: &BTreeMap<IpNetwork, Authentication>) -> BTreeMap<IpNetwork, Problem> {
        let mut failed = BTreeMap::new();
        let gone: Vec<IpNetwork> = self
            .keys
            .keys()
            .filter(|range| !wanted.contains_key(range))
            .copied()
            .collect();
        let ours = wanted.iter().filter(|(range, _)| range.is_ipv6() == self.v6);
        // What is shared no longer makes room first: a peer in between is silent for a moment, not unguarded.
        for range in gone {
            let old = self.keys.remove(&range);
            if let Err(error) = sign(&self.socket, range, old.as_ref(), None, false) {
                tracing::warn!(%range, %error, "the listener keeps a key that nobody has any more");
            }
        }
        for (range, key) in ours {
            let old = self.keys.get(range);
            if old == Some(key) {
                continue;
            }
            match sign(&self.socket, *range, old, Some(key), false) {
                Ok(()) => drop(self.keys.insert(*range, key.clone())),
                Err(error) => drop(failed.insert(*range, Problem::of(key, &error))),
            }
        }
        failed
    }

    /// Tells it from how far peers of its family may come.
    fn set_least_ttl(&mut self, wanted: &BTreeMap<IpNetwork, u8>) -> io::Result<()> {
        let ours: BTreeMap<IpNetwork, u8> = wanted
            .iter()
            .filter(|(range, _)| range.is_ipv6() == self.v6)
            .map(|(range, least)| (*range, *least))
            .collect();
        if ours == self.least_ttl {
            return Ok(());
        }
        if ours.is_empty() {
            self.socket.detach_filter()?;
        } else {
            self.socket.attach_filter(&ttl_filter::program(self.v6, &ours))?;
        }
        // Our answer to a SYN is the first packet that has to prove how near we are.
        let ttl = if ours.is_empty() {
            SYSTEM_TTL
        } else {
            u8::MAX.into()
        };
        set_ttl(&self.socket, self.v6, ttl)?;
        self.least_ttl = ours;
        Ok(())
    }

    /// Why a peer cannot connect here, given what failed.
    fn problem(
        &self,
        peer: PeerKey,
        transport: &Transport,
        failed: &BTreeMap<IpNetwork, Problem>,
    ) -> Option<Problem> {
        let wanted = transport.authentication.as_ref();
        if let Some(Authentication::Missing(why)) = wanted {
            return Some(Problem::KeyMissing(why.to_string()));
        }
        let address = IpNetwork::from(peer.address);
        if wanted != longest(&self.keys, address) {
            return Some(longest(failed, address).cloned().unwrap_or(Problem::KeyConflict));
        }
        let guarded = transport.distance.ttl_accepted();
        let told = longest(&self.least_ttl, address).copied().unwrap_or(0);
        (guarded != told).then(|| longest(failed, address).cloned().unwrap_or(Problem::OutOfMemory))
    }
}

/// What holds for an address.
fn longest<T>(ranges: &BTreeMap<IpNetwork, T>, address: IpNetwork) -> Option<&T> {
    ranges
        .iter()
        .filter(|(range, _)| contains(**range, address))
        .max_by_key(|(range, _)| range.prefix())
        .map(|(_, value)| value)
}

fn is_key(authentication: &Authentication) -> bool {
    match authentication {
        Authentication::Md5(_) | Authentication::Ao(_) => true,
        Authentication::Missing(_) => false,
    }
}

/// Sets a socket up before it dials.
fn prepare(
    socket: &TcpSocket,
    remote: SocketAddr,
    local: Option<IpAddr>,
    transport: &Transport,
) -> Result<(), Problem> {
    let options = SockRef::from(socket);
    let set_up = || {
        if let Some(interface) = &transport.interface {
            options.bind_device(Some(interface.as_bytes()))?;
        }
        if let Some(local) = local {
            socket.bind(sockets::source(local, remote))?;
        }
        limit_distance(socket, remote.is_ipv6(), transport.distance)?;
        socket.set_nodelay(true)
    };
    set_up().map_err(|error| Problem::from(&error))?;
    match &transport.authentication {
        None => Ok(()),
        Some(Authentication::Missing(why)) => Err(Problem::KeyMissing(why.to_string())),
        Some(key @ (Authentication::Md5(_) | Authentication::Ao(_))) => {
            sign(socket, IpNetwork::from(remote.ip()), None, Some(key), true)
                .map_err(|error| Problem::of(key, &error))
        }
    }
}

/// Sets an accepted connection up: what it has inherited from the listener was for everybody.
fn adopt(connection: &TcpStream, peer: PeerKey, transport: &Transport) -> io::Result<()> {
    let options = SockRef::from(connection);
    let v6 = peer.address.is_ipv6();
    options
        .detach_filter()
        .or_else(|error| match error.raw_os_error() {
            Some(nix::libc::ENOENT) => Ok(()),
            Some(_) | None => Err(error),
        })?;
    set_ttl(connection, v6, SYSTEM_TTL)?;
    limit_distance(connection, v6, transport.distance)?;
    if let Some(interface) = &transport.interface {
        options.bind_device(Some(interface.as_bytes()))?;
    }
    match &transport.authentication {
        // The key may have changed since the SYN.
        Some(Authentication::Md5(secret)) => {
            sockopt::set_md5(connection, IpNetwork::from(peer.address), Some(secret))
        }
        Some(Authentication::Ao(_) | Authentication::Missing(_)) | None => Ok(()),
    }
}

fn limit_distance(socket: &impl AsFd, v6: bool, distance: Distance) -> io::Result<()> {
    if let Some(ttl) = distance.ttl_sent() {
        set_ttl(socket, v6, ttl.into())?;
    }
    match distance.ttl_accepted() {
        0 => Ok(()),
        least => sockopt::set_min_ttl(socket, v6, least),
    }
}

fn set_ttl(socket: &impl AsFd, v6: bool, ttl: u32) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if v6 {
        socket.set_unicast_hops_v6(ttl)
    } else {
        socket.set_ttl_v4(ttl)
    }
}

/// Replaces the keys that a socket has for these peers.
fn sign(
    socket: &impl AsFd,
    peers: IpNetwork,
    old: Option<&Authentication>,
    new: Option<&Authentication>,
    connection: bool,
) -> io::Result<()> {
    match (old, new) {
        (_, Some(Authentication::Md5(secret))) => sockopt::set_md5(socket, peers, Some(secret))?,
        (Some(Authentication::Md5(_)), _) => sockopt::set_md5(socket, peers, None)?,
        (Some(Authentication::Ao(_) | Authentication::Missing(_)) | None, _) => {}
    }
    let keys = |authentication: Option<&Authentication>| match authentication {
        Some(Authentication::Ao(keys)) => keys.clone(),
        Some(Authentication::Md5(_) | Authentication::Missing(_)) | None => Vec::new(),
    };
    let (old, new) = (keys(old), keys(new));
    let removed: Vec<_> = old.iter().filter(|key| !new.contains(key)).collect();
    let clash = |key: &&&manx_bgp::transport::AoKey| {
        new.iter()
            .any(|new| (new.send_id, new.receive_id) == (key.send_id, key.receive_id))
    };
    for key in removed.iter().filter(clash) {
        sockopt::remove_ao(socket, peers, key, None)?;
    }
    for (place, key) in new.iter().enumerate().filter(|(_, key)| !old.contains(key)) {
        sockopt::add_ao(socket, peers, key, connection && place == 0)?;
    }
    for key in removed.iter().filter(|key| !clash(key)) {
        sockopt::remove_ao(socket, peers, key, new.first().filter(|_| connection))?;
    }
    Ok(())
}
