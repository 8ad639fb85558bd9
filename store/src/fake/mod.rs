//! A Kubernetes API server for tests: in this process, on the loopback, with faults on demand.
//!
//! It keeps what the store and the agent rely on of the real one: one history of revisions for all kinds,
//! compare-and-swap, watches that go on behind a revision, bookmarks, streamed lists, pages of one moment, defaults of
//! the schema, the `status` subresource, finalizers, preconditions of deletions, 410 for what is forgotten. It passes
//! the same suite as a real one. With [`FakeApiServer::authorize`] it answers service accounts alone, as far as roles and
//! admission policies go. What it lacks: rules of schemas, versions.

mod access;
mod admission;
mod http;
mod objects;
mod sort;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::map_request;
use manx_api::Kind;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::access::Access;
use self::objects::{Objects, Refusal};
pub use self::sort::Sort;
use crate::{Error, KubeOptions, KubeStore};

/// The server. When this is dropped, it takes no connection any more, and its watches end.
#[derive(Debug)]
pub struct FakeApiServer {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Shared {
    objects: Mutex<Objects>,
    faults: Mutex<Faults>,
    /// Who may do what; everybody everything when it is none.
    access: Mutex<Option<Access>>,
    /// Counts what ends all watches.
    cuts: watch::Sender<u64>,
}

/// What goes wrong.
#[derive(Debug, Default)]
struct Faults {
    /// Each answer is this late.
    latency: Duration,
    /// So many of the next requests are refused with this code.
    refusals: (usize, u16),
    /// What becomes of a streamed list.
    streaming: Streaming,
    /// A kind that is not installed.
    absent: Option<Sort>,
    /// How often a watch is told how far it is while nothing happens, where a test wishes.
    bookmarks: Option<Duration>,
    /// What becomes of all requests.
    trouble: Trouble,
    /// Writes that were refused once, each by whose it was and what it was to.
    contended: BTreeSet<String>,
    /// Requests so far, watches included.
    calls: BTreeMap<Call, usize>,
}

/// Requests that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The token that was shown, which says who asked: [`token`].
    pub caller: String,
    /// What for, as RBAC calls it: `update`.
    pub verb: &'static str,
    /// Of what: `ipblocks`, or `nodes/status`. Empty for what is not served.
    pub resource: String,
}

/// What becomes of all requests while it lasts. Watches that are open go on; [`FakeApiServer::cut_watches`] ends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// They are answered.
    #[default]
    None,
    /// Each is refused with 429, and told to come back after so many seconds.
    Overload(u32),
    /// All revisions are forgotten: who watches from one, or goes on with a list, is told 410.
    Amnesia,
    /// Every write is refused once with 409 before it is taken.
    Contention,
}

/// What a server makes of a list that is to be streamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streaming {
    /// It streams it.
    #[default]
    Served,
    /// It knows no such thing, as before Kubernetes 1.32.
    Unknown,
    /// It begins, and says that its etcd cannot do it: one before 3.4.31 or 3.5.13.
    Fails,
}

