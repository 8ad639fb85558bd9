//! Controllers on the fake API server: who acts, and what becomes of services.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use manx_api::Kind;
use manx_api::ipam::IpPool;
use manx_controller::election::{Election, Timing};
use manx_controller::pools::MADE;
use manx_controller::{LEASE, Settings, lead, run};
use manx_store::fake::{FakeApiServer, Sort};
use manx_store::{LeaseName, Store as _};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The lease of these tests, as short as it may be.
const SECONDS: u32 = 3;

/// A controller. Dropped, it is killed; told to stop, it ends in order.
struct Controller {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Controller {
    async fn start(server: &FakeApiServer, name: &str) -> Self {
        let store = server.store().await.expect("a store");
        let cluster = store.cluster().expect("a cluster");
        let settings = Settings {
            name: name.to_owned(),
            lease_seconds: SECONDS,
            host_endpoints: name == "hosts",
            node_grace: Duration::from_secs(3),
            default_pools: if name.starts_with("pools") {
                vec![first_pool()]
            } else {
                Vec::new()
            },
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            run(&store, &cluster, &settings, async { drop(stopped.await) }).await;
        });
        Self { task, stop }
    }

    fn kill(self) {
        self.task.abort();
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("it ends in order");
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        sleep(Duration::from_millis(50)).await;
    }
    begin.elapsed()
}

/// Who has the lease.
fn holder(server: &FakeApiServer) -> String {
    let lease = server.object(Sort::LEASE, "default", LEASE);
    let holder = lease.map(|lease| lease["spec"]["holderIdentity"].clone());
    let holder = holder
        .and_then(|holder| holder.as_str().map(str::to_owned))
        .unwrap_or_default();
    holder.split('_').next().unwrap_or_default().to_owned()
}

/// The pool that a new cluster is given.
fn first_pool() -> IpPool {
    let pool = json!({"metadata": {"name": "first"}, "spec": {"cidr": "10.1.0.0/16", "natOutgoing": true}});
    serde_json::from_value(pool).expect("a pool")
}

fn pool(server: &FakeApiServer, cidr: &str) {
    let pool = json!({
        "apiVersion": "manx.network/v1", "kind": "IPPool", "metadata": {"name": "public"},
        "spec": {"cidr": cidr, "allowedUses": ["LoadBalancer"]},
    });
    server.put(Kind::IpPool, pool);
}

fn service(server: &FakeApiServer, name: &str, spec: &Value) {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "ipFamilies": ["IPv4"]},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    server.put(Kind::Service, service);
}

