//! The committed definitions are those of the types, are structural, and judge as `validate` does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cel::{Context, Program};
use ipnetwork::IpNetwork;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::{definition, structural_of};
use crate::manifest::load;
use crate::{Kind, Problem, Resource, validate};

/// What `validate` refuses and no schema can: the kind, and the field without its indices. Of most of them a schema
/// refuses other values.
const BEYOND: &[(&str, &str)] = &[
    // Networks and addresses by what they are.
    ("BGPPeer", "spec.peerIP"),
    ("HostEndpoint", "spec.expectedIPs"),
    ("HostEndpoint", "spec.ports.name"),
    ("HostEndpoint", "spec.ports.protocol"),
    ("IPBlock", "metadata.name"),
    ("IPBlock", "spec.cidr"),
    ("IPPool", "spec.blockSize"),
    ("IPPool", "spec.cidr"),
    ("IPReservation", "spec.reservedCIDRs"),
    ("GlobalNetworkSet", "spec.nets"),
    ("NetworkSet", "spec.nets"),
    ("Node", "spec.bgp.ipv4Address"),
    ("Node", "spec.bgp.ipv6Address"),
    ("WorkloadEndpoint", "spec.addresses"),
    ("WorkloadEndpoint", "spec.allowedSourcePrefixes"),
    ("BGPFilter", "spec.importV4.cidr"),
    // Elements of lists, beside each other and in themselves.
    ("BGPFilter", "spec.importV4.matchOperator"),
    ("BGPFilter", "spec.importV4.operations"),
    ("BGPFilter", "spec.exportV4.operations.setPriority.value"),
    ("BGPFilter", "spec.importV4.prefixLength"),
    ("BGPFilter", "spec.importV4.priority"),
    ("IPBlock", "spec.allocations.address"),
    ("IPBlock", "spec.lease.of"),
    ("IPBlock", "spec.releases.address"),
    // Metadata, which the API server judges itself, and annotations, which nobody does.
    ("Node", "metadata.annotations"),
    ("Node", "metadata.labels"),
    ("Node", "metadata.labels[app]"),
    ("Node", "metadata.name"),
    ("Node", "metadata.namespace"),
    ("WorkloadEndpoint", "metadata.namespace"),
    ("IPPool", "metadata.annotations[manx.network/split-into]"),
    (
        "GlobalNetworkSet",
        "metadata.labels[projectcalico.org/orchestrator]",
    ),
    ("NetworkSet", "metadata.labels[projectcalico.org/orchestrator]"),
];

/// Asserts that the schema says of `document` what `problems` say of it, where a schema can.
pub(crate) fn agrees(document: &Value, problems: &[Problem]) {
    let Some(said) = judge(document) else { return };
    if problems.is_empty() {
        assert_eq!(said, [] as [String; 0], "the schema refuses {document}");
    } else if said.is_empty() {
        for problem in problems {
            let field = without_indices(&problem.field);
            let kind = document["kind"].as_str().unwrap();
            assert!(
                BEYOND.contains(&(kind, &field)) || in_a_rule(&field),
                "the schema accepts {document}, though {problem}: say it there, or list it here as ({kind}, {field})"
            );
        }
    }
}

/// Rules of policies are elements of lists, of which no CEL is asked.
fn in_a_rule(field: &str) -> bool {
    let inside = |list| field.strip_prefix(list).is_some_and(|rest| rest.starts_with('.'));
    inside("spec.ingress") || inside("spec.egress") || field.contains("elector")
}

/// `spec.nets[1]` as `spec.nets`; keys of labels stay.
fn without_indices(field: &str) -> String {
    let mut text = String::new();
    for part in field.split('[') {
        match part.split_once(']') {
            Some((index, rest)) if index.bytes().all(|b| b.is_ascii_digit()) => text += rest,
            Some(_) => text += &format!("[{part}"),
            None => text += part,
        }
    }
    text
}

/// What an API server would say of a document that is written with `--validate=strict`: none for kinds that are not
/// ours.
fn judge(document: &Value) -> Option<Vec<String>> {
    let version = document["apiVersion"].as_str()?;
    let kind =
        Kind::of(document["kind"].as_str()?, Some(version)).filter(|kind| kind.api_version() == version)?;
    let (schema, validator) = validators().get(&kind)?;
    let mut said = Vec::new();
    let settled = settle(document, schema, "", &mut said);
    said.extend(
        validator
            .iter_errors(&settled)
            .map(|error| format!("{}: {error}", error.instance_path())),
    );
    twice(&settled, schema, &mut said);
    if said.is_empty() {
        ask_rules(&settled, schema, &mut said);
    }
    Some(said)
}

