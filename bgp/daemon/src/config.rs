//! The configuration file of `manx-bgpd`: YAML, so JSON too.
//!
//! A mistake is reported once, with its place and with what would be right, and nothing is started.

mod bfd;
mod dynamic;
mod features;
mod handling;
mod mistakes;
mod monitoring;
mod place;
mod sense;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU16};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_bgp::filter::{Chain, Filter};
use manx_bgp::transport::Secret;
use manx_bgp::{
    ANY_EXTERNAL_AS, Config, Family, NextHopMode, PeerConfig, PeerKey, Policy, Prefix, RangeConfig,
};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error as _, IntoDeserializer as _, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

pub use self::bfd::BfdSettings;
pub use self::dynamic::DynamicNeighbor;
pub use self::features::{AddPathSettings, RoleName, Unusable};
pub use self::handling::{ActionName, MaxPrefix, Misfit};
pub use self::monitoring::Collector;
use self::place::Place;
pub use self::place::{Address, Nowhere};
pub use self::sense::Nonsense;
pub use self::transport::{AlgorithmName, Contradiction, TcpAoKey};
use crate::filters::FilterSettings;
use crate::{LinkKey, LinkPeer, Options};

const BGP_PORT: u16 = 179;

/// The restart time of `gracefulRestart: true`, and where the field is absent, in seconds.
const RESTART_TIME: u16 = 120;

/// The longest restart time that the capability's 12 bits hold (RFC 4724 §3), in seconds.
const MAX_RESTART_TIME: u16 = 4095;

/// How long export waits for the peers' initial routes after a restart, at most.
const DEFERRAL: Duration = Duration::from_secs(10);

