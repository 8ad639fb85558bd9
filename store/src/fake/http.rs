//! The fake server's side of HTTP: paths, verbs, and streams.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use futures_util::stream;
use manx_api::Kind;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::access::{Asked, Caller};
use super::admission::Write;
use super::objects::{Objects, Refusal};
use super::{Shared, Sort, Streaming, locked};

/// How often a watch is told how far it is while nothing happens; the real server does so each minute.
const BOOKMARKS: Duration = Duration::from_millis(200);
/// The longest body that is read.
const MAX_BODY: usize = 3 << 20;

/// What stands behind the `?`.
type Parameters = HashMap<String, String>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(shared)
}

/// What a path names.
struct Target {
    sort: Sort,
    /// Empty for all, and for kinds of the whole cluster.
    namespace: String,
    name: Option<String>,
    status: bool,
}

impl Target {
    /// Reads `/api/v1/…` or `/apis/GROUP/VERSION/…`.
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (version, rest) = match parts.as_slice() {
            ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, status) = match rest {
            [plural] => (plural, None, false),
            [plural, name] => (plural, Some(*name), false),
            [plural, name, "status"] => (plural, Some(*name), true),
            _ => return None,
        };
        let named = |sort: &Sort| sort.plural == *plural && sort.api_version == version;
        let sort = Sort::all().find(named)?;
        // What Kubernetes' NetworkPolicies once had of a status is gone since 1.28.
        if status && sort == Sort::from(Kind::KubernetesNetworkPolicy) {
            return None;
        }
        Some(Self {
            sort,
            namespace: namespace.to_owned(),
            name: name.map(str::to_owned),
            status,
        })
    }
}

impl Target {
    /// What a request for this asks for. A field selector for one name is a name, too.
    fn asked<'a>(&'a self, method: &Method, parameters: &'a Parameters) -> Asked<'a> {
        let group = self
            .sort
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let selected = parameters
            .get("fieldSelector")
            .and_then(|it| it.strip_prefix("metadata.name="));
        let verb = match (method.as_str(), &self.name) {
            ("GET", _) if is_watch(parameters) => "watch",
            ("GET", Some(_)) => "get",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", Some(_)) => "delete",
            _ => "deletecollection",
        };
        Asked {
            verb,
            group,
            resource: self.sort.plural,
            subresource: self.status.then_some("status"),
            namespace: &self.namespace,
            name: self.name.as_deref().or(selected),
        }
    }
}

fn is_watch(parameters: &Parameters) -> bool {
    parameters.get("watch").is_some_and(|watch| watch == "true")
}

/// What somebody shows to be known by; empty where he shows nothing.
fn token(headers: &HeaderMap) -> &str {
    let shown = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    shown
        .and_then(|it| it.strip_prefix("Bearer "))
        .unwrap_or_default()
}

fn nothing_there() -> Refusal {
    Refusal::new(404, "NotFound", "404 page not found")
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
    body: Body,
) -> Response<Body> {
    let (latency, refused, absent) = {
        let mut faults = locked(&shared.faults);
        faults.requests += 1;
        let refused = (faults.refusals.0 > 0).then_some(faults.refusals.1);
        faults.refusals.0 = faults.refusals.0.saturating_sub(1);
        (faults.latency, refused, faults.absent)
    };
    tokio::time::sleep(latency).await;
    if let Some(code) = refused {
        return refusal(&Refusal::new(code, "", "refused as the test wishes"));
    }
    let Some(target) = Target::of(uri.path()) else {
        return refusal(&nothing_there());
    };
    let caller = Caller::of(token(&headers));
    if let Some(access) = locked(&shared.access).as_mut()
        && let Err(refused) = access.check(caller, &target.asked(&method, &parameters))
    {
        return refusal(&refused);
    }
    if Some(target.sort) == absent {
        return refusal(&nothing_there());
    }
    let body = axum::body::to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let text = |name| headers.get(name).and_then(|it: &HeaderValue| it.to_str().ok());
    let sent = Sent {
        body: body.as_ref(),
        strategic: text(header::CONTENT_TYPE).is_some_and(|it| it.starts_with("application/strategic")),
        metadata_alone: text(header::ACCEPT).is_some_and(|it| it.contains("as=PartialObjectMetadataList")),
    };
    answer(&shared, (&method, caller), &target, &parameters, sent).unwrap_or_else(|refused| refusal(&refused))
}

/// What a request has beside its path.
struct Sent<'a> {
    body: &'a [u8],
    /// It is a strategic patch.
    strategic: bool,
    /// Of what is listed, the metadata is asked for and nothing else.
    metadata_alone: bool,
}

