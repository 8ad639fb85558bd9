//! What an agent finds when it starts: the machine's interfaces, and what an earlier life left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use manx_ipam::{Allocator, Live};
use manx_linux::link::Link;
use manx_linux::pod::{CALICO_IFNAME_PREFIX, is_host_ifname};
use manx_linux::{LinkSocket, RouteSocket};
use manx_routes::{Actual, Source, Target};

use crate::disk::Disk;
use crate::identity::Interface;
use crate::ipam::Clock;
use crate::ipam::recovery::{self, Owners};
use crate::journal::{Journal, JournalError};

/// The machine as it was found.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Its own interfaces, those with a default route's first hop marked.
    pub interfaces: Vec<Interface>,
    /// The node's ends of pods' links, each with the addresses routed to it.
    pub pods: Vec<Live<String>>,
    /// Whether the kernel forwards for pods already: it holds routes of an earlier life's, or links that Calico made.
    pub forwarding: bool,
}

/// Looks at the machine.
///
/// # Errors
/// The kernel does not tell.
pub fn survey() -> manx_linux::Result<Machine> {
    let mut socket = LinkSocket::open()?;
    let links = socket.list()?;
    let routes = RouteSocket::open()?.dump_all()?;
    let (pods, own): (Vec<_>, Vec<_>) = links.into_iter().partition(|link| is_host_ifname(&link.name));
    let strangers: BTreeSet<u32> = pods
        .iter()
        .filter(|link| link.name.starts_with(CALICO_IFNAME_PREFIX))
        .map(|link| link.index)
        .collect();
    let of_pod = |route: &&Actual| match route.target {
        // Whoever wrote it.
        Some(Target::Device(device)) if strangers.contains(&device) => is_to_host(route),
        _ => Source::of(route) == Some(Source::Pod),
    };
    let mut interfaces = Vec::new();
    for link in own.into_iter().filter(|link| link.up) {
        let addresses = socket.addresses(link.index)?;
        interfaces.push(interface(&link, addresses, &routes));
    }
    Ok(Machine {
        interfaces,
        pods: live(&pods, routes.iter().filter(of_pod)),
        forwarding: !strangers.is_empty() || routes.iter().any(|route| Source::of(route).is_some()),
    })
}

/// Opens the journal, and brings what it says in line with the pods that exist.
///
/// # Errors
/// The journal cannot be used.
pub fn recover(
    disk: Arc<dyn Disk>,
    path: &Path,
    pods: &[Live<String>],
    clock: Clock,
) -> Result<(Journal, Allocator), JournalError> {
    let (mut journal, mut allocator) = Journal::open(disk, path)?;
    let records = recovery::settle(&mut allocator, pods.to_vec(), Owners::new(), clock.now(), |_| {
        true
    });
    if !records.is_empty() {
        journal.commit(&records, &allocator)?;
    }
    Ok((journal, allocator))
}

fn interface(link: &Link, addresses: Vec<IpNetwork>, routes: &[Actual]) -> Interface {
    let leads_here = |route: &Actual| match &route.target {
        Some(Target::Via(hops)) => hops.iter().any(|hop| hop.device == Some(link.index)),
        Some(Target::Device(device)) => *device == link.index,
        Some(Target::Unreachable | Target::Group(_)) | None => false,
    };
    Interface {
        index: link.index,
        mtu: link.mtu,
        addresses: addresses
            .into_iter()
            .filter(|address| is_global(address.ip()))
            .collect(),
        default_route: routes
            .iter()
            .any(|route| route.prefix.prefix() == 0 && leads_here(route)),
    }
}

/// Neither of this host alone nor of one link alone.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// The node's ends of pods' links, each with the addresses that are routed to it, whoever did it.
///
/// # Errors
/// The kernel does not tell.
pub fn carried() -> manx_linux::Result<Vec<Live<String>>> {
    let mut pods = LinkSocket::open()?.list()?;
    pods.retain(|link| is_host_ifname(&link.name));
    let routes = RouteSocket::open()?.dump_all()?;
    Ok(live(&pods, routes.iter().filter(|route| is_to_host(route))))
}

/// Whether a route is to one address, which somebody elsewhere may ask for.
fn is_to_host(route: &Actual) -> bool {
    let full = if route.prefix.is_ipv4() { 32 } else { 128 };
    route.prefix.prefix() == full && is_global(route.prefix.ip())
}

fn live<'a>(pods: &[Link], routes: impl Iterator<Item = &'a Actual>) -> Vec<Live<String>> {
    let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for route in routes {
        if let Some(Target::Device(device)) = route.target {
            addresses.entry(device).or_default().push(route.prefix.ip());
        }
    }
    let live = |link: &Link| Live {
        interface: link.name.clone(),
        addresses: addresses.get(&link.index).cloned().unwrap_or_default(),
    };
    pods.iter().map(live).collect()
}