/// Next hops per prefix, at most.
const MAX_PATHS: usize = 16;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Our AS, not 0.
    #[serde(deserialize_with = "asn")]
    pub asn: u32,
    /// Our BGP identifier, not 0.0.0.0; unique within the AS (RFC 6286).
    #[serde(deserialize_with = "router_id")]
    pub router_id: Ipv4Addr,
    /// Where to listen. Default `0.0.0.0:179` and `[::]:179`; `[]` for nowhere.
    #[serde(default = "everywhere")]
    pub listen: Vec<SocketAddr>,
    /// Best paths into the kernel's main table. Default false.
    #[serde(default)]
    pub fib: bool,
    /// Whether the kernel tells of every route that moves with its group of next hops (`net.ipv4.nexthop_compat_mode`); with
    /// `fib: true` only. Default: as the system has it.
    #[serde(default)]
    pub nexthop_compat_mode: Option<bool>,
    /// What peers are told when we shut down (RFC 9003), 255 octets at most. Default: nothing.
    #[serde(default, deserialize_with = "communication")]
    pub shutdown_communication: String,
    /// Seconds for which SIGTERM marks all routes with GRACEFUL_SHUTDOWN before they are withdrawn and the process ends
    /// (RFC 8326), 1 to 65535: for a speaker whose end is no restart. Default: peers keep our routes over the end.
    #[serde(default)]
    pub drain_time: Option<NonZeroU16>,
    /// The control socket, for `manxctl bgp … --socket`. Default: none.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Prefixes to originate.
    #[serde(default, deserialize_with = "prefixes")]
    pub routes: Vec<Prefix>,
    /// The peers.
    #[serde(default)]
    pub neighbors: Vec<Neighbor>,
    /// Ranges of addresses that peers may connect from.
    #[serde(default)]
    pub dynamic_neighbors: Vec<DynamicNeighbor>,
    /// Filters that neighbours' `import` and `export` name.
    #[serde(default)]
    pub filters: Vec<FilterSettings>,
    /// Monitoring stations (RFC 7854).
    #[serde(default)]
    pub bmp: Vec<Collector>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Neighbor {
    /// `192.0.2.1`, `192.0.2.1:1179`, `2001:db8::1`, `[2001:db8::1]:1179`, `fe80::1%eth0` or `[fe80::1%eth0]:1179`.
    /// Port 179 by default. Without it, the neighbor is whoever is found on `interface`.
    #[serde(default, deserialize_with = "place::address")]
    pub address: Option<Address>,
    /// The peer's AS, not 0; `internal` for ours, `external` for any other, which its OPEN names.
    #[serde(deserialize_with = "peer_asn")]
    pub asn: PeerAs,
    /// The address to dial from. Default: the kernel's choice.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// Our next hop for IPv4 prefixes. Default: our end of the session where that is IPv4.
    #[serde(default)]
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 prefixes. Default: our end of the session where that is IPv6.
    #[serde(default)]
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Wait for the peer to connect. Default false.
    #[serde(default)]
    pub passive: bool,
    /// Reflect routes between this peer and all others (RFC 4456). Default false.
    #[serde(default)]
    pub route_reflector_client: bool,
    /// Seconds of silence after which the peer is gone: 0 (never) or 3 to 65535. Default 90.
    #[serde(default = "hold_time_default", deserialize_with = "hold_time")]
    pub hold_time: u16,
    /// The shortest hold time that the peer may ask for, where it asks for one: 3 to 65535. Default 0: any.
    #[serde(default, deserialize_with = "hold_time")]
    pub min_hold_time: u16,
    /// Seconds that the peer keeps our routes while we restart, 0 to 4095; `false` does not offer graceful
    /// restart, `true`, the default, stands for 120.
    #[serde(default = "graceful_restart_default", deserialize_with = "graceful_restart")]
    pub graceful_restart: Option<u16>,
    /// Seconds that the peer keeps our routes after the restart time, as a last resort, and that we keep the peer's at
    /// most (RFC 9494): 1 to 16777215; `true` stands for a day. Default `false`: not at all.
    #[serde(default, deserialize_with = "features::long_lived_graceful_restart")]
    pub long_lived_graceful_restart: Option<u32>,
    /// Families to offer. Default both.
    #[serde(default = "both_families")]
    pub families: Vec<FamilyName>,
    /// Send our own address as next hop, also of reflected and iBGP routes. Default false.
    #[serde(default)]
    pub next_hop_self: bool,
    /// What comes in: `accept`, `reject`, or names of filters, whose rules decide in order. Default, and what
    /// holds where no rule matches: `accept` within our AS, `reject` from another (RFC 8212 §2).
    #[serde(default, deserialize_with = "policy")]
    pub import: Option<PolicySetting>,
    /// What goes out, likewise.
    #[serde(default, deserialize_with = "policy")]
    pub export: Option<PolicySetting>,
    /// Watch the path by BFD (RFC 5880): how, or `true` for the defaults. Default `false`.
    #[serde(default, deserialize_with = "bfd::bfd")]
    pub bfd: Option<BfdSettings>,
    /// Sign all segments with this (TCP MD5, RFC 2385): 1 to 80 octets.
    #[serde(default, deserialize_with = "transport::password")]
    pub password: Option<Secret>,
    /// The same, from a file; the end of its last line does not count.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Sign all segments with the first of these keys, and take the others, too (TCP-AO, RFC 5925).
    #[serde(default)]
    pub tcp_ao: Option<Vec<TcpAoKey>>,
    /// Drop packets from farther away than this many hops (GTSM, RFC 5082), 1 to 254; `true` stands for 1. The peer
    /// has to do the same. Default `false`.
    #[serde(default, deserialize_with = "transport::ttl_security")]
    pub ttl_security: Option<NonZeroU8>,
    /// The peer is this many hops away at most, 1 to 255: the TTL of what we send. Default: the system's. Not beside
    /// `ttlSecurity`.
    #[serde(default)]
    pub multihop: Option<NonZeroU8>,
    /// The interface that all packets pass. Default: that of a link-local address, or any. Without `address`: where the
    /// neighbor is found by its router advertisements.
    #[serde(default)]
    pub interface: Option<String>,
    /// Offer messages of up to 65,535 octets (RFC 8654). Default true.
    #[serde(default = "yes")]
    pub extended_messages: bool,
    /// Offer IPv6 next hops for IPv4 prefixes (RFC 8950). Default: where the session is over IPv6.
    pub extended_next_hop: Option<bool>,
    /// Several paths per prefix (RFC 7911). Default: one each way.
    #[serde(default)]
    pub add_path: AddPathSettings,
    /// Our AS towards this neighbor, in its OPEN and in paths. Default `asn`.
    #[serde(default)]
    pub local_as: Option<u32>,
    /// How often our own AS may be in an AS_PATH that comes in, 0 to 255. Default 0.
    #[serde(default)]
    pub allow_own_as: u8,
    /// Do not use routes from another AS that do not name it first in AS_PATH (RFC 4271 §6.3). Default false.
    #[serde(default)]
    pub enforce_first_as: bool,
    /// The LOCAL_PREF of what comes in, unless a filter sets another. Default: what it says, or 100.
    #[serde(default)]
    pub local_preference: Option<u32>,
    /// The MED of what goes out, unless a filter sets another. Default: none to another AS.
    #[serde(default)]
    pub med: Option<u32>,
    /// How often our AS is put in front of paths to another AS, beyond once, 0 to 255. Default 0.
    #[serde(default)]
    pub prepend: u8,
    /// Put our AS in the place of the neighbor's in paths, so that sites of one AS hear of each other. Default false.
    #[serde(default)]
    pub as_override: bool,
    /// Leave private AS numbers (RFC 6996) out of paths to another AS. Default false.
    #[serde(default)]
    pub remove_private_as: bool,
    /// How many prefixes may come: a number for each family, or `ipv4`, `ipv6`, `warnPercent`, `action` (`warn`,
    /// `restart` or `down`) and `restartAfter`. Default: any number.
    #[serde(default, deserialize_with = "handling::max_prefix")]
    pub max_prefix: Option<MaxPrefix>,
    /// What we are to a neighbor of another AS: `provider`, `customer`, `peer`, `rs` or `rsClient` (RFC 9234).
    /// Default none: nothing is said, and no leak is looked for.
    #[serde(default)]
    pub role: Option<RoleName>,
    /// No session without the neighbor's role. Default false.
    #[serde(default)]
    pub strict_role: bool,
}

/// A peer's AS, as the file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAs {
    /// This one.
    Number(u32),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
}

/// A family, as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FamilyName {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

/// What passes in one direction, as the file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySetting {
    /// Everything or nothing.
    Fixed(PolicyName),
    /// What these filters say, one after the other.
    Filters(Vec<String>),
}

