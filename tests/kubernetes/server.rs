//! The API server of a cluster under test: the tests' own, or a real one. Both have what `deploy/` has.

use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;

use manx_api::Kind;
use manx_store::fake::{self, FakeApiServer, Sort};
use manx_tests::manifests::rendered;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::real::{Real, client, request};
use crate::container::DEPLOYED;

/// Where `deploy/` puts its accounts.
pub(crate) const HOME: &str = "manx-system";

/// Which server a scenario is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The tests' own.
    Fake,
    /// The programs that [`manx_tests::apiserver::ASSETS`] names.
    Real,
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

/// A server, with what `deploy/` has and, where it knows such policies, the overlay `admission`; it ends when this is
/// dropped.
pub(crate) enum Server {
    /// Its state lives as long as the runtime.
    Fake(FakeApiServer, Runtime),
    Real(Real),
}

/// Namespace and name.
pub(crate) fn place(object: &Value) -> [&str; 2] {
    ["namespace", "name"].map(|field| object["metadata"][field].as_str().unwrap_or_default())
}

impl Server {
    pub(crate) fn start(which: Which) -> Self {
        if which == Which::Real {
            return Self::Real(Real::start());
        }
        let runtime = super::runtime();
        let server = runtime.block_on(FakeApiServer::start()).unwrap();
        server.authorize(&[DEPLOYED.clone(), rendered("overlays/admission")].concat());
        let home = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}});
        server.put(Kind::Namespace, home);
        Self::Fake(server, runtime)
    }

    /// The tests' own server, for what no other lets one see or do.
    pub(crate) fn fake(&self) -> &FakeApiServer {
        match self {
            Self::Fake(server, _) => server,
            Self::Real(_) => panic!("a real server has no such thing"),
        }
    }

    /// Whether it goes by ValidatingAdmissionPolicies.
    pub(crate) fn judges(&self) -> bool {
        match self {
            Self::Fake(..) => true,
            Self::Real(server) => server.judges(),
        }
    }

    /// Where it answers in the test's own namespace.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Fake(server, _) => server.address(),
            Self::Real(server) => server.address(),
        }
    }

    /// Answers whoever comes to the listener, until the future is dropped and the runtime that it ran on has ended.
    pub(crate) fn serve(&self, listener: TcpListener) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        listener.set_nonblocking(true).unwrap();
        match self {
            Self::Fake(server, _) => Box::pin(server.serve(listener).unwrap()),
            Self::Real(server) => Box::pin(server.serve(listener)),
        }
    }

    /// A kubeconfig of an account, for whom the server is at this address.
    pub(crate) fn configuration(&self, address: SocketAddr, account: Account) -> Value {
        let (name, node) = match account {
            Account::Agent(node) => ("manxd", node),
            Account::Controller => ("manx-controller", ""),
        };
        let mut configuration: Value = match self {
            Self::Fake(..) => {
                let text = fake::configuration(address, &fake::token(HOME, name, node));
                serde_saphyr::from_str(&text).unwrap()
            }
            Self::Real(server) => server.configuration(address, name, node),
        };
        configuration["contexts"][0]["context"]["namespace"] = json!(HOME);
        configuration
    }

    /// A request of whoever has this kubeconfig, and what the server makes of it.
    pub(crate) fn refusal(&self, access: &Value, (method, path): (&str, &str), body: &Value) -> Said {
        let asked = async { request(&client(access).await, method, path, body).await };
        let answer = match self {
            Self::Fake(_, runtime) => runtime.block_on(asked),
            Self::Real(server) => server.runtime.block_on(asked),
        };
        match answer {
            Ok(_) => None,
            Err(kube::Error::Api(status)) => Some((status.code, status.reason, status.message)),
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// Makes an object. It must name its kind as the API does.
    pub(crate) fn put(&self, sort: impl Into<Sort>, object: Value) {
        match self {
            Self::Fake(server, _) => server.put(sort, object),
            Self::Real(server) => server.put(sort.into(), &object),
        }
    }

    /// Makes an object, or puts it in the place of the one of that name, with the `status` that it has.
    pub(crate) fn apply(&self, sort: impl Into<Sort>, object: Value) {
        match self {
            Self::Fake(server, _) => server.apply(sort, object),
            Self::Real(server) => server.apply(sort.into(), &object),
        }
    }

    /// Changes the fields of an object that a merge patch names.
    pub(crate) fn patch(&self, sort: impl Into<Sort>, place: [&str; 2], patch: &Value) {
        match self {
            Self::Fake(server, _) => server.patch(sort, place, patch),
            Self::Real(server) => server.patch(sort.into(), place, patch),
        }
    }

    /// Deletes an object, at once, and what it owns.
    pub(crate) fn delete(&self, sort: impl Into<Sort>, namespace: &str, name: &str) {
        match self {
            Self::Fake(server, _) => server.delete(sort, namespace, name),
            Self::Real(server) => server.delete(sort.into(), namespace, name),
        }
    }

    /// All objects of a sort.
    pub(crate) fn objects(&self, sort: impl Into<Sort>) -> Vec<Value> {
        match self {
            Self::Fake(server, _) => server.objects(sort),
            Self::Real(server) => server.objects(sort.into()),
        }
    }

    /// The object as it is stored, if it is there.
    pub(crate) fn object(&self, sort: impl Into<Sort>, namespace: &str, name: &str) -> Option<Value> {
        match self {
            Self::Fake(server, _) => server.object(sort, namespace, name),
            Self::Real(server) => server.object(sort.into(), namespace, name),
        }
    }
}
