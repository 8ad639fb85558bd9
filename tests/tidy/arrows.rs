//! The crates depend on each other as ARCHITECTURE.md draws it, and on nothing else of the workspace.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::DependencyKind;

use crate::workspace::{METADATA, document, table};

/// Crate → the workspace crates it may depend on, from the table under `## Crates and arrows`.
fn drawn() -> BTreeMap<String, BTreeSet<String>> {
    table(&document("ARCHITECTURE.md"), "## Crates and arrows")
        .into_iter()
        .map(|row| {
            let name = row[1].trim_matches('`').to_owned();
            let arrows = row[3].split([',', ' ']).filter(|word| word.starts_with("`manx"));
            (
                name,
                arrows.map(|word| word.trim_matches('`').to_owned()).collect(),
            )
        })
        .collect()
}

/// Crate → the workspace crates it depends on, test-only dependencies aside.
fn built() -> BTreeMap<String, BTreeSet<String>> {
    METADATA
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let arrows = package
                .dependencies
                .iter()
                .filter(|dependency| {
                    dependency.path.is_some() && dependency.kind != DependencyKind::Development
                })
                .map(|dependency| dependency.name.clone());
            (package.name.to_string(), arrows.collect())
        })
        .collect()
}

#[test]
fn crates_depend_on_each_other_as_drawn() {
    assert_eq!(
        built(),
        drawn(),
        "left: Cargo.toml files; right: ARCHITECTURE.md, 'Crates and arrows'"
    );
}

#[test]
fn each_crate_says_its_role_in_its_first_line() {
    let roles: BTreeMap<String, String> = table(&document("ARCHITECTURE.md"), "## Crates and arrows")
        .into_iter()
        .map(|row| (row[1].trim_matches('`').to_owned(), row[2].clone()))
        .collect();
    for package in METADATA.workspace_packages() {
        let source = package.manifest_path.with_file_name("src").join("lib.rs");
        let text = std::fs::read_to_string(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let first = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("//! ")
            .trim_end_matches('.');
        assert_eq!(
            Some(first),
            roles
                .get(package.name.as_str())
                .map(|role| role.trim_end_matches('.')),
            "{source}"
        );
    }
}
