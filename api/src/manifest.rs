//! Manifests: resources as text, YAML (and so JSON), one or many to a file.
//!
//! A file's life: [`load`] reads every document into a tree that remembers lines ([`tree`]), takes lists
//! apart, deserializes each resource from its part of the tree ([`typed`]) and validates it. Whatever is
//! wrong becomes a [`ManifestError`] that names file, line, field and value, and says what would be right;
//! a resource with errors does not hide the next one's. No input panics, and documents that would grow
//! beyond bounds (deep nesting, alias bombs) are refused.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::DeserializeOwned;

use crate::meta::{nearest, suggestion};
use crate::{Kind, Resource, validate};

mod tree;
mod typed;

use tree::{Branch, Tree};

/// Bytes of a file.
const MAX_BYTES: usize = 16 << 20;

/// One thing wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The file, as it was named to [`load`].
    pub file: String,
    /// Counted from 1; none when the whole file is meant.
    pub line: Option<u64>,
    /// The document in a file of several, counted from 1.
    pub document: Option<usize>,
    /// Where in the document: `spec.cidr`, `items[2].metadata.name`. Empty for the document itself.
    pub field: String,
    /// What stands there, where that is a single value.
    pub value: Option<String>,
    /// What is wrong, with the value, and what would be right.
    pub message: String,
}

/// `pools.yaml:12: document 2: spec.cidr: '10.0.0.1/8' has host bits set: write 10.0.0.0/8`.
impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(document) = self.document {
            write!(f, ": document {document}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What is wrong somewhere in a document.
#[derive(Debug)]
struct Fault {
    line: Option<u64>,
    field: String,
    value: Option<String>,
    message: String,
}

/// Reads the resources of a file; `file_name` is only for messages. Documents may also be of `kind: List`;
/// empty ones are skipped.
///
/// # Errors
/// Every error of every resource, in the file's order. What cannot be read as YAML is one error.
pub fn load(file_name: &str, text: &str) -> Result<Vec<Resource>, Vec<ManifestError>> {
    load_into(file_name, text, None)
}

/// As [`load`]; resources of namespaced kinds that name no namespace are put into `namespace`.
///
/// # Errors
/// As of [`load`].
pub fn load_into(
    file_name: &str,
    text: &str,
    namespace: Option<&str>,
) -> Result<Vec<Resource>, Vec<ManifestError>> {
    let documents = match parse(text) {
        Ok(documents) => documents,
        Err(fault) => return Err(vec![error(file_name, None, fault)]),
    };
    let several = documents.len() > 1;
    let (mut resources, mut errors) = (Vec::new(), Vec::new());
    for (i, document) in documents.iter().enumerate() {
        let mut faults = Vec::new();
        read_document(document, namespace, &mut resources, &mut faults);
        let number = several.then_some(i + 1);
        errors.extend(faults.into_iter().map(|fault| error(file_name, number, fault)));
    }
    if errors.is_empty() {
        Ok(resources)
    } else {
        Err(errors)
    }
}

/// Reads a file of one document that is no resource: a program's configuration. An empty file is an empty map.
///
/// # Errors
/// The first thing wrong.
pub fn load_settings<T: DeserializeOwned>(file_name: &str, text: &str) -> Result<T, Box<ManifestError>> {
    let refuse = |fault| Box::new(error(file_name, None, fault));
    let documents = parse(text).map_err(refuse)?;
    let empty = Tree {
        line: 1,
        branch: Branch::Map(Vec::new()),
    };
    let document = match documents.as_slice() {
        [] => &empty,
        [
            Tree {
                branch: Branch::Null, ..
            },
        ] => &empty,
        [document] => document,
        [_, second, ..] => {
            return Err(refuse(
                second.fault("", "a configuration is one document".to_owned()),
            ));
        }
    };
    T::deserialize(typed::Value(document)).map_err(|misfit| refuse(misfit.at(document)))
}

/// Writes a resource as a YAML document, without the `---` that would stand before the next.
///
/// # Errors
/// None for any resource; the type is the serializer's.
pub fn to_yaml(resource: &Resource) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(resource)
}

/// Writes a resource as indented JSON.
///
/// # Errors
/// None for any resource; the type is the serializer's.
pub fn to_json(resource: &Resource) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(resource)
}

fn error(file: &str, document: Option<usize>, fault: Fault) -> ManifestError {
    let Fault {
        line,
        field,
        value,
        message,
    } = fault;
    let file = file.to_owned();
    ManifestError {
        file,
        line,
        document,
        field,
        value,
        message,
    }
}

