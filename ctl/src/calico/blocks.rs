//! Calico's blocks of addresses: `IPAMBlock`, as the datastore has it, and `BlockAffinity`.
//!
//! A block keeps its node, and each address its pod, so that pods that run keep their addresses and nobody gets one a second
//! time. An address that a node borrowed of another's block becomes a lease of that one address. What holds an address
//! and is no pod is [refused](Refused): left out, its address would be given to a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::Metadata;
use manx_api::ipam::{
    Allocation, AttachmentId, IpBlock, IpBlockSpec, IpPool, Lease, LeaseState, PoolUse, block_name, pool_of,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Refused, refused};

/// The generation of a block that comes from elsewhere; the node that takes it up begins the next.
const GENERATION: u64 = 1;

/// The first sequence number of that generation.
const SEQUENCE: u64 = GENERATION << 32;

/// What every pod's first interface is called; Calico does not keep it.
const IFNAME: &str = "eth0";

/// What the affinity of a node's block begins with.
const HOST: &str = "host:";

/// The affinity of blocks whose addresses are services'.
const LOAD_BALANCER: &str = "virtual:load-balancer";

/// What is said of a resource: its place among those that were given, a field, and the rest.
pub(crate) type Said = (usize, String, String);

/// Calico's blocks in Manx's words.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Blocks {
    /// Blocks, and leases of single addresses.
    pub(crate) blocks: Vec<IpBlock>,
    /// What the user should know.
    pub(crate) notes: Vec<Said>,
    /// What cannot be said. If there is any, nothing of `blocks` may be used: what is missing among them would be given out.
    pub(crate) refused: Vec<(usize, Refused)>,
}

/// `spec` of an IPAMBlock, as far as it matters.
#[derive(Deserialize)]
struct BlockSpec {
    cidr: IpNetwork,
    affinity: Option<String>,
    /// For each address, which of `attributes` holds it.
    #[serde(default)]
    allocations: Vec<Option<usize>>,
    #[serde(default)]
    attributes: Vec<Attributes>,
    #[serde(default)]
    deleted: bool,
}

/// What Calico keeps of who holds addresses.
#[derive(Deserialize)]
struct Attributes {
    #[serde(alias = "handleID")]
    handle_id: Option<String>,
    #[serde(default)]
    secondary: BTreeMap<String, String>,
    /// It holds them no longer; they rest.
    #[serde(rename = "releasedAt")]
    released_at: Option<Value>,
}

/// `spec` of a BlockAffinity, as far as it matters.
#[derive(Deserialize)]
struct AffinitySpec {
    cidr: IpNetwork,
    #[serde(default)]
    node: String,
    #[serde(default)]
    state: String,
    #[serde(rename = "type", default)]
    kind: String,
}

/// Who holds an address.
struct Holder {
    owner: AttachmentId,
    /// The node that its pod is on, where Calico says so.
    node: Option<String>,
}

/// Says blocks in Manx's words, those of one node or of all. `given` is each IPAMBlock and BlockAffinity with its place.
pub(crate) fn convert(given: &[(usize, Value)], pools: &[IpPool], node: Option<&str>) -> Blocks {
    let mut found = Blocks::default();
    let mut hosts: BTreeMap<IpNetwork, Option<String>> = BTreeMap::new();
    let of_kind = |kind| given.iter().filter(move |(_, resource)| resource["kind"] == kind);
    for (place, resource) in of_kind("IPAMBlock") {
        let spec: BlockSpec = match read(resource) {
            Ok(spec) => spec,
            Err(refused) => {
                found.refused.push((*place, refused));
                continue;
            }
        };
        hosts.insert(spec.cidr, host(&spec).map(str::to_owned));
        match block(&spec, pools) {
            Ok(Ok(made)) => found.blocks.extend(made),
            Ok(Err(note)) => found.notes.push((*place, String::new(), note.to_owned())),
            Err(all) => found.refused.extend(all.into_iter().map(|it| (*place, it))),
        }
    }
    for (place, resource) in of_kind("BlockAffinity") {
        match read(resource).and_then(|spec| affinity(&spec, &hosts)) {
            Ok(None) => {}
            Ok(Some(note)) => found.notes.push((*place, "spec.state".to_owned(), note)),
            Err(refused) => found.refused.push((*place, refused)),
        }
    }
    found.refused.extend(twice(&found.blocks));
    found
        .blocks
        .retain(|block| node.is_none() || block.spec.node.as_deref() == node);
    found
}

