//! Settings: the speaker's own and each peer's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use crate::filter::{Chain, Subject, Verdict};
use crate::handling::Handling;
use crate::interfaces::Interface;
use crate::wire::Role;
use crate::{Family, Features, Prefix, Transport, bfd};

/// In place of a peer's AS: any but ours. Nobody has this one (RFC 7607).
pub const ANY_EXTERNAL_AS: u32 = 0;

/// What identifies a peer: its address and, for a link-local one, the interface's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// The peer's address.
    pub address: IpAddr,
    /// The interface, for link-local addresses; 0 otherwise.
    pub scope: u32,
}

/// The speaker's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our AS.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our cluster identifier as a reflector (RFC 4456); the router id by default.
    pub cluster_id: Option<Ipv4Addr>,
    /// We come back from a restart and kept forwarding: OPEN says R and F, and export waits for the peers'
    /// End-of-RIB or `deferral` (RFC 4724 §4.1).
    pub restarted: bool,
    /// How long after the start export waits, if we restarted, and `Output::Converged` in any case, at most.
    /// Peers drop our routes after the restart time that we offer them: it has to be longer.
    pub deferral: Duration,
    /// What an operator wants peers to read when we shut down (RFC 9003); 255 octets are sent at most.
    pub farewell: String,
    /// Our interfaces, for filters that ask for them; [`Input::Interfaces`](crate::Input::Interfaces) changes them.
    pub interfaces: Arc<[Interface]>,
    /// Seed of all jitter.
    pub seed: u64,
    /// Next hops per prefix towards the kernel, at most.
    pub max_paths: usize,
}

/// A peer's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Who.
    pub key: PeerKey,
    /// The port to dial.
    pub port: u16,
    /// The peer's AS; [`ANY_EXTERNAL_AS`] for whichever its OPEN names.
    pub asn: u32,
    /// The address to dial from, and our next hop; the driver's choice where absent.
    pub local_address: Option<IpAddr>,
    /// Our next hops per family, for next hop self; `local_address` of the same family where absent.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Wait for the peer to connect.
    pub passive: bool,
    /// Proposed hold time; zero: none. 3 s at least otherwise.
    pub hold_time: Duration,
    /// The shortest hold time that we take from the peer: a shorter one, other than zero, is refused (RFC 4271 §4.2).
    pub min_hold_time: Duration,
    /// Families to offer.
    pub families: Vec<Family>,
    /// Treat the peer as a client (RFC 4456).
    pub route_reflector_client: bool,
    /// Offer graceful restart with this restart time (RFC 4724).
    pub graceful_restart: Option<Duration>,
    /// Offer long-lived graceful restart with this stale time, beyond the restart time, and keep the peer's routes no
    /// longer than that (RFC 9494); means nothing without [`graceful_restart`](Self::graceful_restart).
    pub long_lived_graceful_restart: Option<Duration>,
    /// Which next hop announcements carry.
    pub next_hop: NextHopMode,
    /// What comes in.
    pub import: Policy,
    /// What goes out.
    pub export: Policy,
    /// Watch the path by BFD; the driver does. A change touches no session.
    pub bfd: Option<BfdConfig>,
    /// What the connections have to be.
    pub transport: Transport,
    /// What is offered beyond the base protocol.
    pub features: Features,
    /// How its routes are handled beside the policies.
    pub handling: Handling,
}

/// How BFD watches the path to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdConfig {
    /// The peer is several hops away (RFC 5883), not on our link (RFC 5881).
    pub multihop: bool,
    /// We would like to send no faster than this.
    pub min_tx: Duration,
    /// We take no more than one packet in this time.
    pub min_rx: Duration,
    /// The peer is to give up after this many intervals without a packet of ours.
    pub multiplier: NonZeroU8,
}

/// Which next hop announcements carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHopMode {
    /// RFC 4271 §5.1.3: ourselves for our own routes and towards eBGP, unchanged otherwise.
    Auto,
    /// Always ourselves.
    SelfAddress,
    /// Unchanged wherever there is one.
    Keep,
}

/// What passes, in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Everything.
    Accept,
    /// Nothing.
    Reject,
    /// Prefixes inside any of these.
    Within(Arc<[Prefix]>),
    /// What filters say, one rule after the other.
    Filtered(Arc<Chain>),
}

