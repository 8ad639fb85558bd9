//! The store on Kubernetes keeps the contract of [`manx_store::Store`], and its own promises when the API server fails.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use manx_api::condition::{Condition, Truth};
use manx_api::node::{Node, NodeSpec};
use manx_api::{Key, Kind, Metadata, Resource};
use manx_store::fake::{FakeApiServer, Sort, Streaming, Trouble};
use manx_store::{
    Cluster, Error, Event, Events, Happening, Host, KubeStore, NETWORK_UNAVAILABLE, Store as _, Subject,
};
use serde_json::{Value, json};

/// Longer than any pause that a store makes here.
const PATIENCE: Duration = Duration::from_secs(30);

async fn open() -> (KubeStore, FakeApiServer) {
    let server = FakeApiServer::start().await.expect("a port on the loopback");
    (server.store().await.expect("a client"), server)
}

manx_store::conformance_tests!(open());

fn node(name: &str) -> Resource {
    Resource::Node(Node {
        metadata: Metadata {
            name: name.to_owned(),
            ..Metadata::default()
        },
        spec: NodeSpec::default(),
    })
}

fn pool(name: &str, cidr: &str) -> Resource {
    let pool = json!({
        "apiVersion": "manx.network/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr},
    });
    serde_json::from_value(pool).expect("a pool")
}

/// The names of the next `count` resources that a watch tells of, each with whether it is there.
async fn names(events: &mut Events, count: usize) -> Vec<(String, bool)> {
    let mut names = Vec::new();
    while names.len() < count {
        let event = tokio::time::timeout(PATIENCE, events.next())
            .await
            .expect("an event in time");
        let event = event.expect("a watch goes on").expect("an event");
        let there = matches!(event, Event::Applied(_));
        let resource = event.resource().expect("no list");
        names.push((resource.metadata().name.clone(), there));
    }
    names
}

/// The kind that a watch tells all of next, and the names of its resources.
async fn listed(events: &mut Events) -> (Kind, Vec<String>) {
    let event = tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("in time");
    let event = event.expect("a watch goes on").expect("an event");
    let Event::Listed(kind, listing) = event else {
        panic!("{event:?}")
    };
    let names = listing.items.iter().map(|it| it.metadata().name.clone());
    (kind, names.collect())
}

/// How many requests of this verb were for this.
fn asked(server: &FakeApiServer, verb: &str, resource: &str) -> usize {
    let calls = server.calls().into_iter();
    let calls = calls.filter(|(call, _)| call.verb == verb && call.resource == resource);
    calls.map(|(_, count)| count).sum()
}

fn there(name: impl Into<String>) -> (String, bool) {
    (name.into(), true)
}

