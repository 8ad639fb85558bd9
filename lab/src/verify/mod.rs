//! The proof of a lab: pods reach each other and are reached by nodes, seen with their true addresses, and
//! the wire between nodes carries their packets as they are.
//!
//! Every probe is an exchange over sockets inside the namespaces of its ends, and the receiver says whom it
//! saw. What is on the wire is counted where the segments' bridges are.

mod capture;
mod icmp;
mod packet;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use manx_linux::Netns;
use serde::Serialize;

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::layout::netns_path;
use crate::plan::Role;
pub use packet::Class;

/// An end of probes: a pod, or a node as a sender only.
#[derive(Debug)]
struct End {
    name: String,
    node: String,
    is_pod: bool,
    addresses: Vec<IpAddr>,
    netns: Netns,
}

/// What the proof showed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Every exchange, and whether it succeeded.
    pub exchanges: Vec<Exchange>,
    /// Packets on the segments between machines, by what they are.
    pub packets: BTreeMap<Class, u64>,
    /// A few of the packets that should not be there.
    pub offenders: Vec<String>,
    /// Whether all of it is as it should be.
    pub proved: bool,
}

/// One exchange.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// Who sent.
    pub from: String,
    /// Who answered.
    pub to: String,
    /// `tcp` or `icmp`.
    pub protocol: &'static str,
    /// The address that was spoken to.
    pub address: IpAddr,
    /// The sender's address as the receiver saw it; none when nothing came back.
    pub seen: Option<IpAddr>,
    /// What went wrong, if anything did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Proves a lab.
///
/// # Errors
/// When probes cannot be made; a probe that gets no answer is part of the proof instead.
pub fn verify(lab: &Lab) -> Result<Proof> {
    let ends = ends(lab)?;
    let bridges = bridges(lab)?;
    let addresses = packet::Addresses {
        pods: ends
            .iter()
            .filter(|end| end.is_pod)
            .flat_map(|end| end.addresses.clone())
            .collect(),
        machines: lab
            .plan()
            .hosts
            .iter()
            .flat_map(|host| host.addresses())
            .map(|network| network.ip())
            .collect(),
    };
    let capture = capture::Capture::start(&bridges)?;
    let exchanges = probe::all(&ends);
    let frames = capture.stop();
    let mut proof = Proof {
        exchanges: exchanges?,
        ..Proof::default()
    };
    for frame in frames {
        let class = packet::classify(&frame, &addresses);
        *proof.packets.entry(class).or_default() += 1;
        if class.is_wrong() && proof.offenders.len() < MAX_OFFENDERS {
            proof.offenders.push(packet::describe(&frame));
        }
    }
    let right = |exchange: &Exchange| exchange.problem.is_none();
    let clean = proof.packets.keys().all(|class| !class.is_wrong());
    let nodes: BTreeSet<&String> = ends
        .iter()
        .filter(|end| end.is_pod)
        .map(|end| &end.node)
        .collect();
    // Pods of one node talk past the wire; of several, they cannot.
    let crossed = nodes.len() < 2 || proof.packets.contains_key(&Class::PodToPod);
    proof.proved = proof.exchanges.iter().all(right) && clean && crossed;
    Ok(proof)
}

/// Packets that a proof shows, at most.
const MAX_OFFENDERS: usize = 5;

fn ends(lab: &Lab) -> Result<Vec<End>> {
    let open =
        |netns: &str| Netns::open(netns_path(netns)).map_err(LabError::kernel(format!("enter {netns}")));
    let mut ends = Vec::new();
    for pod in lab.pods() {
        ends.push(End {
            name: format!("{}/{}", pod.namespace, pod.name),
            node: pod.node.clone(),
            is_pod: true,
            addresses: pod.addresses.clone(),
            netns: open(&pod.netns)?,
        });
    }
    for node in lab.plan().nodes() {
        ends.push(End {
            name: node.name.clone(),
            node: node.name.clone(),
            is_pod: false,
            addresses: node.addresses().map(|network| network.ip()).collect(),
            netns: open(&node.netns)?,
        });
    }
    Ok(ends)
}

/// The namespaces whose bridges are the segments between machines.
fn bridges(lab: &Lab) -> Result<Vec<Netns>> {
    let open =
        |netns: &str| Netns::open(netns_path(netns)).map_err(LabError::kernel(format!("enter {netns}")));
    let carries = |role: Role| matches!(role, Role::Fabric | Role::Router(_));
    lab.plan()
        .hosts
        .iter()
        .filter(|host| carries(host.role))
        .map(|host| open(&host.netns))
        .collect()
}
