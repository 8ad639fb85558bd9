//! The manifests of `deploy/`, as kubectl renders them: that Kubernetes would take them, that what they name is there,
//! and that what they say to our own programs is what these understand.
//!
//! Each check is a function from objects to problems. What is shipped has none, and what is shipped with something
//! spoilt has the problem that is meant.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod admission;
mod documents;
mod forms;
mod helm;
mod names;
mod pods;
mod programs;

use std::path::Path;
use std::sync::LazyLock;

use manx_tests::manifests::{of_file, rendered};
use manx_tests::tree::root;
use serde_json::Value;

/// The objects of `deploy/` itself.
static ALL: LazyLock<Vec<Value>> = LazyLock::new(|| rendered(""));

/// The objects of everything that is shipped, and where they come from.
fn shipped() -> Vec<(String, Vec<Value>)> {
    let deploy = root().join("deploy");
    let mut shipped = Vec::new();
    let mut folders = vec![deploy.clone()];
    while let Some(folder) = folders.pop() {
        let name = |path: &Path| path.strip_prefix(&deploy).unwrap().to_str().unwrap().to_owned();
        if folder.join("kustomization.yaml").exists() {
            shipped.push((name(&folder), rendered(&name(&folder))));
        }
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if folder.ends_with("examples") {
                shipped.push((name(&path), of_file(&path)));
            }
        }
    }
    shipped
}

/// Whether an object is of this kind and has this name.
fn is(object: &Value, kind: &str, name: &str) -> bool {
    object["kind"] == kind && object["metadata"]["name"] == name
}

/// What an object is called in messages.
fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The items of a list; none where there is none.
fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// What is wrong with objects.
fn problems(objects: &[Value]) -> Vec<String> {
    let checks = [
        forms::problems,
        names::problems,
        pods::problems,
        programs::problems,
    ];
    checks.iter().flat_map(|check| check(objects)).collect()
}

#[test]
fn what_is_shipped_has_no_problem() {
    for (place, objects) in shipped() {
        let problems = problems(&objects);
        assert!(problems.is_empty(), "deploy/{place}:\n{}", problems.join("\n"));
    }
}

#[test]
fn one_folder_is_all_that_an_installation_needs() {
    let definitions = |objects: &[Value]| -> Vec<Value> {
        let definitions = objects
            .iter()
            .filter(|it| it["kind"] == "CustomResourceDefinition");
        definitions.cloned().collect()
    };
    assert_eq!(definitions(&ALL), definitions(&rendered("crds")));
    for (kind, name) in [
        ("Namespace", "manx-system"),
        ("ClusterRole", "manxd"),
        ("DaemonSet", "manxd"),
    ] {
        assert!(ALL.iter().any(|it| is(it, kind, name)), "no {kind} {name}");
    }
}

/// What is shipped with one thing spoilt, and the problem that this is.
fn spoilt(object: (&str, &str), pointer: &str, value: Value, problem: &str) {
    let mut objects = ALL.clone();
    let spoilt = objects
        .iter_mut()
        .find(|it| is(it, object.0, object.1))
        .expect("the object");
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let place = spoilt
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("no {parent}"));
    match field.parse::<usize>() {
        Ok(index) => place[index] = value,
        Err(_) => place[field] = value,
    }
    let problems = problems(&objects);
    assert!(
        problems.iter().any(|it| it.contains(problem)),
        "{pointer}: {problems:?}"
    );
}