fn validators() -> &'static BTreeMap<Kind, (Value, Validator)> {
    static VALIDATORS: OnceLock<BTreeMap<Kind, (Value, Validator)>> = OnceLock::new();
    VALIDATORS.get_or_init(|| {
        let of = |kind: &Kind| {
            let schema = structural_of(*kind)?;
            let validator = jsonschema::options()
                .should_validate_formats(true)
                .with_format("cidr", |text| {
                    text.contains('/') && text.parse::<IpNetwork>().is_ok()
                })
                .build(&schema)
                .unwrap();
            Some((*kind, (schema, validator)))
        };
        Kind::all().iter().filter_map(of).collect()
    })
}

/// The document as an API server takes it: without nulls and with defaults. Tells of unknown fields.
fn settle(value: &Value, schema: &Value, place: &str, said: &mut Vec<String>) -> Value {
    match value {
        Value::Object(fields) => {
            let mut settled = Map::new();
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let inner = schema.pointer(&format!("/properties/{name}"));
                let inner = inner.or_else(|| schema.get("additionalProperties"));
                let place = format!("{place}.{name}");
                if inner.is_none() && !place.starts_with(".metadata") {
                    said.push(format!("{place}: unknown field"));
                }
                settled.insert(
                    name.clone(),
                    settle(value, inner.unwrap_or(&Value::Null), &place, said),
                );
            }
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = schema.get("default") {
                    let fill = || settle(default, schema, &format!("{place}.{name}"), said);
                    settled.entry(name).or_insert_with(fill);
                }
            }
            Value::Object(settled)
        }
        Value::Array(items) => items
            .iter()
            .map(|item| settle(item, &schema["items"], place, said))
            .collect(),
        // CEL takes them for different things.
        Value::Number(number) if schema["type"] == "number" => json!(number.as_f64()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// What stands twice in a set.
fn twice(value: &Value, schema: &Value, said: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                twice(value, &schema["properties"][name], said);
            }
        }
        Value::Array(items) => {
            let set = schema["x-kubernetes-list-type"] == "set";
            for (i, item) in items.iter().enumerate() {
                if set && items[..i].contains(item) {
                    said.push(format!("{item} stands twice"));
                }
                twice(item, &schema["items"], said);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Rules that look at the value by itself, wherever they stand.
fn ask_rules(value: &Value, schema: &Value, said: &mut Vec<String>) {
    for rule in rules(schema).filter(|rule| !is_transition(rule)) {
        if !holds(rule, value, None) {
            said.push(rule["message"].as_str().unwrap().to_owned());
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        ask_rules(value, &schema["properties"][name], said);
    }
}

fn rules(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
}

fn is_transition(rule: &Value) -> bool {
    rule["rule"].as_str().unwrap().contains("oldSelf")
}

fn holds(rule: &Value, value: &Value, old: Option<&Value>) -> bool {
    let text = rule["rule"].as_str().unwrap();
    let program = Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let mut context = Context::default();
    context.add_variable("self", value).unwrap();
    if let Some(old) = old {
        context.add_variable("oldSelf", old).unwrap();
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(holds)) => holds,
        other => panic!("{text}: {other:?} of {value}"),
    }
}

/// Asserts that the schema refuses the change of a specification if and only if `refused`.
pub(crate) fn agrees_on_update(old: &Value, new: &Value, refused: bool) {
    let kind = Kind::of(old["kind"].as_str().unwrap(), old["apiVersion"].as_str()).unwrap();
    let (schema, _) = &validators()[&kind];
    let settled = |document| settle(document, schema, "", &mut Vec::new());
    let (old, new) = (settled(old), settled(new));
    let spec = &schema["properties"]["spec"];
    let kept = rules(spec)
        .filter(|rule| is_transition(rule))
        .all(|rule| holds(rule, &new["spec"], Some(&old["spec"])));
    assert_eq!(!kept, refused, "{old} to {new}");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds")
}

/// Set `MANX_UPDATE=1` to write them anew.
#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let update = std::env::var_os("MANX_UPDATE").is_some();
    let mut files = Vec::new();
    for (kind, definition) in Kind::all()
        .iter()
        .filter_map(|kind| Some((kind, definition(*kind)?)))
    {
        let name = format!("manx.network_{}.yaml", kind.plural());
        let text = format!(
            "# Made from api/src by `MANX_UPDATE=1 cargo test -p manx-api definitions`; a test fails when it is stale.\n{}",
            serde_saphyr::to_string(&definition).unwrap()
        );
        let file = folder().join(&name);
        if update {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == text,
            "deploy/crds/{name} is not what the types say: rewrite it with MANX_UPDATE=1"
        );
        let read: Value = serde_saphyr::from_str(&committed).unwrap();
        assert_eq!(read, definition, "{name} is read as it was meant");
        files.push(name);
    }
    let list = fs::read_to_string(folder().join("kustomization.yaml")).unwrap();
    let listed: Value = serde_saphyr::from_str(&list).unwrap();
    files.sort();
    assert_eq!(
        listed["resources"],
        json!(files),
        "deploy/crds/kustomization.yaml"
    );
}

/// What an API server demands of a definition before it serves the kind.
#[test]
fn definitions_are_structural() {
    for kind in Kind::all() {
        let Some(schema) = structural_of(*kind) else {
            continue;
        };
        structural(&schema, &kind.to_string());
        let mut said = Vec::new();
        let empty = json!({"apiVersion": "", "kind": "", "metadata": {}, "spec": {}});
        drop(settle(&empty, &schema, "", &mut said));
        assert_eq!(
            said,
            [] as [String; 0],
            "{kind}'s defaults are of fields that it has"
        );
    }
}

fn structural(schema: &Value, place: &str) {
    let fields = schema.as_object().unwrap_or_else(|| panic!("{place}: {schema}"));
    let free = schema["x-kubernetes-int-or-string"] == true;
    assert_eq!(
        schema["type"].is_string(),
        !free,
        "{place} has one type: {schema}"
    );
    for keyword in fields.keys() {
        let known = [
            "additionalProperties",
            "anyOf",
            "default",
            "description",
            "enum",
            "format",
            "items",
            "maxItems",
            "maxLength",
            "maximum",
            "minItems",
            "minLength",
            "minimum",
            "not",
            "pattern",
            "properties",
            "required",
            "type",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-validations",
        ];
        assert!(known.contains(&keyword.as_str()), "{place}: {keyword}");
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        assert!(free || choice.get("type").is_none(), "{place}: {choice}");
    }
    let format = schema["format"].as_str().unwrap_or("int32");
    assert!(
        ["cidr", "ipv4", "ipv6", "date-time", "int32", "int64"].contains(&format),
        "{place}: format {format}"
    );
    if schema["type"] == "array" {
        structural(&schema["items"], &format!("{place}[]"));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        structural(inner, &format!("{place}.{name}"));
    }
    if let Some(values) = schema.get("additionalProperties") {
        assert!(schema.get("properties").is_none(), "{place} is a map or a thing");
        structural(values, &format!("{place}.*"));
    }
}

/// Those that break rules which no schema can say, are left to the API server itself (a name), or are read otherwise
/// by YAML 1.1 (`yes`), of the bad manifests that are resources at all.
const ONLY_WE_REFUSE: &[&str] = &[
    "block",
    "block-larger-than-pool",
    "default-block-larger-than-pool",
    "filter-community",
    "missing-name",
    "network-set",
    "node-address-is-network",
    "null-for-mapping",
    "number-for-text",
    "policy-families",
    "policy-port-range",
    "policy-ports-without-protocol",
    "policy-selector",
    "policy-service",
    "second-document",
    "selector",
    "yes-for-boolean",
];

#[test]
fn the_bad_manifests_are_refused_by_the_schema_as_well() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut accepted = Vec::new();
    for entry in fs::read_dir(corpus).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let Ok(documents) = serde_saphyr::from_multiple::<Value>(&text) else {
            continue;
        };
        let judged: Vec<Vec<String>> = documents.iter().filter_map(judge).collect();
        if judged.len() == documents.len() && judged.iter().all(Vec::is_empty) {
            accepted.push(file.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    accepted.sort();
    assert_eq!(accepted, ONLY_WE_REFUSE);
}

/// Every manifest in the documents that Manx reads.
#[test]
fn the_examples_of_the_documents_are_accepted_by_the_schema() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut count = 0;
    for entry in fs::read_dir(docs).unwrap() {
        let file = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for example in text
            .split("```yaml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
        {
            let Ok(resources) = load("example", example) else {
                continue;
            };
            for resource in resources {
                agree(&resource);
                count += 1;
            }
        }
    }
    assert!(count > 5, "{count} examples");
}

fn agree(resource: &Resource) {
    agrees(&serde_json::to_value(resource).unwrap(), &validate(resource));
}
