//! The columns of services, of what is behind them, and of service accounts.

use std::net::IpAddr;

use manx_api::rule::Protocol;
use manx_api::service::{EndpointSlice, HEADLESS, Service, ServiceAccount, SlicePort};

use crate::rows::{joined, optional};

/// Headings, and how many of them a narrow table has.
type Columns = (&'static [&'static str], usize);

pub(crate) const SERVICE: Columns = (
    &[
        "NAMESPACE",
        "NAME",
        "TYPE",
        "CLUSTER-IP",
        "PORTS",
        "EXTERNAL-IP",
        "POLICY",
    ],
    5,
);
pub(crate) const ENDPOINT_SLICE: Columns = (&["NAMESPACE", "NAME", "SERVICE", "PORTS", "ENDPOINTS"], 5);
pub(crate) const SERVICE_ACCOUNT: Columns = (&["NAMESPACE", "NAME", "LABELS"], 3);

pub(crate) fn service(service: &Service) -> Vec<String> {
    let spec = &service.spec;
    let addresses = spec.cluster_addresses();
    let cluster = if addresses.is_empty() && spec.cluster_ip == HEADLESS {
        HEADLESS.to_owned()
    } else {
        joined(&addresses)
    };
    let ports = spec.ports.iter();
    let ports: Vec<String> = ports
        .map(|it| format!("{}/{}", it.port, Protocol::from(it.protocol)))
        .collect();
    let mut external: Vec<IpAddr> = spec.external_ips.clone();
    external.extend(service.status.addresses());
    vec![
        optional(service.metadata.namespace.as_ref()),
        service.metadata.name.clone(),
        format!("{:?}", spec.kind),
        cluster,
        joined(&ports),
        joined(&external),
        format!("{:?}", spec.external_traffic_policy),
    ]
}

pub(crate) fn endpoint_slice(slice: &EndpointSlice) -> Vec<String> {
    let port = |it: &SlicePort| {
        let number = it.port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        format!("{number}/{}", Protocol::from(it.protocol))
    };
    let ports: Vec<String> = slice.ports.iter().map(port).collect();
    let addresses = slice.endpoints.iter().flat_map(|it| &it.addresses);
    let addresses: Vec<String> = addresses.cloned().collect();
    vec![
        optional(slice.metadata.namespace.as_ref()),
        slice.metadata.name.clone(),
        optional(slice.service()),
        joined(&ports),
        joined(&addresses),
    ]
}

pub(crate) fn service_account(account: &ServiceAccount) -> Vec<String> {
    let label = |(key, value)| format!("{key}={value}");
    let labels: Vec<String> = account.metadata.labels.iter().map(label).collect();
    vec![
        optional(account.metadata.namespace.as_ref()),
        account.metadata.name.clone(),
        labels.join(","),
    ]
}
