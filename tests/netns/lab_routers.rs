//! Racks behind routers of every make, and nodes behind reflectors: each proves itself.

use manx_lab::{Lab, Software, Topology};

use crate::lab_harness::{LabName, assert_proved};

/// Two racks, one of two nodes and one of one, in both families.
fn racks(name: &LabName, software: Software) -> Lab {
    name.up(Topology::Tor { software, racks: 2 }, 3, true)
}

/// Nodes peer with their router and with nobody else, and reach everybody.
fn proves_itself(software: Software) {
    let name = LabName::new();
    let lab = racks(&name, software);
    assert_proved(&lab);
    let peers = name.json("bgp peers");
    let seen: Vec<String> = peers
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| {
            format!(
                "{} {} {}",
                peer["node"].as_str().unwrap(),
                peer["address"].as_str().unwrap(),
                peer["asn"]
            )
        })
        .collect();
    let expected = [
        "node1 192.168.1.1 64513",
        "node1 fd00:192:168:1::1 64513",
        "node2 192.168.1.1 64513",
        "node2 fd00:192:168:1::1 64513",
        "node3 192.168.2.1 64514",
        "node3 fd00:192:168:2::1 64514",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn racks_behind_bird() {
    proves_itself(Software::Bird);
}

#[test]
fn racks_behind_frr() {
    // FRR gives its files to a user of its own, who is nobody in a user namespace.
    if !manx_tests::users::others_exist() {
        eprintln!("skipped: FRR needs root outside of a user namespace");
        return;
    }
    proves_itself(Software::Frr);
}

#[test]
fn racks_behind_gobgp() {
    proves_itself(Software::Gobgp);
}

#[test]
fn racks_behind_manx() {
    proves_itself(Software::Manx);
}

#[test]
fn nodes_behind_reflectors() {
    let name = LabName::new();
    let lab = name.up(Topology::Rr { reflectors: 2 }, 3, true);
    assert_proved(&lab);
    assert_eq!(
        name.json("bgp peers").as_array().unwrap().len(),
        6,
        "three nodes with two reflectors each"
    );
}
