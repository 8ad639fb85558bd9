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
use super::{Call, Faults, Shared, Sort, Streaming, Trouble, locked};

/// How often a watch is told how far it is while nothing happens, unless a test wishes otherwise.
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
    let target = Target::of(uri.path());
    let shown = token(&headers);
    let (latency, refused) = {
        let mut faults = locked(&shared.faults);
        let call = Call::of(shown, target.as_ref(), &method, &parameters);
        let refused = faults.refusal(&call, uri.path());
        *faults.calls.entry(call).or_default() += 1;
        (faults.latency, refused)
    };
    tokio::time::sleep(latency).await;
    if let Some(refused) = refused {
        return refused;
    }
    let Some(target) = target else {
        return refusal(&nothing_there());
    };
    let caller = Caller::of(shown);
    if let Some(access) = locked(&shared.access).as_mut()
        && let Err(refused) = access.check(caller, &target.asked(&method, &parameters))
    {
        return refusal(&refused);
    }
    if Some(target.sort) == locked(&shared.faults).absent {
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

impl Call {
    fn of(caller: &str, target: Option<&Target>, method: &Method, parameters: &Parameters) -> Self {
        let asked = target.map(|target| target.asked(method, parameters));
        Self {
            caller: caller.to_owned(),
            verb: asked.as_ref().map_or("", |asked| asked.verb),
            resource: asked.map(|asked| asked.full()).unwrap_or_default(),
        }
    }

    /// Whether it changes anything.
    fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch" | "")
    }
}

impl Faults {
    /// What a request is refused with before anybody looks at it.
    fn refusal(&mut self, call: &Call, path: &str) -> Option<Response<Body>> {
        if self.refusals.0 > 0 {
            self.refusals.0 -= 1;
            return Some(refusal(&Refusal::new(
                self.refusals.1,
                "",
                "refused as the test wishes",
            )));
        }
        match self.trouble {
            Trouble::Overload(seconds) => {
                let refused = Refusal::new(429, "TooManyRequests", "too many requests, as the test wishes");
                let mut response = refusal(&refused);
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                Some(response)
            }
            Trouble::Contention if call.is_write() => {
                let write = format!("{} {} {path}", call.caller, call.verb);
                if self.contended.remove(&write) {
                    return None;
                }
                self.contended.insert(write);
                Some(refusal(&Refusal::conflict("changed as the test wishes")))
            }
            Trouble::None | Trouble::Amnesia | Trouble::Contention => None,
        }
    }
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
            if !token.is_empty() && locked(&shared.faults).trouble == Trouble::Amnesia {
                return Err(Refusal::gone());
            }
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
    /// How often it is told how far it is.
    bookmarks: Option<Duration>,
    /// What is told first.
    first: Option<String>,
    cut: bool,
}

/// The revision that a watch goes on from, and what is told before that.
fn beginning(objects: &Objects, target: &Target, parameters: &Parameters) -> Result<(u64, String), Refusal> {
    let from = parameters.get("resourceVersion").map_or("", String::as_str);
    let streamed = is_streamed(parameters);
    if !streamed && !matches!(from, "" | "0") {
        let from = from
            .parse()
            .map_err(|_| Refusal::new(400, "BadRequest", "no resource version"))?;
        objects.behind(target.sort, &target.namespace, from)?;
        return Ok((from, String::new()));
    }
    let all = objects.all(target.sort, &target.namespace);
    let all = all.iter().filter(|object| selects(parameters, object));
    let mut first: String = all.map(|object| line("ADDED", object)).collect();
    if streamed {
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        first += &bookmark(target.sort, objects.head(), &annotations);
    }
    Ok((objects.head(), first))
}

/// Whether a watch is to begin with all that there is.
fn is_streamed(parameters: &Parameters) -> bool {
    parameters.get("sendInitialEvents").is_some_and(|it| it == "true")
}

fn watch(shared: &Arc<Shared>, target: &Target, parameters: &Parameters) -> Result<Response<Body>, Refusal> {
    let parameter = |name: &str| parameters.get(name).map_or("", String::as_str);
    let streamed = is_streamed(parameters);
    let matched = parameter("resourceVersionMatch");
    let (streaming, trouble, bookmarks) = {
        let faults = locked(&shared.faults);
        (faults.streaming, faults.trouble, faults.bookmarks)
    };
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
    if trouble == Trouble::Amnesia && !streamed && !matches!(from, "" | "0") {
        let gone = Refusal::gone();
        // The real one does either.
        return match objects.head() % 2 {
            0 => Err(gone),
            _ => Ok(respond(200, Body::from(line("ERROR", &gone.body())))),
        };
    }
    let (told, first) = beginning(&objects, target, parameters)?;
    let seconds = parameter("timeoutSeconds").parse().unwrap_or(300);
    let serving = Serving {
        shared: Arc::clone(shared),
        sort: target.sort,
        namespace: target.namespace.clone(),
        parameters: parameters.clone(),
        told,
        head: objects.follow(target.sort).ok_or_else(nothing_there)?,
        cuts: shared.cuts.subscribe(),
        until: Instant::now() + Duration::from_secs(seconds),
        bookmarks: (parameter("allowWatchBookmarks") == "true").then_some(bookmarks.unwrap_or(BOOKMARKS)),
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
        let mut bookmark_due = false;
        loop {
            if self.cut {
                return Some(Err(std::io::Error::other("cut as the test wishes")));
            }
            self.head.mark_unchanged();
            let (head, behind) = {
                let objects = locked(&self.shared.objects);
                let behind = objects.behind(self.sort, &self.namespace, self.told);
                (objects.head(), behind)
            };
            match behind {
                Err(gone) => return Some(Ok(line("ERROR", &gone.body()))),
                Ok(writes) if writes.is_empty() => {
                    self.told = self.told.max(head);
                    if bookmark_due {
                        return Some(Ok(bookmark(self.sort, self.told, &json!({}))));
                    }
                }
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
                () = tokio::time::sleep(self.bookmarks.unwrap_or_default()), if self.bookmarks.is_some() => bookmark_due = true,
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
