//! Where a neighbor is: at an address, at an address of a link, or at the other end of an interface.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use manx_bgp::PeerKey;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{BGP_PORT, Neighbor};
use crate::LinkKey;

/// The longest name of an interface, in octets (`IFNAMSIZ` less the terminator).
pub(super) const MAX_NAME: usize = 15;

/// An address as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The port, 179 by default.
    pub port: u16,
    /// The interface of a link-local address: `eth0` in `fe80::1%eth0`.
    pub zone: Option<String>,
}

/// Where a neighbor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At an address that means the same everywhere.
    Anywhere(IpAddr),
    /// On a link: at a link-local address, or whoever is there.
    OnLink(LinkKey),
}

/// What is wrong with where a neighbor is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nowhere {
    /// It is not said.
    #[error(
        "it has neither 'address' nor 'interface': write where it is, or the interface on which it is found"
    )]
    Unsaid,
    /// A link-local address without its link.
    #[error("{0} means nothing without its link: write {0}%INTERFACE")]
    NoLink(Ipv6Addr),
    /// Only link-local addresses have a link.
    #[error(
        "{0} is no link-local address: leave out %{1}, or write 'interface: {1}' to have all packets pass there"
    )]
    NotLocal(IpAddr, String),
    /// Two links.
    #[error("'address' has the interface {0}, and 'interface' is {1}: keep one of the two")]
    TwoLinks(String, String),
    /// No interface has such a name.
    #[error("'{0}' is no interface's name: write 1 to 15 octets without '/' and spaces")]
    Name(String),
    /// What is for neighbors that are farther away.
    #[error("'{0}' is for neighbors beyond the link, and this one is on it: leave it out")]
    Beyond(&'static str),
    /// Sessions on a link are between its addresses.
    #[error("'localAddress' {0} is no link-local address, and the session is between such: leave it out")]
    Local(IpAddr),
}

/// Where a neighbor is, once each of its settings is well formed.
///
/// # Errors
/// Its settings do not say, or contradict each other.
pub(super) fn place(neighbor: &Neighbor) -> Result<Place, Nowhere> {
    let interface = neighbor.interface.as_ref();
    let key = match (&neighbor.address, interface) {
        (None, None) => return Err(Nowhere::Unsaid),
        (None, Some(interface)) => link(interface, None)?,
        (Some(Address { ip, zone, .. }), _) => match (link_local(*ip), zone) {
            (None, None) => {
                interface.map_or(Ok(()), |name| name_is_possible(name))?;
                return Ok(Place::Anywhere(*ip));
            }
            (None, Some(zone)) => return Err(Nowhere::NotLocal(*ip, zone.clone())),
            (Some(local), zone) => {
                if let (Some(zone), Some(interface)) = (zone, interface)
                    && zone != interface
                {
                    return Err(Nowhere::TwoLinks(zone.clone(), interface.clone()));
                }
                link(
                    zone.as_ref().or(interface).ok_or(Nowhere::NoLink(local))?,
                    Some(local),
                )?
            }
        },
    };
    on_link(neighbor)?;
    Ok(Place::OnLink(key))
}

/// What else a neighbor on a link may be asked for.
fn on_link(neighbor: &Neighbor) -> Result<(), Nowhere> {
    let farther = neighbor.ttl_security.is_some_and(|hops| hops.get() > 1);
    let multihop = neighbor.bfd.is_some_and(|bfd| bfd.multihop);
    for (field, given) in [
        ("multihop", neighbor.multihop.is_some()),
        ("ttlSecurity", farther),
        ("bfd.multihop", multihop),
    ] {
        if given {
            return Err(Nowhere::Beyond(field));
        }
    }
    match neighbor.local_address {
        Some(local) if link_local(local).is_none() => Err(Nowhere::Local(local)),
        Some(_) | None => Ok(()),
    }
}

fn link(interface: &str, address: Option<Ipv6Addr>) -> Result<LinkKey, Nowhere> {
    name_is_possible(interface)?;
    Ok(LinkKey {
        interface: interface.into(),
        address,
    })
}

fn name_is_possible(name: &str) -> Result<(), Nowhere> {
    if is_name(name) {
        Ok(())
    } else {
        Err(Nowhere::Name(name.to_owned()))
    }
}

/// Whether an interface may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let usual = |c: char| c != '/' && c != ':' && !c.is_whitespace() && !c.is_control();
    let possible = (1..=MAX_NAME).contains(&name.len()) && name.chars().all(usual);
    possible && name != "." && name != ".."
}

fn link_local(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

impl Place {
    /// The key of a neighbor's settings: on a link, who it is turns out later.
    pub(super) fn key(&self) -> PeerKey {
        let address = match self {
            Self::Anywhere(address) => *address,
            Self::OnLink(link) => link.address.unwrap_or(Ipv6Addr::UNSPECIFIED).into(),
        };
        PeerKey { address, scope: 0 }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anywhere(address) => address.fmt(f),
            Self::OnLink(link) => link.fmt(f),
        }
    }
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    let text = String::deserialize(deserializer)?;
    read(&text).map(Some).ok_or_else(|| {
        D::Error::custom(format!(
            "'{text}' is not a peer's address: write 192.0.2.1, 192.0.2.1:1179, 2001:db8::1, [2001:db8::1]:1179, \
             fe80::1%eth0 or [fe80::1%eth0]:1179"
        ))
    })
}

