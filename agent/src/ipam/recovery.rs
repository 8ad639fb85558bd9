//! What an earlier life left behind: the journal's word, and the interfaces that exist.

use std::collections::BTreeMap;
use std::net::IpAddr;

use manx_api::ipam::{Allocation, AttachmentId, QUARANTINE};
use manx_ipam::journal::Record;
use manx_ipam::{Allocator, Decision, Live, reconcile};
use manx_linux::pod::CALICO_IFNAME_PREFIX;

/// Who has which interface, by its name.
pub type Owners = BTreeMap<String, AttachmentId>;

/// Brings the allocator in line with the interfaces that exist, as far as addresses are `within` what is
/// being recovered: frees what is gone, and has what nobody is known to hold held by whoever has the interface, as
/// far as the allocator or `owners` know; the rest goes into quarantine.
///
/// The records are applied already; they belong into the journal.
#[must_use]
pub fn settle(
    allocator: &mut Allocator,
    live: Vec<Live<String>>,
    mut owners: Owners,
    now: u64,
    within: impl Fn(IpAddr) -> bool,
) -> Vec<Record> {
    let live = recognized(live, allocator);
    let known = allocator.allocations().map(|held| held.owner);
    owners.extend(known.map(|owner| (interface(&owner.container_id, &owner.ifname), owner)));
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
        .filter_map(|decision| carry_out(allocator, decision, &owners, now))
        .collect()
}

/// The interfaces that exist, those of Calico's by the names that they will have here, as far as the pod that each was made for
/// holds one of its addresses.
fn recognized(mut live: Vec<Live<String>>, allocator: &Allocator) -> Vec<Live<String>> {
    let is_calicos = |live: &&mut Live<String>| live.interface.starts_with(CALICO_IFNAME_PREFIX);
    let mut strangers = live.iter_mut().filter(is_calicos).peekable();
    if strangers.peek().is_none() {
        return live;
    }
    let holders: BTreeMap<IpAddr, AttachmentId> = allocator
        .allocations()
        .map(|held| (held.address, held.owner))
        .collect();
    for stranger in strangers {
        let mut holders = stranger
            .addresses
            .iter()
            .filter_map(|address| holders.get(address));
        if let Some(holder) = holders.find(|holder| calicos(holder).as_ref() == Some(&stranger.interface)) {
            stranger.interface = interface(&holder.container_id, &holder.ifname);
        }
    }
    live
}

/// What Calico called the host's interface of an attachment, if it made it; none where nobody is known to have it.
#[must_use]
pub fn calicos(owner: &AttachmentId) -> Option<String> {
    (!owner.is_quarantined()).then(|| manx_linux::pod::calico_ifname(&owner.namespace, &owner.pod))
}

