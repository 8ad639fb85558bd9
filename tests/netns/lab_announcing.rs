//! Services' addresses in a lab: announced to the rack's router, by whom they should be, and used by no node.

use std::time::Duration;

use manx_lab::{Software, Topology};
use serde_json::json;

use crate::harness::eventually;
use crate::lab_harness::LabName;

/// How long an announcement may take, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

const RANGES: &str = "
serviceClusterIPs: [{cidr: 10.96.0.0/16}, {cidr: 'fd00:96::/112'}]
serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00:96::10']
  ports: [{port: 80}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.7}]}}
";

/// A rack of two nodes, whose router is not ours.
struct Rack(LabName);

impl Rack {
    fn build() -> Self {
        let name = LabName::new();
        let software = Software::Bird;
        name.up(Topology::Tor { software, racks: 1 }, 2, true);
        name.edit("bgpconfigurations default", |configuration| {
            let spec = configuration["spec"].as_object_mut().unwrap();
            let ranges: serde_json::Value = serde_saphyr::from_str(RANGES).unwrap();
            spec.extend(ranges.as_object().unwrap().clone());
        });
        name.apply(SERVICE);
        Self(name)
    }

    /// The endpoints of the service, as names of nodes, and whether each is ready.
    fn set_endpoints(&self, endpoints: &[(&str, bool)]) {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(node, ready)| {
                json!({"addresses": ["10.244.0.9"], "nodeName": node, "conditions": {"ready": ready}})
            })
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 80}],
        });
        self.0.apply(&slice.to_string());
    }

    fn routes(&self, host: &str, prefix: &str) -> String {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        self.0
            .ctl(&format!("lab exec {host} -- ip {family} route show {prefix}"))
    }

    /// Which nodes the router sends packets for a prefix to.
    fn leads_to(&self, prefix: &str) -> Vec<String> {
        let routes = self.routes("tor1", prefix);
        let status = self.0.json("lab status");
        let nodes = status["nodes"].as_array().unwrap().iter().filter(|node| {
            let addresses = node["addresses"].as_array().unwrap().iter();
            let mut words =
                addresses.map(|it| format!("via {} ", it.as_str().unwrap().split('/').next().unwrap()));
            words.any(|word| routes.contains(&word))
        });
        nodes
            .map(|node| node["name"].as_str().unwrap().to_owned())
            .collect()
    }

    fn comes_to_lead_to(&self, prefix: &str, nodes: &[&str]) {
        let is_so = || self.leads_to(prefix) == nodes;
        let explained = || self.0.ctl("svc explain shop/web");
        assert!(
            eventually(SOON, is_so),
            "{prefix} to {nodes:?}: {}\n{}",
            self.routes("tor1", prefix),
            explained()
        );
    }
}

#[test]
fn services_are_announced_from_where_they_are_ready_and_used_by_no_node() {
    let rack = Rack::build();
    let both = ["node1", "node2"];
    for range in ["10.96.0.0/16", "fd00:96::/112", "203.0.113.0/24"] {
        rack.comes_to_lead_to(range, &both);
    }
    assert_eq!(rack.leads_to("203.0.113.7"), [""; 0], "nobody is ready");

    rack.set_endpoints(&[("node1", true), ("node2", false)]);
    for address in ["10.96.0.10", "fd00:96::10", "203.0.113.7"] {
        rack.comes_to_lead_to(address, &["node1"]);
    }
    // Pods' blocks come from the router as ever, services' routes lead nowhere.
    for node in both {
        let learned = rack.0.ctl(&format!("lab exec {node} -- ip route show proto 179"));
        assert!(learned.contains("10.244."), "{learned}");
        assert!(
            !learned.contains("10.96.") && !learned.contains("203.0.113."),
            "{learned}"
        );
    }
    let said = rack.0.ctl("svc explain shop/web");
    assert!(
        said.contains("a ready endpoint is here") && said.contains("no ready endpoint is here"),
        "{said}"
    );

    // An agent that is away takes nothing back, and finds it all so when it returns.
    rack.0.ctl("lab restart node1");
    rack.comes_to_lead_to("203.0.113.7", &["node1"]);
    rack.comes_to_lead_to("10.96.0.0/16", &both);

    rack.0
        .edit("nodes node1", |node| node["spec"]["unschedulable"] = true.into());
    rack.comes_to_lead_to("203.0.113.7", &[]);
    rack.comes_to_lead_to("10.96.0.0/16", &["node2"]);
    rack.0
        .edit("nodes node1", |node| node["spec"]["unschedulable"] = false.into());
    rack.comes_to_lead_to("203.0.113.7", &["node1"]);

    rack.0
        .ctl("label nodes node1 node.kubernetes.io/exclude-from-external-load-balancers=");
    rack.comes_to_lead_to("203.0.113.7", &[]);
    rack.0
        .ctl("label nodes node1 node.kubernetes.io/exclude-from-external-load-balancers-");
    rack.set_endpoints(&[("node1", false), ("node2", true)]);
    rack.comes_to_lead_to("203.0.113.7", &["node2"]);
    rack.0.ctl("delete service web -n shop");
    rack.comes_to_lead_to("203.0.113.7", &[]);
    rack.comes_to_lead_to("203.0.113.0/24", &both);
}