/// A policy, as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    /// Everything.
    Accept,
    /// Nothing.
    Reject,
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read as what it should be.
    #[error("{line}:{column}: {message}")]
    Syntax {
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What, and what would be right.
        message: String,
    },
    /// Two neighbours have one address.
    #[error("the neighbor {0} is listed twice: keep one of the two")]
    Twice(String),
    /// Without routes of ours in the kernel, its groups are none of our business.
    #[error("nexthopCompatMode is about routes in the kernel: say 'fib: true' as well, or leave it out")]
    CompatWithoutFib,
    /// Two collectors have one address.
    #[error("the collector {0} is listed twice: keep one of the two")]
    CollectorTwice(String),
    /// An unnumbered neighbour is whoever is on the link.
    #[error(
        "the interface {0} has a neighbor without an address, and others: give each of them its address, or keep one"
    )]
    Crowded(String),
    /// A neighbour is nowhere.
    #[error("neighbor {number}: {nowhere}")]
    Nowhere {
        /// Its place in the list, from 1.
        number: usize,
        /// What is wrong.
        nowhere: Nowhere,
    },
    /// Two filters have one name.
    #[error("the filter '{0}' is listed twice: give one of the two another name")]
    FilterTwice(String),
    /// A neighbour names a filter that is not there.
    #[error("the neighbor {neighbor} names the filter '{name}', which is not among the filters: {known}")]
    UnknownFilter {
        /// Whose setting it is.
        neighbor: String,
        /// The name.
        name: String,
        /// Those that are.
        known: String,
    },
    /// A neighbour's routes cannot be handled so.
    #[error("neighbor {neighbor}: {misfit}")]
    Misfit {
        /// Which.
        neighbor: String,
        /// What.
        misfit: Misfit,
    },
    /// A neighbour asks for a feature that it cannot have.
    #[error("neighbor {neighbor}: {unusable}")]
    Unusable {
        /// Which.
        neighbor: String,
        /// What.
        unusable: Unusable,
    },
    /// Settings cannot be meant as they are written.
    #[error("{}{nonsense}", neighbor.as_ref().map(|it| format!("neighbor {it}: ")).unwrap_or_default())]
    Nonsense {
        /// Whose, unless it is the file's.
        neighbor: Option<String>,
        /// What.
        nonsense: Nonsense,
    },
    /// A neighbour's settings contradict each other.
    #[error("neighbor {neighbor}: {contradiction}")]
    Contradiction {
        /// Which.
        neighbor: String,
        /// What.
        contradiction: Contradiction,
    },
}