fn carry_out(
    allocator: &mut Allocator,
    decision: Decision<String>,
    owners: &Owners,
    now: u64,
) -> Option<Record> {
    match decision {
        Decision::Keep(_) => None,
        Decision::Release(held) => {
            let (address, container) = (held.address, &held.owner.container_id);
            tracing::info!(%address, container, "released: its interface is gone");
            allocator
                .release_address(address, held.sequence, now)
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
        Decision::Unknown { interface, address } => adopt(allocator, &interface, address, owners),
    }
}

/// Has an address held that an interface carries.
fn adopt(allocator: &mut Allocator, interface: &str, address: IpAddr, owners: &Owners) -> Option<Record> {
    // An attachment has one address of a family.
    let has_none = |owner: &&AttachmentId| {
        let mut held = allocator.held_by(&owner.container_id, &owner.ifname);
        held.all(|held| held.address.is_ipv4() != address.is_ipv4())
    };
    let owner = match owners.get(interface).filter(has_none) {
        Some(owner) => {
            tracing::info!(%address, interface, container = owner.container_id, "held by whoever has its interface");
            owner.clone()
        }
        None => {
            tracing::warn!(%address, interface, "nobody is known to hold this address; it is given to nobody");
            quarantine(interface)
        }
    };
    match allocator.hold(&owner, address) {
        Ok(assignment) => assignment.record,
        Err(error) => {
            tracing::debug!(%address, interface, %error, "an interface carries an address that is not ours to give");
            None
        }
    }
}

fn quarantine(interface: &str) -> AttachmentId {
    AttachmentId {
        container_id: QUARANTINE.to_owned(),
        ifname: interface.to_owned(),
        namespace: QUARANTINE.to_owned(),
        pod: interface.to_owned(),
        network: None,
    }
}

/// What an attachment holds, also where only its interface is known to hold it: that tells attachments apart.
#[must_use]
pub fn held(allocator: &Allocator, container_id: &str, ifname: &str) -> Vec<Allocation> {
    let interface = interface(container_id, ifname);
    let quarantined = allocator.held_by(QUARANTINE, &interface);
    allocator
        .held_by(container_id, ifname)
        .chain(quarantined)
        .collect()
}

/// Has an attachment hold what only its interface was known to hold.
///
/// The records are applied already; they belong into the journal.
#[must_use]
pub fn identify(allocator: &mut Allocator, owner: &AttachmentId, now: u64) -> Vec<Record> {
    let interface = interface(&owner.container_id, &owner.ifname);
    let quarantined: Vec<Allocation> = allocator.held_by(QUARANTINE, &interface).collect();
    let mut records = Vec::new();
    for held in quarantined {
        let release = allocator.release_address(held.address, held.sequence, now);
        records.extend(release.map(|release| release.record));
        // It was free for no time.
        if let Ok(assignment) = allocator.hold(owner, held.address) {
            records.extend(assignment.record);
        }
    }
    records
}

/// The host's interface of an attachment.
#[must_use]
pub fn interface(container_id: &str, ifname: &str) -> String {
    if container_id == QUARANTINE {
        return ifname.to_owned();
    }
    manx_linux::pod::host_ifname(container_id, ifname)
}

#[cfg(test)]
mod tests {
    use manx_api::ipam::IpBlock;
    use manx_ipam::{Family, Request, Rest, Want};

    use super::*;

    fn allocator() -> Allocator {
        let block: IpBlock = serde_json::from_str(
            r#"{"metadata": {"name": "10-0-0-0-30"},
                "spec": {"cidr": "10.0.0.0/30", "pool": "p", "node": "n1", "generation": 1}}"#,
        )
        .unwrap();
        let mut allocator = Allocator::new();
        allocator.add_block(&block).unwrap();
        allocator
    }

    fn owner(container: &str) -> AttachmentId {
        AttachmentId {
            container_id: container.to_owned(),
            ifname: "eth0".to_owned(),
            namespace: "default".to_owned(),
            pod: container.to_owned(),
            network: None,
        }
    }

    fn assign(allocator: &mut Allocator, container: &str) -> Option<IpAddr> {
        let owner = owner(container);
        let request = Request {
            owner: &owner,
            wants: &[Want::Any {
                family: Family::V4,
                blocks: allocator.blocks().map(manx_ipam::Block::cidr).collect(),
                unrested: true,
            }],
            rest: Rest::default(),
        };
        allocator
            .assign(&request)
            .ok()
            .map(|assignment| assignment.allocations[0].address)
    }

    fn live(interface: &str, address: IpAddr) -> Live<String> {
        Live {
            interface: interface.to_owned(),
            addresses: vec![address],
        }
    }

    #[test]
    fn what_has_an_interface_stays_and_what_has_none_is_free() {
        let mut allocator = allocator();
        let kept = assign(&mut allocator, "kept").unwrap();
        assign(&mut allocator, "gone").unwrap();
        let found = vec![live(&interface("kept", "eth0"), kept)];
        assert_eq!(settle(&mut allocator, found, Owners::new(), 0, |_| true).len(), 1);
        let held: Vec<_> = allocator.allocations().map(|held| held.address).collect();
        assert_eq!(held, [kept]);
    }

    #[test]
    fn an_address_that_nobody_is_known_to_hold_is_given_to_nobody_until_its_interface_is_gone() {
        let mut allocator = allocator();
        let unknown: IpAddr = "10.0.0.2".parse().unwrap();
        assert_eq!(
            settle(
                &mut allocator,
                vec![live("mxunknown", unknown)],
                Owners::new(),
                0,
                |_| true
            )
            .len(),
            1
        );
        let given: Vec<_> = (0..4)
            .filter_map(|i| assign(&mut allocator, &format!("c{i}")))
            .collect();
        assert_eq!(given.len(), 3);
        assert!(!given.contains(&unknown));
        let again = settle(
            &mut allocator,
            vec![live("mxunknown", unknown)],
            Owners::new(),
            0,
            |address| address == unknown,
        );
        assert!(again.is_empty(), "the next start finds it as it was: {again:?}");
        let released = settle(&mut allocator, Vec::new(), Owners::new(), 0, |address| {
            address == unknown
        });
        assert_eq!(released.len(), 1);
        assert_eq!(assign(&mut allocator, "late"), Some(unknown));
    }

    #[test]
    fn what_is_not_being_recovered_is_left_alone() {
        let mut allocator = allocator();
        assign(&mut allocator, "served meanwhile").unwrap();
        assert!(settle(&mut allocator, Vec::new(), Owners::new(), 0, |_| false).is_empty());
    }

    #[test]
    fn a_link_of_calicos_is_the_pods_that_holds_its_address_and_nobody_elses() {
        let mut allocator = allocator();
        let held = assign(&mut allocator, "kept").unwrap();
        let strange = assign(&mut allocator, "another").unwrap();
        let of = |pod| manx_linux::pod::calico_ifname("default", pod);
        let found = vec![live(&of("kept"), held), live(&of("third"), strange)];
        let records = settle(&mut allocator, found.clone(), Owners::new(), 0, |_| true);
        let holders = |allocator: &Allocator| {
            let held = allocator
                .allocations()
                .map(|held| (held.address, held.owner.container_id));
            held.collect::<BTreeMap<_, _>>()
        };
        let expected = [(held, "kept".to_owned()), (strange, QUARANTINE.to_owned())].into();
        assert_eq!((records.len(), holders(&allocator)), (2, expected));
        assert!(
            settle(&mut allocator, found, Owners::new(), 0, |_| true).is_empty(),
            "nor at the next start"
        );
    }

    #[test]
    fn an_address_is_held_by_whoever_has_its_interface() {
        let mut allocator = allocator();
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        let name = interface("c", "eth0");
        let owners = Owners::from([(name.clone(), owner("c"))]);
        let found = vec![live(&name, address)];
        assert_eq!(settle(&mut allocator, found, owners, 0, |_| true).len(), 1);
        let of: Vec<_> = allocator.held_by("c", "eth0").map(|held| held.address).collect();
        assert_eq!(of, [address]);
    }

    #[test]
    fn a_quarantined_address_is_its_attachments_as_soon_as_that_is_named() {
        let mut allocator = allocator();
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        let found = vec![live(&interface("c", "eth0"), address)];
        assert_eq!(settle(&mut allocator, found, Owners::new(), 0, |_| true).len(), 1);
        let of = |allocator: &Allocator| {
            let held = held(allocator, "c", "eth0");
            held.into_iter()
                .map(|held| (held.address, held.owner.container_id))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&allocator), [(address, QUARANTINE.to_owned())]);
        let records = identify(&mut allocator, &owner("c"), 0);
        assert_eq!(of(&allocator), [(address, "c".to_owned())]);
        assert_eq!(records.len(), 2);
        assert!(identify(&mut allocator, &owner("c"), 0).is_empty());
    }
}
