//! What cargo and the root documents say of the tree.

use std::sync::LazyLock;

use cargo_metadata::{Metadata, MetadataCommand};
pub(crate) use manx_tests::tree::{root, rust_files};

/// The workspace with all its dependencies resolved, read once.
pub(crate) static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
    // Only this platform's crates: the others' were never downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--offline", "--locked", "--filter-platform", &platform].map(str::to_owned))
        .exec()
        .expect("cargo metadata reads the workspace")
});

/// A root document's text.
pub(crate) fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The cells of each row of the table under `heading` in a Markdown text, without its header.
pub(crate) fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let rows: Vec<Vec<String>> = text
        .lines()
        .skip_while(|line| *line != heading)
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "no table under {heading:?}");
    rows
}
