//! What the fake server keeps, and the rules by which it changes.

use std::collections::{BTreeMap, VecDeque};

use axum::http::Method;
use jiff::Timestamp;
use manx_api::{Kind, schema};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::Sort;

/// Where an object is: kind, namespace (empty for kinds of the whole cluster), name.
type Place = (Sort, String, String);

/// A refusal, as Kubernetes' `Status` has it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    /// The plural of what the refusal is about.
    about: String,
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            about: String::new(),
        }
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "code": self.code, "reason": self.reason, "message": self.message, "details": {"kind": self.about},
        })
    }

    fn not_found((sort, _, name): &Place) -> Self {
        let message = format!("{} \"{name}\" not found", sort.plural);
        Self {
            about: sort.plural.to_owned(),
            ..Self::new(404, "NotFound", message)
        }
    }

    pub(super) fn gone() -> Self {
        Self::new(410, "Expired", "too old resource version")
    }

    pub(super) fn conflict(message: &str) -> Self {
        Self::new(409, "Conflict", message)
    }
}

/// A write, as watches see it.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) revision: u64,
    pub(super) sort: Sort,
    pub(super) what: &'static str,
    pub(super) object: Value,
}

/// All objects, and the writes that are remembered.
#[derive(Debug)]
pub(super) struct Objects {
    head: u64,
    stored: BTreeMap<Place, Value>,
    writes: VecDeque<Write>,
    /// Writes up to here are forgotten.
    forgotten: u64,
    /// Lists that are read page by page: what is left of them, by their tokens.
    pages: BTreeMap<String, (u64, Vec<Value>)>,
    /// The last revision of each sort, for watches to wait on.
    heads: BTreeMap<Sort, watch::Sender<u64>>,
}

