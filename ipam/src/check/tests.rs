//! What is found, and what is not, in evidence that is changed in one place.

use manx_api::Resource;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SEQUENCE: u64 = 1 << 32;

fn resource(kind: &str, name: &str, namespace: Option<&str>, spec: &Value) -> Resource {
    serde_json::from_value(json!({
        "apiVersion": "manx.network/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    }))
    .unwrap()
}

fn owner(container: &str) -> Value {
    json!({"containerID": container, "ifname": "eth0", "namespace": "shop", "pod": container})
}

fn held(address: &str, container: &str) -> Value {
    let last: u64 = address.rsplit(['.', ':']).next().unwrap().parse().unwrap();
    json!({"address": address, "sequence": SEQUENCE + 1 + last, "owner": owner(container)})
}

fn block(cidr: &str, node: &str, allocations: &[Value]) -> IpBlock {
    let cidr: IpNetwork = cidr.parse().unwrap();
    let spec =
        json!({"cidr": cidr, "pool": "blue", "node": node, "generation": 1, "allocations": allocations});
    let name = manx_api::ipam::block_name(cidr);
    IpBlock::try_from(resource("IPBlock", &name, None, &spec)).unwrap()
}

fn workload(node: &str, container: &str, address: &str) -> WorkloadEndpoint {
    let spec = json!({
        "node": node, "pod": container, "containerID": container, "endpoint": "eth0",
        "interfaceName": format!("mx{container}"), "addresses": [address],
    });
    let name = format!("{node}-{container}-eth0");
    WorkloadEndpoint::try_from(resource("WorkloadEndpoint", &name, Some("shop"), &spec)).unwrap()
}

fn interface(container: &str, addresses: &[&str]) -> Value {
    json!({"name": format!("mx{container}"), "attachment": owner(container), "addresses": addresses})
}

fn report(node: &str, blocks: &[&IpBlock], interfaces: &[Value]) -> NodeReport {
    let blocks: Vec<Value> = blocks
        .iter()
        .map(|block| {
            json!({"node": node, "cidr": block.spec.cidr, "pool": "blue", "capacity": 64,
                "allocations": block.spec.allocations})
        })
        .collect();
    let value = json!({"node": node, "blocks": blocks, "interfaces": interfaces, "tombstones": []});
    serde_json::from_value(value).unwrap()
}

/// Two nodes with a pod each, where all is well.
fn healthy() -> Evidence {
    let pool = resource("IPPool", "blue", None, &json!({"cidr": "10.0.0.0/16"}));
    let (one, two) = (
        block("10.0.0.0/26", "n1", &[held("10.0.0.1", "a")]),
        block("10.0.0.64/26", "n2", &[held("10.0.0.65", "b")]),
    );
    Evidence {
        pools: vec![IpPool::try_from(pool).unwrap()],
        reserved: Vec::new(),
        nodes: ["n1", "n2"].map(str::to_owned).into(),
        workloads: vec![workload("n1", "a", "10.0.0.1"), workload("n2", "b", "10.0.0.65")],
        reports: vec![
            report("n1", &[&one], &[interface("a", &["10.0.0.1"])]),
            report("n2", &[&two], &[interface("b", &["10.0.0.65"])]),
        ],
        blocks: vec![one, two],
    }
}

fn found(evidence: &Evidence) -> Vec<String> {
    let line = |finding: &Finding| format!("{:?}: {finding}", finding.class);
    check(evidence).iter().map(line).collect()
}

/// What is found after a change of what was well.
fn after(change: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut evidence = healthy();
    change(&mut evidence);
    found(&evidence)
}

#[test]
fn nothing_is_found_where_all_is_well() {
    assert_eq!(after(|_| {}), Vec::<String>::new());
    let unasked = after(|evidence| evidence.reports.clear());
    assert_eq!(unasked, Vec::<String>::new(), "the datastore alone");
}

#[test]
fn an_allocation_whose_interface_is_gone_is_leaked_and_told_of_once() {
    let lines = after(|evidence| {
        evidence.reports[0].interfaces.clear();
        evidence.workloads.remove(0);
    });
    assert_eq!(
        lines,
        ["Leaked: 10.0.0.1 on n1 (shop/a, sequence 4294967298): its interface is gone"]
    );
    let lines =
        after(|evidence| evidence.reports[0].interfaces[0].addresses = vec!["10.0.0.2".parse().unwrap()]);
    assert_eq!(
        lines,
        [
            "NotAllocated: 10.0.0.2 on n1: interface mxa has it, and it is held for nobody",
            "Leaked: 10.0.0.1 on n1 (shop/a, sequence 4294967298): interface mxa carries 10.0.0.2 instead",
        ]
    );
}

#[test]
fn an_interface_without_a_route_is_in_use() {
    let lines = after(|evidence| evidence.reports[0].interfaces[0].addresses.clear());
    assert_eq!(
        lines,
        ["Unrouted: 10.0.0.1 on n1 (shop/a, sequence 4294967298): no route leads to interface mxa"]
    );
}

#[test]
fn a_node_that_was_not_asked_is_judged_by_the_datastore() {
    let lines = after(|evidence| {
        evidence.reports.remove(0);
        evidence.workloads.remove(0);
    });
    assert_eq!(
        lines,
        ["NoWorkload: 10.0.0.1 on n1 (shop/a, sequence 4294967298): there is no WorkloadEndpoint for it"]
    );
}

#[test]
fn addresses_in_use_that_nobody_holds_are_found_in_the_kernel_and_in_the_datastore() {
    let lines = after(|evidence| {
        let stranger = json!({"name": "mxstranger", "addresses": ["10.0.0.9", "192.0.2.1"]});
        evidence.reports[0]
            .interfaces
            .push(serde_json::from_value(stranger).unwrap());
        evidence.workloads.push(workload("n2", "c", "10.0.0.70"));
        evidence.workloads.push(workload("n2", "d", "192.0.2.2"));
    });
    assert_eq!(
        lines,
        [
            "NotAllocated: 10.0.0.9 on n1: interface mxstranger has it, and it is held for nobody",
            "OutsidePools: 192.0.2.1 on n1: interface mxstranger has it, and it is in no IPPool",
            "OutsidePools: 192.0.2.2 on n2: WorkloadEndpoint shop/n2-d-eth0 has it, and it is in no IPPool",
            "WorkloadUnallocated: 10.0.0.70 on n2: WorkloadEndpoint shop/n2-c-eth0 has it, and it is held for nobody",
        ]
    );
}

#[test]
fn an_address_in_two_places_is_found() {
    let lines = after(|evidence| {
        let copy = interface("a", &["10.0.0.1"]);
        evidence.reports[1]
            .interfaces
            .push(serde_json::from_value(copy).unwrap());
    });
    assert!(
        lines
            .contains(&"Duplicate: 10.0.0.1: interface mxa of n1 and interface mxa of n2 have it".to_owned()),
        "{lines:#?}"
    );
    let lines = after(|evidence| {
        evidence.reports.clear();
        evidence.workloads.push(workload("n2", "z", "10.0.0.1"));
    });
    assert_eq!(
        lines[0],
        "Duplicate: 10.0.0.1: pod shop/a on n1 and pod shop/z on n2 have it"
    );
    let lines = after(|evidence| {
        let stolen = evidence.reports[0].blocks[0].clone();
        evidence.reports[1].blocks.push(BlockStatus {
            node: "n2".to_owned(),
            ..stolen
        });
    });
    assert_eq!(
        lines,
        [
            "Duplicate: 10.0.0.1: n1 and n2 give out it",
            "InconsistentBlock: 10.0.0.0/26 on n2: n2 has it, and the datastore gives it to n1",
        ]
    );
}

#[test]
fn a_checkpoint_that_is_behind_is_told_of_address_by_address() {
    let lines = after(|evidence| {
        evidence.blocks[0].spec.allocations = vec![serde_json::from_value(held("10.0.0.3", "old")).unwrap()];
    });
    assert_eq!(
        lines,
        [
            "CheckpointBehind: 10.0.0.1 on n1 (shop/a, sequence 4294967298): the owner holds it, and its checkpoint does not say so",
            "CheckpointBehind: 10.0.0.3 on n1 (shop/old, sequence 4294967300): the checkpoint holds it, and its owner does not (any more)",
        ]
    );
}

/// What is done to what was well, and what is found then.
type Case = (fn(&mut Evidence), &'static str);

#[test]
fn blocks_that_cannot_be_are_inconsistent() {
    let cases: [Case; 12] = [
        (|it| it.pools.clear(), "it is in no IPPool"),
        (
            |it| it.pools[0].spec.block_size = Some(28),
            "it is a /26, and IPPool blue is cut into /28",
        ),
        (
            |it| it.blocks[0].metadata.name = "other".into(),
            "is not the name of block",
        ),
        (
            |it| it.blocks[0].spec.allocations[0].address = "10.9.9.9".parse().unwrap(),
            "'10.9.9.9' is not in 10.0.0.0/26",
        ),
        (
            |it| {
                let twice = it.blocks[0].spec.allocations[0].clone();
                it.blocks[0].spec.allocations.push(twice);
            },
            "is allocated twice",
        ),
        (
            |it| it.blocks[0].spec.allocations[0].sequence = 7 << 32,
            "which the block has not reached",
        ),
        (
            |it| it.blocks[0].spec.node = None,
            "nobody owns it, and addresses are held in it",
        ),
        (
            |it| drop(it.blocks.remove(0)),
            "n1 has it, and the datastore has not",
        ),
        (
            |it| it.reports[0].blocks.clear(),
            "its owner's agent knows nothing of it",
        ),
        (
            |it| it.reports[0].blocks[0].capacity = 0,
            "its owner counts 0 addresses, 1 of them held",
        ),
        (
            |it| it.reports[0].blocks[0].capacity = 65,
            "its owner counts 65 addresses",
        ),
        (
            |it| it.blocks.push(block("10.0.0.0/25", "n2", &[])),
            "it overlaps 10.0.0.0/25 of n2, which does not lend it",
        ),
    ];
    for (change, wanted) in cases {
        let lines = after(change);
        let found = |line: &String| line.starts_with("InconsistentBlock") && line.contains(wanted);
        assert!(lines.iter().any(found), "{wanted}: {lines:#?}");
    }
}

/// A lease of n1's block to n2.
fn lease(cidr: &str, state: &str) -> IpBlock {
    let mut lease = block(cidr, "n2", &[]);
    let value = json!({"of": "10-0-0-0-26", "state": state});
    lease.spec.lease = Some(serde_json::from_value(value).unwrap());
    lease
}

#[test]
fn leases_are_consistent_with_a_lender_that_keeps_away_from_them() {
    let with = |cidr: &str, state: &str| {
        after(|it| {
            it.blocks.push(lease(cidr, state));
            it.reports.truncate(1);
        })
    };
    assert_eq!(with("10.0.0.16/28", "Granted"), Vec::<String>::new());
    assert_eq!(with("10.0.0.0/28", "Requested"), Vec::<String>::new());
    assert_eq!(
        with("10.0.0.0/28", "Granted"),
        ["InconsistentBlock: 10.0.0.0/28 on n2: 10.0.0.1 is held in 10.0.0.0/26, which lends it"]
    );
    let orphan = after(|it| {
        it.blocks[0] = lease("10.0.0.16/28", "Granted");
        it.reports.clear();
        it.workloads.remove(0);
    });
    assert_eq!(
        orphan,
        ["InconsistentBlock: 10.0.0.16/28 on n2: it is lent by 10-0-0-0-26, which is not there"]
    );
    let ownerless = after(|it| {
        it.blocks[0].spec.node = None;
        it.blocks[0].spec.allocations.clear();
        it.blocks.push(lease("10.0.0.16/28", "Granted"));
        it.reports.clear();
        it.workloads.remove(0);
    });
    assert_eq!(ownerless, Vec::<String>::new());
    let own = after(|it| {
        let mut lease = lease("10.0.0.16/28", "Requested");
        lease.spec.node = Some("n1".to_owned());
        it.blocks.push(lease);
    });
    assert_eq!(
        own,
        ["InconsistentBlock: 10.0.0.16/28 on n1: n1 lends it to itself"]
    );
}

#[test]
fn what_waits_for_somebody_is_told_of() {
    let lines = after(|it| {
        it.nodes.remove("n2");
        it.reports.truncate(1);
        let tombstone = json!([{"containerID": "a", "ifname": "eth0"}]);
        it.reports[0].tombstones = serde_json::from_value(tombstone).unwrap();
        it.reserved.push("10.0.0.0/30".parse().unwrap());
    });
    assert_eq!(
        lines,
        [
            "OwnerGone: 10.0.0.64/26 on n2: its owner is no Node: the other nodes' agents free it when its routes are gone",
            "Tombstone: on n1: container a eth0",
            "Reserved: 10.0.0.1 on n1 (shop/a, sequence 4294967298): it is reserved: it was asked for, or given before",
        ]
    );
    assert!(!Class::Reserved.is_problem());
}

#[test]
fn a_quarantine_lasts_while_its_interface_does() {
    let quarantined = |interfaces: bool| {
        after(|it| {
            let owner = json!({"containerID": "quarantine", "ifname": "mx9", "namespace": "quarantine", "pod": "mx9"});
            let held = json!({"address": "10.0.0.9", "sequence": SEQUENCE + 9, "owner": owner});
            it.blocks[0]
                .spec
                .allocations
                .push(serde_json::from_value(held).unwrap());
            it.reports[0].blocks[0].allocations = it.blocks[0].spec.allocations.clone();
            let interface = json!({"name": "mx9", "attachment": owner, "addresses": ["10.0.0.9"]});
            let interface = serde_json::from_value(interface).unwrap();
            it.reports[0].interfaces.extend(interfaces.then_some(interface));
        })
    };
    let line = quarantined(true);
    assert_eq!(line.len(), 1, "{line:?}");
    assert!(line[0].starts_with("Quarantined: 10.0.0.9 on n1"), "{line:?}");
    assert!(quarantined(false)[0].starts_with("Leaked: 10.0.0.9 on n1"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_the_evidence_does_not_matter(order in Just([0_usize, 1, 2, 3]).prop_shuffle(), gone: bool) {
        let mut evidence = healthy();
        evidence.blocks.push(lease("10.0.0.0/28", "Granted"));
        evidence.blocks.push(block("10.0.0.0/25", "n2", &[held("10.0.0.65", "x")]));
        evidence.workloads.push(workload("n1", "c", "10.0.0.65"));
        if gone {
            evidence.reports.clear();
        }
        let wanted = check(&evidence);
        prop_assert!(!wanted.is_empty());
        let mut shuffled = evidence.clone();
        shuffled.blocks = order.iter().map(|i| evidence.blocks[*i].clone()).collect();
        shuffled.workloads.reverse();
        shuffled.reports.reverse();
        prop_assert_eq!(check(&shuffled), wanted);
    }
}
