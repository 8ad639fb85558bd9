//! Our definitions, as a real API server takes them: it serves every kind, and every rule of a schema refuses what it is
//! there for.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use manx_api::{Kind, schema};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::site::{Outcome, Test, Visit};

pub(crate) const TRIALS: [(&str, Test); 2] = [
    ("definitions::are_established_and_structural", |site| {
        site.run(are_established_and_structural)
    }),
    ("definitions::every_rule_refuses_what_it_is_there_for", |site| {
        site.run(every_rule_refuses_what_it_is_there_for)
    }),
];

/// How long a server may take to serve a kind that it has been told of.
const SERVED: Duration = Duration::from_secs(60);

fn definitions(client: Client) -> Api<DynamicObject> {
    let kind = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    Api::all_with(client, &kind)
}

/// What `kubectl apply -f deploy/crds` makes.
fn ours() -> impl Iterator<Item = (Kind, Value)> {
    Kind::all()
        .iter()
        .filter_map(|kind| Some((*kind, schema::definition(*kind)?)))
}

/// Makes our kinds known and waits until all are served.
pub(crate) async fn install(client: Client) -> Outcome {
    let api = definitions(client);
    for (_, definition) in ours() {
        api.create(&PostParams::default(), &serde_json::from_value(definition)?)
            .await?;
    }
    let served = async {
        for (_, definition) in ours() {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            while condition(&api.get(name).await?, "Established") != Some("True") {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(SERVED, served).await?
}

fn condition<'a>(definition: &'a DynamicObject, name: &str) -> Option<&'a str> {
    let conditions = definition.data["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == name)?;
    condition["status"].as_str()
}

async fn are_established_and_structural(visit: Visit) -> Outcome {
    let api = definitions(visit.client);
    for (kind, definition) in ours() {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let there = api.get(name).await?;
        for (name, expected) in [
            ("NamesAccepted", Some("True")),
            ("Established", Some("True")),
            ("NonStructuralSchema", None),
        ] {
            let found = condition(&there, name);
            assert_eq!(found, expected, "{kind}: {name} in {}", there.data["status"]);
        }
    }
    Ok(())
}

/// What a rule of a schema refuses, and in which words: a row of `refused.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    kinds: Vec<String>,
    #[serde(default = "anyone")]
    name: String,
    before: Option<Value>,
    spec: Value,
    says: String,
}

fn anyone() -> String {
    "refused".to_owned()
}

async fn every_rule_refuses_what_it_is_there_for(visit: Visit) -> Outcome {
    if !visit.knows_rules().await? {
        return Ok(());
    }
    for row in rows()? {
        for kind in &row.kinds {
            refuses(&visit.client, kind.parse()?, &row).await?;
        }
    }
    Ok(())
}

fn rows() -> Outcome<Vec<Refused>> {
    Ok(serde_saphyr::from_str(include_str!("refused.yaml"))?)
}

/// Needs no server: nothing that a schema says is left out above.
pub(crate) fn every_rule_has_a_row() -> Outcome {
    let mut left: BTreeSet<(Kind, String)> = ours()
        .flat_map(|(kind, definition)| messages(&definition).into_iter().map(move |said| (kind, said)))
        .collect();
    assert!(!left.is_empty());
    for row in rows()? {
        for kind in &row.kinds {
            left.remove(&(kind.parse()?, row.says.clone()));
        }
    }
    assert!(left.is_empty(), "rules without a row in refused.yaml: {left:#?}");
    Ok(())
}

/// What the rules of a definition say.
fn messages(definition: &Value) -> Vec<String> {
    match definition {
        Value::Object(fields) => {
            let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            let here = rules.into_iter().flatten().map(|rule| &rule["message"]);
            here.filter_map(|message| message.as_str().map(str::to_owned))
                .chain(fields.values().flat_map(messages))
                .collect()
        }
        Value::Array(items) => items.iter().flat_map(messages).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

async fn refuses(client: &Client, kind: Kind, row: &Refused) -> Outcome {
    let (group, version) = kind.api_version().split_once('/').ok_or("a group")?;
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: kind.api_version().to_owned(),
        kind: kind.written().to_owned(),
        plural: kind.plural().to_owned(),
    };
    let api: Api<DynamicObject> = if kind.is_namespaced() {
        Api::namespaced_with(client.clone(), "default", &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    let object = |spec: &Value| {
        let mut object = DynamicObject::new(&row.name, &resource);
        object.data = json!({"spec": spec});
        object
    };
    let (new, parameters) = (object(&row.spec), PostParams::default());
    let refused = match &row.before {
        None => api.create(&parameters, &new).await,
        Some(before) => {
            let before = api.create(&parameters, &object(before)).await?;
            let new = DynamicObject {
                metadata: before.metadata,
                ..new
            };
            let refused = api.replace(&row.name, &parameters, &new).await;
            api.delete(&row.name, &DeleteParams::default()).await?;
            refused
        }
    };
    let Err(error) = refused else {
        return Err(format!("{kind}: the server took {}: {}", row.spec, row.says).into());
    };
    if error.to_string().contains(&row.says) {
        return Ok(());
    }
    Err(format!(
        "{kind}: the server refused {} otherwise than by \"{}\": {error}",
        row.spec, row.says
    )
    .into())
}
