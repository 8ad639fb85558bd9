//! What is refused of services and what is behind them.

#[test]
fn services_and_slices_have_addresses_and_ports() {
    let service = |spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: b}}\nspec: {spec}\n")
    };
    let slice = |body: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a, namespace: b}}\n{body}\n"
        )
    };
    for (manifest, field) in [
        (service("{clusterIP: 10.0.0.1, ports: [{port: 80}]}"), None),
        (service("{clusterIP: None}"), None),
        (service("{clusterIP: somewhere}"), Some("spec.clusterIP")),
        (
            service("{clusterIPs: [10.0.0.1, none]}"),
            Some("spec.clusterIPs[1]"),
        ),
        (service("{loadBalancerIP: x}"), Some("spec.loadBalancerIP")),
        (service("{ports: [{port: 0}]}"), Some("spec.ports[0].port")),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]"),
            None,
        ),
        (
            slice("addressType: FQDN\nendpoints: [{addresses: [a.example]}]"),
            None,
        ),
        (
            slice("addressType: IPv6\nendpoints: [{addresses: ['fd00::1', 10.0.0.1]}]"),
            Some("endpoints[0].addresses[1]"),
        ),
        (
            slice("addressType: IPv4\nports: [{port: 0}]"),
            Some("ports[0].port"),
        ),
    ] {
        let found = crate::manifest::load("m.yaml", &manifest);
        let fields = found.err().map(|errors| errors[0].field.clone());
        assert_eq!(fields.as_deref(), field, "{manifest}");
    }
}