fn parse(text: &str) -> Result<Vec<Tree>, Fault> {
    let refuse = |line, message| Fault {
        line,
        field: String::new(),
        value: None,
        message,
    };
    if text.len() > MAX_BYTES {
        let message = format!(
            "a file of {} bytes is refused: split it, {MAX_BYTES} are allowed",
            text.len()
        );
        return Err(refuse(None, message));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_documents: 100_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let line = error.location().map(|location| location.line());
        let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        // The place is told in our own way.
        let what = text.split(" at line ").next().unwrap_or_default();
        refuse(line, format!("this cannot be read as YAML: {what}"))
    })
}

fn read_document(
    document: &Tree,
    namespace: Option<&str>,
    resources: &mut Vec<Resource>,
    faults: &mut Vec<Fault>,
) {
    let items = match list_items(document) {
        Ok(items) => items,
        Err(fault) => return faults.push(fault),
    };
    let Some(items) = items else {
        return read_resource(document, "", namespace, resources, faults);
    };
    for (i, item) in items.iter().enumerate() {
        read_resource(item, &format!("items[{i}]."), namespace, resources, faults);
    }
}

/// The items of a `kind: List`; none when the document is no list.
fn list_items(document: &Tree) -> Result<Option<&[Tree]>, Fault> {
    let kind = document.get("kind").and_then(Tree::text);
    if kind != Some("List") {
        return Ok(None);
    }
    match document.get("items").map(|items| (&items.branch, items)) {
        Some((Branch::List(items), _)) => Ok(Some(items)),
        Some((_, items)) => Err(items.fault("items", format!("{} is no list of resources", items.words()))),
        None => Err(document.fault("items", "is missing: a List has items".to_owned())),
    }
}

/// Reads one resource; `prefix` is its place in the document.
fn read_resource(
    tree: &Tree,
    prefix: &str,
    namespace: Option<&str>,
    resources: &mut Vec<Resource>,
    faults: &mut Vec<Fault>,
) {
    match resource(tree) {
        Ok(mut resource) => {
            if resource.kind().is_namespaced() && resource.metadata().namespace.is_none() {
                resource.metadata_mut().namespace = namespace.map(str::to_owned);
            }
            let problems = validate(&resource);
            faults.extend(problems.into_iter().map(|problem| Fault {
                line: tree.line_of(&problem.field).or(Some(tree.line)),
                field: format!("{prefix}{}", problem.field),
                message: problem.sentence(),
                value: Some(problem.value),
            }));
            resources.push(resource);
        }
        Err(fault) => faults.push(Fault {
            field: format!("{prefix}{}", fault.field),
            ..fault
        }),
    }
}

fn resource(tree: &Tree) -> Result<Resource, Fault> {
    let Branch::Map(_) = &tree.branch else {
        let message = format!(
            "{} is no resource: expected apiVersion, kind, metadata and spec",
            tree.words()
        );
        return Err(tree.fault("", message));
    };
    let kind = kind(tree)?;
    api_version(tree, kind)?;
    Resource::deserialize_as(kind, typed::Body(tree)).map_err(|fault| fault.at(tree))
}

fn kind(tree: &Tree) -> Result<Kind, Fault> {
    // Two kinds may be called the same.
    let names = || -> BTreeSet<&str> { Kind::all().iter().map(|kind| kind.written()).collect() };
    let known = || names().into_iter().collect::<Vec<_>>().join(", ");
    let Some(stated) = tree.get("kind") else {
        return Err(tree.fault("kind", format!("is missing: write one of {}", known())));
    };
    let text = stated.text();
    let version = tree.get("apiVersion").and_then(Tree::text);
    text.and_then(|text| Kind::of(text, version)).ok_or_else(|| {
        let hint = suggestion(text.and_then(|text| nearest(text, names())));
        let message = format!(
            "{} is no kind of resource{hint}; the kinds are {}",
            stated.words(),
            known()
        );
        stated.fault("kind", message)
    })
}

fn api_version(tree: &Tree, kind: Kind) -> Result<(), Fault> {
    let called = Kind::all()
        .iter()
        .filter(|other| other.written() == kind.written());
    let right = called
        .map(|kind| kind.api_version())
        .collect::<Vec<_>>()
        .join(" or ");
    let Some(stated) = tree.get("apiVersion") else {
        return Err(tree.fault("apiVersion", format!("is missing: write {right}")));
    };
    if stated.text() == Some(kind.api_version()) {
        return Ok(());
    }
    let message = format!(
        "{} is no version of {}: write {right}",
        stated.words(),
        kind.written()
    );
    Err(stated.fault("apiVersion", message))
}
