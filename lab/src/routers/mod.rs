//! What routers run: configuration files and processes, as values.
//!
//! Every software is told the same: sessions of one address family each, the rack's nodes as reflector clients
//! of the router's own AS, other routers as external peers; routes into the kernel; the rack's prefixes to
//! other routers, so that answers find nodes; ourselves as next hop of whatever came from other racks, since
//! nodes know no way to other routers.

mod bird;
mod frr;
mod gobgp;
mod manx;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnetwork::IpNetwork;

use crate::options::Software;
use crate::plan::{File, Process};

pub(crate) use manx::reflector;

/// Seconds of silence after which a peer is gone, on routers.
const HOLD_TIME: u16 = 9;

/// A router to be set up.
#[derive(Debug)]
pub(crate) struct Router<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its AS, and its rack's.
    pub(crate) asn: u32,
    /// Its identifier, an address on the spine.
    pub(crate) id: Ipv4Addr,
    /// Its addresses in the rack.
    pub(crate) rack: &'a [IpNetwork],
    /// With whom it talks.
    pub(crate) sessions: &'a [Session],
    /// Its folder.
    pub(crate) dir: &'a Path,
}

/// A session of a router, for the peer address's family.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The peer's name.
    pub(crate) name: String,
    /// The peer's address.
    pub(crate) address: IpAddr,
    /// The peer's AS.
    pub(crate) asn: u32,
}

impl Router<'_> {
    fn prefixes(&self) -> impl Iterator<Item = IpNetwork> {
        self.rack
            .iter()
            .filter_map(|n| IpNetwork::new(n.network(), n.prefix()).ok())
    }

    /// Whether the session is with a node of the rack.
    fn is_client(&self, session: &Session) -> bool {
        session.asn == self.asn
    }

    /// The rack's prefix and our address in it, of a peer's family.
    fn rack_of(&self, peer: IpAddr) -> Option<(IpNetwork, IpAddr)> {
        let address = self.rack.iter().find(|n| n.is_ipv4() == peer.is_ipv4())?;
        Some((
            IpNetwork::new(address.network(), address.prefix()).ok()?,
            address.ip(),
        ))
    }
}

/// What a router gets and runs.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// Its files.
    pub(crate) files: Vec<File>,
    /// Its processes, in the order in which they start.
    pub(crate) processes: Vec<Process>,
}

/// Sets a router up with `software`.
pub(crate) fn setup(software: Software, router: &Router<'_>) -> Setup {
    match software {
        Software::Manx => manx::router(router),
        Software::Bird => bird::setup(router),
        Software::Frr => frr::setup(router),
        Software::Gobgp => gobgp::setup(router),
    }
}

/// `ipv4` or `ipv6`.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}
