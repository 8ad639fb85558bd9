//! What an earlier life left behind: the journal's word, and the interfaces that exist.

use std::net::IpAddr;

use manx_api::ipam::AttachmentId;
use manx_ipam::journal::Record;
use manx_ipam::{Allocator, Decision, Live, reconcile};

/// The container of addresses that an interface carries and nobody is known to hold. They are given to
/// nobody until a start finds the interface gone.
const QUARANTINE: &str = "quarantine";

/// Brings the allocator in line with the interfaces that exist, as far as addresses are `within` what is
/// being recovered: frees what is gone, and puts the unknown into quarantine.
///
/// The records are applied already; they belong into the journal.
#[must_use]
pub fn settle(
    allocator: &mut Allocator,
    live: Vec<Live<String>>,
    within: impl Fn(IpAddr) -> bool,
) -> Vec<Record> {
    let allocations: Vec<_> = allocator
        .allocations()
        .filter(|held| within(held.address))
        .collect();
    let live = live.into_iter().map(|mut live| {
        live.addresses.retain(|address| within(*address));
        live
    });
    let decisions = reconcile(allocations, live, |owner| {
        interface(&owner.container_id, &owner.ifname)
    });
    decisions
        .into_iter()
        .filter_map(|decision| carry_out(allocator, decision))
        .collect()
}

fn carry_out(allocator: &mut Allocator, decision: Decision<String>) -> Option<Record> {
    match decision {
        Decision::Keep(_) => None,
        Decision::Release(held) => {
            let (address, container) = (held.address, &held.owner.container_id);
            tracing::info!(%address, container, "released: its interface is gone");
            allocator
                .release_address(address, held.sequence)
                .map(|release| release.record)
        }
        Decision::Refuse {
            interface,
            address,
            holder,
        } => {
            tracing::warn!(%address, interface, holder, "two interfaces carry one address; its holder keeps it");
            None
        }
        Decision::Unknown { interface, address } => match allocator.hold(&quarantine(&interface), address) {
            Ok(assignment) => {
                tracing::warn!(%address, interface, "nobody is known to hold this address; it is given to nobody");
                assignment.record
            }
            Err(error) => {
                tracing::debug!(%address, interface, %error, "an interface carries an address that is not ours to give");
                None
            }
        },
    }
}

fn quarantine(interface: &str) -> AttachmentId {
    AttachmentId {
        container_id: QUARANTINE.to_owned(),
        ifname: interface.to_owned(),
        namespace: QUARANTINE.to_owned(),
        pod: interface.to_owned(),
    }
}

/// Whether an owner stands for nobody known.
#[must_use]
pub fn is_quarantined(owner: &AttachmentId) -> bool {
    owner.container_id == QUARANTINE
}

/// The host's interface of an attachment.
#[must_use]
pub fn interface(container_id: &str, ifname: &str) -> String {
    if container_id == QUARANTINE {
        return ifname.to_owned();
    }
    manx_linux::pod::host_ifname(container_id, ifname)
}