#[tokio::test]
async fn a_list_that_is_not_streamed_is_read_by_pages() {
    for streaming in [Streaming::Unknown, Streaming::Fails] {
        let (store, server) = open().await;
        for i in 0..1_100 {
            server.put(
                Kind::Node,
                json!({"apiVersion": "manx.network/v1", "kind": "Node", "metadata": {"name": format!("n{i:04}")}}),
            );
        }
        let streamed = store.list(Kind::Node, None).await.expect("a streamed list");
        server.stream_lists(streaming);
        let before = server.requests();
        let paged = store.list(Kind::Node, None).await.expect("a list by pages");
        assert_eq!(
            server.requests() - before,
            4,
            "{streaming:?}: one that is refused, and three pages"
        );
        assert_eq!(streamed.items.len(), 1_100);
        assert_eq!(paged, streamed);
        let before = server.requests();
        store.list(Kind::Node, None).await.expect("a list");
        assert_eq!(server.requests() - before, 3, "{streaming:?}: that is remembered");
    }
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_without_a_gap() {
    let (store, server) = open().await;
    let from = store.list(Kind::Node, None).await.expect("a list").revision;
    let mut events = store.watch(&[Kind::Node], from);
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for i in 0..4 {
        for name in [format!("a{i}"), format!("b{i}")] {
            store.create(node(&name)).await.expect("a node");
            expected.push(there(name));
            server.cut_watches();
        }
        seen.extend(names(&mut events, 2).await);
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn bookmarks_keep_a_quiet_watch_from_expiring() {
    let (store, server) = open().await;
    let from = store.list(Kind::IpPool, None).await.expect("a list").revision;
    let mut events = store.watch(&[Kind::IpPool], from);
    store.create(node("a")).await.expect("a node");
    // Bookmarks come every fifth of a second; nobody reads them until the watch is polled.
    let quiet = tokio::time::timeout(Duration::from_millis(900), events.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    server.forget();
    server.cut_watches();
    store.create(pool("main", "10.0.0.0/16")).await.expect("a pool");
    assert_eq!(names(&mut events, 1).await, [there("main")]);
}

#[tokio::test]
async fn what_the_server_has_forgotten_of_a_kind_is_listed_and_no_other() {
    let (store, server) = open().await;
    store.create(node("old")).await.expect("a node");
    let from = store.list(Kind::Node, None).await.expect("a list").revision;
    store.delete(&node("old").key(), None).await.expect("a deletion");
    store.create(node("new")).await.expect("a node");
    server.forget();
    let pools = store.list(Kind::IpPool, None).await.expect("a list").revision;
    let lists = asked(&server, "watch", "ippools");
    let nodes = store.watch(&[Kind::Node], from);
    let mut events = futures_util::stream::select(nodes, store.watch(&[Kind::IpPool], pools)).boxed();
    assert_eq!(listed(&mut events).await, (Kind::Node, vec!["new".to_owned()]));
    store.create(node("later")).await.expect("a node");
    // Past the store, which lists pools before it writes one.
    let main = json!({
        "apiVersion": "manx.network/v1", "kind": "IPPool", "metadata": {"name": "main"}, "spec": {"cidr": "10.0.0.0/16"},
    });
    server.put(Kind::IpPool, main);
    let seen = names(&mut events, 2).await.into_iter();
    assert_eq!(
        seen.collect::<BTreeSet<_>>(),
        BTreeSet::from([there("later"), there("main")])
    );
    assert_eq!(
        asked(&server, "watch", "ippools") - lists,
        1,
        "the watch, and no list"
    );
}

#[tokio::test]
async fn a_server_that_forgets_everything_is_not_asked_without_a_pause_and_tells_how_things_are() {
    let (store, server) = open().await;
    let from = store.list(Kind::Node, None).await.expect("a list").revision;
    server.trouble(Trouble::Amnesia);
    let mut events = store.watch(&[Kind::Node], from);
    store.create(node("a")).await.expect("a node");
    let before = server.requests();
    for _ in 0..2 {
        assert_eq!(listed(&mut events).await, (Kind::Node, vec!["a".to_owned()]));
    }
    // A watch that is told 410, and a list, each time.
    assert_eq!(server.requests() - before, 4);
    server.trouble(Trouble::None);
    store.create(node("b")).await.expect("a node");
    assert_eq!(names(&mut events, 1).await, [there("b")]);
}

#[tokio::test]
async fn a_list_whose_pages_are_forgotten_is_read_in_one() {
    let (store, server) = open().await;
    server.stream_lists(Streaming::Unknown);
    for i in 0..600 {
        let node =
            json!({"apiVersion": "manx.network/v1", "kind": "Node", "metadata": {"name": format!("n{i}")}});
        server.put(Kind::Node, node);
    }
    server.trouble(Trouble::Amnesia);
    let listed = store.list(Kind::Node, None).await.expect("a list").items;
    assert_eq!(listed.len(), 600);
    assert_eq!(
        asked(&server, "list", "nodes"),
        3,
        "a page, what is refused, and all"
    );
}

#[tokio::test]
async fn short_faults_are_waited_out() {
    let (store, server) = open().await;
    for code in [429, 503] {
        server.refuse_next(1, code);
        let name = format!("n{code}");
        store.create(node(&name)).await.expect("a node, in the end");
    }
    server.delay(Duration::from_millis(300));
    store
        .get(&Key::cluster(Kind::Node, "n429"))
        .await
        .expect("a late answer");
}

#[tokio::test]
async fn a_watch_outlives_a_server_that_refuses_it() {
    let (store, server) = open().await;
    let from = store.list(Kind::Node, None).await.expect("a list").revision;
    server.refuse_next(3, 500);
    let mut events = store.watch(&[Kind::Node], from);
    let next = tokio::spawn(async move { names(&mut events, 1).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.refuse_next(0, 500);
    store.create(node("a")).await.expect("a node");
    assert_eq!(next.await.expect("the watch"), [there("a")]);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let (store, server) = open().await;
    server.refuse_next(1, 403);
    let error = store.create(node("a")).await.expect_err("no rights");
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("cannot create Node/a at http://127.0.0.1"),
        "{text}"
    );
    assert!(text.contains("give whoever runs this the rights"), "{text}");
    server.refuse_next(1, 500);
    let error = store
        .get(&Key::cluster(Kind::Node, "a"))
        .await
        .expect_err("a fault");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    drop(server);
    let error = store
        .get(&Key::cluster(Kind::Node, "a"))
        .await
        .expect_err("nobody there");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

/// A role of the whole cluster, or of a namespace, and its binding to the account `cni` of `kube-system`.
fn granted(namespace: Option<&str>, rule: &Value) -> [Value; 2] {
    let (role, binding) = match namespace {
        Some(_) => ("Role", "RoleBinding"),
        None => ("ClusterRole", "ClusterRoleBinding"),
    };
    let metadata = json!({"name": "cni", "namespace": namespace});
    let subject = json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": "cni"});
    [
        json!({"kind": role, "metadata": metadata, "rules": [rule]}),
        json!({"kind": binding, "metadata": metadata, "roleRef": {"kind": role, "name": "cni"}, "subjects": [subject]}),
    ]
}

/// What the server said to a request that it denied.
#[track_caller]
fn denied(error: Error) -> String {
    let Error::Denied { message, .. } = error else {
        panic!("{error}");
    };
    message
}

#[tokio::test]
async fn an_account_does_what_its_roles_say_and_is_told_what_it_may_not() {
    let server = FakeApiServer::start().await.expect("a port on the loopback");
    let read = json!({"apiGroups": ["manx.network"], "resources": ["ippools"], "verbs": ["list", "watch", "create"]});
    let known =
        json!({"apiGroups": [""], "resources": ["services"], "resourceNames": ["dns"], "verbs": ["get"]});
    let objects = [granted(None, &read), granted(Some("kube-system"), &known)].concat();
    server.authorize(&objects);
    // What a stream does not bring is listed.
    server.stream_lists(Streaming::Unknown);
    let nobody = server.store().await.expect("a client");
    assert_eq!(
        denied(nobody.list(Kind::IpPool, None).await.expect_err("no token")),
        "Unauthorized"
    );

    let store = server.store_of("kube-system", "cni", "").await.expect("a client");
    store.list(Kind::IpPool, None).await.expect("granted");
    store.create(pool("a", "10.1.0.0/16")).await.expect("granted");
    let message = denied(
        store
            .delete(&pool("a", "10.1.0.0/16").key(), None)
            .await
            .expect_err("not granted"),
    );
    let begin =
        "ippools.manx.network \"a\" is forbidden: User \"system:serviceaccount:kube-system:cni\" cannot ";
    let message_of = |verb: &str| {
        format!("{begin}{verb} resource \"ippools\" in API group \"manx.network\" at the cluster scope")
    };
    assert!(
        [message_of("get"), message_of("delete")].contains(&message),
        "{message}"
    );
    let service = |namespace, name| Key::namespaced(Kind::Service, namespace, name);
    assert!(
        matches!(
            store.get(&service("kube-system", "dns")).await,
            Err(Error::NotFound(_))
        ),
        "allowed"
    );
    for (namespace, name) in [("kube-system", "api"), ("default", "dns")] {
        let message = denied(
            store
                .get(&service(namespace, name))
                .await
                .expect_err("another one"),
        );
        assert!(
            message.starts_with(&format!("services \"{name}\" is forbidden: ")),
            "{message}"
        );
        assert!(
            message.ends_with(&format!("in API group \"\" in the namespace \"{namespace}\"")),
            "{message}"
        );
    }
    let unused = server.unused_rights("kube-system", "cni");
    assert!(unused.is_empty(), "{unused:?}");
}

#[tokio::test]
async fn what_breaks_rules_is_left_out_and_the_rest_is_there() {
    let (store, server) = open().await;
    let from = store.list(Kind::IpPool, None).await.expect("a list").revision;
    let mut events = store.watch(&[Kind::IpPool], from);
    let wrong = json!({
        "apiVersion": "manx.network/v1", "kind": "IPPool", "metadata": {"name": "wrong"},
        "spec": {"cidr": "10.1.0.1/16"},
    });
    server.put(Kind::IpPool, wrong);
    store.create(pool("main", "10.0.0.0/16")).await.expect("a pool");
    assert_eq!(names(&mut events, 1).await, [there("main")]);
    let listed = store.list(Kind::IpPool, None).await.expect("a list").items;
    assert_eq!(listed.len(), 1);
    let error = store
        .get(&Key::cluster(Kind::IpPool, "wrong"))
        .await
        .expect_err("no pool");
    assert!(error.to_string().contains("has host bits set"), "{error}");
}

#[tokio::test]
async fn rules_about_several_resources_hold() {
    let (store, _server) = open().await;
    store.create(pool("main", "10.0.0.0/16")).await.expect("a pool");
    let error = store
        .create(pool("part", "10.0.1.0/24"))
        .await
        .expect_err("an overlap");
    assert!(error.to_string().contains("overlaps IPPool main"), "{error}");
    let mut endpoint = json!({
        "apiVersion": "manx.network/v1", "kind": "NetworkSet", "metadata": {"name": "a", "namespace": "absent"},
    });
    let resource = |json: &Value| serde_json::from_value(json.clone()).expect("a set");
    let error = store.create(resource(&endpoint)).await.expect_err("no namespace");
    assert_eq!(error.to_string(), "Namespace/absent does not exist");
    endpoint["metadata"]["namespace"] = json!("default");
    store.create(resource(&endpoint)).await.expect("a set");
}

#[tokio::test]
async fn an_update_keeps_what_others_keep_in_the_object() {
    let (store, server) = open().await;
    server.put(
        Kind::Node,
        json!({
            "apiVersion": "manx.network/v1", "kind": "Node",
            "metadata": {"name": "a", "finalizers": ["example.org/wait"], "labels": {"old": "1"}},
        }),
    );
    let mut resource = store.get(&Key::cluster(Kind::Node, "a")).await.expect("the node");
    resource.metadata_mut().labels.clear();
    resource
        .metadata_mut()
        .labels
        .insert("new".to_owned(), "1".to_owned());
    store.update(resource).await.expect("an update");
    let object = server.object(Kind::Node, "", "a").expect("the object");
    assert_eq!(object["metadata"]["labels"], json!({"new": "1"}));
    assert_eq!(object["metadata"]["finalizers"], json!(["example.org/wait"]));
}

#[tokio::test]
async fn a_kind_that_is_installed_later_is_seen_then() {
    let (store, server) = open().await;
    server.install(Some(Kind::ClusterNetworkPolicy));
    let listing = store
        .list(Kind::ClusterNetworkPolicy, None)
        .await
        .expect("an empty list");
    assert_eq!(listing.items, []);
    let mut events = store.watch(&[Kind::ClusterNetworkPolicy], listing.revision);
    let next = tokio::spawn(async move { names(&mut events, 1).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.install(None);
    server.put(
        Kind::ClusterNetworkPolicy,
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "a"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}},
        }),
    );
    assert_eq!(next.await.expect("the watch"), [there("a")]);
}

/// A pod of namespace `default` on node `n1`.
fn pod(name: &str, label: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": label}},
        "spec": {"nodeName": "n1", "containers": []}, "status": status,
    })
}

#[tokio::test]
async fn pods_are_the_workload_endpoints() {
    let (store, server) = open().await;
    let running = json!({"phase": "Running", "podIP": "10.64.0.1", "podIPs": [{"ip": "10.64.0.1"}]});
    server.apply(Sort::POD, pod("old", "web", &running));
    server.apply(Sort::POD, pod("done", "web", &json!({"phase": "Succeeded"})));
    let listing = store.list(Kind::WorkloadEndpoint, None).await.expect("a list");
    let key = Key::namespaced(Kind::WorkloadEndpoint, "default", "old");
    let keys: Vec<Key> = listing.items.iter().map(Resource::key).collect();
    assert_eq!(keys, std::slice::from_ref(&key));
    assert_eq!(store.get(&key).await.expect("the pod"), listing.items[0]);
    let ended = Key::namespaced(Kind::WorkloadEndpoint, "default", "done");
    let error = store.get(&ended).await.expect_err("it has ended");
    assert!(matches!(error, Error::NotFound(_)), "{error}");

    let mut events = store.watch(&[Kind::WorkloadEndpoint], listing.revision);
    let mut unbound = pod("new", "web", &json!({}));
    unbound["spec"]["nodeName"] = json!(null);
    server.apply(Sort::POD, unbound);
    server.apply(Sort::POD, pod("new", "web", &json!({"phase": "Pending"})));
    // Of no use to anybody here.
    server.apply(
        Sort::POD,
        pod("new", "web", &json!({"phase": "Pending", "startTime": "now"})),
    );
    server.apply(Sort::POD, pod("new", "db", &running));
    server.apply(Sort::POD, pod("new", "db", &json!({"phase": "Failed"})));
    server.delete(Sort::POD, "default", "old");
    let gone = |name: &str| (name.to_owned(), false);
    let seen = names(&mut events, 5).await;
    // Labels and status are written one after the other.
    assert_eq!(
        seen,
        [there("new"), there("new"), there("new"), gone("new"), gone("old")]
    );
}

#[tokio::test]
async fn what_is_a_pod_is_not_written() {
    let (store, server) = open().await;
    server.apply(Sort::POD, pod("web", "web", &json!({})));
    let key = Key::namespaced(Kind::WorkloadEndpoint, "default", "web");
    let resource = store.get(&key).await.expect("the pod");
    let refused = [
        store.create(resource.clone()).await.expect_err("a Pod"),
        store.update(resource).await.expect_err("a Pod"),
        store.delete(&key, None).await.expect_err("a Pod"),
    ];
    for error in refused {
        assert!(error.to_string().contains("it is a Pod"), "{error}");
    }
    assert!(server.object(Sort::POD, "default", "web").is_some());
}

#[tokio::test]
async fn services_and_slices_are_read_with_all_that_matters() {
    let (store, server) = open().await;
    server.apply(
        Kind::Service,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "sessionAffinity": "None"},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.80", "ipMode": "VIP"}]}},
        }),
    );
    server.put(
        Kind::EndpointSlice,
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"},
            },
            "endpoints": [{"addresses": ["10.64.0.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod"}}],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        }),
    );
    let service = store.get(&Key::namespaced(Kind::Service, "default", "web")).await;
    let Ok(Resource::Service(service)) = service else {
        panic!("{service:?}")
    };
    assert_eq!(
        service.status.addresses(),
        [std::net::Ipv4Addr::new(192, 0, 2, 80)]
    );
    let slices = store.list(Kind::EndpointSlice, None).await.expect("a list").items;
    let [Resource::EndpointSlice(slice)] = slices.as_slice() else {
        panic!("{slices:?}")
    };
    assert_eq!(
        (slice.service(), slice.addresses().count(), slice.ports[0].port),
        (Some("web"), 1, Some(80))
    );
}