impl Settings {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let settings: Self = serde_saphyr::from_str(text).map_err(|error| mistakes::explain(&error))?;
        settings.check_places()?;
        let mut seen = BTreeSet::new();
        for (name, neighbor) in settings.all_neighbors() {
            transport::check(neighbor).map_err(|contradiction| ConfigError::Contradiction {
                neighbor: name.clone(),
                contradiction,
            })?;
            handling::check(neighbor).map_err(|misfit| ConfigError::Misfit {
                neighbor: name.clone(),
                misfit,
            })?;
            features::check(neighbor, settings.asn).map_err(|unusable| ConfigError::Unusable {
                neighbor: name.clone(),
                unusable,
            })?;
            if let Some(name) = seen.replace(name) {
                return Err(ConfigError::Twice(name));
            }
        }
        settings.check_filters()?;
        if settings.nexthop_compat_mode.is_some() && !settings.fib {
            return Err(ConfigError::CompatWithoutFib);
        }
        if let Some(again) = monitoring::listed_twice(&settings.bmp) {
            return Err(ConfigError::CollectorTwice(again.address.clone()));
        }
        sense::check(&settings)
            .map_err(|(neighbor, nonsense)| ConfigError::Nonsense { neighbor, nonsense })?;
        Ok(settings)
    }

    /// Settings of neighbours and of ranges, with what each is called.
    fn all_neighbors(&self) -> impl Iterator<Item = (String, &Neighbor)> {
        let single = self
            .neighbors
            .iter()
            .filter_map(|neighbor| Some((place::place(neighbor).ok()?.to_string(), neighbor)));
        let ranges = self
            .dynamic_neighbors
            .iter()
            .map(|range| (range.range.to_string(), &range.template));
        single.chain(ranges)
    }

    /// Every neighbour is somewhere, and nobody else where one is that has no address.
    fn check_places(&self) -> Result<(), ConfigError> {
        let mut links: BTreeMap<Arc<str>, Vec<LinkKey>> = BTreeMap::new();
        for (number, neighbor) in (1..).zip(&self.neighbors) {
            let place = place::place(neighbor).map_err(|nowhere| ConfigError::Nowhere { number, nowhere })?;
            if let Place::OnLink(key) = place {
                links.entry(key.interface.clone()).or_default().push(key);
            }
        }
        let unnumbered = |key: &LinkKey| key.address.is_none();
        let crowded = links
            .iter()
            .find(|(_, keys)| keys.iter().any(unnumbered) && !keys.iter().all(unnumbered));
        crowded.map_or(Ok(()), |(interface, _)| {
            Err(ConfigError::Crowded(interface.to_string()))
        })
    }

    /// Every filter has a name of its own, and every name a filter.
    fn check_filters(&self) -> Result<(), ConfigError> {
        let mut known = BTreeSet::new();
        if let Some(again) = self
            .filters
            .iter()
            .find(|filter| !known.insert(filter.name.as_str()))
        {
            return Err(ConfigError::FilterTwice(again.name.clone()));
        }
        for (named, neighbor) in self.all_neighbors() {
            let settings = [&neighbor.import, &neighbor.export].into_iter().flatten();
            if let Some(name) = settings
                .flat_map(PolicySetting::filters)
                .find(|name| !known.contains(name.as_str()))
            {
                return Err(ConfigError::UnknownFilter {
                    neighbor: named,
                    name: name.clone(),
                    known: known.into_iter().collect::<Vec<_>>().join(", "),
                });
            }
        }
        Ok(())
    }

    /// What the speaker starts with. `restarted`: forwarding outlived our last life (RFC 4724 §4.1).
    #[must_use]
    pub fn options(&self, restarted: bool) -> Options {
        Options {
            config: Config {
                asn: self.asn,
                router_id: self.router_id,
                cluster_id: None,
                restarted,
                deferral: DEFERRAL,
                farewell: self.shutdown_communication.clone(),
                interfaces: [].into(),
                seed: rand::random(),
                max_paths: MAX_PATHS,
            },
            listen: self.listen.clone(),
        }
    }

    /// The first field that differs among those that hold from the start of a process to its end.
    #[must_use]
    pub fn fixed_difference(&self, new: &Self) -> Option<&'static str> {
        let same = [
            ("asn", self.asn == new.asn),
            ("routerId", self.router_id == new.router_id),
            ("listen", self.listen == new.listen),
            ("fib", self.fib == new.fib),
            (
                "nexthopCompatMode",
                self.nexthop_compat_mode == new.nexthop_compat_mode,
            ),
            ("socket", self.socket == new.socket),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
    }

    /// The peers as the speaker takes them, but for those on links.
    pub fn peers(&self) -> impl Iterator<Item = PeerConfig> {
        self.placed().filter_map(|(place, config)| match place {
            Place::Anywhere(_) => Some(config),
            Place::OnLink(_) => None,
        })
    }

    /// The peers on links.
    pub fn link_peers(&self) -> impl Iterator<Item = LinkPeer> {
        self.placed().filter_map(|(place, config)| match place {
            Place::Anywhere(_) => None,
            Place::OnLink(key) => Some(LinkPeer { key, config }),
        })
    }

    fn placed(&self) -> impl Iterator<Item = (Place, PeerConfig)> {
        let placed = |neighbor: &Neighbor| {
            let place = place::place(neighbor).ok()?;
            let config = neighbor.peer(place.key(), self.asn, &self.filters);
            Some((place, config))
        };
        self.neighbors.iter().filter_map(placed)
    }

    /// The ranges as the speaker takes them.
    pub fn ranges(&self) -> impl Iterator<Item = RangeConfig> {
        self.dynamic_neighbors
            .iter()
            .map(|range| range.config(self.asn, &self.filters))
    }
}

impl Neighbor {
    fn peer(&self, key: PeerKey, our_asn: u32, filters: &[FilterSettings]) -> PeerConfig {
        let asn = match self.asn {
            PeerAs::Number(asn) => asn,
            PeerAs::Internal => our_asn,
            PeerAs::External => ANY_EXTERNAL_AS,
        };
        let default = if asn == our_asn {
            Policy::Accept
        } else {
            Policy::Reject
        };
        let policy = |setting: &Option<PolicySetting>, of: fn(&FilterSettings) -> Filter| match setting {
            Some(setting) => setting.policy(filters, of, default.clone()),
            None => default.clone(),
        };
        PeerConfig {
            key,
            port: self.address.as_ref().map_or(BGP_PORT, |address| address.port),
            asn,
            local_address: self.local_address,
            next_hop_v4: self.next_hop_v4,
            next_hop_v6: self.next_hop_v6,
            passive: self.passive,
            hold_time: Duration::from_secs(self.hold_time.into()),
            min_hold_time: Duration::from_secs(self.min_hold_time.into()),
            families: self.families.iter().map(|family| family.family()).collect(),
            route_reflector_client: self.route_reflector_client,
            graceful_restart: self
                .graceful_restart
                .map(|seconds| Duration::from_secs(seconds.into())),
            long_lived_graceful_restart: self
                .long_lived_graceful_restart
                .map(|seconds| Duration::from_secs(seconds.into())),
            next_hop: if self.next_hop_self {
                NextHopMode::SelfAddress
            } else {
                NextHopMode::Auto
            },
            import: policy(&self.import, FilterSettings::import),
            export: policy(&self.export, FilterSettings::export),
            bfd: self.bfd.map(BfdSettings::config),
            transport: transport::transport(self),
            features: features::features(self),
            handling: handling::handling(self),
        }
    }
}

impl fmt::Display for FamilyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

impl FamilyName {
    fn family(self) -> Family {
        match self {
            Self::Ipv4 => Family::Ipv4Unicast,
            Self::Ipv6 => Family::Ipv6Unicast,
        }
    }
}

impl PolicySetting {
    /// The filters that it names.
    fn filters(&self) -> &[String] {
        match self {
            Self::Fixed(_) => &[],
            Self::Filters(names) => names,
        }
    }

