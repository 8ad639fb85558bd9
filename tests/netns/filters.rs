//! What filters make of routes in the kernel: their metric, and the interface that they lead over.

use std::net::Ipv4Addr;
use std::time::Duration;

use manx_api::rpc::Method;
use serde_json::json;

use crate::agent_harness::Cluster;
use crate::daemon::Daemon;
use crate::harness::{TestNetns, eventually};

/// A session takes a few seconds on a machine that does much else.
const LATER: Duration = Duration::from_secs(60);

#[track_caller]
fn becomes(what: &str, holds: impl FnMut() -> bool) {
    assert!(eventually(LATER, holds), "{what}");
}

/// What `ip route` says of a prefix, without what is the same in all tests.
fn route(netns: &TestNetns, prefix: &str) -> String {
    netns.ip(&format!("-o route show {prefix}")).trim().to_owned()
}

/// Two cables between two speakers; a rule for one interface makes its path the best, with a metric of its own.
#[test]
fn a_rule_for_an_interface_gives_the_kernels_route_its_metric_as_long_as_it_matches() {
    let (ours, theirs) = (TestNetns::new("ours"), TestNetns::new("theirs"));
    for (name, net) in [("eth0", 0), ("eth1", 1)] {
        let (near, far) = (format!("10.9.{net}.1/24"), format!("10.9.{net}.2/24"));
        ours.connect(&theirs, name, [&[&near], &[&far]]);
    }
    let us = Ipv4Addr::new(10, 9, 0, 1);
    let settings = |interface: &str| {
        format!(
            "fib: true
filters:
- name: uplinks
  importV4: [{{interface: '{interface}', action: Accept, operations: [{{setPriority: {{value: 300}}}}]}}]
neighbors:
- {{address: 10.9.0.2, asn: 64512, import: [uplinks]}}
- {{address: 10.9.1.2, asn: 64512, import: [uplinks]}}
"
        )
    };
    let daemon = Daemon::start(&ours, us, &settings("*1"));
    let _other = Daemon::start(
        &theirs,
        Ipv4Addr::new(10, 9, 0, 2),
        "routes: [10.2.0.0/24]
neighbors: [{address: 10.9.0.1, asn: 64512}, {address: 10.9.1.1, asn: 64512}]
",
    );
    let [first, second] = [" via 10.9.0.2 dev eth0 ", " via 10.9.1.2 dev eth1 "];
    becomes("the path over eth1 is the only one", || {
        let shown = route(&ours, "10.2.0.0/24");
        shown.contains(second) && !shown.contains(first) && shown.contains(" metric 300")
    });
    // A smaller network around the next hop: the route leads over another interface now, as far as we know.
    ours.ip("link add uplink type bridge");
    ours.ip("link set uplink up");
    ours.ip("address add 10.9.1.3/31 dev uplink noprefixroute");
    becomes("the rule matches no longer", || {
        let shown = route(&ours, "10.2.0.0/24");
        let over_both = shown.contains(first) && shown.contains(second);
        over_both && shown.contains(" metric 1025") && !shown.contains(" metric 300")
    });
    ours.ip("address del 10.9.1.3/31 dev uplink");
    becomes("it matches again", || {
        route(&ours, "10.2.0.0/24").contains(" metric 300")
    });
    daemon.reload(us, &settings("eth0"));
    becomes("another rule matches another path", || {
        let shown = route(&ours, "10.2.0.0/24");
        shown.contains(first) && !shown.contains(second) && shown.contains(" metric 300")
    });
}

/// The same in resources: a BGPFilter of the mesh.
#[test]
fn a_filter_of_the_mesh_sets_the_metric_of_blocks_in_manxd() {
    let cluster = Cluster::new();
    let (left, right) = cluster.pair();
    let pod = TestNetns::new("pod");
    right.add("pod", &pod);
    let blocks = |metric: &str| {
        ["-4", "-6"].iter().all(|family| {
            let shown = left.netns.ip(&format!("-o {family} route show proto 179"));
            !shown.is_empty() && shown.lines().all(|line| line.contains(metric))
        })
    };
    becomes("the block is learned", || blocks(" metric 1025"));
    let rule =
        json!([{"interface": "eth*", "action": "Accept", "operations": [{"setPriority": {"value": 512}}]}]);
    let spec = json!({"importV4": rule, "importV6": rule});
    cluster.create("BGPFilter", "urgent", &spec);
    cluster.create(
        "BGPConfiguration",
        "default",
        &json!({"nodeMeshFilters": ["urgent"]}),
    );
    becomes("the filter's metric is the kernel's", || blocks(" metric 512"));
    let shown = left.ask(Method::BgpRoutes).unwrap().to_string();
    assert!(shown.contains("\"priority\":512"), "{shown}");
    cluster.delete(manx_api::Kind::BgpFilter, "urgent");
    becomes("without the filter it is as before", || blocks(" metric 1025"));
    let said = |words: &str| left.log().matches(words).count();
    assert_eq!(
        (said("session up"), said("session down")),
        (1, 0),
        "{}",
        left.log()
    );
}