/// The value behind the lock, also when a test has panicked with it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeApiServer {
    /// Starts a server with the namespaces `default` and `kube-system`.
    ///
    /// # Errors
    /// Those of opening a socket on the loopback and a temporary folder.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let objects = Objects::new();
        let shared = Arc::new(Shared {
            cuts: watch::Sender::new(0),
            objects: Mutex::new(objects),
            faults: Mutex::default(),
            access: Mutex::default(),
        });
        let task = tokio::spawn(serve(Arc::clone(&shared), listener));
        let folder = tempfile::tempdir()?;
        let server = Self {
            shared,
            task,
            address,
            folder,
        };
        std::fs::write(server.kubeconfig(), configuration(address, ""))?;
        Ok(server)
    }

    /// Serves at another address as well, until the future is dropped and the runtime that it ran on has ended: so a
    /// test stops the server and starts it again, with all that it has stored.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn serve(
        &self,
        listener: std::net::TcpListener,
    ) -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
        listener.set_nonblocking(true)?;
        let shared = Arc::clone(&self.shared);
        Ok(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => serve(shared, listener).await,
                Err(error) => tracing::error!(%error, "no listener"),
            }
        })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig for this server; the file goes with it.
    #[must_use]
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A store on this server.
    ///
    /// # Errors
    /// Those of [`KubeStore::connect`].
    pub async fn store(&self) -> Result<KubeStore, Error> {
        let options = KubeOptions {
            kubeconfig: Some(self.kubeconfig()),
            context: None,
        };
        KubeStore::connect(&options).await
    }

    /// From now on, answers those alone whose [`token`] says that they are a service account, with what the roles and
    /// bindings among these objects let it do, and takes of their writes what the admission policies among them allow.
    ///
    /// # Panics
    /// Where a policy's expression cannot be read.
    pub fn authorize(&self, objects: &[Value]) {
        *locked(&self.shared.access) = Some(Access::of(objects));
    }

    /// What these grant this service account and it has not asked for yet: `verb resource.group`.
    #[must_use]
    pub fn unused_rights(&self, namespace: &str, account: &str) -> BTreeSet<String> {
        let token = token(namespace, account, "");
        let access = locked(&self.shared.access);
        access
            .as_ref()
            .map(|access| access.unused(&token))
            .unwrap_or_default()
    }

    /// A store on this server, as this service account in a pod on this node, or as none if that is empty.
    ///
    /// # Errors
    /// Those of [`KubeStore::connect`].
    pub async fn store_of(&self, namespace: &str, account: &str, node: &str) -> Result<KubeStore, Error> {
        let kubeconfig = self.folder.path().join(format!("{account}@{node}"));
        let text = configuration(self.address, &token(namespace, account, node));
        std::fs::write(&kubeconfig, text).map_err(|error| Error::unavailable("no kubeconfig", error))?;
        let options = KubeOptions {
            kubeconfig: Some(kubeconfig),
            context: None,
        };
        KubeStore::connect(&options).await
    }

    /// The same without a socket in between, so that whole clusters live under one clock that is paused. Short faults are
    /// not waited out here.
    ///
    /// # Panics
    /// Where a name cannot stand in a header.
    #[must_use]
    pub fn store_within(&self, namespace: &str, account: &str, node: &str) -> KubeStore {
        let shown = format!("Bearer {}", token(namespace, account, node));
        let shown = HeaderValue::try_from(shown).unwrap_or_else(|error| panic!("{node}: {error}"));
        let show = move |mut request: Request| {
            request.headers_mut().insert(header::AUTHORIZATION, shown.clone());
            std::future::ready(request)
        };
        let router = http::router(Arc::clone(&self.shared)).layer(map_request(show));
        KubeStore::through(kube::Client::new(router, namespace), "the fake".to_owned())
    }

    /// Refuses the next `count` requests with `code`; 429 and 503 say `Retry-After: 1`.
    pub fn refuse_next(&self, count: usize, code: u16) {
        locked(&self.shared.faults).refusals = (count, code);
    }

    /// Answers each request so late.
    pub fn delay(&self, latency: Duration) {
        locked(&self.shared.faults).latency = latency;
    }

    /// Deals so with lists that are to be streamed.
    pub fn stream_lists(&self, streaming: Streaming) {
        locked(&self.shared.faults).streaming = streaming;
    }

    /// Has watches told how far they are that often while nothing happens; the real server does so each minute.
    pub fn bookmark_every(&self, interval: Duration) {
        locked(&self.shared.faults).bookmarks = Some(interval);
    }

    /// Whether a kind is served; one may be absent at a time.
    pub fn install(&self, absent: Option<Kind>) {
        locked(&self.shared.faults).absent = absent.map(Sort::from);
    }

    /// Breaks every watch, in the midst of a line.
    pub fn cut_watches(&self) {
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// Forgets every event so far: watches from before are told 410.
    pub fn forget(&self) {
        locked(&self.shared.objects).forget();
    }

    /// Has this become of all requests from now on.
    pub fn trouble(&self, trouble: Trouble) {
        let mut faults = locked(&self.shared.faults);
        faults.contended.clear();
        faults.trouble = trouble;
    }

    /// Requests so far, those that were refused and watches included.
    #[must_use]
    pub fn requests(&self) -> usize {
        locked(&self.shared.faults).calls.values().sum()
    }

    /// The same, by who asked what for.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Call, usize> {
        locked(&self.shared.faults).calls.clone()
    }

    /// Stores an object as somebody else would, past all that Manx checks. It must name its kind as the API does.
    ///
    /// # Panics
    /// Where there is such an object.
    pub fn put(&self, sort: impl Into<Sort>, object: Value) {
        self.change(|objects| objects.create(sort.into(), object));
    }

    /// Stores an object with its `status`, in the place of the one of that name if there is one.
    ///
    /// # Panics
    /// Where the server would refuse it.
    pub fn apply(&self, sort: impl Into<Sort>, object: Value) {
        let (sort, metadata) = (sort.into(), &object["metadata"]);
        let [namespace, name] = ["namespace", "name"].map(|it| metadata[it].as_str().unwrap_or_default());
        if self.object(sort, namespace, name).is_none() {
            self.put(sort, object.clone());
        }
        self.change(|objects| objects.replace(sort, object.clone(), false));
        self.change(|objects| objects.replace(sort, object, true));
    }

    /// Changes the fields of the object of this namespace and name that a merge patch names.
    ///
    /// # Panics
    /// Where there is none.
    pub fn patch(&self, sort: impl Into<Sort>, [namespace, name]: [&str; 2], patch: &Value) {
        self.change(|objects| objects.patch((sort.into(), namespace, name), patch, (false, false)));
    }

    /// Deletes an object, and what it owns.
    ///
    /// # Panics
    /// Where there is none.
    pub fn delete(&self, sort: impl Into<Sort>, namespace: &str, name: &str) {
        self.change(|objects| objects.delete((sort.into(), namespace, name), &Value::Null));
    }

    fn change(&self, change: impl FnOnce(&mut Objects) -> Result<Value, Refusal>) {
        let changed = change(&mut locked(&self.shared.objects));
        changed.unwrap_or_else(|status| panic!("{}", status.body()));
    }

    /// All objects of a sort.
    #[must_use]
    pub fn objects(&self, sort: impl Into<Sort>) -> Vec<Value> {
        locked(&self.shared.objects).all(sort.into(), "")
    }

    /// The object as it is stored, if it is there.
    #[must_use]
    pub fn object(&self, sort: impl Into<Sort>, namespace: &str, name: &str) -> Option<Value> {
        locked(&self.shared.objects)
            .get(sort.into(), namespace, name)
            .ok()
    }
}

/// What a service account shows to be known by, in a pod on this node; `node` is empty for who is no pod.
#[must_use]
pub fn token(namespace: &str, name: &str, node: &str) -> String {
    let at = if node.is_empty() { "" } else { "@" };
    format!("system:serviceaccount:{namespace}:{name}{at}{node}")
}

/// A kubeconfig for a server at this address; `token`: who we are to it, if that matters.
#[must_use]
pub fn configuration(address: SocketAddr, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: fake\n\
         clusters: [{{name: fake, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: fake, user: {{token: '{token}'}}}}]\n\
         contexts: [{{name: fake, context: {{cluster: fake, user: fake}}}}]\n"
    )
}

async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    if let Err(error) = axum::serve(listener, http::router(shared)).await {
        tracing::error!(%error, "the fake API server ended");
    }
}

impl Drop for FakeApiServer {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_watches();
    }
}
