//! A pod's link to its node: one veth pair, no bridge.
//!
//! The pod has its addresses as /32 and /128 and a default route via [`GATEWAY_V4`] and [`GATEWAY_V6`], the
//! same in every pod on every node. Nobody ever asks who has these addresses: both ends hold *permanent
//! neighbour entries* for each other. So there is no proxy ARP, which answers late (Linux delays it on
//! purpose) or never (without a route that covers 169.254.1.1), no neighbour discovery before the first
//! packet, and no entry that a hostile pod could claim. Both MACs are known before the interfaces are:
//! the node's end always has [`HOST_MAC`], and the pod's end one that follows from the name of the node's.
//!
//! The node's end forwards, drops what does not come from the pod's own address (`rp_filter`), takes no
//! router advertisement, and makes up no address: it has `fe80::1` if the pod has IPv6, and no IPv6 at all
//! otherwise. The route *to* the pod is the route table's affair; [`Attached`] says which interface.

mod inspection;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use manx_routes::{Hop, Target};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;
use sha1::{Digest, Sha1};

use crate::error::{Error, Result};
use crate::link::{Link, LinkSocket, Mac, Veth, VethEnd};
use crate::netns::Netns;
use crate::nl::Request;
use crate::{message, sysctl};

pub use self::inspection::Amendments;
use self::inspection::Inspection;

/// The gateway of every pod; no interface has this address.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The IPv6 gateway of every pod: the node's end of its link.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The gateway as the node's end has it.
const HOST_ADDRESS_V6: Ipv6Network = Ipv6Network::new_checked(GATEWAY_V6, 64).unwrap();

const EVERYWHERE_V4: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0).unwrap();

const EVERYWHERE_V6: Ipv6Network = Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 0).unwrap();

/// The MAC of every node's end. Links are not bridged, so they may all have the same; it is Calico's, which
/// tools know.
pub const HOST_MAC: Mac = Mac([0xee; 6]);

/// What every name of a node's end begins with.
pub const HOST_IFNAME_PREFIX: &str = "mx";

/// What every name begins with that Calico gives the node's end of a pod's link.
pub const CALICO_IFNAME_PREFIX: &str = "cali";

/// What a pod's link should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// The pod's namespace, as the container runtime names it.
    pub netns: PathBuf,
    /// The name of the pod's end: `eth0`.
    pub ifname: String,
    /// The name of the node's end, from [`host_ifname`].
    pub host_ifname: String,
    /// The pod's addresses, of either family or both.
    pub addresses: Vec<IpAddr>,
    /// The largest packet in bytes, at both ends; the kernel's choice (1500) where absent.
    pub mtu: Option<u32>,
    /// The MAC of the pod's end; [`pod_mac`] where absent.
    pub mac: Option<Mac>,
}

impl PodLink {
    /// The MAC that the pod's end should have.
    fn mac(&self) -> Mac {
        self.mac.unwrap_or_else(|| pod_mac(&self.host_ifname))
    }
}

/// What a pod's link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The node's end: where routes to the pod lead.
    pub host_ifindex: u32,
    /// The MAC of the node's end.
    pub host_mac: Mac,
    /// The index of the pod's end, in the pod's namespace.
    pub pod_ifindex: u32,
    /// The MAC of the pod's end.
    pub pod_mac: Mac,
    /// The identity of the pod's namespace, whatever it is called.
    pub netns_inode: u64,
    /// The largest packet in bytes.
    pub mtu: u32,
}

/// The name of the node's end for one interface of one container: `mx` and 11 hexadecimal digits, which fit
/// into the 15 characters that the kernel allows.
#[must_use]
pub fn host_ifname(container_id: &str, ifname: &str) -> String {
    let hash = Sha1::new()
        .chain_update(container_id)
        .chain_update("/")
        .chain_update(ifname)
        .finalize();
    named(HOST_IFNAME_PREFIX, &hash)
}

/// The name that Calico gives the node's end of a pod's first interface: `cali` and 11 hexadecimal digits.
#[must_use]
pub fn calico_ifname(namespace: &str, pod: &str) -> String {
    let hash = Sha1::new()
        .chain_update(namespace)
        .chain_update(".")
        .chain_update(pod)
        .finalize();
    named(CALICO_IFNAME_PREFIX, &hash)
}

