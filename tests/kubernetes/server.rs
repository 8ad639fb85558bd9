//! The API server of a cluster under test: the tests' own, or a real one. Both are spoken to in the same way, over HTTP, and
//! both have what `deploy/` has.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use kube::{Client, Config};
use manx_api::Kind;
use manx_store::fake::{self, FakeApiServer, Sort};
use manx_tests::apiserver::ApiServer;
use manx_tests::manifests::rendered;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::container::DEPLOYED;
use crate::harness::eventually;

/// Where `deploy/` puts its accounts.
const HOME: &str = "manx-system";

/// How long a server may take to serve the kinds that it has been told of.
const SERVED: Duration = Duration::from_secs(60);

/// How often a write is tried that others come in between of.
const TRIES: usize = 20;

/// Which server a scenario is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The tests' own.
    Fake,
    /// The programs that [`manx_tests::apiserver::ASSETS`] names.
    Real,
}

enum Program {
    Fake(FakeApiServer),
    Real(ApiServer),
}

/// What a server makes of a request: nothing, or code, reason and message of its refusal.
pub(crate) type Said = Option<(u16, String, String)>;

/// An account of `deploy/`, in a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Account {
    /// The agent's, on this node.
    Agent(&'static str),
    Controller,
}

/// A server, with what `deploy/` has; it ends when this is dropped.
pub(crate) struct Server {
    program: Program,
    /// With all rights.
    client: Client,
    /// Where the fake server's state lives, and where requests are made.
    runtime: Runtime,
}

/// Somebody who may do everything at the fake server; the real one has such an account.
fn administrator() -> [Value; 2] {
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"});
    [
        json!({
            "kind": "ClusterRole", "metadata": {"name": "all"},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
        }),
        json!({
            "kind": "ClusterRoleBinding", "metadata": {"name": "all"}, "roleRef": reference,
            "subjects": [{"kind": "ServiceAccount", "name": "administrator", "namespace": "default"}],
        }),
    ]
}

/// The path of an object, or of all of a sort where the name is empty.
fn path(sort: Sort, namespace: &str, name: &str) -> String {
    let api = if sort.api_version.contains('/') {
        "apis"
    } else {
        "api"
    };
    let home = if sort.namespaced && !namespace.is_empty() {
        format!("/namespaces/{namespace}")
    } else {
        String::new()
    };
    let name = if name.is_empty() {
        String::new()
    } else {
        format!("/{name}")
    };
    format!("/{api}/{}{home}/{}{name}", sort.api_version, sort.plural)
}

/// Namespace and name.
fn place(object: &Value) -> [&str; 2] {
    ["namespace", "name"].map(|field| object["metadata"][field].as_str().unwrap_or_default())
}

/// A client with the rights that a kubeconfig gives.
async fn client(configuration: &Value) -> Client {
    let configuration = serde_json::from_value(configuration.clone()).unwrap();
    let config = Config::from_custom_kubeconfig(configuration, &Default::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

/// One request and its answer. A patch is a merge patch.
async fn request(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let content = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content);
    client.request(request.body(body).unwrap()).await
}

/// Leads connections to a server that the listener's namespace does not reach.
async fn relay(listener: TcpListener, server: SocketAddr) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(server).await else {
                return;
            };
            // However it ends: both sides learn that it did.
            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
        });
    }
}

