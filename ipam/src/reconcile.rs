//! The journal's word against the interfaces that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use manx_api::ipam::{Allocation, AttachmentId};

use crate::Family;

/// An interface that exists, with the addresses routed to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live<I> {
    /// What the caller knows it by: its name.
    pub interface: I,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

/// What to do about an allocation or a live address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<I> {
    /// The interface is there.
    Keep(Allocation),
    /// The interface is gone, or carries another address of the family: free this one.
    Release(Allocation),
    /// The interface carries an address that another live interface has a right to: take it away.
    Refuse {
        /// The interface.
        interface: I,
        /// The address.
        address: IpAddr,
        /// Who has a right to it.
        holder: I,
    },
    /// The interface carries an address that nobody is known to hold: it must not be given to anybody.
    Unknown {
        /// The interface.
        interface: I,
        /// The address.
        address: IpAddr,
    },
}

/// Compares the allocations with the interfaces that exist; `interface` tells which one an attachment has.
///
/// Decisions about allocations come first, ordered by address, then those about live addresses, ordered by
/// interface. The order of the inputs does not matter. No address is kept for one interface and left with
/// another.
pub fn reconcile<I: Ord + Clone>(
    allocations: impl IntoIterator<Item = Allocation>,
    live: impl IntoIterator<Item = Live<I>>,
    interface: impl Fn(&AttachmentId) -> I,
) -> Vec<Decision<I>> {
    let mut carried: BTreeMap<I, BTreeSet<IpAddr>> = BTreeMap::new();
    for live in live {
        carried.entry(live.interface).or_default().extend(live.addresses);
    }
    let allocations: BTreeMap<IpAddr, Allocation> = allocations
        .into_iter()
        .map(|allocation| (allocation.address, allocation))
        .collect();
    let mut holders: BTreeMap<IpAddr, I> = BTreeMap::new();
    let mut decisions = Vec::new();
    for (address, allocation) in allocations {
        let name = interface(&allocation.owner);
        if carried.get(&name).is_some_and(|carried| allows(carried, address)) {
            holders.insert(address, name);
            decisions.push(Decision::Keep(allocation));
        } else {
            decisions.push(Decision::Release(allocation));
        }
    }
    for (name, addresses) in carried {
        for address in addresses {
            match holders.get(&address) {
                Some(holder) if *holder == name => {}
                Some(holder) => {
                    decisions.push(Decision::Refuse {
                        interface: name.clone(),
                        address,
                        holder: holder.clone(),
                    });
                }
                None => {
                    holders.insert(address, name.clone());
                    decisions.push(Decision::Unknown {
                        interface: name.clone(),
                        address,
                    });
                }
            }
        }
    }
    decisions
}

/// Whether an interface that carries these can be the one `address` was given to: it carries it, or it
/// carries none of the family (its ADD was cut short, or its route was lost).
fn allows(carried: &BTreeSet<IpAddr>, address: IpAddr) -> bool {
    let family = Family::of(address);
    carried.contains(&address) || carried.iter().all(|other| Family::of(*other) != family)
}
