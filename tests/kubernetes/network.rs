//! What a cluster's pods and services have of its network.

use manx_api::Kind;
use manx_api::rpc::Method;
use manx_store::fake::Sort;
use manx_tests::binaries::program;
use serde_json::json;

use super::cluster::{Kubernetes, LATER, custom};
use super::server::Which;
use crate::agent_harness::Node;
use crate::harness::{eventually, exchange};

pub(crate) fn pods_of_a_cluster_meet_its_policies_as_labels_change(which: Which) {
    let kubernetes = Kubernetes::start(which);
    kubernetes.set_namespace("shop", &json!({}));
    kubernetes.set_namespace("guests", &json!({}));
    let web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
    let client = kubernetes.run(("shop", "client"), &json!({"app": "client"}), 1);
    let guest = kubernetes.run(("guests", "guest"), &json!({"app": "client"}), 1);
    for from in [&client, &guest] {
        kubernetes.comes_to(from, &web, true);
    }

    kubernetes.set_policy(&json!([
        {"podSelector": {"matchLabels": {"app": "client"}}},
        {"namespaceSelector": {"matchLabels": {"team": "friends"}}},
    ]));
    kubernetes.comes_to(&guest, &web, false);
    kubernetes.comes_to(&client, &web, true);
    kubernetes.set_namespace("guests", &json!({"team": "friends"}));
    kubernetes.comes_to(&guest, &web, true);
    // The sender's labels, on another node, and the receiver's own.
    kubernetes.tell(&client, &json!({"app": "other"}));
    kubernetes.comes_to(&client, &web, false);
    kubernetes.tell(&web, &json!({"app": "free"}));
    kubernetes.comes_to(&client, &web, true);
    assert!(kubernetes.cni(&web, "DEL").status.success());
    assert_eq!(kubernetes.nodes[0].held(), 0);
}

pub(crate) fn a_pods_first_packet_waits_until_the_cluster_has_told_of_it(which: Which) {
    let kubernetes = Kubernetes::start(which);
    kubernetes.set_namespace("shop", &json!({}));
    kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"app": "nobody"}}}]));
    let client = kubernetes.run(("shop", "client"), &json!({}), 1);
    let mut web = kubernetes.schedule(("shop", "web"), &json!({"app": "web"}), 0);
    kubernetes.server.delete(Sort::POD, "shop", "web");
    let refused = kubernetes.cni(&web, "ADD");
    let said = String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("has not told this node of pod shop/web"), "{said}");
    assert!(said.contains("\"code\":11"), "{said}");
    assert_eq!(kubernetes.nodes[0].held(), 0);

    kubernetes.tell(&web, &json!({"app": "web"}));
    web.addresses = kubernetes.nodes[0].added(&kubernetes.cni(&web, "ADD"));
    for address in &web.addresses {
        assert_eq!(exchange(&client.netns, &web.netns, *address), None);
    }
}

pub(crate) fn the_network_goes_on_while_the_api_server_is_away(which: Which) {
    let mut kubernetes = Kubernetes::start(which);
    kubernetes.set_namespace("shop", &json!({}));
    let web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
    let client = kubernetes.run(("shop", "client"), &json!({"app": "client"}), 1);
    let going = kubernetes.run(("shop", "going"), &json!({}), 0);
    let mut late = kubernetes.schedule(("shop", "late"), &json!({"app": "other"}), 1);
    kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"app": "client"}}}]));
    kubernetes.comes_to(&going, &web, false);
    kubernetes.comes_to(&client, &web, true);
    assert!(kubernetes.cni(&going, "DEL").status.success());

    kubernetes.stop();
    kubernetes.comes_to(&client, &web, true);
    late.addresses = kubernetes.nodes[1].added(&kubernetes.cni(&late, "ADD"));
    kubernetes.comes_to(&client, &late, true);
    kubernetes.comes_to(&late, &web, false);
    assert!(kubernetes.cni(&client, "DEL").status.success());
    assert_eq!(kubernetes.nodes[1].held(), 2, "{}", kubernetes.logs());

    kubernetes.serve();
    kubernetes.tell(&late, &json!({"app": "client"}));
    kubernetes.comes_to(&late, &web, true);
}

pub(crate) fn services_of_a_cluster_are_announced_from_where_they_are_until_the_node_is_cordoned(
    which: Which,
) {
    let kubernetes = Kubernetes::start(which);
    kubernetes.set_namespace("shop", &json!({}));
    let web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
    let ranges = json!({"serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}]});
    kubernetes.server.put(
        Kind::BgpConfiguration,
        custom("BGPConfiguration", "default", &ranges),
    );
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.80"}]}},
    });
    kubernetes.server.apply(Kind::Service, service);
    let slice = |ready: bool| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
            },
            "endpoints": [{
                "addresses": [web.addresses[0]], "conditions": {"ready": ready}, "nodeName": "left",
            }],
            "ports": [{"port": 80, "protocol": "TCP"}],
        })
    };
    kubernetes.server.put(Kind::EndpointSlice, slice(true));
    let routes = || kubernetes.nodes[1].ask(Method::BgpRoutes).unwrap().to_string();
    let announced = || routes().contains("198.51.100.80/32");
    assert!(
        eventually(LATER, announced),
        "{}\n{}",
        routes(),
        kubernetes.logs()
    );

    kubernetes.set_node("left", "b", true);
    assert!(eventually(LATER, || !announced()), "{}", kubernetes.logs());
    let node = kubernetes.server.object(Kind::Node, "", "left").unwrap();
    assert_eq!(node["metadata"]["labels"]["rack"], "b");
    kubernetes.set_node("left", "b", false);
    assert!(
        eventually(LATER, announced),
        "{}\n{}",
        routes(),
        kubernetes.logs()
    );
}

pub(crate) fn an_agents_account_is_enough_for_an_operator_in_its_pod(which: Which) {
    let kubernetes = Kubernetes::start(which);
    kubernetes.set_namespace("shop", &json!({}));
    let _web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
    let _till = kubernetes.run(("shop", "till"), &json!({"app": "till"}), 0);
    kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"app": "client"}}}]));
    let ask = |node: &Node, words: &str| {
        let mut manxctl = node.netns.command(program("manxctl"));
        manxctl.arg("--kubeconfig").arg(node.folder().join("kubeconfig"));
        manxctl.arg("--socket").arg(node.folder().join("manxd.sock"));
        let output = manxctl.args(words.split(' ')).output().unwrap();
        let said = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        assert!(said[1].is_empty(), "{words}: {}", said[1]);
        said[0].clone()
    };
    let why = "policy explain --from shop/till --to shop/web:8080/TCP";
    for node in &kubernetes.nodes {
        let denied = || ask(node, why).contains("NetworkPolicy");
        assert!(eventually(LATER, denied), "{}", ask(node, why));
    }
    for words in [
        "bgp peers",
        "route show",
        "ipam show --show-blocks",
        "topology",
        "policy staged",
    ] {
        assert!(!ask(&kubernetes.nodes[1], words).is_empty(), "{words}");
    }
}