/// A resource's `spec`.
fn read<T: for<'a> Deserialize<'a>>(resource: &Value) -> Result<T, Refused> {
    T::deserialize(&resource["spec"]).map_err(|error| refused("spec", error.to_string()))
}

/// The node that a block is affine to.
fn host(spec: &BlockSpec) -> Option<&str> {
    spec.affinity.as_deref()?.strip_prefix(HOST)
}

/// A block and the leases of its addresses; or why it is not needed.
fn block(spec: &BlockSpec, pools: &[IpPool]) -> Result<Result<Vec<IpBlock>, &'static str>, Vec<Refused>> {
    if spec.deleted {
        return Ok(Err("it is deleted"));
    }
    match spec.affinity.as_deref() {
        Some(LOAD_BALANCER) => return Ok(Err("services keep the addresses that their status says")),
        Some(other) if !other.starts_with(HOST) => {
            let message = format!("'{other}' is no node's: Manx's blocks are nodes' ('host:NAME')");
            return Err(vec![refused("spec.affinity", message)]);
        }
        Some(_) | None => {}
    }
    let pool = pool(spec.cidr, pools).map_err(|refused| vec![refused])?;
    let (mut own, mut lent) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for (index, held) in spec.allocations.iter().enumerate() {
        let Some(attribute) = held else { continue };
        let outcome = allocation(spec, index, *attribute);
        match outcome.map_err(|what| refused(&format!("spec.allocations[{index}]"), what)) {
            Ok(None) => {}
            Ok(Some((allocation, node))) => match node.or_else(|| host(spec).map(str::to_owned)) {
                Some(node) if Some(node.as_str()) != host(spec) => lent.push((allocation, node)),
                Some(_) => own.push(allocation),
                None => all.push(refused(
                    &format!("spec.allocations[{index}]"),
                    format!("nobody says on which node {} is", allocation.address),
                )),
            },
            Err(refused) => all.push(refused),
        }
    }
    if !all.is_empty() {
        return Err(all);
    }
    if host(spec).is_none() && lent.is_empty() {
        return Ok(Err("it is nobody's and nobody holds an address of it"));
    }
    let name = block_name(spec.cidr);
    let mut made = vec![resource(spec.cidr, &pool.metadata.name, host(spec), (own, None))];
    made.extend(lent.into_iter().map(|(allocation, node)| {
        let lease = Lease {
            of: name.clone(),
            state: LeaseState::Granted,
        };
        let part = IpNetwork::from(allocation.address);
        resource(
            part,
            &pool.metadata.name,
            Some(&node),
            (vec![allocation], Some(lease)),
        )
    }));
    Ok(Ok(made))
}

/// The pool of a block, which cuts its addresses as Calico's did.
fn pool(cidr: IpNetwork, pools: &[IpPool]) -> Result<&IpPool, Refused> {
    let Some(pool) = pool_of(cidr, pools) else {
        let message = format!("{cidr} is in no IPPool that was given: export the pools with the blocks");
        return Err(refused("spec.cidr", message));
    };
    let (name, size) = (&pool.metadata.name, pool.spec.block_size());
    if pool.spec.allowed_use() != PoolUse::Workload {
        return Err(refused(
            "spec.cidr",
            format!("{cidr} is in IPPool {name}, which is not for pods"),
        ));
    }
    if size != cidr.prefix() {
        let message = format!(
            "{cidr} is no block of IPPool {name}, whose blockSize is {size}: empty it with Calico first, or give the pool the \
             size of its blocks"
        );
        return Err(refused("spec.cidr", message));
    }
    Ok(pool)
}

/// An address that is held, and the node that its pod is on; none where it is no longer held.
fn allocation(
    spec: &BlockSpec,
    index: usize,
    attribute: usize,
) -> Result<Option<(Allocation, Option<String>)>, String> {
    let address = u32::try_from(index).ok().and_then(|index| nth(spec.cidr, index));
    let address = address.ok_or_else(|| format!("{} has no address number {index}", spec.cidr))?;
    let attributes = spec.attributes.get(attribute);
    let attributes = attributes.ok_or_else(|| format!("there is no spec.attributes[{attribute}]"))?;
    if attributes.released_at.as_ref().is_some_and(|at| !at.is_null()) {
        return Ok(None);
    }
    let Holder { owner, node } = holder(address, attributes)?;
    let sequence = SEQUENCE + u64::try_from(index).unwrap_or_default() + 1;
    let allocation = Allocation {
        address,
        sequence,
        owner,
    };
    Ok(Some((allocation, node)))
}

