//! Every crate that ships in our binaries has a licence that goes with Apache-2.0.

use crate::workspace::METADATA;

const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression can be met with allowed licences: every `AND` part has an allowed `OR` choice.
fn acceptable(expression: &str) -> bool {
    expression
        .replace(['(', ')'], "")
        .replace('/', " OR ")
        .split(" AND ")
        .all(|part| {
            part.split(" OR ")
                .any(|licence| ALLOWED.contains(&licence.trim()))
        })
}

#[test]
fn every_dependency_has_an_acceptable_licence() {
    let offenders: Vec<String> = METADATA
        .packages
        .iter()
        .filter(|package| !package.license.as_deref().is_some_and(acceptable))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert_eq!(offenders, Vec::<String>::new());
}

#[test]
fn an_expression_is_met_only_when_every_part_is() {
    assert!(acceptable("MIT OR GPL-3.0"));
    assert!(acceptable("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!acceptable("MIT AND GPL-3.0"));
    assert!(!acceptable("GPL-3.0"));
}
