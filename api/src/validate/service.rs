//! What Kubernetes refuses of services and of what is behind them, as far as it matters here.

use std::net::IpAddr;

use super::Problem;
use crate::service::{AddressType, EndpointSlice, HEADLESS, ServiceSpec};

pub(super) fn service(spec: &ServiceSpec, problems: &mut Vec<Problem>) {
    let first = std::iter::once(("spec.clusterIP".to_owned(), &spec.cluster_ip));
    let all = spec.cluster_ips.iter().enumerate();
    let all = all.map(|(i, text)| (format!("spec.clusterIPs[{i}]"), text));
    for (field, text) in first.chain(all) {
        let said = text.is_empty() || text == HEADLESS;
        if !said && text.parse::<IpAddr>().is_err() {
            let message = "is no address: write one, or None for a headless service";
            problems.push(Problem::new(field, text, message));
        }
    }
    if !spec.load_balancer_ip.is_empty() && spec.load_balancer_ip.parse::<IpAddr>().is_err() {
        let message = "is no address: write one, or leave it out";
        problems.push(Problem::new(
            "spec.loadBalancerIP",
            &spec.load_balancer_ip,
            message,
        ));
    }
    for (i, port) in spec.ports.iter().enumerate() {
        if port.port == 0 {
            let field = format!("spec.ports[{i}].port");
            problems.push(Problem::new(field, 0, "is no port: choose 1 to 65535"));
        }
    }
}

pub(super) fn endpoint_slice(slice: &EndpointSlice, problems: &mut Vec<Problem>) {
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        for (j, text) in endpoint.addresses.iter().enumerate() {
            let address = text.parse::<IpAddr>().ok();
            let wanted = match slice.address_type {
                AddressType::IPv4 if !address.is_some_and(|it| it.is_ipv4()) => "an IPv4 address",
                AddressType::IPv6 if !address.is_some_and(|it| it.is_ipv6()) => "an IPv6 address",
                AddressType::IPv4 | AddressType::IPv6 | AddressType::Name => continue,
            };
            let field = format!("endpoints[{i}].addresses[{j}]");
            let message = format!("is not what addressType says: write {wanted}");
            problems.push(Problem::new(field, text, message));
        }
    }
    for (i, port) in slice.ports.iter().enumerate() {
        if port.port == Some(0) {
            let message = "is no port: choose 1 to 65535, or leave it out for all";
            problems.push(Problem::new(format!("ports[{i}].port"), 0, message));
        }
    }
}