fn named(prefix: &str, hash: &[u8]) -> String {
    let mut name = prefix.to_owned();
    for byte in hash.iter().take(6) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.truncate(prefix.len() + 11);
    name
}

/// Whether an interface is, by its name, the node's end of a pod's link: one of ours, or one that Calico made and nobody has
/// taken up yet.
#[must_use]
pub fn is_host_ifname(name: &str) -> bool {
    [HOST_IFNAME_PREFIX, CALICO_IFNAME_PREFIX]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// What came of adopting a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// There is none (any more).
    Absent,
    /// It has its new name, and packets passed all the time.
    Whole {
        /// The index of the node's end.
        host_ifindex: u32,
    },
    /// It has its new name, and has lost the routes to it.
    Unrouted {
        /// The index of the node's end.
        host_ifindex: u32,
    },
}

/// Gives the node's end of a link that another network made its name here; the link, its settings and its addresses stay as they
/// are.
///
/// # Errors
/// [`Error::Refused`] with the kernel's answer; the link then has its old name.
pub fn adopt(stranger: &str, host_ifname: &str) -> Result<Adopted> {
    let mut host = LinkSocket::open()?;
    let Some(link) = host.get(stranger)? else {
        return Ok(Adopted::Absent);
    };
    let host_ifindex = link.index;
    Ok(match host.rename(host_ifindex, host_ifname)? {
        true => Adopted::Whole { host_ifindex },
        false => Adopted::Unrouted { host_ifindex },
    })
}

/// The MAC of the pod's end, from the name of the node's: the same whenever it is made again.
#[must_use]
pub fn pod_mac(host_ifname: &str) -> Mac {
    let hash = Sha1::digest(host_ifname);
    let mut mac = [0; 6];
    mac.copy_from_slice(&hash[..6]);
    // Locally administered, and one station's.
    mac[0] = mac[0] & 0xfe | 0x02;
    Mac(mac)
}

/// Makes a pod's link, and answers once packets pass. The same call again finds it made and answers the same; what a call that was cut
/// short left behind is made anew.
///
/// # Errors
/// [`Error::NoNetns`] if the pod has gone; [`Error::Taken`] if it has another interface of that name;
/// [`Error::Refused`] or [`Error::Os`] otherwise. A link that could not be finished is taken away again.
pub fn attach(link: &PodLink) -> Result<Attached> {
    let netns = Netns::open(&link.netns)?;
    let mut host = LinkSocket::open()?;
    let veth = Veth {
        end: VethEnd {
            mac: Some(HOST_MAC),
            mtu: link.mtu,
            ..VethEnd::named(&link.host_ifname)
        },
        peer: VethEnd {
            mac: Some(link.mac()),
            mtu: link.mtu,
            netns: Some(&netns),
            ..VethEnd::named(&link.ifname)
        },
    };
    let exists = |error: &Error| error.errno() == Some(Errno::EEXIST);
    match host.create_veth(&veth) {
        Ok(()) => {}
        Err(error) if exists(&error) => {
            let made = Inspection::make(&mut host, &netns, link)?;
            if let Some(attached) = made.attached(link) {
                return Ok(attached);
            }
            host.delete(&link.host_ifname)?;
            // The node's end is away: if a name is still taken, it is the pod's.
            host.create_veth(&veth).map_err(|error| {
                if exists(&error) {
                    Error::Taken {
                        ifname: link.ifname.clone(),
                    }
                } else {
                    error
                }
            })?;
        }
        Err(error) => return Err(error),
    }
    let configured = configure(&mut host, &netns, link);
    if configured.is_err() {
        host.delete(&link.host_ifname)?;
    }
    configured
}

/// Takes a pod's link away; succeeds when it has gone already, and its namespace too.
///
/// # Errors
/// [`Error::Refused`] or [`Error::Os`] if something is there and cannot be deleted.
pub fn detach(host_ifname: &str, netns: Option<&Path>, ifname: &str) -> Result<()> {
    if LinkSocket::open()?.delete(host_ifname)? {
        return Ok(());
    }
    // Somebody may have renamed the node's end: it goes with the pod's.
    let netns = match netns.map(Netns::open) {
        None | Some(Err(Error::NoNetns(_))) => return Ok(()),
        Some(netns) => netns?,
    };
    let mut pod = LinkSocket::open_in(&netns)?;
    match pod.get(ifname)? {
        Some(link) if link.mac == Some(pod_mac(host_ifname)) => pod.delete(ifname).map(drop),
        Some(_) | None => Ok(()),
    }
}

