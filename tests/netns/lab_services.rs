//! Services and service accounts as policies mean them: Kubernetes' own manifests, seen by packets and explained.

use std::net::{IpAddr, SocketAddr};

use crate::harness::eventually;
use crate::host_endpoints::passes;
use crate::lab_policies::{SOON, Shop};

/// Whether packets to this port of a pod pass, in both families alike.
fn reaches(shop: &Shop, from: &str, to: &str, port: u16) -> bool {
    let ((from, _), (to, addresses)) = (shop.pod(from), shop.pod(to));
    let mut passed = addresses
        .iter()
        .map(|address| passes(&from, &to, SocketAddr::new(*address, port)));
    let first = passed.next().unwrap();
    first && passed.all(|passed| passed)
}

/// A slice of a service for each family.
fn slices(service: &str, addresses: &[IpAddr], port: u16) -> String {
    let slice = |address: &IpAddr| {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let name = format!("{service}-{}", family.to_lowercase());
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: {family}
endpoints: [{{addresses: ['{address}'], conditions: {{ready: true}}}}]
ports: [{{port: {port}, protocol: UDP}}]
"
        )
    };
    addresses.iter().map(slice).collect()
}

fn verdict(shop: &Shop, from: &str, to: &str) -> String {
    let found = shop.name.json(&format!("policy explain --from {from} --to {to}"));
    found["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn a_service_is_who_is_behind_it_as_destination_and_as_source() {
    let shop = Shop::open();
    let (_, web) = shop.pod("web");
    let (_, till) = shop.pod("till");
    shop.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080, protocol: UDP}]}
---
apiVersion: manx.network/v1
kind: NetworkPolicy
metadata: {name: till, namespace: shop}
spec:
  selector: app == 'till'
  egress: [{action: Allow, destination: {services: {name: web}}}]
---
apiVersion: manx.network/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: app == 'db'
  ingress: [{action: Allow, source: {services: {name: tills}}}]
",
    );
    let closed = || !reaches(&shop, "till", "web", 8080) && !reaches(&shop, "web", "db", 5432);
    assert!(
        eventually(SOON, closed),
        "nobody is behind them\n{}",
        shop.state()
    );

    shop.apply(&slices("web", &web, 8080));
    let open = || reaches(&shop, "till", "web", 8080);
    assert!(eventually(SOON, open), "{}", shop.state());
    assert!(!reaches(&shop, "till", "web", 8081), "the service has one port");
    for (port, expected) in [(8080, "allow"), (8081, "deny")] {
        let found = verdict(&shop, "shop/till", &format!("shop/web:{port}/UDP"));
        assert_eq!(found, expected, "{port}");
    }
    let behind = shop.name.ctl("get endpointslices -n shop");
    assert!(
        behind.contains("web-ipv4") && behind.contains("8080/UDP"),
        "{behind}"
    );

    shop.apply(&slices("tills", &web, 1));
    let open = || reaches(&shop, "web", "db", 5432);
    assert!(eventually(SOON, open), "a source has any port\n{}", shop.state());
    shop.apply(&slices("tills", &till, 1));
    let closed = || !reaches(&shop, "web", "db", 5432);
    assert!(eventually(SOON, closed), "another is behind it\n{}", shop.state());

    shop.name.ctl("delete endpointslices web-ipv4 web-ipv6 -n shop");
    let closed = || !reaches(&shop, "till", "web", 8080);
    assert!(eventually(SOON, closed), "{}", shop.state());
}

#[test]
fn service_accounts_are_selected_by_their_names_and_labels() {
    let mut shop = Shop::open();
    shop.name
        .ctl("lab pod add clerk --node node2 -n shop -l app=clerk --service-account clerk");
    shop.look_again();
    let account = |team: &str| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: clerk, namespace: shop, labels: {{team: {team}}}}}\n"
        )
    };
    shop.apply(&account("sales"));
    shop.apply(
        "
apiVersion: manx.network/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: app == 'db'
  ingress: [{action: Allow, source: {serviceAccounts: {selector: team == 'sales'}}}]
---
apiVersion: manx.network/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: app == 'web'
  ingress: [{action: Allow, source: {serviceAccounts: {names: [clerk]}}}]
---
apiVersion: manx.network/v1
kind: GlobalNetworkPolicy
metadata: {name: clerks}
spec:
  order: 5
  serviceAccountSelector: team == 'stock'
  egress: [{action: Deny, destination: {selector: app == 'web'}}]
",
    );
    shop.becomes("till", "db", false);
    shop.becomes("till", "web", false);
    shop.becomes("clerk", "db", true);
    shop.becomes("clerk", "web", true);
    assert_eq!(verdict(&shop, "shop/clerk", "shop/db:1/TCP"), "allow");
    assert_eq!(verdict(&shop, "shop/till", "shop/db:1/TCP"), "deny");

    shop.apply(&account("stock"));
    shop.becomes("clerk", "db", false);
    shop.becomes("clerk", "web", false);
    assert_eq!(verdict(&shop, "shop/clerk", "shop/db:1/TCP"), "deny");
    shop.name.ctl("delete serviceaccounts clerk -n shop");
    shop.becomes("clerk", "web", true);
    assert!(
        !shop.passes("clerk", "db"),
        "an account that is not there has no labels"
    );
}