impl Objects {
    pub(super) fn new() -> Self {
        let mut objects = Self {
            head: 100,
            stored: BTreeMap::new(),
            writes: VecDeque::new(),
            forgotten: 100,
            pages: BTreeMap::new(),
            heads: Sort::all().map(|sort| (sort, watch::Sender::new(0))).collect(),
        };
        for name in ["default", "kube-system"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            drop(objects.create(Kind::Namespace.into(), namespace));
        }
        objects
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Tells of each write to this sort.
    pub(super) fn follow(&self, sort: Sort) -> Option<watch::Receiver<u64>> {
        self.heads.get(&sort).map(watch::Sender::subscribe)
    }

    /// Forgets all writes and all lists that are being read.
    pub(super) fn forget(&mut self) {
        self.writes.clear();
        self.pages.clear();
        self.forgotten = self.head;
    }

    pub(super) fn get(&self, sort: Sort, namespace: &str, name: &str) -> Result<Value, Refusal> {
        let place = (sort, namespace.to_owned(), name.to_owned());
        let found = self.stored.get(&place).cloned();
        found.ok_or_else(|| Refusal::not_found(&place))
    }

    /// All of a kind, of one namespace or of all.
    pub(super) fn all(&self, sort: Sort, namespace: &str) -> Vec<Value> {
        let wanted = |place: &Place| place.0 == sort && (namespace.is_empty() || place.1 == namespace);
        let stored = self.stored.iter().filter(|(place, _)| wanted(place));
        stored.map(|(_, object)| object.clone()).collect()
    }

    /// A page of at most `limit` (0: all) of a list that begins or goes on with `token`: its revision, its items, and
    /// the token of the next.
    pub(super) fn page(
        &mut self,
        (sort, namespace): (Sort, &str),
        limit: usize,
        token: &str,
    ) -> Result<(u64, Vec<Value>, Option<String>), Refusal> {
        let (revision, mut items) = if token.is_empty() {
            (self.head, self.all(sort, namespace))
        } else {
            self.pages.remove(token).ok_or_else(Refusal::gone)?
        };
        let mut next = None;
        if limit > 0 && items.len() > limit {
            let rest = items.split_off(limit);
            let token = format!("{revision}-{}-{}", sort.plural, rest.len());
            self.pages.insert(token.clone(), (revision, rest));
            next = Some(token);
        }
        Ok((revision, items, next))
    }

    /// Writes of a kind behind `from`.
    pub(super) fn behind(&self, sort: Sort, namespace: &str, from: u64) -> Result<Vec<Write>, Refusal> {
        if from < self.forgotten {
            return Err(Refusal::gone());
        }
        let first = self.writes.partition_point(|write| write.revision <= from);
        let mine = |write: &&Write| {
            write.sort == sort && (namespace.is_empty() || write.object["metadata"]["namespace"] == namespace)
        };
        Ok(self.writes.range(first..).filter(mine).cloned().collect())
    }

    pub(super) fn create(&mut self, sort: Sort, mut object: Value) -> Result<Value, Refusal> {
        if let Some(beginning) = object["metadata"]["generateName"].as_str() {
            let name = format!("{beginning}{}", uuid::Uuid::new_v4().simple());
            object["metadata"]["name"] = json!(name);
        }
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let place = (sort, text("namespace"), text("name"));
        if !text("resourceVersion").is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(Refusal::new(400, "BadRequest", message));
        }
        let home = (Kind::Namespace.into(), String::new(), place.1.clone());
        if sort.namespaced && !self.stored.contains_key(&home) {
            return Err(Refusal::not_found(&home));
        }
        if self.stored.contains_key(&place) {
            let message = format!("{} \"{}\" already exists", sort.plural, place.2);
            return Err(Refusal::new(409, "AlreadyExists", message));
        }
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        default(sort, &mut object);
        object["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
        object["metadata"]["creationTimestamp"] = json!(Timestamp::now().strftime("%FT%TZ").to_string());
        object["metadata"]["generation"] = json!(1);
        Ok(self.store(place, "ADDED", object))
    }

    /// Replaces an object, or of it the `status` alone.
    pub(super) fn replace(&mut self, sort: Sort, mut new: Value, status: bool) -> Result<Value, Refusal> {
        let text =
            |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let place = (sort, text(&new, "namespace"), text(&new, "name"));
        let old = self.get(sort, &place.1, &place.2)?;
        let (named, actual) = (text(&new, "resourceVersion"), text(&old, "resourceVersion"));
        if !named.is_empty() && named != actual {
            return Err(Refusal::conflict("the object has been modified"));
        }
        if status {
            let said = new["status"].take();
            new = old.clone();
            new["status"] = said;
        } else {
            new["status"] = old["status"].clone();
            default(sort, &mut new);
        }
        if new["status"].is_null()
            && let Some(fields) = new.as_object_mut()
        {
            fields.remove("status");
        }
        for given in [
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "deletionTimestamp",
        ] {
            if let Some(value) = old["metadata"].get(given) {
                new["metadata"][given] = value.clone();
            }
        }
        without_empty(&mut new["metadata"]);
        if new == old {
            return Ok(old);
        }
        if new["spec"] != old["spec"] {
            new["metadata"]["generation"] =
                json!(old["metadata"]["generation"].as_u64().unwrap_or_default() + 1);
        }
        if !new["metadata"]["deletionTimestamp"].is_null() && new["metadata"].get("finalizers").is_none() {
            self.stored.remove(&place);
            return Ok(self.log(&place, "DELETED", new));
        }
        Ok(self.store(place, "MODIFIED", new))
    }

    /// Deletes an object, or marks it where it has finalizers.
    pub(super) fn delete(
        &mut self,
        (sort, namespace, name): (Sort, &str, &str),
        options: &Value,
    ) -> Result<Value, Refusal> {
        let mut object = self.get(sort, namespace, name)?;
        for field in ["uid", "resourceVersion"] {
            let asked = &options["preconditions"][field];
            if !asked.is_null() && *asked != object["metadata"][field] {
                return Err(Refusal::conflict("Precondition failed"));
            }
        }
        let place = (sort, namespace.to_owned(), name.to_owned());
        if object["metadata"].get("finalizers").is_some() {
            object["metadata"]["deletionTimestamp"] = json!(Timestamp::now().strftime("%FT%TZ").to_string());
            return Ok(self.store(place, "MODIFIED", object));
        }
        self.remove(&place, object);
        Ok(json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"}))
    }

    /// An object goes, and what it owns with it, as the garbage collector has it.
    fn remove(&mut self, place: &Place, object: Value) {
        let uid = object["metadata"]["uid"].clone();
        self.stored.remove(place);
        self.log(place, "DELETED", object);
        let is_owned = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.into_iter().flatten().any(|owner| owner["uid"] == uid)
        };
        let owned = self.stored.iter().filter(|(_, object)| is_owned(object));
        for (place, object) in owned
            .map(|(place, object)| (place.clone(), object.clone()))
            .collect::<Vec<_>>()
        {
            self.remove(&place, object);
        }
    }

    /// Changes the fields that a patch names: of an object, or of its `status` alone. Lists are replaced; a strategic
    /// patch changes conditions one by one.
    pub(super) fn patch(
        &mut self,
        (sort, namespace, name): (Sort, &str, &str),
        patch: &Value,
        (status, strategic): (bool, bool),
    ) -> Result<Value, Refusal> {
        let mut object = self.get(sort, namespace, name)?;
        merge(&mut object, patch, strategic);
        self.replace(sort, object, status)
    }

    /// An object before a request that names it, and after it; null where that deletes it.
    pub(super) fn written(
        &self,
        (sort, namespace, name): (Sort, &str, &str),
        (method, sent): (&Method, &Value),
        strategic: bool,
    ) -> Result<(Value, Value), Refusal> {
        let old = self.get(sort, namespace, name)?;
        let mut new = old.clone();
        match method.as_str() {
            "DELETE" => new = Value::Null,
            "PATCH" => merge(&mut new, sent, strategic),
            _ => new.clone_from(sent),
        }
        Ok((old, new))
    }

    fn store(&mut self, place: Place, what: &'static str, object: Value) -> Value {
        let object = self.log(&place, what, object);
        self.stored.insert(place, object.clone());
        object
    }

    /// Gives the object the next revision and remembers the write.
    fn log(&mut self, place: &Place, what: &'static str, mut object: Value) -> Value {
        // Other objects of the same etcd have revisions in between.
        self.head += 1 + self.head % 3;
        object["metadata"]["resourceVersion"] = json!(self.head.to_string());
        without_empty(&mut object["metadata"]);
        self.writes.push_back(Write {
            revision: self.head,
            sort: place.0,
            what,
            object: object.clone(),
        });
        if let Some(head) = self.heads.get(&place.0) {
            head.send_replace(self.head);
        }
        object
    }
}

/// JSON merge patch (RFC 7386); `strategic`: lists are merged by their items' `type`.
fn merge(into: &mut Value, patch: &Value, strategic: bool) {
    if patch.is_object() && !into.is_object() {
        *into = json!({});
    }
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name).or_insert(Value::Null), value, strategic);
                }
            }
        }
        (Value::Array(into), Value::Array(patch)) if strategic => {
            for item in patch {
                match into.iter_mut().find(|old| old["type"] == item["type"]) {
                    Some(old) => merge(old, item, strategic),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, patch) => into.clone_from(patch),
    }
}

/// What an API server does not store: maps without entries, and nothing.
fn without_empty(metadata: &mut Value) {
    if let Value::Object(fields) = metadata {
        fields.retain(|_, value| !value.is_null() && *value != json!({}) && *value != json!([]));
    }
}

/// Fills in the defaults of the kind's schema.
fn default(sort: Sort, object: &mut Value) {
    let kind = Kind::of(sort.kind, Some(sort.api_version)).filter(|kind| Sort::from(*kind) == sort);
    let Some(definition) = kind.and_then(schema::definition) else {
        return;
    };
    let place = "/spec/versions/0/schema/openAPIV3Schema";
    if let (Some(schema), Value::Object(fields)) = (definition.pointer(place), object) {
        fill(fields, schema);
    }
}

fn fill(fields: &mut Map<String, Value>, schema: &Value) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = inner.get("default") {
            fields.entry(name).or_insert_with(|| default.clone());
        }
        match fields.get_mut(name) {
            Some(Value::Object(fields)) => fill(fields, inner),
            Some(Value::Array(items)) => {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    fill(item, &inner["items"]);
                }
            }
            Some(_) | None => {}
        }
    }
}
