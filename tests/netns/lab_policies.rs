//! Policies in a lab: applied as manifests, in force in the kernel, seen by packets.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use manx_lab::layout::netns_path;
use manx_lab::{Lab, Topology};
use manx_linux::Netns;
use serde_json::json;

use crate::harness::{eventually, exchange};
use crate::lab_harness::{LabName, assert_proved, settings};

/// How long a policy may take to be in force, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A lab of two nodes, with pods of a shop: a web and a database on the first, a till on the second.
pub(crate) struct Shop {
    pub(crate) name: LabName,
    lab: Lab,
}

impl Shop {
    pub(crate) fn open() -> Self {
        let name = LabName::new();
        let lab = name.up(Topology::Mesh, 2, true);
        for (pod, node, labels) in [
            ("web", "node1", "-l app=web --port http=8080/TCP"),
            ("db", "node1", "-l app=db"),
            ("till", "node2", "-l app=till"),
        ] {
            name.ctl(&format!("lab pod add {pod} --node {node} -n shop {labels}"));
        }
        let mut shop = Self { name, lab };
        shop.look_again();
        shop
    }

    pub(crate) fn look_again(&mut self) {
        self.lab = Lab::open(&settings().base, self.name.name()).unwrap();
    }

    pub(crate) fn pod(&self, pod: &str) -> (Netns, Vec<IpAddr>) {
        let pod = self.lab.pod("shop", pod).unwrap();
        (
            Netns::open(netns_path(&pod.netns)).unwrap(),
            pod.addresses.clone(),
        )
    }

    pub(crate) fn apply(&self, manifest: &str) {
        self.name.apply(manifest);
    }

    /// Whether packets pass, in both families alike.
    pub(crate) fn passes(&self, from: &str, to: &str) -> bool {
        let ((from, _), (to, addresses)) = (self.pod(from), self.pod(to));
        let mut passed = addresses
            .iter()
            .map(|address| exchange(&from, &to, *address).is_some());
        let first = passed.next().unwrap();
        first && passed.all(|passed| passed)
    }

    pub(crate) fn becomes(&self, from: &str, to: &str, passes: bool) {
        let is_so = || self.passes(from, to) == passes;
        assert!(
            eventually(SOON, is_so),
            "{from} to {to}: {passes} expected\n{}",
            self.state()
        );
    }

    /// What the nodes' kernels hold.
    pub(crate) fn state(&self) -> String {
        let mut state = String::new();
        for node in ["node1", "node2"] {
            for command in ["iptables-save -t filter", "ipset save"] {
                let words = format!("lab exec {node} -- {command}");
                let output = self.name.try_ctl(&words).stdout;
                writeln!(state, "{words}:\n{}", String::from_utf8_lossy(&output)).unwrap();
            }
        }
        state
    }
}

pub(crate) const DENY_ALL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

pub(crate) const WEB_FROM_TILL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-from-till, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: till}}}]}]
";

#[test]
fn a_policy_isolates_while_it_is_there_and_costs_nothing_else() {
    let shop = Shop::open();
    assert!(
        !shop.state().contains("manx-"),
        "without policies there are no rules"
    );
    for (from, to) in [("till", "web"), ("db", "web"), ("web", "till")] {
        shop.becomes(from, to, true);
    }
    shop.apply(DENY_ALL);
    shop.becomes("till", "web", false);
    shop.becomes("web", "till", false);
    shop.apply(WEB_FROM_TILL);
    shop.becomes("till", "web", true);
    assert!(!shop.passes("db", "web"), "on the same node");
    for (from, verdict, policy, rule) in [
        ("shop/till", "allow", "web-from-till", json!(0)),
        ("shop/db", "deny", "deny-all", json!(null)),
        ("192.0.2.77", "deny", "deny-all", json!(null)),
    ] {
        let found = shop
            .name
            .json(&format!("policy explain --from {from} --to shop/web:8080/TCP"));
        let deciding = &found["deciding"];
        let expected = json!([verdict, "NetworkPolicy", "shop", policy, rule]);
        let told = json!([
            found["verdict"],
            deciding["kind"],
            deciding["namespace"],
            deciding["name"],
            deciding["rule"]
        ]);
        assert_eq!(told, expected, "{from}");
        let text = shop
            .name
            .ctl(&format!("policy explain --from {from} --to shop/web:8080/TCP"));
        assert!(
            text.contains(&format!("\n{verdict}: ")) && text.contains(policy),
            "{text}"
        );
    }
    assert!(!shop.passes("till", "db"), "another pod of the same node");

    shop.name.edit("wep node1-db-eth0 -n shop", |endpoint| {
        endpoint["metadata"]["labels"]["app"] = "till".into()
    });
    shop.becomes("db", "web", true);

    shop.name
        .ctl("delete networkpolicies.networking.k8s.io deny-all web-from-till -n shop");
    shop.becomes("web", "till", true);
    let clean = || !shop.state().contains("manx-") && !shop.state().contains("mx4-");
    assert!(eventually(SOON, clean), "{}", shop.state());
    assert_proved(&shop.lab);
}

#[test]
fn a_policy_outlives_the_agent_and_holds_for_pods_added_meanwhile() {
    let mut shop = Shop::open();
    shop.apply(DENY_ALL);
    shop.apply(WEB_FROM_TILL);
    shop.becomes("db", "web", false);
    shop.becomes("till", "web", true);
    shop.lab.restart("node1", &settings()).unwrap();
    shop.becomes("till", "web", true);
    assert!(!shop.passes("db", "web"));
    shop.name.ctl("lab pod add late --node node1 -n shop -l app=web");
    shop.look_again();
    assert!(!shop.passes("db", "late"), "its first packet");
    shop.becomes("till", "late", true);
    shop.name.ctl("lab pod delete late -n shop");
    assert!(!shop.state().contains("late"));
}

#[test]
fn a_connection_goes_on_until_a_policy_denies_it() {
    let shop = Shop::open();
    shop.apply(WEB_FROM_TILL);
    shop.becomes("db", "web", false);
    let ((till, _), (web, addresses)) = (shop.pod("till"), shop.pod("web"));
    let at = SocketAddr::new(addresses[0], 8080);
    let listener = web.run(|| TcpListener::bind(at).unwrap()).unwrap();
    let client = till
        .run(|| TcpStream::connect_timeout(&at, SOON).unwrap())
        .unwrap();
    let (served, _) = listener.accept().unwrap();
    let speaks = |mut from: &TcpStream, mut to: &TcpStream| {
        to.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        std::io::Write::write_all(&mut from, b"x").is_ok()
            && std::io::Read::read(&mut to, &mut [0; 64]).is_ok_and(|n| n > 0)
    };
    assert!(speaks(&client, &served) && speaks(&served, &client));
    // Another policy of the same pods does not end it, also not when connections are looked at for that.
    shop.apply(DENY_ALL);
    shop.becomes("web", "till", false);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(speaks(&client, &served) && speaks(&served, &client));
    shop.name
        .ctl("delete networkpolicies.networking.k8s.io web-from-till -n shop");
    let ended = || !speaks(&client, &served);
    assert!(eventually(SOON, ended), "{}", shop.state());
}