impl PeerKey {
    /// The peer that has `address`, on the interface `scope` where the address is link-local.
    #[must_use]
    pub fn of(address: IpAddr, scope: u32) -> Self {
        let address = address.to_canonical();
        let on_link = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        Self {
            address,
            scope: if on_link { scope } else { 0 },
        }
    }

    /// Where to reach a port of the peer.
    pub(crate) fn socket_address(self, port: u16) -> SocketAddr {
        match self.address {
            IpAddr::V4(address) => SocketAddr::new(address.into(), port),
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, self.scope).into(),
        }
    }
}

impl fmt::Display for PeerKey {
    /// `192.0.2.1`, `fe80::1%7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            0 => self.address.fmt(f),
            scope => write!(f, "{}%{scope}", self.address),
        }
    }
}

impl Config {
    /// The cluster that we reflect for (RFC 4456 §7).
    pub(crate) fn cluster(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id)
    }
}

impl PeerConfig {
    /// A session that dials port 179, takes and gives all IPv4 unicast routes, and asks for nothing else: what
    /// settings that are about few fields start from.
    #[must_use]
    pub fn new(key: PeerKey, asn: u32) -> Self {
        Self {
            key,
            port: 179,
            asn,
            local_address: None,
            next_hop_v4: None,
            next_hop_v6: None,
            passive: false,
            hold_time: Duration::from_secs(90),
            min_hold_time: Duration::ZERO,
            families: vec![Family::Ipv4Unicast],
            route_reflector_client: false,
            graceful_restart: None,
            long_lived_graceful_restart: None,
            next_hop: NextHopMode::Auto,
            import: Policy::Accept,
            export: Policy::Accept,
            bfd: None,
            transport: Transport::default(),
            features: Features::default(),
            handling: Handling::default(),
        }
    }
}

impl BfdConfig {
    /// The session with a peer, from `local` where one is given.
    #[must_use]
    pub fn session(self, peer: PeerKey, local: Option<IpAddr>) -> bfd::SessionConfig {
        let Self {
            multihop,
            min_tx,
            min_rx,
            multiplier,
        } = self;
        bfd::SessionConfig {
            key: bfd::Key { peer, multihop },
            local,
            min_tx,
            min_rx,
            multiplier,
        }
    }
}

impl PeerConfig {
    /// The BFD session that the peer asks for.
    #[must_use]
    pub fn bfd_session(&self) -> Option<bfd::SessionConfig> {
        self.bfd.map(|bfd| bfd.session(self.key, self.local_address))
    }

    /// What we are to the peer, if it is of another AS (RFC 9234 §4.1).
    pub(crate) fn role(&self, local: &Config) -> Option<Role> {
        let role = self.features.role.filter(|_| self.is_external(local));
        role.map(|it| it.role)
    }

    /// Whether `new` can only take effect with a new session: what the OPENs agree on, or where they are sent
    /// from. All else is applied to the session as it stands.
    pub(crate) fn needs_new_session(&self, new: &Self) -> bool {
        let agreed = |it: &Self| (it.asn, it.local_address, it.hold_time, it.graceful_restart);
        agreed(self) != agreed(new)
            || self.long_lived_graceful_restart != new.long_lived_graceful_restart
            || self.handling.local_as != new.handling.local_as
            || self.families != new.families
            || self.features.offer(self) != new.features.offer(new)
            || self.features.role != new.features.role
            || self.transport.needs_new_connection(&new.transport)
    }
}

impl PeerConfig {
    /// Whether a policy asks over which interface routes lead.
    #[must_use]
    pub fn asks_for_interfaces(&self) -> bool {
        self.import.asks_for_interfaces() || self.export.asks_for_interfaces()
    }
}

impl Policy {
    /// Whether a rule asks over which interface a route leads.
    pub(crate) fn asks_for_interfaces(&self) -> bool {
        match self {
            Self::Accept | Self::Reject | Self::Within(_) => false,
            Self::Filtered(chain) => chain.asks_for_interfaces(),
        }
    }

    /// What becomes of a route.
    pub(crate) fn judge(&self, route: &Subject<'_>) -> Verdict<'_> {
        match self {
            Self::Accept => Verdict::default_of(true),
            Self::Reject => Verdict::default_of(false),
            Self::Within(ranges) => {
                Verdict::default_of(ranges.iter().any(|range| range.covers(route.prefix)))
            }
            Self::Filtered(chain) => chain.judge(route),
        }
    }
}