    /// What it means: `of` a filter is its part for the direction.
    fn policy(
        &self,
        filters: &[FilterSettings],
        of: fn(&FilterSettings) -> Filter,
        otherwise: Policy,
    ) -> Policy {
        match self {
            Self::Fixed(name) => name.policy(),
            Self::Filters(names) => {
                let named = |name: &String| filters.iter().find(|filter| filter.name == *name).map(of);
                let filters: Vec<Filter> = names.iter().filter_map(named).collect();
                Policy::Filtered(Arc::new(Chain::new(&filters, otherwise)))
            }
        }
    }
}

impl PolicyName {
    fn policy(self) -> Policy {
        match self {
            Self::Accept => Policy::Accept,
            Self::Reject => Policy::Reject,
        }
    }
}

fn everywhere() -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::UNSPECIFIED, BGP_PORT).into(),
        (Ipv6Addr::UNSPECIFIED, BGP_PORT).into(),
    ]
}

fn both_families() -> Vec<FamilyName> {
    vec![FamilyName::Ipv4, FamilyName::Ipv6]
}

fn yes() -> bool {
    true
}

fn hold_time_default() -> u16 {
    90
}

#[expect(clippy::unnecessary_wraps, reason = "the field's type")]
fn graceful_restart_default() -> Option<u16> {
    Some(RESTART_TIME)
}

fn asn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        reserved @ (0 | 23_456 | 65_535 | u32::MAX) => Err(D::Error::custom(format!(
            "AS {reserved} is reserved (RFC 6793, RFC 7300, RFC 7607): private ones are 64512 to 65534 and 4200000000 to \
             4294967294"
        ))),
        asn => Ok(asn),
    }
}

fn peer_asn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PeerAs, D::Error> {
    struct As;

    impl Visitor<'_> for As {
        type Value = PeerAs;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an AS from 1 to 4294967295, internal or external")
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
            let number =
                u32::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
            asn(number.into_deserializer()).map(PeerAs::Number)
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
            match name {
                "internal" => Ok(PeerAs::Internal),
                "external" => Ok(PeerAs::External),
                _ => Err(E::unknown_variant(name, &["internal", "external"])),
            }
        }
    }

    deserializer.deserialize_any(As)
}

fn router_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv4Addr, D::Error> {
    let id = Ipv4Addr::deserialize(deserializer)?;
    if id.is_unspecified() {
        return Err(D::Error::custom(
            "0.0.0.0 is not a router id (RFC 6286): write one of our IPv4 addresses",
        ));
    }
    Ok(id)
}

fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Prefix>, D::Error> {
    Vec::<IpNetwork>::deserialize(deserializer)?
        .into_iter()
        .map(prefix)
        .collect()
}

fn prefix<E: serde::de::Error>(network: IpNetwork) -> Result<Prefix, E> {
    no_host_bits(network).map_err(E::custom)
}

/// The prefix that a network is, if it has no bits set beyond its length.
pub(crate) fn no_host_bits(network: IpNetwork) -> Result<Prefix, String> {
    let prefix = Prefix::new(network);
    if prefix.network() == network {
        Ok(prefix)
    } else {
        Err(format!(
            "'{network}' has bits set beyond its length: write {prefix}"
        ))
    }
}

fn policy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PolicySetting>, D::Error> {
    struct Setting;

    impl<'de> Visitor<'de> for Setting {
        type Value = PolicySetting;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("accept, reject, or a list of names of filters")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            PolicyName::deserialize(text.into_deserializer()).map(PolicySetting::Fixed)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(names)).map(PolicySetting::Filters)
        }
    }

    deserializer.deserialize_any(Setting).map(Some)
}

fn hold_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        1 | 2 => Err(D::Error::custom(
            "a hold time of 1 or 2 s is not possible (RFC 4271 §4.2): write 0 or 3 to 65535",
        )),
        seconds => Ok(seconds),
    }
}

/// RFC 9003 §2: its length has one octet.
fn communication<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let words = String::deserialize(deserializer)?;
    if words.len() > u8::MAX.into() {
        return Err(D::Error::custom(format_args!(
            "{} octets are more than the 255 that peers can be told (RFC 9003): shorten it",
            words.len()
        )));
    }
    Ok(words)
}

fn graceful_restart<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    struct Time;

    impl Visitor<'_> for Time {
        type Value = Option<u16>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "true, false, or seconds from 0 to {MAX_RESTART_TIME}")
        }

        fn visit_bool<E>(self, offered: bool) -> Result<Self::Value, E> {
            Ok(offered.then_some(RESTART_TIME))
        }

        fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Self::Value, E> {
            match u16::try_from(seconds) {
                Ok(seconds @ 0..=MAX_RESTART_TIME) => Ok(Some(seconds)),
                Ok(_) | Err(_) => Err(E::invalid_value(Unexpected::Unsigned(seconds), &self)),
            }
        }
    }

    deserializer.deserialize_any(Time)
}

#[cfg(test)]
mod tests {
    use manx_bgp::filter::{Action, Match, Operation, Operator, PeerType, Range, Rule};
    use manx_bgp::transport::Distance;
    use manx_bgp::{BfdConfig, Transport};

    use manx_bgp::{AddPathConfig, Features, Handling, LimitAction, PathLimit};

    use super::*;

    const MINIMAL: &str = "asn: 64512\nrouterId: 192.0.2.1\n";

