//! What an account of `deploy/` may not, and what the server says then.

use manx_api::Kind;
use manx_store::fake::Sort;
use serde_json::{Value, json};

use super::cluster::{LATER, custom};
use super::server::{Account, Said, Server, Which};
use crate::harness::eventually;

/// A refused request: method and path; verb, resource, group, namespace and name of what it asks for (`-`: none).
type Row = (&'static str, &'static str);

/// What agents must not: nobody's events, others' machines, pools, addresses of services, the controllers' lease, pods.
const AGENTS: [Row; 6] = [
    ("GET /api/v1/events", "list events - - -"),
    ("DELETE /api/v1/nodes/right", "delete nodes - - right"),
    (
        "POST /apis/manx.network/v1/ippools",
        "create ippools manx.network - -",
    ),
    (
        "PATCH /api/v1/namespaces/shop/services/web/status",
        "patch services/status - shop web",
    ),
    (
        "GET /apis/coordination.k8s.io/v1/namespaces/manx-system/leases/manx-controller",
        "get leases coordination.k8s.io manx-system manx-controller",
    ),
    ("DELETE /api/v1/pods", "deletecollection pods - - -"),
];

/// What controllers must not: they list nodes and never watch them, have one lease, and make no blocks.
const CONTROLLERS: [Row; 3] = [
    ("GET /api/v1/nodes?watch=true", "watch nodes - - -"),
    (
        "GET /apis/coordination.k8s.io/v1/namespaces/manx-system/leases/other",
        "get leases coordination.k8s.io manx-system other",
    ),
    (
        "POST /apis/manx.network/v1/ipblocks",
        "create ipblocks manx.network - -",
    ),
];

/// What Kubernetes says to an account that asks for this.
fn forbidden(user: &str, asked: &str) -> String {
    let mut words = asked.split(' ').map(|word| if word == "-" { "" } else { word });
    let [verb, full, group, namespace, name] = [(); 5].map(|()| words.next().unwrap());
    let resource = full.split('/').next().unwrap_or_default();
    let dot = if group.is_empty() { "" } else { "." };
    let name = if name.is_empty() {
        String::new()
    } else {
        format!(" \"{name}\"")
    };
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{namespace}\"")
    };
    format!(
        "{resource}{dot}{group}{name} is forbidden: User \"system:serviceaccount:manx-system:{user}\" cannot {verb} resource \
         \"{full}\" in API group \"{group}\" {place}"
    )
}

pub(crate) fn what_no_role_grants_is_refused(which: Which) {
    let server = Server::start(which);
    for (account, user, rows) in [
        (Account::Agent("left"), "manxd", &AGENTS[..]),
        (Account::Controller, "manx-controller", &CONTROLLERS[..]),
    ] {
        let access = server.configuration(server.address(), account);
        for (request, asked) in rows {
            let (method, path) = request.split_once(' ').unwrap();
            let body = if matches!(method, "POST" | "PATCH") {
                json!({})
            } else {
                Value::Null
            };
            let said = server.refusal(&access, (method, path), &body);
            let expected = (403, "Forbidden".to_owned(), forbidden(user, asked));
            assert_eq!(said, Some(expected), "{request}");
        }
    }
    let mut nobody = server.configuration(server.address(), Account::Agent("left"));
    nobody["users"][0]["user"]["token"] = json!("nobody");
    let said = server.refusal(&nobody, ("GET", "/api/v1/nodes"), &Value::Null);
    assert_eq!(
        said,
        Some((401, "Unauthorized".to_owned(), "Unauthorized".to_owned()))
    );
}

/// What the server says where a policy denies.
fn denied(about: &str, policy: &str, why: &str) -> Said {
    let message = format!(
        "{about} is forbidden: ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {why}"
    );
    Some((403, "Forbidden".to_owned(), message))
}

/// Waits until the server says this: it takes a while to go by policies that it has been told of.
fn comes_to(expected: &Said, ask: impl Fn() -> Said) {
    let mut said = None;
    let came = eventually(LATER, || {
        said = ask();
        said == *expected
    });
    assert!(came, "{said:?}");
}

pub(crate) fn an_agent_writes_its_own_node_and_blocks_alone(which: Which) {
    let server = Server::start(which);
    if !server.judges() {
        eprintln!(
            "this server, before Kubernetes 1.30, has no ValidatingAdmissionPolicies: agents are kept apart by nothing"
        );
        return;
    }
    for name in ["left", "right"] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        server.put(Sort::NODE, node);
        server.put(Kind::Node, custom("Node", name, &json!({})));
    }
    let access = server.configuration(server.address(), Account::Agent("left"));
    let ask = |method: &str, path: &str, body: &Value| server.refusal(&access, (method, path), body);
    let mark = json!({"metadata": {"annotations": {"mark": "x"}}});
    let [left, right] = ["left", "right"].map(|name| format!("/apis/manx.network/v1/nodes/{name}"));
    let why = "an agent writes its own node alone";
    comes_to(
        &denied("nodes.manx.network \"right\"", "manxd-nodes", why),
        || ask("PATCH", &right, &mark),
    );
    assert_eq!(ask("PATCH", &left, &mark), None);
    let condition = json!({"status": {"conditions": []}});
    let said = ask("PATCH", "/api/v1/nodes/right/status", &condition);
    assert_eq!(said, denied("nodes \"right\"", "manxd-nodes", why));

    let block = |node: &str, cidr: &str| {
        let name = cidr.replace(['.', '/'], "-");
        custom(
            "IPBlock",
            &name,
            &json!({"cidr": cidr, "pool": "v4", "node": node, "generation": 1}),
        )
    };
    let blocks = "/apis/manx.network/v1/ipblocks";
    let why = "an agent claims free blocks, and changes and gives back its own";
    let foreign = block("right", "10.64.0.0/26");
    comes_to(
        &denied("ipblocks.manx.network \"10-64-0-0-26\"", "manxd-blocks", why),
        || ask("POST", blocks, &foreign),
    );
    assert_eq!(ask("POST", blocks, &block("left", "10.64.0.64/26")), None);
}
