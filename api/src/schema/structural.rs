//! From a JSON schema as schemars writes it to the structural schema that Kubernetes demands: no references, one type
//! for each value, nothing that is the same as nothing.

use serde_json::{Map, Value, json};

/// Rewrites a schema and all that is in it.
pub(super) fn rewrite(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    for noise in ["$schema", "title"] {
        schema.remove(noise);
    }
    without_null(schema);
    words(schema);
    formats(schema);
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
    // Kubernetes prunes unknown fields, and says so to whoever asks (`--validate=strict`).
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = plain(text);
    }
    for inner in ["items", "additionalProperties"] {
        schema.get_mut(inner).into_iter().for_each(rewrite);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(rewrite);
    }
}

/// What may be left out is not `null` as well.
fn without_null(schema: &mut Map<String, Value>) {
    let is_null = |schema: &Value| schema["type"] == "null";
    if let Some(Value::Array(choices)) = schema.get("anyOf")
        && choices.len() == 2
        && choices.iter().any(is_null)
        && let Some(Value::Object(meant)) = choices.iter().find(|choice| !is_null(choice)).cloned()
    {
        schema.remove("anyOf");
        for (key, value) in meant {
            schema.entry(key).or_insert(value);
        }
    }
    if let Some(Value::Array(types)) = schema.get("type")
        && let Some(meant) = types.iter().find(|name| *name != "null").cloned()
    {
        schema.insert("type".to_owned(), meant);
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

/// A choice of words that are each described: one list of words, and the descriptions in one.
fn words(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else {
        return;
    };
    let word = |choice: &Value| {
        Some((
            choice.get("const")?.as_str()?.to_owned(),
            choice.get("description").cloned(),
        ))
    };
    let Some(words) = choices.iter().map(word).collect::<Option<Vec<_>>>() else {
        return;
    };
    let described = words
        .iter()
        .filter_map(|(word, text)| Some(format!("`{word}`: {}", text.as_ref()?.as_str()?)));
    let own = schema
        .get("description")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let description = own.into_iter().chain(described).collect::<Vec<_>>().join("\n");
    let names: Vec<String> = words.iter().map(|(word, _)| word.clone()).collect();
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), json!(names));
    schema.insert("description".to_owned(), json!(description));
}

/// Kubernetes knows the formats of two sizes of integers and of addresses by family.
fn formats(schema: &mut Map<String, Value>) {
    match schema.get("format").and_then(Value::as_str) {
        Some("ip") => {
            schema.remove("format");
            schema.insert(
                "anyOf".to_owned(),
                json!([{"format": "ipv4"}, {"format": "ipv6"}]),
            );
        }
        Some("uint32") => {
            schema.remove("format");
            schema.entry("maximum").or_insert_with(|| json!(u32::MAX));
        }
        Some("uint8" | "uint16" | "uint64" | "double") => {
            schema.remove("format");
        }
        Some(_) | None => {}
    }
}

/// A doc comment for people who read no Rust: links are the words that they stand on, and one paragraph is one line.
fn plain(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    let text = paragraphs.collect::<Vec<_>>().join("\n");
    text.replace("[`", "`").replace("`]", "`")
}