/// Compares a pod's link with what it should be, given what others have changed since; returns every difference,
/// in words.
///
/// # Errors
/// [`Error::NoNetns`] if the pod has gone; [`Error::Refused`] or [`Error::Os`] where the kernel does not tell.
pub fn check(link: &PodLink, amendments: &Amendments) -> Result<Vec<String>> {
    let netns = Netns::open(&link.netns)?;
    let mut host = LinkSocket::open()?;
    Ok(Inspection::make(&mut host, &netns, link)?.differences(link, amendments))
}

/// The addresses of a pod that its node routes elsewhere than to the pod's link, or nowhere: each in words.
///
/// # Errors
/// [`Error::Refused`] with the kernel's answer.
pub fn check_routes(link: &PodLink) -> Result<Vec<String>> {
    let mut host = LinkSocket::open()?;
    let index = host.get(&link.host_ifname)?.map(|host| host.index);
    let mut strayed = Vec::new();
    for address in &link.addresses {
        if index.is_none() || host.leads_to(*address)? != index {
            strayed.push(format!(
                "the node has no route to {address} over {}",
                link.host_ifname
            ));
        }
    }
    Ok(strayed)
}

/// The settings of the node's end, by their paths below `/proc/sys/net`.
fn host_settings(link: &PodLink) -> Vec<(String, &'static str)> {
    let mut settings = vec![("ipv4", "forwarding", "1"), ("ipv4", "rp_filter", "1")];
    if has_v6(link) {
        settings.extend([
            ("ipv6", "disable_ipv6", "0"),
            ("ipv6", "addr_gen_mode", "1"),
            ("ipv6", "accept_ra", "0"),
            ("ipv6", "accept_dad", "0"),
            ("ipv6", "forwarding", "1"),
        ]);
    } else if sysctl::has_ipv6() {
        settings.push(("ipv6", "disable_ipv6", "1"));
    }
    of_interface(&link.host_ifname, settings)
}

/// The settings of the pod's end.
fn pod_settings(link: &PodLink) -> Vec<(String, &'static str)> {
    let mut settings = Vec::new();
    if has_v6(link) {
        settings.push(("ipv6", "disable_ipv6", "0"));
    }
    // Without IPv6 of ours, too: the kernel makes up a link-local address, and would ask about it.
    if sysctl::has_ipv6() {
        settings.extend([("ipv6", "accept_dad", "0"), ("ipv6", "accept_ra", "0")]);
    }
    of_interface(&link.ifname, settings)
}