    fn wrong(text: &str) -> String {
        Settings::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn two_lines_are_a_configuration() {
        let settings = Settings::parse(MINIMAL).unwrap();
        assert_eq!(
            settings.listen,
            ["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()]
        );
        assert_eq!(settings.peers().count(), 0);
    }

    #[test]
    fn json_is_yaml() {
        let text = r#"{"asn": 1, "routerId": "1.1.1.1", "neighbors": [{"address": "::1", "asn": 2}]}"#;
        assert_eq!(
            Settings::parse(text).unwrap().neighbors[0].address,
            Some(Address {
                ip: "::1".parse().unwrap(),
                port: 179,
                zone: None,
            })
        );
    }

    #[test]
    fn the_kernels_compatibility_is_refused_without_routes_in_the_kernel() {
        let error = Settings::parse(&format!("{MINIMAL}nexthopCompatMode: false\n")).unwrap_err();
        assert!(matches!(error, ConfigError::CompatWithoutFib), "{error}");
        assert!(error.to_string().contains("fib: true"), "{error}");
    }

    #[test]
    fn every_field_reaches_the_speaker() {
        let text = format!(
            "{MINIMAL}fib: true
nexthopCompatMode: false
shutdownCommunication: back at noon
routes: [10.0.0.0/24, \"fd00::/64\"]
neighbors:
- address: 192.0.2.2:1179
  asn: 65001
  localAddress: 192.0.2.1
  nextHopV4: 192.0.2.1
  nextHopV6: 2001:db8::1
  passive: true
  holdTime: 9
  minHoldTime: 6
  gracefulRestart: 30
  longLivedGracefulRestart: 7200
  families: [ipv6, ipv4]
  nextHopSelf: true
  localAs: 64999
  allowOwnAs: 2
  enforceFirstAs: true
  localPreference: 150
  med: 20
  prepend: 3
  asOverride: true
  removePrivateAs: true
  maxPrefix: {{ipv4: 1000, warnPercent: 90, action: restart, restartAfter: 30}}
  import: accept
  export: reject
  bfd: {{multihop: true, minTx: 50, multiplier: 5}}
  ttlSecurity: 2
  extendedMessages: false
  extendedNextHop: true
  addPath: {{receive: true, send: 4}}
"
        );
        let settings = Settings::parse(&text).unwrap();
        assert!(settings.fib);
        assert_eq!(settings.nexthop_compat_mode, Some(false));
        assert_eq!(settings.options(false).config.farewell, "back at noon");
        assert_eq!(settings.routes.len(), 2);
        let expected = PeerConfig {
            key: PeerKey {
                address: "192.0.2.2".parse().unwrap(),
                scope: 0,
            },
            port: 1179,
            asn: 65001,
            local_address: Some("192.0.2.1".parse().unwrap()),
            next_hop_v4: Some("192.0.2.1".parse().unwrap()),
            next_hop_v6: Some("2001:db8::1".parse().unwrap()),
            passive: true,
            hold_time: Duration::from_secs(9),
            min_hold_time: Duration::from_secs(6),
            families: vec![Family::Ipv6Unicast, Family::Ipv4Unicast],
            route_reflector_client: false,
            graceful_restart: Some(Duration::from_secs(30)),
            long_lived_graceful_restart: Some(Duration::from_secs(7200)),
            next_hop: NextHopMode::SelfAddress,
            import: Policy::Accept,
            export: Policy::Reject,
            bfd: Some(BfdConfig {
                multihop: true,
                min_tx: Duration::from_millis(50),
                min_rx: Duration::from_millis(300),
                multiplier: NonZeroU8::new(5).unwrap(),
            }),
            transport: Transport {
                distance: Distance::Secured(NonZeroU8::new(2).unwrap()),
                ..Transport::default()
            },
            features: Features {
                extended_messages: false,
                extended_next_hop: Some(true),
                add_path: [Family::Ipv6Unicast, Family::Ipv4Unicast]
                    .map(|family| AddPathConfig {
                        family,
                        receive: true,
                        send: 4,
                    })
                    .to_vec(),
                role: None,
            },
            handling: Handling {
                local_as: Some(64_999),
                allowed_own_as: 2,
                enforce_first_as: true,
                local_preference: Some(150),
                med: Some(20),
                prepend: 3,
                as_override: true,
                remove_private_as: true,
                limits: vec![PathLimit {
                    family: Family::Ipv4Unicast,
                    max: 1000,
                    warn_percent: 90,
                    action: LimitAction::Restart(Duration::from_secs(30)),
                }],
            },
        };
        assert_eq!(settings.peers().collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn a_limit_is_a_number_for_each_family_or_all_settings() {
        let with = |limit: &str| {
            format!("{MINIMAL}neighbors: [{{address: 192.0.2.2, asn: 65001, maxPrefix: {limit}}}]")
        };
        let read = |limit: &str| {
            Settings::parse(&with(limit))
                .unwrap()
                .peers()
                .next()
                .unwrap()
                .handling
                .limits
        };
        let limit = |family| PathLimit {
            family,
            max: u32::MAX,
            warn_percent: 75,
            action: LimitAction::Down,
        };
        assert_eq!(read("4294967295"), Family::ALL.map(limit));
        assert_eq!(read("{ipv6: 4294967295}"), [limit(Family::Ipv6Unicast)]);
        for (limit, complaint) in [
            ("4294967296", "a number of prefixes"),
            ("many", "a number of prefixes"),
            ("{ipv4: 1, warnPercent: 0}", "write 1 to 100"),
            ("{ipv4: 1, warnPercent: 101}", "write 1 to 100"),
            ("{ipv4: 1, action: stop}", "unknown value 'stop'"),
            ("{ipv4: 1, restartafter: 1}", "did you mean 'restartAfter'?"),
        ] {
            let error = wrong(&with(limit));
            assert!(error.contains(complaint), "{limit}: {error}");
        }
        let local = |asn| {
            wrong(&format!(
                "{MINIMAL}neighbors: [{{address: 192.0.2.2, asn: 65001, localAs: {asn}}}]"
            ))
        };
        assert!(local(65_001).contains("'localAs' is the neighbor's own AS 65001"));
        assert!(local(0).contains("no AS number of ours"));
    }

    #[test]
    fn filters_reach_the_neighbours_that_name_them() {
        let text = format!(
            "{MINIMAL}filters:
- name: pods
  importV4:
  - {{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {{min: 24, max: 28}}, action: Accept,
     operations: [{{addCommunity: {{value: '1:2'}}}}, {{prependASPath: {{prefix: [7]}}}}, {{setMED: {{value: 5}}}},
                  {{setLocalPreference: {{value: 50}}}}, {{setPriority: {{value: 512}}}}, {{setCommunities: {{values: ['1:2:3', no-export]}}}}]}}
  exportV6:
  - {{source: RemotePeers, peerType: eBGP, interface: 'eth*', priority: 512, communities: {{values: ['rt:1:2']}}, asPathPrefix: [1, 2], action: Reject}}
neighbors:
- {{address: 192.0.2.2, asn: 64512, import: [pods]}}
- {{address: 192.0.2.3, asn: 65001, export: [pods]}}
"
        );
        let peers: Vec<PeerConfig> = Settings::parse(&text).unwrap().peers().collect();
        let community = |text: &str| text.parse().unwrap();
        let operations = vec![
            Operation::AddCommunity(community("1:2")),
            Operation::PrependAsPath(vec![7]),
            Operation::SetMed(5),
            Operation::SetLocalPreference(50),
            Operation::SetPriority(512),
            Operation::SetCommunities(vec![community("1:2:3"), community("no-export")]),
        ];
        let range = Range::new(Operator::In, "10.0.0.0/8".parse().unwrap(), Some(24), Some(28));
        let import = Rule {
            when: Match {
                range: range.ok(),
                ..Match::default()
            },
            then: Action::Accept(operations),
        };
        let export = Rule {
            when: Match {
                range: None,
                learned: true,
                peer: Some(PeerType::External),
                communities: vec![community("rt:1:2")],
                as_path_prefix: vec![1, 2],
                interface: "eth*".parse().ok(),
                priority: Some(512),
            },
            then: Action::Reject,
        };
        let chain = |v4, v6, otherwise| {
            let name = "pods".into();
            Policy::Filtered(Arc::new(Chain::new(&[Filter { name, v4, v6 }], otherwise)))
        };
        assert_eq!(peers[0].import, chain(vec![import], vec![], Policy::Accept));
        assert_eq!(peers[0].export, Policy::Accept);
        assert_eq!(peers[1].export, chain(vec![], vec![export], Policy::Reject));
        assert_eq!(peers[1].import, Policy::Reject, "another AS needs a policy");
    }

    #[test]
    fn mistakes_in_rules_are_named() {
        for (rule, complaint) in [
            ("{cidr: 10.0.0.0/8, action: Accept}", "cidr needs a matchOperator"),
            (
                "{matchOperator: In, action: Accept}",
                "matchOperator needs a cidr",
            ),
            (
                "{prefixLength: {min: 8}, action: Accept}",
                "prefixLength needs a cidr",
            ),
            (
                "{cidr: 10.0.0.1/8, matchOperator: In, action: Accept}",
                "write 10.0.0.0/8",
            ),
            (
                "{cidr: 'fd00::/8', matchOperator: In, action: Accept}",
                "is not IPv4 unicast's",
            ),
            (
                "{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 9, max: 8}, action: Accept}",
                "prefix lengths from 9 to 8 are none",
            ),
            (
                "{action: Reject, operations: [{setMED: {value: 1}}]}",
                "write action Accept",
            ),
            (
                "{action: Accept, operations: [{prependASPath: {prefix: []}}]}",
                "1 to 10 AS numbers",
            ),
            (
                "{action: Accept, operations: [{addCommunity: {value: '1'}}]}",
                "'1' is no community",
            ),
            ("{priority: 512, action: Accept}", "export rules find"),
            ("{interface: 'eth 0', action: Accept}", "is no interface"),
            (
                "{action: Accept, operations: [{setPriority: {value: 0}}]}",
                "write 1 to 2147483646",
            ),
            ("{action: Deny}", "unknown value 'Deny'"),
            ("{action: Accept, sauce: RemotePeers}", "did you mean 'source'?"),
            ("{cidr: 10.0.0.0/8}", "action"),
        ] {
            let error = wrong(&format!("{MINIMAL}filters: [{{name: a, importV4: [{rule}]}}]"));
            assert!(error.contains(complaint), "{rule}: {error}");
        }
    }

    #[test]
    fn bfd_is_off_on_or_as_it_is_written() {
        let with = |bfd: &str| format!("{MINIMAL}neighbors: [{{address: 192.0.2.2, asn: 65001{bfd}}}]");
        let read = |bfd: &str| Settings::parse(&with(bfd)).unwrap().neighbors[0].bfd;
        assert_eq!(read(""), None);
        assert_eq!(read(", bfd: false"), None);
        assert_eq!(read(", bfd: true"), Some(BfdSettings::default()));
        assert_eq!(read(", bfd: {}"), Some(BfdSettings::default()));
        for (bfd, complaint) in [
            ("{minTx: 9}", "write 10 to 60000"),
            ("{minRx: 60001}", "write 10 to 60000"),
            ("{multiplier: 0}", "nonzero"),
            ("{minTX: 300}", "did you mean 'minTx'?"),
            ("often", "true, false, or multihop"),
        ] {
            let error = wrong(&with(&format!(", bfd: {bfd}")));
            assert!(error.contains(complaint), "{error}");
        }
    }

    /// RFC 8212 §2 (import): nothing is selected.
    /// RFC 8212 §2 (export): nothing goes out.
    #[test]
    fn another_as_gets_nothing_unless_asked_for() {
        let text = format!("{MINIMAL}neighbors: [{{address: 192.0.2.2, asn: 65001}}]");
        let peer = Settings::parse(&text).unwrap().peers().next().unwrap();
        assert_eq!((peer.import, peer.export), (Policy::Reject, Policy::Reject));
    }

    #[test]
    fn graceful_restart_is_a_switch_or_a_time() {
        for (value, expected) in [
            ("true", Some(120)),
            ("false", None),
            ("0", Some(0)),
            ("4095", Some(4095)),
        ] {
            let text =
                format!("{MINIMAL}neighbors: [{{address: 192.0.2.2, asn: 1, gracefulRestart: {value}}}]");
            assert_eq!(
                Settings::parse(&text).unwrap().neighbors[0].graceful_restart,
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place_and_the_remedy() {
        let neighbor =
            |fields: &str| format!("{MINIMAL}neighbors:\n- address: 192.0.2.2\n  asn: 1\n  {fields}\n");
        for (text, expected) in [
            ("asn: 0\nrouterId: 1.1.1.1".to_owned(), "1:6: AS 0 is reserved"),
            (
                "asn: 1\nrouterId: 0.0.0.0".to_owned(),
                "2:11: 0.0.0.0 is not a router id",
            ),
            (
                "asn: 1\nrouterID: 1.1.1.1".to_owned(),
                "2:1: unknown field 'routerID'; did you mean 'routerId'?",
            ),
            (
                format!("{MINIMAL}bmp: [{{address: 192.0.2.9}}]"),
                "3:17: '192.0.2.9' is not where a collector listens: write 192.0.2.9:11019",
            ),
            (
                format!("{MINIMAL}bmp: [{{address: '[::1]:0'}}]"),
                "is not where a collector listens",
            ),
            (
                format!("{MINIMAL}bmp: [{{address: 'a:1', name: ''}}]"),
                "a name of 0 octets is not possible: write 1 to 255",
            ),
            (
                format!("{MINIMAL}bmp: [{{address: 'a.b:1'}}, {{address: 'a.b:1', name: c}}]"),
                "the collector a.b:1 is listed twice",
            ),
            (
                neighbor("import: [none]"),
                "192.0.2.2 names the filter 'none', which is not among the filters",
            ),
            (
                format!("{MINIMAL}filters: [{{name: a}}, {{name: a}}]"),
                "the filter 'a' is listed twice",
            ),
            (
                format!("{MINIMAL}routes: [10.0.0.1/24]"),
                "'10.0.0.1/24' has bits set beyond its length: write 10.0.0.0/24",
            ),
            (
                neighbor("holdtime: 9"),
                "6:3: unknown field 'holdtime'; did you mean 'holdTime'?",
            ),
            (neighbor("maxPrefix: -5"), "a number of prefixes"),
            (
                neighbor("holdTime: 2"),
                "6:13: a hold time of 1 or 2 s is not possible",
            ),
            (
                format!("{MINIMAL}shutdownCommunication: {}", "a".repeat(256)),
                "256 octets are more than the 255",
            ),
            (
                neighbor("gracefulRestart: 4096"),
                "expected true, false, or seconds from 0 to 4095",
            ),
            (
                neighbor("import: acept"),
                "unknown value 'acept'; did you mean 'accept'?",
            ),
            (
                neighbor("families: [vpnv4]"),
                "unknown value 'vpnv4'; did you mean 'ipv4'?",
            ),
            (
                format!("{MINIMAL}neighbors: [{{address: leaf1, asn: 1}}]"),
                "'leaf1' is not a peer's address",
            ),
            (
                neighbor("passive: true\n- {address: 192.0.2.2, asn: 2}"),
                "192.0.2.2 is listed twice",
            ),
        ] {
            let message = wrong(&text);
            assert!(
                message.contains(expected),
                "{text}\ngave: {message}\nexpected: {expected}"
            );
        }
    }
}