/// The addresses in a service's status.
fn addresses(server: &FakeApiServer, name: &str) -> Vec<String> {
    let service = server
        .object(Kind::Service, "default", name)
        .expect("the service");
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned();
    let ips = ingress.unwrap_or_default().into_iter();
    ips.map(|it| it["ip"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_controllers_acts_and_the_other_when_it_is_gone() {
    let server = FakeApiServer::start().await.expect("a server");
    pool(&server, "203.0.113.0/24");
    let first = Controller::start(&server, "first").await;
    eventually("the first has the lease", || holder(&server) == "first").await;
    let second = Controller::start(&server, "second").await;
    service(&server, "a", &json!({}));
    eventually("a has an address", || addresses(&server, "a") == ["203.0.113.0"]).await;
    sleep(Duration::from_secs(u64::from(SECONDS) * 2)).await;
    assert_eq!(holder(&server), "first", "it lives");

    first.kill();
    service(&server, "b", &json!({}));
    let lease = Duration::from_secs(SECONDS.into());
    let taken = eventually("the second has the lease", || holder(&server) == "second").await;
    assert!(taken >= lease / 2 && taken < lease * 2, "{taken:?}");
    eventually("b has an address", || addresses(&server, "b") == ["203.0.113.1"]).await;
    assert_eq!(addresses(&server, "a"), ["203.0.113.0"]);

    second.stop().await;
    assert_eq!(holder(&server), "", "it was given back");
    let third = Controller::start(&server, "third").await;
    let taken = eventually("the third has the lease", || holder(&server) == "third").await;
    assert!(taken < lease, "it did not wait for the lease's end: {taken:?}");
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_has_its_first_pools_and_never_again() {
    let server = FakeApiServer::start().await.expect("a server");
    // Not for pods.
    pool(&server, "203.0.113.0/24");
    let first = || server.object(Kind::IpPool, "", "first");
    let done = |server: &FakeApiServer| server.object(Sort::LEASE, "default", MADE).is_some();
    let one = Controller::start(&server, "pools-one").await;
    eventually("the pool is there", || first().is_some()).await;
    eventually("that is noted", || done(&server)).await;
    let spec = &first().expect("the pool")["spec"];
    assert_eq!(
        (&spec["cidr"], &spec["natOutgoing"]),
        (&json!("10.1.0.0/16"), &json!(true))
    );

    one.stop().await;
    server.delete(Kind::IpPool, "", "first");
    let two = Controller::start(&server, "pools-two").await;
    service(&server, "a", &json!({}));
    eventually("the second acts", || addresses(&server, "a") == ["203.0.113.0"]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(first(), None, "an operator has deleted it");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_pool_is_given_none() {
    let server = FakeApiServer::start().await.expect("a server");
    let own = json!({
        "apiVersion": "manx.network/v1", "kind": "IPPool", "metadata": {"name": "own"}, "spec": {"cidr": "10.9.0.0/16"},
    });
    server.put(Kind::IpPool, own);
    let one = Controller::start(&server, "pools-one").await;
    eventually("that is noted", || {
        server.object(Sort::LEASE, "default", MADE).is_some()
    })
    .await;
    assert_eq!(server.objects(Kind::IpPool).len(), 1);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_out_nobody_acts() {
    let server = FakeApiServer::start().await.expect("a server");
    pool(&server, "203.0.113.0/24");
    let controllers = [
        Controller::start(&server, "one").await,
        Controller::start(&server, "two").await,
    ];
    eventually("one of them has the lease", || !holder(&server).is_empty()).await;
    // Whoever acts is cut off; what it hears of comes to nothing.
    server.refuse_next(usize::MAX, 500);
    service(&server, "a", &json!({}));
    sleep(Duration::from_secs(u64::from(SECONDS) * 2)).await;
    assert_eq!(addresses(&server, "a"), [""; 0]);
    server.refuse_next(0, 500);
    eventually("a has an address", || addresses(&server, "a") == ["203.0.113.0"]).await;
    for controller in controllers {
        controller.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_gets_no_address_is_told_why_once_and_served_when_it_can_be() {
    let server = FakeApiServer::start().await.expect("a server");
    pool(&server, "203.0.113.0/32");
    let controller = Controller::start(&server, "one").await;
    service(&server, "a", &json!({}));
    eventually("a has an address", || addresses(&server, "a") == ["203.0.113.0"]).await;
    service(&server, "b", &json!({}));
    service(&server, "c", &json!({"loadBalancerClass": "example.org/other"}));
    let told = || {
        let mut events = server.objects(Sort::EVENT);
        events.retain(|event| event["involvedObject"]["name"] == "b");
        events
    };
    eventually("b is told", || !told().is_empty()).await;
    let event = told().remove(0);
    assert_eq!(event["reason"], "NoLoadBalancerAddress");
    let message = event["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("make another pool, or delete services"),
        "{message}"
    );
    let b = server.object(Kind::Service, "default", "b").expect("b");
    assert_eq!(
        event["involvedObject"]["uid"], b["metadata"]["uid"],
        "kubectl describe shows it"
    );

    server.delete(Kind::Service, "default", "a");
    eventually("b has the address", || addresses(&server, "b") == ["203.0.113.0"]).await;
    assert_eq!(told().len(), 1);
    assert_eq!(addresses(&server, "c"), [""; 0]);
    controller.stop().await;

    // What its status says is what the next one goes by.
    service(&server, "0", &json!({}));
    let controller = Controller::start(&server, "two").await;
    let told = || {
        server
            .objects(Sort::EVENT)
            .iter()
            .any(|event| event["involvedObject"]["name"] == "0")
    };
    eventually("0 is told", told).await;
    assert_eq!(addresses(&server, "b"), ["203.0.113.0"]);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_forgotten_when_kubernetes_has_neither_it_nor_pods_of_it() {
    let server = FakeApiServer::start().await.expect("a server");
    let named = |kind: &str, name: &str| json!({"apiVersion": "manx.network/v1", "kind": kind, "metadata": {"name": name}});
    for (name, cidr) in [
        ("gone", "10.0.0.0/26"),
        ("busy", "10.0.0.64/26"),
        ("there", "10.0.0.128/26"),
    ] {
        server.put(Kind::Node, named("Node", name));
        let block = manx_api::ipam::block_name(cidr.parse().expect("a network"));
        let mut block = named("IPBlock", &block);
        block["spec"] = json!({"cidr": cidr, "pool": "main", "node": name, "generation": 1});
        server.put(Kind::IpBlock, block);
    }
    // An operator's, of a node that is to come.
    server.put(Kind::Node, named("Node", "future"));
    let host = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "there"}});
    server.put(Sort::NODE, host);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "busy"},
    });
    server.put(Sort::POD, pod);
    let controller = Controller::start(&server, "one").await;
    let nodes = || -> Vec<String> {
        let nodes = server.objects(Kind::Node);
        nodes
            .iter()
            .map(|it| it["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let owned = || -> Vec<Value> {
        let blocks = server.objects(Kind::IpBlock);
        blocks
            .iter()
            .map(|it| it["spec"]["node"].clone())
            .filter(|it| !it.is_null())
            .collect()
    };
    eventually("gone is gone", || nodes() == ["busy", "future", "there"]).await;
    eventually("its block is free", || owned().len() == 2).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(nodes(), ["busy", "future", "there"]);
    server.delete(Sort::POD, "default", "p");
    eventually("busy is gone", || nodes() == ["future", "there"]).await;
    eventually("its block is free", || owned() == ["there"]).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_have_host_endpoints_as_long_as_a_controller_is_told_so() {
    let server = FakeApiServer::start().await.expect("a server");
    let node = |rack: &str| {
        json!({
            "apiVersion": "manx.network/v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"rack": rack}},
            "spec": {"bgp": {"ipv4Address": "192.0.2.1/24"}},
        })
    };
    server.apply(Kind::Node, node("a"));
    let racks = || -> Vec<Value> {
        let endpoints = server.objects(Kind::HostEndpoint);
        endpoints
            .iter()
            .map(|it| it["metadata"]["labels"]["rack"].clone())
            .collect()
    };
    let controller = Controller::start(&server, "hosts").await;
    eventually("n1 has one", || racks() == ["a"]).await;
    let endpoint = server
        .object(Kind::HostEndpoint, "", "n1-auto-hep")
        .expect("by its name");
    assert_eq!(
        endpoint["spec"],
        json!({
            "node": "n1", "interfaceName": "*", "expectedIPs": ["192.0.2.1"], "profiles": ["projectcalico-default-allow"],
        })
    );
    server.apply(Kind::Node, node("b"));
    eventually("it follows the node", || racks() == ["b"]).await;
    server.delete(Kind::HostEndpoint, "", "n1-auto-hep");
    eventually("it is made anew", || racks() == ["b"]).await;
    controller.stop().await;
    let controller = Controller::start(&server, "other").await;
    eventually("nobody asks for it any more", || racks().is_empty()).await;
    controller.stop().await;
}

/// Counts who acts, as long as it lives.
struct Acting(Arc<AtomicUsize>);

impl Acting {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0, "somebody acts already");
        Self(Arc::clone(count))
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_dropped_before_the_lease_ends_that_cannot_be_written() {
    let server = FakeApiServer::start().await.expect("a server");
    let acting = Arc::new(AtomicUsize::new(0));
    let mut candidates = Vec::new();
    for name in ["one", "two"] {
        let cluster = server
            .store()
            .await
            .expect("a store")
            .cluster()
            .expect("a cluster");
        let count = Arc::clone(&acting);
        candidates.push(tokio::spawn(async move {
            let election = Election::new(name.to_owned(), Timing { seconds: SECONDS });
            let lease = LeaseName {
                namespace: "default".to_owned(),
                name: LEASE.to_owned(),
            };
            let work = || async {
                let _acting = Acting::begin(&count);
                pending().await
            };
            lead(&cluster, &lease, election, work, pending()).await;
        }));
    }
    let acts = |wanted: usize| acting.load(Ordering::SeqCst) == wanted;
    eventually("one acts", || acts(1)).await;
    server.delay(Duration::from_secs(60));
    let ended = eventually("nobody acts", || acts(0)).await;
    assert!(ended < Duration::from_secs(SECONDS.into()), "{ended:?}");
    server.delay(Duration::ZERO);
    eventually("one acts again", || acts(1)).await;
    for candidate in candidates {
        assert!(!candidate.is_finished(), "two acted at once");
        candidate.abort();
    }
}