impl Server {
    /// Starts one and gives it what `deploy/` has, with the overlay `admission` where it knows such policies.
    pub(crate) fn start(which: Which) -> Self {
        let runtime = super::runtime();
        let (program, configuration) = match which {
            Which::Fake => {
                let server = runtime.block_on(FakeApiServer::start()).unwrap();
                let granted = [
                    DEPLOYED.clone(),
                    rendered("overlays/admission"),
                    administrator().into(),
                ];
                server.authorize(&granted.concat());
                let home = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}});
                server.put(Kind::Namespace, home);
                let token = fake::token("default", "administrator", "");
                let text = fake::configuration(server.address(), &token);
                let configuration = serde_saphyr::from_str(&text).unwrap();
                (Program::Fake(server), configuration)
            }
            Which::Real => {
                let server = runtime.block_on(ApiServer::start()).unwrap();
                let text = std::fs::read(server.kubeconfig()).unwrap();
                (Program::Real(server), serde_json::from_slice(&text).unwrap())
            }
        };
        let server = Self {
            program,
            client: runtime.block_on(client(&configuration)),
            runtime,
        };
        if which == Which::Real {
            server.install();
        }
        server
    }

    /// Makes what `deploy/` has, and waits until our kinds are served.
    fn install(&self) {
        let mut objects = DEPLOYED.clone();
        if self.judges() {
            objects.extend(rendered("overlays/admission"));
        }
        for object in objects {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
            let (group, version) = version.split_once('/').unwrap_or(("", &version));
            let kind = kube::api::GroupVersionKind::gvk(group, version, &kind);
            let resource = kube::api::ApiResource::from_gvk(&kind);
            let api = if group.is_empty() { "api" } else { "apis" };
            let home = match text(&object["metadata"]["namespace"]).as_str() {
                "" => String::new(),
                namespace => format!("/namespaces/{namespace}"),
            };
            let path = format!("/{api}/{}{home}/{}", resource.api_version, resource.plural);
            let made = self.ask("POST", &path, &object);
            made.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let ours = || {
            Kind::all()
                .iter()
                .filter(|kind| manx_api::schema::definition(**kind).is_some())
        };
        let served = || {
            ours().all(|kind| {
                self.ask("GET", &path(Sort::from(*kind), "", ""), &Value::Null)
                    .is_ok()
            })
        };
        assert!(eventually(SERVED, served), "our kinds are served");
    }

    /// Whether it knows ValidatingAdmissionPolicies.
    pub(crate) fn judges(&self) -> bool {
        let group = self.ask("GET", "/apis/admissionregistration.k8s.io/v1", &Value::Null);
        let known = |group: &Value| group.to_string().contains("validatingadmissionpolicies");
        matches!(self.program, Program::Fake(_)) || group.as_ref().is_ok_and(known)
    }

    /// The tests' own server, for what no other lets one see.
    pub(crate) fn fake(&self) -> &FakeApiServer {
        match &self.program {
            Program::Fake(server) => server,
            Program::Real(_) => panic!("a real server tells nobody"),
        }
    }

    /// Where it answers in the test's own namespace.
    pub(crate) fn address(&self) -> SocketAddr {
        match &self.program {
            Program::Fake(server) => server.address(),
            Program::Real(server) => server.address(),
        }
    }

    /// Answers whoever comes to the listener, until the future is dropped and the runtime that it ran on has ended.
    pub(crate) fn serve(&self, listener: TcpListener) -> Box<dyn Future<Output = ()> + Send + Unpin> {
        listener.set_nonblocking(true).unwrap();
        match &self.program {
            Program::Fake(server) => Box::new(Box::pin(server.serve(listener).unwrap())),
            Program::Real(server) => Box::new(Box::pin(relay(listener, server.address()))),
        }
    }

    /// A kubeconfig of an account, for whom the server is at this address.
    pub(crate) fn configuration(&self, address: SocketAddr, account: Account) -> Value {
        let (name, node) = match account {
            Account::Agent(node) => ("manxd", node),
            Account::Controller => ("manx-controller", ""),
        };
        let mut configuration: Value = match &self.program {
            Program::Fake(_) => {
                let text = fake::configuration(address, &fake::token(HOME, name, node));
                serde_saphyr::from_str(&text).unwrap()
            }
            Program::Real(server) => server.configuration(address, &self.token(name, node)),
        };
        configuration["contexts"][0]["context"]["namespace"] = json!(HOME);
        configuration
    }

    /// A token as the kubelet asks for it, which is a pod's on this node.
    fn token(&self, account: &str, node: &str) -> String {
        let name = format!("{account}-{node}").trim_end_matches('-').to_owned();
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": HOME},
            "spec": {
                "serviceAccountName": account, "hostNetwork": true,
                "containers": [{"name": "main", "image": "example.org/manx"}],
            },
        });
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        let pod = self.apply(Sort::POD, pod);
        let reference = json!({
            "apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"],
        });
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "boundObjectRef": reference},
        });
        let path = format!("/api/v1/namespaces/{HOME}/serviceaccounts/{account}/token");
        let given = self.ask("POST", &path, &asked).unwrap();
        given["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A request with all rights.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
        self.runtime.block_on(request(&self.client, method, path, body))
    }

    /// A request of an account, and what the server makes of it.
    pub(crate) fn refusal(&self, configuration: &Value, (method, path): (&str, &str), body: &Value) -> Said {
        let asked = async { request(&client(configuration).await, method, path, body).await };
        match self.runtime.block_on(asked) {
            Ok(_) => None,
            Err(kube::Error::Api(status)) => Some((status.code, status.reason, status.message)),
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// Makes an object. It must name its kind as the API does.
    pub(crate) fn put(&self, sort: impl Into<Sort>, object: Value) -> Value {
        let [namespace, _] = place(&object);
        let made = self.ask("POST", &path(sort.into(), namespace, ""), &object);
        made.unwrap_or_else(|error| panic!("{object}: {error}"))
    }

    /// Makes an object, or puts it in the place of the one of that name, with the `status` that it has; returns it.
    pub(crate) fn apply(&self, sort: impl Into<Sort>, object: Value) -> Value {
        let (sort, [namespace, name]) = (sort.into(), place(&object));
        let applied = if self.object(sort, namespace, name).is_none() {
            self.put(sort, object.clone())
        } else {
            self.replace(sort, object.clone(), "")
        };
        if object["status"].is_null() {
            return applied;
        }
        self.replace(sort, object, "/status")
    }

    /// Replaces an object as it is by now, or what is below it.
    fn replace(&self, sort: Sort, mut object: Value, below: &str) -> Value {
        let [namespace, name] = place(&object);
        let path = path(sort, namespace, name);
        for _ in 0..TRIES {
            let now = self.ask("GET", &path, &Value::Null).unwrap();
            object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
            match self.ask("PUT", &format!("{path}{below}"), &object) {
                Ok(object) => return object,
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("{object}: {error}"),
            }
        }
        panic!("{path} changes all the time")
    }

    /// Changes the fields of an object that a merge patch names.
    pub(crate) fn patch(&self, sort: impl Into<Sort>, [namespace, name]: [&str; 2], patch: &Value) {
        let path = path(sort.into(), namespace, name);
        let patched = self.ask("PATCH", &path, patch);
        patched.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Deletes an object, at once, and what it owns, as Kubernetes' garbage collectors do.
    pub(crate) fn delete(&self, sort: impl Into<Sort>, namespace: &str, name: &str) {
        let sort = sort.into();
        let path = path(sort, namespace, name);
        let uid = self.object(sort, namespace, name).unwrap()["metadata"]["uid"].clone();
        let now = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        self.ask("DELETE", &path, &now).unwrap();
        if sort == Sort::NODE && matches!(self.program, Program::Real(_)) {
            let owned = |it: &Value| it["metadata"]["ownerReferences"][0]["uid"] == uid;
            for node in self.objects(Kind::Node).iter().filter(|it| owned(it)) {
                self.delete(Kind::Node, "", place(node)[1]);
            }
            self.delete(Sort::POD, HOME, &format!("manxd-{name}"));
        }
    }

    /// All objects of a sort.
    pub(crate) fn objects(&self, sort: impl Into<Sort>) -> Vec<Value> {
        let mut list = self.ask("GET", &path(sort.into(), "", ""), &Value::Null).unwrap();
        serde_json::from_value(list["items"].take()).unwrap()
    }

    /// The object as it is stored, if it is there.
    pub(crate) fn object(&self, sort: impl Into<Sort>, namespace: &str, name: &str) -> Option<Value> {
        match self.ask("GET", &path(sort.into(), namespace, name), &Value::Null) {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{error}"),
        }
    }
}
