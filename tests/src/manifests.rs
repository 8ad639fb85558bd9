//! What `deploy/` has for Kubernetes, as kubectl renders it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::tree::root;

/// The objects of a kustomization, by its folder below `deploy/` (empty for `deploy/` itself), in kubectl's order.
///
/// # Panics
/// Where kubectl is not there, or refuses the kustomization.
#[must_use]
pub fn rendered(folder: &str) -> Vec<Value> {
    let path = root().join("deploy").join(folder);
    let output = Command::new("kubectl").arg("kustomize").arg(&path).output();
    let output = output.expect("kubectl, of the Debian package kubernetes-client: make deps");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}", path.display());
    documents(&String::from_utf8(output.stdout).expect("UTF-8"))
}

/// The objects of a file of YAML.
///
/// # Panics
/// Where it cannot be read.
#[must_use]
pub fn of_file(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    documents(&text)
}

/// The objects of a text of YAML.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The blocks of this language in a file of `docs/`; of none, when it is empty.
///
/// # Panics
/// Where the file cannot be read.
#[must_use]
pub fn blocks(file: &str, language: &str) -> Vec<String> {
    let path = root().join("docs").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let fences: Vec<&str> = text.split("```").collect();
    let inside = fences.iter().skip(1).step_by(2);
    let parts = inside.filter_map(|fence| fence.split_once('\n'));
    let wanted = parts.filter(|(begin, _)| *begin == language);
    wanted.map(|(_, block)| block.to_owned()).collect()
}