/// An address of a block by its number.
fn nth(cidr: IpNetwork, index: u32) -> Option<IpAddr> {
    match cidr {
        IpNetwork::V4(cidr) => cidr.nth(index).map(IpAddr::V4),
        IpNetwork::V6(cidr) => cidr.nth(index.into()).map(IpAddr::V6),
    }
}

/// The pod that holds an address.
fn holder(address: IpAddr, attributes: &Attributes) -> Result<Holder, String> {
    let handle = attributes.handle_id.as_deref().unwrap_or_default();
    let said = |name: &str| {
        let value = attributes.secondary.get(name).filter(|value| !value.is_empty());
        value.cloned()
    };
    if handle.eq_ignore_ascii_case("windows-reserved-ipam-handle") {
        return Err(format!(
            "{address} is kept for a Windows node, and Manx has none: take the node out of the cluster first"
        ));
    }
    if handle.contains("tunnel-addr-") {
        let node = said("node").unwrap_or_default();
        return Err(format!(
            "{address} is a tunnel's on node {node}: set ipipMode and vxlanMode of Calico's pools to Never, and \
             wireguardEnabled to false; Calico then frees it"
        ));
    }
    let (Some(namespace), Some(pod)) = (said("namespace"), said("pod")) else {
        return Err(format!(
            "{address} is held by '{handle}', which is no pod: free it with 'calicoctl ipam release --ip={address}'"
        ));
    };
    let container = handle.rsplit_once('.').map(|(_, container)| container);
    let is_id = |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some(container_id) = container.filter(is_id) else {
        return Err(format!(
            "{address} is held by '{handle}' of pod {namespace}/{pod}, which names no container, as a virtual machine's does: end \
             the pod first"
        ));
    };
    let owner = AttachmentId {
        container_id: container_id.to_owned(),
        ifname: IFNAME.to_owned(),
        namespace,
        pod,
        network: None,
    };
    Ok(Holder {
        owner,
        node: said("node"),
    })
}

fn resource(
    cidr: IpNetwork,
    pool: &str,
    node: Option<&str>,
    (allocations, lease): (Vec<Allocation>, Option<Lease>),
) -> IpBlock {
    IpBlock {
        metadata: Metadata {
            name: block_name(cidr),
            ..Metadata::default()
        },
        spec: IpBlockSpec {
            cidr,
            pool: pool.to_owned(),
            node: node.map(str::to_owned),
            generation: GENERATION,
            allocations,
            releases: Vec::new(),
            lease,
        },
    }
}

/// What an affinity says that the blocks do not.
fn affinity(
    spec: &AffinitySpec,
    hosts: &BTreeMap<IpNetwork, Option<String>>,
) -> Result<Option<String>, Refused> {
    if spec.kind == "virtual" {
        return Ok(None);
    }
    let (cidr, node) = (spec.cidr, &spec.node);
    match hosts.get(&cidr) {
        Some(Some(host)) if host == node => Ok(None),
        Some(host) => {
            let host = host
                .as_deref()
                .map_or_else(|| "nobody's".to_owned(), |host| format!("node {host}'s"));
            Ok(Some(format!(
                "'{}' for node {node}, but the block itself is {host}: that counts",
                spec.state
            )))
        }
        None if spec.state == "confirmed" => {
            let message = format!(
                "{cidr} is node {node}'s, and its IPAMBlock was not given: export the blocks with the affinities"
            );
            Err(refused("spec.cidr", message))
        }
        None => Ok(Some(format!(
            "'{}' for node {node}, and there is no block {cidr}: it is nobody's",
            spec.state
        ))),
    }
}