/// A list of objects, or of their metadata: as the real server writes it, which has null there for no object at all.
fn listed(sort: Sort, metadata: &Value, items: Vec<Value>, metadata_alone: bool) -> Value {
    if !metadata_alone {
        let kind = format!("{}List", sort.kind);
        return json!({"apiVersion": sort.api_version, "kind": kind, "metadata": metadata, "items": items});
    }
    let (version, kind) = ("meta.k8s.io/v1", "PartialObjectMetadata");
    let partial = |mut object: Value| json!({"apiVersion": version, "kind": kind, "metadata": object["metadata"].take()});
    let partials: Vec<Value> = items.into_iter().map(partial).collect();
    let items = (!partials.is_empty()).then_some(partials);
    json!({"apiVersion": version, "kind": "PartialObjectMetadataList", "metadata": metadata, "items": items})
}

fn answer(
    shared: &Arc<Shared>,
    (method, caller): (&Method, Caller<'_>),
    target: &Target,
    parameters: &Parameters,
    sent: Sent<'_>,
) -> Result<Response<Body>, Refusal> {
    let Target {
        sort,
        namespace,
        name,
        status,
    } = target;
    if method == Method::GET && is_watch(parameters) {
        return watch(shared, target, parameters);
    }
    let Sent {
        body,
        strategic,
        metadata_alone,
    } = sent;
    let sent: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut objects = locked(&shared.objects);
    if method != Method::GET {
        let asked = (target, method, parameters);
        admit(shared, &objects, caller, asked, (&sent, strategic))?;
    }
    let found = match (method.as_str(), name) {
        ("GET", Some(name)) => objects.get(*sort, namespace, name)?,
        ("GET", None) => {
            let limit = parameters.get("limit").and_then(|limit| limit.parse().ok());
            let token = parameters.get("continue").map_or("", String::as_str);
            let (revision, mut items, next) = objects.page((*sort, namespace), limit.unwrap_or(0), token)?;
            items.retain(|object| selects(parameters, object));
            let metadata = json!({"resourceVersion": revision.to_string(), "continue": next});
            listed(*sort, &metadata, items, metadata_alone)
        }
        ("POST", None) => objects.create(*sort, sent)?,
        ("PUT", Some(_)) => objects.replace(*sort, sent, *status)?,
        ("PATCH", Some(name)) => objects.patch((*sort, namespace, name), &sent, (*status, strategic))?,
        ("DELETE", Some(name)) => objects.delete((*sort, namespace, name), &sent)?,
        _ => {
            return Err(Refusal::new(
                405,
                "MethodNotAllowed",
                "the fake server does not do this",
            ));
        }
    };
    let now = objects.head();
    shared
        .head
        .send_if_modified(|head| std::mem::replace(head, now) != now);
    Ok(respond(200, Body::from(found.to_string())))
}

/// Refuses a write that the admission policies deny.
fn admit(
    shared: &Shared,
    objects: &Objects,
    caller: Caller<'_>,
    (target, method, parameters): (&Target, &Method, &Parameters),
    (sent, strategic): (&Value, bool),
) -> Result<(), Refusal> {
    let access = locked(&shared.access);
    let Some(access) = access.as_ref() else {
        return Ok(());
    };
    let (old, new) = match &target.name {
        Some(name) => {
            let place = (target.sort, target.namespace.as_str(), name.as_str());
            objects.written(place, (method, sent), strategic)?
        }
        None => (Value::Null, sent.clone()),
    };
    let mut asked = target.asked(method, parameters);
    // Whoever judges a new object knows its name, and whoever looks at the path does not.
    asked.name = asked.name.or_else(|| sent["metadata"]["name"].as_str());
    access.admit(caller, &asked, &Write { old, new })
}

/// Whether a list or watch with these parameters is to have an object: of field selectors, one field is understood.
fn selects(parameters: &Parameters, object: &Value) -> bool {
    let selector = parameters.get("fieldSelector").and_then(|it| it.split_once('='));
    selector.is_none_or(|(field, wanted)| {
        let place = format!("/{}", field.replace('.', "/"));
        object.pointer(&place).is_some_and(|value| value == wanted)
    })
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn refusal(refused: &Refusal) -> Response<Body> {
    let mut response = respond(refused.code, Body::from(refused.body().to_string()));
    if matches!(refused.code, 429 | 503) {
        let after = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    response
}

/// A watch that is being served.
struct Serving {
    shared: Arc<Shared>,
    sort: Sort,
    namespace: String,
    parameters: Parameters,
    /// Writes up to here have been told.
    told: u64,
    head: tokio::sync::watch::Receiver<u64>,
    cuts: tokio::sync::watch::Receiver<u64>,
    until: Instant,
    bookmarks: bool,
    /// What is told first.
    first: Option<String>,
    cut: bool,
}

fn watch(shared: &Arc<Shared>, target: &Target, parameters: &Parameters) -> Result<Response<Body>, Refusal> {
    let parameter = |name: &str| parameters.get(name).map_or("", String::as_str);
    let streamed = parameter("sendInitialEvents") == "true";
    let matched = parameter("resourceVersionMatch");
    let streaming = locked(&shared.faults).streaming;
    let served = if streamed {
        matched == "NotOlderThan" && streaming != Streaming::Unknown
    } else {
        matched.is_empty()
    };
    if !served {
        return Err(Refusal::new(422, "Invalid", "sendInitialEvents: Forbidden"));
    }
    if streamed && streaming == Streaming::Fails {
        let why = "a watch stream was requested by the client but the required storage feature \
                   RequestWatchProgress is disabled";
        let error = line("ERROR", &Refusal::new(500, "InternalError", why).body());
        return Ok(respond(200, Body::from(error)));
    }
    let objects = locked(&shared.objects);
    let from = parameter("resourceVersion");
    let head = objects.head();
    let mut first = String::new();
    let told = if streamed || matches!(from, "" | "0") {
        let all = objects.all(target.sort, &target.namespace);
        for object in all.iter().filter(|object| selects(parameters, object)) {
            first += &line("ADDED", object);
        }
        if streamed {
            let annotations = json!({"k8s.io/initial-events-end": "true"});
            first += &bookmark(target.sort, head, &annotations);
        }
        head
    } else {
        let from = from
            .parse()
            .map_err(|_| Refusal::new(400, "BadRequest", "no resource version"))?;
        objects.behind(target.sort, &target.namespace, from)?;
        from
    };
    let seconds = parameter("timeoutSeconds").parse().unwrap_or(300);
    let serving = Serving {
        shared: Arc::clone(shared),
        sort: target.sort,
        namespace: target.namespace.clone(),
        parameters: parameters.clone(),
        told,
        head: shared.head.subscribe(),
        cuts: shared.cuts.subscribe(),
        until: Instant::now() + Duration::from_secs(seconds),
        bookmarks: parameter("allowWatchBookmarks") == "true",
        first: Some(first),
        cut: false,
    };
    let lines = stream::unfold(serving, |mut serving| async move {
        let chunk = serving.chunk().await?;
        Some((chunk.map(Bytes::from), serving))
    });
    Ok(respond(200, Body::from_stream(lines)))
}

impl Serving {
    /// The next lines; none when the watch has served its time.
    async fn chunk(&mut self) -> Option<std::io::Result<String>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some(Ok(first));
        }
        loop {
            if self.cut {
                return Some(Err(std::io::Error::other("cut as the test wishes")));
            }
            let head = *self.head.borrow_and_update();
            match locked(&self.shared.objects).behind(self.sort, &self.namespace, self.told) {
                Err(gone) => return Some(Ok(line("ERROR", &gone.body()))),
                Ok(writes) if writes.is_empty() => self.told = self.told.max(head),
                Ok(writes) => {
                    self.told = writes.last().map_or(self.told, |write| write.revision);
                    let mine = writes
                        .iter()
                        .filter(|write| selects(&self.parameters, &write.object));
                    let lines: String = mine.map(|write| line(write.what, &write.object)).collect();
                    if !lines.is_empty() {
                        return Some(Ok(lines));
                    }
                }
            }
            tokio::select! {
                _ = self.head.changed() => {}
                _ = self.cuts.changed() => {
                    self.cut = true;
                    return Some(Ok("{\"type\":\"MODIFIED\",\"obj".to_owned()));
                }
                () = tokio::time::sleep_until(self.until) => return None,
                () = tokio::time::sleep(BOOKMARKS), if self.bookmarks => {
                    return Some(Ok(bookmark(self.sort, self.told, &json!({}))));
                }
            }
        }
    }
}

fn line(what: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": what, "object": object}))
}

fn bookmark(sort: Sort, revision: u64, annotations: &Value) -> String {
    let metadata = json!({"resourceVersion": revision.to_string(), "annotations": annotations, "creationTimestamp": null});
    line(
        "BOOKMARK",
        &json!({"apiVersion": sort.api_version, "kind": sort.kind, "metadata": metadata, "spec": {}}),
    )
}
