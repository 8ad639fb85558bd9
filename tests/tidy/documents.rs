//! The root documents are the ones agreed on, and what they name exists.

use crate::workspace::{document, root};

const DOCUMENTS: [&str; 5] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SPECIFICATION.md",
];

#[test]
fn the_root_has_its_documents_and_no_others() {
    let mut found: Vec<String> = std::fs::read_dir(root())
        .expect("the root")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.ends_with(".md"))
        .collect();
    found.sort();
    assert_eq!(found, DOCUMENTS);
}

/// Words in backquotes that look like paths of the tree: a slash inside, no space, no scheme, no pattern.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| {
        let relative = word.contains('/') && !word.starts_with(['/', '-', '~', '@', '.']);
        relative && !word.contains([' ', '{', '<', '*', '\n', ':', '|', '$'])
    })
}

#[test]
fn every_path_that_the_documents_name_exists() {
    for name in ["ARCHITECTURE.md", "CONTRIBUTING.md", "SPECIFICATION.md"] {
        let text = document(name);
        for path in paths(&text) {
            assert!(
                root().join(path).exists(),
                "{name} names `{path}`, which does not exist"
            );
        }
    }
}
