//! A real kube-apiserver with what `deploy/` has, and what a kubelet and the controllers of Kubernetes would do there.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use kube::{Client, Config};
use manx_api::{Kind, schema};
use manx_store::fake::Sort;
use manx_tests::apiserver::ApiServer;
use manx_tests::manifests::rendered;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::server::{HOME, place};
use crate::container::DEPLOYED;
use crate::harness::eventually;

/// How long a server may take to serve the kinds that it has been told of.
const SERVED: Duration = Duration::from_secs(60);

/// How often a write is tried that others come in between of.
const TRIES: usize = 20;

/// A server; it ends when this is dropped.
pub(crate) struct Real {
    server: ApiServer,
    /// With all rights.
    client: Client,
    /// Where requests are made.
    pub(crate) runtime: Runtime,
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

/// A client with the rights that a kubeconfig gives.
pub(crate) async fn client(configuration: &Value) -> Client {
    let configuration = serde_json::from_value(configuration.clone()).unwrap();
    let config = Config::from_custom_kubeconfig(configuration, &Default::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

/// One request and its answer. A patch is a merge patch.
pub(crate) async fn request(
    client: &Client,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Value, kube::Error> {
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

impl Real {
    /// Starts one and gives it what `deploy/` has, with the overlay `admission` where it knows such policies.
    pub(crate) fn start() -> Self {
        let runtime = super::runtime();
        let server = runtime.block_on(ApiServer::start()).unwrap();
        let text = std::fs::read(server.kubeconfig()).unwrap();
        let configuration = serde_json::from_slice(&text).unwrap();
        let real = Self {
            server,
            client: runtime.block_on(client(&configuration)),
            runtime,
        };
        real.install();
        real
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
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
                .filter(|kind| schema::definition(**kind).is_some())
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
        group.is_ok_and(|group| group.to_string().contains("validatingadmissionpolicies"))
    }

    /// Answers whoever comes to the listener.
    pub(crate) fn serve(&self, listener: TcpListener) -> impl Future<Output = ()> + Send + 'static {
        relay(listener, self.address())
    }

    /// A kubeconfig of an account, in a pod on this node or, where that is empty, on none, for whom the server is at this
    /// address.
    pub(crate) fn configuration(&self, address: SocketAddr, account: &str, node: &str) -> Value {
        self.server.configuration(address, &self.token(account, node))
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
        self.apply(Sort::POD, &pod);
        let pod = self.object(Sort::POD, HOME, &name).unwrap();
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

    /// Makes an object.
    pub(crate) fn put(&self, sort: Sort, object: &Value) {
        let [namespace, _] = place(object);
        let made = self.ask("POST", &path(sort, namespace, ""), object);
        made.unwrap_or_else(|error| panic!("{object}: {error}"));
    }

    /// Makes an object, or puts it in the place of the one of that name, with the `status` that it has.
    pub(crate) fn apply(&self, sort: Sort, object: &Value) {
        let [namespace, name] = place(object);
        if self.object(sort, namespace, name).is_none() {
            self.put(sort, object);
        } else {
            self.replace(sort, object.clone(), "");
        }
        if !object["status"].is_null() {
            self.replace(sort, object.clone(), "/status");
        }
    }

    /// Replaces an object as it is by now, or what is below it.
    fn replace(&self, sort: Sort, mut object: Value, below: &str) {
        let [namespace, name] = place(&object);
        let path = path(sort, namespace, name);
        for _ in 0..TRIES {
            let now = self.ask("GET", &path, &Value::Null).unwrap();
            object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
            match self.ask("PUT", &format!("{path}{below}"), &object) {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("{object}: {error}"),
            }
        }
        panic!("{path} changes all the time")
    }

    /// Changes the fields of an object that a merge patch names.
    pub(crate) fn patch(&self, sort: Sort, [namespace, name]: [&str; 2], patch: &Value) {
        let path = path(sort, namespace, name);
        let patched = self.ask("PATCH", &path, patch);
        patched.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Deletes an object, at once. With a node of Kubernetes goes what the garbage collectors take.
    pub(crate) fn delete(&self, sort: Sort, namespace: &str, name: &str) {
        let uid = self.object(sort, namespace, name).unwrap()["metadata"]["uid"].clone();
        let now = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        self.ask("DELETE", &path(sort, namespace, name), &now).unwrap();
        if sort == Sort::NODE {
            let ours = Kind::Node.into();
            let owned = |it: &Value| it["metadata"]["ownerReferences"][0]["uid"] == uid;
            for node in self.objects(ours).iter().filter(|it| owned(it)) {
                self.delete(ours, "", place(node)[1]);
            }
            self.delete(Sort::POD, HOME, &format!("manxd-{name}"));
        }
    }

    /// All objects of a sort.
    pub(crate) fn objects(&self, sort: Sort) -> Vec<Value> {
        let mut list = self.ask("GET", &path(sort, "", ""), &Value::Null).unwrap();
        serde_json::from_value(list["items"].take()).unwrap()
    }

    /// The object as it is stored, if it is there.
    pub(crate) fn object(&self, sort: Sort, namespace: &str, name: &str) -> Option<Value> {
        match self.ask("GET", &path(sort, namespace, name), &Value::Null) {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{error}"),
        }
    }
}