fn read(text: &str) -> Option<Address> {
    let whole = |(ip, zone): (&str, Option<&str>), port| {
        Some(Address {
            ip: ip.parse().ok()?,
            port,
            zone: zone.map(str::to_owned),
        })
    };
    let zoned = |text| match str::split_once(text, '%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    };
    if let Some((inside, port)) = text.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
        let (ip, zone) = zoned(inside);
        ip.parse::<Ipv6Addr>().ok()?;
        return whole((ip, zone), port.parse().ok()?);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) => Some(Address {
            ip: address.ip(),
            port: address.port(),
            zone: None,
        }),
        Err(_) => whole(zoned(text), BGP_PORT),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    fn parse(fields: &str) -> Result<Settings, String> {
        let text = format!("asn: 64512\nrouterId: 192.0.2.1\nneighbors: [{{{fields}, asn: 64513}}]");
        Settings::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn neighbors_are_anywhere_or_on_a_link() {
        for (fields, anywhere, on_link, port) in [
            ("address: 192.0.2.2", Some("192.0.2.2"), None, 179),
            ("address: '[2001:db8::2]:1179'", Some("2001:db8::2"), None, 1179),
            (
                "address: 192.0.2.2, interface: eth0",
                Some("192.0.2.2"),
                None,
                179,
            ),
            ("address: fe80::1%eth0", None, Some("fe80::1%eth0"), 179),
            ("address: '[fe80::1%eth0]:1179'", None, Some("fe80::1%eth0"), 1179),
            (
                "address: fe80::1, interface: eth0",
                None,
                Some("fe80::1%eth0"),
                179,
            ),
            ("interface: swp1", None, Some("swp1"), 179),
            (
                "interface: swp1, ttlSecurity: true, bfd: true",
                None,
                Some("swp1"),
                179,
            ),
        ] {
            let settings = parse(fields).unwrap_or_else(|error| panic!("{fields}: {error}"));
            let peers: Vec<_> = settings.peers().collect();
            let links: Vec<_> = settings.link_peers().collect();
            let shown: Vec<_> = peers.iter().map(|peer| peer.key.to_string()).collect();
            assert_eq!(shown, Vec::from_iter(anywhere), "{fields}");
            let shown: Vec<_> = links.iter().map(|peer| peer.key.to_string()).collect();
            assert_eq!(shown, Vec::from_iter(on_link), "{fields}");
            let configs = peers.iter().chain(links.iter().map(|peer| &peer.config));
            for config in configs {
                assert_eq!(config.port, port, "{fields}");
                let bound = fields.contains("interface") || on_link.is_some();
                assert_eq!(config.transport.interface.is_some(), bound, "{fields}");
            }
        }
    }

    #[test]
    fn what_cannot_be_of_a_neighbor_on_a_link_is_refused_by_name() {
        for (fields, complaint) in [
            ("passive: true", "neither 'address' nor 'interface'"),
            ("address: fe80::1", "write fe80::1%INTERFACE"),
            (
                "address: 2001:db8::1%eth0",
                "2001:db8::1 is no link-local address: leave out %eth0",
            ),
            (
                "address: fe80::1%eth0, interface: eth1",
                "has the interface eth0, and 'interface' is eth1",
            ),
            (
                "interface: swp1, multihop: 2",
                "'multihop' is for neighbors beyond the link",
            ),
            (
                "interface: swp1, ttlSecurity: 2",
                "'ttlSecurity' is for neighbors beyond the link",
            ),
            (
                "address: fe80::1%eth0, bfd: {multihop: true}",
                "'bfd.multihop' is for neighbors",
            ),
            (
                "interface: swp1, localAddress: 192.0.2.1",
                "'localAddress' 192.0.2.1 is no link-local address",
            ),
            ("interface: ''", "'' is no interface's name"),
            ("interface: a/b", "'a/b' is no interface's name"),
            ("interface: abcdefghijklmnop", "is no interface's name"),
            (
                "address: 192.0.2.2, interface: a/b",
                "'a/b' is no interface's name",
            ),
            ("address: 'fe80::1%'", "'' is no interface's name"),
            ("address: '[192.0.2.1]:179'", "is not a peer's address"),
            ("address: nonsense", "is not a peer's address"),
        ] {
            let error = parse(fields).expect_err(fields);
            assert!(error.contains(complaint), "{fields}: {error}");
        }
    }

    #[test]
    fn one_interface_has_one_unnumbered_neighbor_and_no_others() {
        let both = |second: &str| {
            let text = format!(
                "asn: 64512\nrouterId: 192.0.2.1\nneighbors: [{{interface: a, asn: 1}}, {{{second}, asn: 1}}]"
            );
            Settings::parse(&text).map_err(|error| error.to_string())
        };
        assert!(both("interface: b").is_ok());
        assert!(both("interface: a").unwrap_err().contains("a is listed twice"));
        let error = both("address: fe80::1%a").unwrap_err();
        assert!(
            error.contains("interface a has a neighbor without an address, and others"),
            "{error}"
        );
    }
}