/// The next thing that is said of a node.
async fn said(hosts: &mut (impl futures_util::Stream<Item = Option<Host>> + Unpin)) -> Option<Host> {
    let said = tokio::time::timeout(PATIENCE, hosts.next()).await;
    said.expect("something said in time").expect("no end")
}

#[tokio::test]
async fn what_kubernetes_says_of_a_node_is_followed_and_ours_ends_with_it() {
    let (store, server) = open().await;
    let cluster: Cluster = store.cluster().expect("it is of one");
    let mut hosts = cluster.host("n1");
    assert_eq!(said(&mut hosts).await, None);
    let kubernetes = |name: &str, label: &str, cordoned: bool| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"rack": label}},
            "spec": {"unschedulable": cordoned},
        })
    };
    server.apply(Sort::NODE, kubernetes("n2", "x", false));
    server.apply(Sort::NODE, kubernetes("n1", "a", false));
    let first = said(&mut hosts).await.expect("a node");
    assert_eq!((first.labels["rack"].as_str(), first.unschedulable), ("a", false));
    server.cut_watches();
    server.apply(Sort::NODE, kubernetes("n1", "b", true));
    let second = said(&mut hosts).await.expect("a node");
    assert_eq!(
        (second.labels["rack"].as_str(), second.unschedulable),
        ("b", true)
    );
    assert_eq!(second.uid, first.uid);

    for name in ["n1", "n2"] {
        store.create(node(name)).await.expect("a node");
    }
    cluster.tie("n1", &second).await.expect("a patch");
    server.delete(Sort::NODE, "", "n1");
    assert_eq!(said(&mut hosts).await, None);
    let left = store.list(Kind::Node, None).await.expect("a list").items;
    assert_eq!(
        left.iter()
            .map(|node| node.metadata().name.as_str())
            .collect::<Vec<_>>(),
        ["n2"]
    );
}

