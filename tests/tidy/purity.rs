//! The pure crates reach no I/O through any dependency, and `unsafe` stays in its two rooms.

use std::collections::{BTreeSet, VecDeque};

use cargo_metadata::DependencyKind;

use crate::workspace::{METADATA, root, rust_files};

const PURE: [&str; 5] = ["manx-api", "manx-bgp", "manx-ipam", "manx-routes", "manx-policy"];
const IMPURE: [&str; 9] = [
    "tokio",
    "mio",
    "socket2",
    "nix",
    "netlink-sys",
    "rtnetlink",
    "rusqlite",
    "inotify",
    "kube",
];

#[test]
fn pure_crates_reach_no_input_and_no_output() {
    let resolve = METADATA.resolve.as_ref().expect("cargo metadata resolves");
    for pure in PURE {
        let start = METADATA
            .packages
            .iter()
            .find(|package| package.name == pure)
            .expect("a workspace crate");
        let mut seen = BTreeSet::from([&start.id]);
        let mut queue = VecDeque::from([&start.id]);
        while let Some(id) = queue.pop_front() {
            let node = resolve
                .nodes
                .iter()
                .find(|node| node.id == *id)
                .expect("a resolved crate");
            for dependency in &node.deps {
                let normal = dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal);
                let name = &METADATA[&dependency.pkg].name;
                assert!(
                    !normal || !IMPURE.contains(&name.as_str()),
                    "{pure} reaches {name}"
                );
                if normal && seen.insert(&dependency.pkg) {
                    queue.push_back(&dependency.pkg);
                }
            }
        }
    }
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let rooms = [root().join("linux"), root().join("bgp/daemon/src/sockopt.rs")];
    for file in rust_files() {
        if rooms.iter().any(|room| file.starts_with(room)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source file");
        let offender = text
            .lines()
            .position(|line| line.trim_start().starts_with("unsafe "));
        assert_eq!(offender, None, "unsafe code in {}", file.display());
        assert!(
            !text.contains(concat!("= uns", "afe {")),
            "unsafe code in {}",
            file.display()
        );
    }
}
