//! A pod's link as it is, beside what it should be.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_routes::Actual;

use super::{Attached, HOST_MAC, PodLink, default_of, gateways, host_settings, pod_settings, via};
use crate::error::Result;
use crate::link::{Link, LinkSocket, Mac};
use crate::netns::Netns;
use crate::routes::RouteSocket;
use crate::sysctl;

/// What others have changed about a link since it was made, and may have: the runtime knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amendments {
    /// Further addresses of the pod's end.
    pub addresses: Vec<IpNetwork>,
    /// The gateways whose default route others have replaced.
    pub gateways: Vec<IpAddr>,
    /// The MTU of the pod's end in bytes; where absent, it is the link's or less.
    pub mtu: Option<u32>,
}

/// What there is of a link.
pub(super) struct Inspection {
    netns_inode: u64,
    host: Option<End>,
    pod: Option<End>,
    /// Every route of the pod.
    routes: Vec<Actual>,
}

/// One end.
struct End {
    link: Link,
    addresses: Vec<IpNetwork>,
    neighbours: Vec<(IpAddr, Mac)>,
    /// Settings that are not as they should be, in words.
    unset: Vec<String>,
}

impl End {
    /// Reads an end from the socket's namespace, which the calling thread is in.
    fn read(
        socket: &mut LinkSocket,
        name: &str,
        settings: Vec<(String, &'static str)>,
    ) -> Result<Option<Self>> {
        let Some(link) = socket.get(name)? else {
            return Ok(None);
        };
        let mut unset = Vec::new();
        for (setting, wanted) in settings {
            let found = sysctl::get(&setting)?;
            if found != wanted {
                unset.push(format!("{setting} is {found} and not {wanted}"));
            }
        }
        Ok(Some(Self {
            addresses: socket.addresses(link.index)?,
            neighbours: socket.neighbours(link.index)?,
            link,
            unset,
        }))
    }
}

impl Inspection {
    /// Looks at both ends; the calling thread is in the node's namespace.
    pub(super) fn make(host: &mut LinkSocket, netns: &Netns, link: &PodLink) -> Result<Self> {
        let (pod, routes) = netns.run(|| -> Result<_> {
            let mut socket = LinkSocket::open()?;
            let pod = End::read(&mut socket, &link.ifname, pod_settings(link))?;
            Ok((pod, RouteSocket::open()?.dump_all()?))
        })??;
        Ok(Self {
            netns_inode: netns.inode()?,
            host: End::read(host, &link.host_ifname, host_settings(link))?,
            pod,
            routes,
        })
    }

    /// The link, if it is in every way what it should be.
    pub(super) fn attached(&self, link: &PodLink) -> Option<Attached> {
        let untouched = Amendments {
            mtu: link.mtu,
            ..Amendments::default()
        };
        let (Some(host), Some(pod)) = (&self.host, &self.pod) else {
            return None;
        };
        self.differences(link, &untouched).is_empty().then(|| Attached {
            host_ifindex: host.link.index,
            host_mac: HOST_MAC,
            pod_ifindex: pod.link.index,
            pod_mac: link.mac(),
            netns_inode: self.netns_inode,
            mtu: host.link.mtu,
        })
    }

    /// Every difference from what the link should be, in words.
    pub(super) fn differences(&self, link: &PodLink, amendments: &Amendments) -> Vec<String> {
        let mut differences = Differences::default();
        match (&self.host, &self.pod) {
            (Some(host), Some(pod)) => {
                let paired = host.link.peer == Some(pod.link.index) && pod.link.peer == Some(host.link.index);
                differences.require(paired, || {
                    format!(
                        "{} and {} are not two ends of one link",
                        link.host_ifname, link.ifname
                    )
                });
            }
            (host, pod) => {
                for (end, name) in [(host, &link.host_ifname), (pod, &link.ifname)] {
                    differences.require(end.is_some(), || format!("there is no interface {name}"));
                }
            }
        }
        if let Some(host) = &self.host {
            differences.of_end(host, HOST_MAC);
            let wanted = link.mtu.unwrap_or(host.link.mtu);
            differences.require(host.link.mtu == wanted, || mtu(host, wanted));
            let neighbours = link.addresses.iter().map(|address| (*address, link.mac()));
            differences.of_neighbours(host, neighbours);
        }
        if let Some(pod) = &self.pod {
            differences.of_end(pod, link.mac());
            let most = link.mtu.unwrap_or(pod.link.mtu);
            let fits = amendments
                .mtu
                .map_or(pod.link.mtu <= most, |mtu| pod.link.mtu == mtu);
            differences.require(fits, || mtu(pod, amendments.mtu.unwrap_or(most)));
            differences.of_addresses(pod, link, &amendments.addresses);
            differences.of_neighbours(pod, gateways(link).map(|gateway| (gateway, HOST_MAC)));
            for gateway in gateways(link).filter(|gateway| !amendments.gateways.contains(gateway)) {
                let target = via(gateway, pod.link.index);
                let leads = |route: &Actual| {
                    route.prefix == default_of(gateway) && route.target.as_ref() == Some(&target)
                };
                differences.require(self.routes.iter().any(leads), || {
                    format!("the pod has no default route via {gateway}")
                });
            }
        }
        differences.0
    }
}

fn mtu(end: &End, wanted: u32) -> String {
    format!(
        "the MTU of {} is {} and not {wanted}",
        end.link.name, end.link.mtu
    )
}

/// Differences found so far.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn require(&mut self, condition: bool, otherwise: impl FnOnce() -> String) {
        if !condition {
            self.0.push(otherwise());
        }
    }

    fn of_end(&mut self, end: &End, mac: Mac) {
        let Link { name, up, .. } = &end.link;
        self.require(*up, || format!("{name} is down"));
        self.require(end.link.mac == Some(mac), || {
            let found = end
                .link
                .mac
                .map_or_else(|| "none".to_owned(), |mac| mac.to_string());
            format!("the MAC of {name} is {found} and not {mac}")
        });
        self.0.extend(end.unset.iter().cloned());
    }

    fn of_neighbours(&mut self, end: &End, wanted: impl Iterator<Item = (IpAddr, Mac)>) {
        for (address, mac) in wanted {
            self.require(end.neighbours.contains(&(address, mac)), || {
                format!("{} has no neighbour {address} with the MAC {mac}", end.link.name)
            });
        }
    }

    /// The pod has its addresses, and no others but those that IPv6 makes up for the link itself.
    fn of_addresses(&mut self, pod: &End, link: &PodLink, further: &[IpNetwork]) {
        let made_up =
            |found: &&IpNetwork| matches!(found, IpNetwork::V6(v6) if v6.ip().is_unicast_link_local());
        let own = link.addresses.iter().map(|address| IpNetwork::from(*address));
        let wanted: Vec<IpNetwork> = own.chain(further.iter().copied()).collect();
        let name = &pod.link.name;
        for address in wanted.iter().filter(|address| !pod.addresses.contains(address)) {
            self.0.push(format!("{name} has not the address {address}"));
        }
        let strange = |found: &&IpNetwork| !wanted.contains(found);
        for address in pod
            .addresses
            .iter()
            .filter(|found| !made_up(found))
            .filter(strange)
        {
            self.0
                .push(format!("{name} has the address {address}, which nobody gave it"));
        }
    }
}