#[tokio::test]
async fn a_condition_is_one_among_those_of_others_and_events_are_where_operators_look() {
    let (store, server) = open().await;
    let cluster = store.cluster().expect("it is of one");
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
    server.apply(
        Sort::NODE,
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"conditions": [ready]},
        }),
    );
    let mut hosts = cluster.host("n1");
    assert_eq!(said(&mut hosts).await.expect("a node").network_unavailable, None);
    for status in [Truth::True, Truth::False] {
        let condition = Condition {
            kind: NETWORK_UNAVAILABLE.to_owned(),
            status,
            observed_generation: None,
            last_transition_time: "2026-01-01T00:00:00Z".to_owned(),
            reason: "Test".to_owned(),
            message: String::new(),
        };
        cluster.say("n1", &condition).await.expect("a patch");
        let host = said(&mut hosts).await.expect("a node");
        assert_eq!(host.network_unavailable, Some(condition));
    }
    let node = server.object(Sort::NODE, "", "n1").expect("the node");
    let conditions = node["status"]["conditions"].as_array().expect("a list");
    assert_eq!((conditions.len(), &conditions[0]), (2, &ready));

    for subject in [
        Subject::Host("n1".to_owned()),
        Subject::Resource(Key::namespaced(Kind::NetworkPolicy, "kube-system", "web"), None),
    ] {
        let happening = Happening {
            subject,
            reason: "Test",
            message: "mend it".to_owned(),
        };
        // One node records it for all that have it.
        for node in ["n1", "n2"] {
            cluster.record(node, &happening).await.expect("an event");
        }
    }
    let events = server.objects(Sort::EVENT);
    let about = |event: &Value| {
        let (at, what) = (&event["metadata"]["namespace"], &event["involvedObject"]);
        format!(
            "{} {} {}",
            at.as_str().unwrap_or(""),
            what["apiVersion"].as_str().unwrap_or(""),
            what["name"].as_str().unwrap_or("")
        )
    };
    assert_eq!(
        events.iter().map(about).collect::<Vec<_>>(),
        ["default v1 n1", "kube-system manx.network/v1 web"]
    );
}