fn of_interface(name: &str, settings: Vec<(&str, &str, &'static str)>) -> Vec<(String, &'static str)> {
    let path = |(family, setting, value)| (format!("{family}/conf/{name}/{setting}"), value);
    settings.into_iter().map(path).collect()
}

/// Turns a fresh pair into the pod's link.
fn configure(host: &mut LinkSocket, netns: &Netns, link: &PodLink) -> Result<Attached> {
    let ours = present(host.get(&link.host_ifname)?, &link.host_ifname)?;
    let pod_ifindex = ours
        .peer
        .ok_or_else(|| Error::Broken(format!("{} has no other end", ours.name)))?;
    let attached = Attached {
        host_ifindex: ours.index,
        host_mac: HOST_MAC,
        pod_ifindex,
        pod_mac: link.mac(),
        netns_inode: netns.inode()?,
        mtu: ours.mtu,
    };
    configure_host(host, link, &attached)?;
    netns.run(|| configure_pod(link, pod_ifindex))??;
    host.wait_until_ready(&link.host_ifname)?;
    Ok(attached)
}

/// The node's end, in the node's namespace.
fn configure_host(host: &mut LinkSocket, link: &PodLink, attached: &Attached) -> Result<()> {
    let name = &link.host_ifname;
    let mut requests = vec![message::set_link(
        LinkUnspec::new_with_index(attached.host_ifindex).up(),
    )];
    if has_v6(link) {
        requests.push(message::put_address(
            attached.host_ifindex,
            HOST_ADDRESS_V6.into(),
        ));
    }
    for (setting, value) in host_settings(link) {
        sysctl::set(&setting, value)?;
    }
    requests.extend(
        link.addresses
            .iter()
            .map(|address| message::put_neighbour(attached.host_ifindex, *address, attached.pod_mac)),
    );
    all(host, requests, &format!("set up {name}"))
}

/// The pod's end; the calling thread is in the pod's namespace.
fn configure_pod(link: &PodLink, index: u32) -> Result<()> {
    for (setting, value) in pod_settings(link) {
        sysctl::set(&setting, value)?;
    }
    let mut requests = vec![message::set_link(LinkUnspec::new_with_index(index).up())];
    requests.extend(
        link.addresses
            .iter()
            .map(|address| message::put_address(index, IpNetwork::from(*address))),
    );
    for gateway in gateways(link) {
        requests.push(message::put_neighbour(index, gateway, HOST_MAC));
        if gateway.is_ipv4() {
            requests.push(message::put_route(gateway.into(), &Target::Device(index)));
        }
        requests.push(message::put_route(default_of(gateway), &via(gateway, index)));
    }
    let mut pod = LinkSocket::open()?;
    all(&mut pod, requests, &format!("set up {} in the pod", link.ifname))?;
    pod.wait_until_ready(&link.ifname)
}

/// Sends a batch that is worth something only as a whole.
fn all(socket: &mut LinkSocket, requests: Vec<Request>, doing: &str) -> Result<()> {
    let refused = socket
        .raw()
        .batch(requests)?
        .into_iter()
        .find_map(std::result::Result::err);
    refused.map_or(Ok(()), |refusal| {
        Err(Error::Refused {
            doing: doing.to_owned(),
            refusal,
        })
    })
}

fn present(link: Option<Link>, name: &str) -> Result<Link> {
    link.ok_or_else(|| Error::Broken(format!("there is no interface {name}")))
}

fn has_v6(link: &PodLink) -> bool {
    link.addresses.iter().any(IpAddr::is_ipv6)
}

/// The gateways that the pod needs, one per family.
fn gateways(link: &PodLink) -> impl Iterator<Item = IpAddr> {
    let v4 = link
        .addresses
        .iter()
        .any(IpAddr::is_ipv4)
        .then_some(IpAddr::V4(GATEWAY_V4));
    let v6 = has_v6(link).then_some(IpAddr::V6(GATEWAY_V6));
    v4.into_iter().chain(v6)
}

/// The prefix of all addresses of the gateway's family.
const fn default_of(gateway: IpAddr) -> IpNetwork {
    match gateway {
        IpAddr::V4(_) => IpNetwork::V4(EVERYWHERE_V4),
        IpAddr::V6(_) => IpNetwork::V6(EVERYWHERE_V6),
    }
}

fn via(gateway: IpAddr, index: u32) -> Target {
    Target::Via(vec![Hop {
        gateway,
        device: Some(index),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_container_and_by_interface_and_fit_the_kernel() {
        let name = host_ifname("4f2c", "eth0");
        assert_eq!(name, host_ifname("4f2c", "eth0"));
        assert_eq!(name.len(), 13);
        assert!(
            name.strip_prefix("mx")
                .unwrap()
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit())
        );
        assert_ne!(name, host_ifname("4f2c", "eth1"));
        assert_ne!(name, host_ifname("4f2d", "eth0"));
    }

    #[test]
    fn calicos_names_are_known_for_what_they_are() {
        // SHA-1 of "kube-system.coredns-0", as sha1sum has it.
        assert_eq!(calico_ifname("kube-system", "coredns-0"), "cali8c346e38bf4");
        for (name, is) in [
            ("mx0123456789a", true),
            ("cali0123456789a", true),
            ("eth0", false),
            ("tunl0", false),
        ] {
            assert_eq!(is_host_ifname(name), is, "{name}");
        }
    }

    #[test]
    fn a_pods_mac_is_of_one_station_and_locally_administered() {
        for name in ["mx0123456789a", "mx0123456789b"] {
            assert_eq!(pod_mac(name).0[0] & 0x03, 0x02);
        }
        assert_ne!(pod_mac("mx0123456789a"), pod_mac("mx0123456789b"));
    }
}