/// Attachments that hold more than one address of a family, which Manx has none of.
fn twice(blocks: &[IpBlock]) -> Vec<(usize, Refused)> {
    let allocations = blocks.iter().flat_map(|block| &block.spec.allocations);
    let mut seen = BTreeSet::new();
    let twice =
        allocations.filter(|held| !seen.insert((held.owner.container_id.clone(), held.address.is_ipv4())));
    twice
        .map(|held| {
            let AttachmentId { namespace, pod, .. } = &held.owner;
            let message = format!(
                "{} is not the only address of its family that pod {namespace}/{pod} holds, which a pod of Manx does: end the pod \
                 first",
                held.address
            );
            (0, refused("spec.allocations", message))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CONTAINER: &str = "8c6ff7c0e8b0a9";

    fn pools() -> Vec<IpPool> {
        let pool = json!({"metadata": {"name": "main"}, "spec": {"cidr": "10.1.0.0/16", "blockSize": 30}});
        vec![serde_json::from_value(pool).unwrap()]
    }

    fn given(kind: &str, spec: Value) -> Value {
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": "it"}, "spec": spec})
    }

    /// Who holds an address, as Calico has it.
    fn pod(name: &str, node: &str) -> Value {
        json!({"handle_id": format!("k8s-pod-network.{CONTAINER}{}", name.len()),
               "secondary": {"namespace": "shop", "pod": name, "node": node, "timestamp": "2026-01-01 00:00:00 UTC"}})
    }

    fn block(affinity: Option<&str>, allocations: &Value, attributes: &Value) -> Value {
        let spec = json!({"cidr": "10.1.0.4/30", "affinity": affinity, "allocations": allocations,
                          "unallocated": [], "attributes": attributes, "sequenceNumber": 7, "deleted": false,
                          "strictAffinity": false});
        given("IPAMBlock", spec)
    }

    fn converted(resources: Vec<Value>, node: Option<&str>) -> Blocks {
        let given: Vec<(usize, Value)> = resources.into_iter().enumerate().collect();
        convert(&given, &pools(), node)
    }

    /// What is said of a block with one address.
    fn told(affinity: &str, attributes: Value) -> String {
        let found = converted(
            vec![block(Some(affinity), &json!([0]), &json!([attributes]))],
            None,
        );
        assert_eq!(found.blocks, [], "nothing is to be used");
        let refused: Vec<String> = found.refused.iter().map(|(_, it)| it.to_string()).collect();
        refused.join("\n")
    }

    #[test]
    fn each_address_keeps_its_pod_and_what_rests_is_free() {
        let mut resting = pod("gone", "n1");
        resting["releasedAt"] = json!("2026-01-01T00:00:00Z");
        let attributes = json!([pod("till", "n1"), resting, pod("web-0", "n1")]);
        let found = converted(
            vec![block(Some("host:n1"), &json!([1, 2, null, 0]), &attributes)],
            None,
        );
        assert_eq!((&found.refused, &found.notes), (&vec![], &vec![]));
        let holder = |name: &str, sequence: u64, address: &str| {
            json!({"address": address, "sequence": sequence,
                   "owner": {"containerID": format!("{CONTAINER}{}", name.len()), "ifname": "eth0", "namespace": "shop", "pod": name}})
        };
        let allocations = [
            holder("web-0", (1 << 32) + 2, "10.1.0.5"),
            holder("till", (1 << 32) + 4, "10.1.0.7"),
        ];
        assert_eq!(
            serde_json::to_value(&found.blocks).unwrap(),
            json!([{"metadata": {"name": "10-1-0-4-30"},
                    "spec": {"cidr": "10.1.0.4/30", "pool": "main", "node": "n1", "generation": 1, "allocations": allocations}}])
        );
    }

    #[test]
    fn a_borrowed_address_is_a_lease_of_it() {
        let attributes = json!([pod("a", "n1"), pod("web", "n2")]);
        for (affinity, own) in [(Some("host:n1"), 1), (None, 0)] {
            let held = if own == 1 { json!([0, 1]) } else { json!([null, 1]) };
            let found = converted(vec![block(affinity, &held, &attributes)], None);
            let [block, lease] = found.blocks.as_slice() else {
                panic!("{found:?}");
            };
            assert_eq!(
                (block.spec.node.is_some(), block.spec.allocations.len()),
                (own == 1, own)
            );
            assert_eq!(
                (lease.metadata.name.as_str(), lease.spec.node.as_deref()),
                ("10-1-0-5-32", Some("n2"))
            );
            let expected = Lease {
                of: "10-1-0-4-30".to_owned(),
                state: LeaseState::Granted,
            };
            assert_eq!(
                (&lease.spec.lease, lease.spec.allocations.len()),
                (&Some(expected), 1)
            );
        }
        let of = |node| {
            converted(
                vec![block(Some("host:n1"), &json!([0, 1]), &attributes)],
                Some(node),
            )
            .blocks
            .len()
        };
        assert_eq!([of("n1"), of("n2"), of("n3")], [1, 1, 0], "each node has its own");
    }

    #[test]
    fn what_holds_an_address_and_is_no_pod_is_named() {
        let other = |handle: &str| json!({"handle_id": handle, "secondary": {"node": "n1"}});
        for (attributes, expected) in [
            (
                other("windows-reserved-ipam-handle"),
                "spec.allocations[0]: 10.1.0.4 is kept for a Windows node, and Manx has none: take the node out of the cluster first",
            ),
            (
                other("ipip-tunnel-addr-n1"),
                "spec.allocations[0]: 10.1.0.4 is a tunnel's on node n1: set ipipMode and vxlanMode of Calico's pools to Never, and \
                 wireguardEnabled to false; Calico then frees it",
            ),
            (
                other("by-hand"),
                "spec.allocations[0]: 10.1.0.4 is held by 'by-hand', which is no pod: free it with 'calicoctl ipam release --ip=10.1.0.4'",
            ),
            (
                json!({"handle_id": "k8s-pod-network.shop-machine", "secondary": {"namespace": "shop", "pod": "vm"}}),
                "spec.allocations[0]: 10.1.0.4 is held by 'k8s-pod-network.shop-machine' of pod shop/vm, which names no container, as a \
                 virtual machine's does: end the pod first",
            ),
        ] {
            assert_eq!(told("host:n1", attributes), expected);
        }
        let told = told("virtual:rack", pod("web", "n1"));
        assert!(
            told.starts_with("spec.affinity: 'virtual:rack' is no node's"),
            "{told}"
        );
        let pair = block(Some("host:n1"), &json!([0, 0]), &json!([pod("web", "n1")]));
        let found = converted(vec![pair], None);
        assert!(
            found.refused[0]
                .1
                .to_string()
                .contains("not the only address of its family that pod shop/web holds")
        );
    }

    #[test]
    fn a_block_is_its_pools() {
        let of = |cidr: &str| {
            let spec = json!({"cidr": cidr, "affinity": "host:n1", "allocations": [], "attributes": []});
            converted(vec![given("IPAMBlock", spec)], None).refused[0]
                .1
                .to_string()
        };
        assert_eq!(
            of("10.2.0.0/30"),
            "spec.cidr: 10.2.0.0/30 is in no IPPool that was given: export the pools with the blocks"
        );
        assert_eq!(
            of("10.1.0.0/26"),
            "spec.cidr: 10.1.0.0/26 is no block of IPPool main, whose blockSize is 30: empty it with Calico first, or give the pool \
             the size of its blocks"
        );
    }

    #[test]
    fn what_nobody_has_is_not_needed_and_affinities_are_compared() {
        let nothing = || block(None, &json!([null]), &json!([]));
        let services = block(
            Some("virtual:load-balancer"),
            &json!([0]),
            &json!([{"handle_id": "lb-1"}]),
        );
        let mut deleted = block(Some("host:n1"), &json!([0]), &json!([pod("web", "n1")]));
        deleted["spec"]["deleted"] = json!(true);
        for block in [nothing(), services, deleted] {
            let found = converted(vec![block], None);
            assert_eq!(
                (found.blocks.len(), found.refused.len(), found.notes.len()),
                (0, 0, 1),
                "{found:?}"
            );
        }
        let affinity = |cidr: &str, state: &str, node: &str| {
            given(
                "BlockAffinity",
                json!({"cidr": cidr, "state": state, "node": node, "deleted": "false"}),
            )
        };
        let own = || block(Some("host:n1"), &json!([]), &json!([]));
        let same = converted(vec![own(), affinity("10.1.0.4/30", "confirmed", "n1")], None);
        assert_eq!((same.blocks.len(), same.notes.len()), (1, 0));
        let other = converted(vec![own(), affinity("10.1.0.4/30", "confirmed", "n2")], None);
        assert!(other.notes[0].2.contains("node n1's: that counts"), "{other:?}");
        let pending = converted(vec![affinity("10.1.0.8/30", "pending", "n2")], None);
        assert_eq!((pending.notes.len(), pending.refused.len()), (1, 0));
        let missing = converted(vec![affinity("10.1.0.8/30", "confirmed", "n2")], None);
        assert!(
            missing.refused[0]
                .1
                .to_string()
                .contains("its IPAMBlock was not given"),
            "{missing:?}"
        );
    }

    #[test]
    fn no_block_panics() {
        for spec in [
            json!({}),
            json!({"cidr": "10.1.0.5/30", "affinity": "host:", "allocations": [0], "attributes": [{}]}),
            json!({"cidr": "10.1.0.4/30", "affinity": "host:n1", "allocations": [0], "attributes": []}),
            json!({"cidr": "10.1.0.4/30", "affinity": "host:n1", "allocations": [null, null, null, null, 0], "attributes": [pod("a", "n1")]}),
            json!({"cidr": "::/0", "affinity": "host:n1", "allocations": [-1]}),
        ] {
            assert!(
                !converted(vec![given("IPAMBlock", spec.clone())], None)
                    .refused
                    .is_empty(),
                "{spec}"
            );
        }
    }
}
