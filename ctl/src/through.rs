//! Services as the ends of packets: what is behind them, and what becomes of packets to each of those.

use std::net::IpAddr;

use manx_api::Kind;
use manx_api::explanation::{PolicyExplanation, Verdict};
use manx_api::rule::Protocol;
use manx_api::service::{EndpointSlice, Service, ServicePort, SliceEndpoint};
use manx_store::Store;
use serde::Serialize;

use crate::cli::ServiceName;
use crate::ends::{Known, all};
use crate::error::{CtlError, Result};
use crate::output;
use crate::policy::word;

/// What becomes of packets to a service, as `-o json` shows it: they go to any one of its endpoints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThroughService {
    /// The service.
    pub(crate) service: Named,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// Its port.
    pub(crate) port: u16,
    /// What becomes of them whichever endpoint they go to; none: that depends on it, or there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<Verdict>,
    /// What becomes of those to each endpoint.
    pub(crate) endpoints: Vec<PolicyExplanation>,
}

/// A service's name.
#[derive(Debug, Serialize)]
pub(crate) struct Named {
    namespace: String,
    name: String,
}

impl ThroughService {
    pub(crate) fn of(
        ServiceName { namespace, name }: ServiceName,
        (protocol, port): (Protocol, u16),
        endpoints: Vec<PolicyExplanation>,
    ) -> Self {
        let first = endpoints.first().map(|found| found.verdict);
        Self {
            service: Named { namespace, name },
            protocol,
            port,
            verdict: first.filter(|first| endpoints.iter().all(|found| found.verdict == *first)),
            endpoints,
        }
    }

    pub(crate) const fn word(&self) -> &'static str {
        match self.verdict {
            Some(verdict) => word(verdict),
            None => "depends",
        }
    }

    /// What people are told, with what they are told of one endpoint.
    pub(crate) fn text(&self, of_one: impl Fn(&PolicyExplanation) -> String) -> String {
        let Named { namespace, name } = &self.service;
        let all = self.endpoints.len();
        let service = format!("{}/{} of service {namespace}/{name}", self.port, self.protocol);
        if all == 0 {
            return format!("{service}: nobody is behind it, or nobody of a family that the sender has\n");
        }
        let mut text = format!("{service} goes to one of {all}\n");
        for found in &self.endpoints {
            text += "\n";
            text += &of_one(found);
        }
        let allowed = self
            .endpoints
            .iter()
            .filter(|found| found.verdict == Verdict::Allow)
            .count();
        let line = format!("{}: {allowed} of {all} can be reached", self.word());
        text + "\n" + &output::marked(&line, allowed == all) + "\n"
    }
}

/// The service that has an address in the cluster.
///
/// # Errors
/// The datastore cannot be read.
pub(crate) async fn at(store: &impl Store, address: IpAddr) -> Result<Option<ServiceName>> {
    let services: Vec<Service> = all(store, Kind::Service, None).await?;
    let has = |service: &Service| service.spec.cluster_addresses().contains(&address);
    let found = services.into_iter().find(has).map(|service| ServiceName {
        namespace: service.metadata.namespace.unwrap_or_default(),
        name: service.metadata.name,
    });
    Ok(found)
}

/// Whether there is such a service.
///
/// # Errors
/// The datastore cannot be read.
pub(crate) async fn exists(
    store: &impl Store,
    ServiceName { namespace, name }: &ServiceName,
) -> Result<bool> {
    // Listed, as an agent's account may: `manxctl` in its pod asks as that.
    let services = store.list(Kind::Service, Some(namespace)).await?.items;
    Ok(services.iter().any(|service| service.metadata().name == *name))
}

/// A service's port, and who gets packets to it: the endpoints that take new connections, or if none does those that are about
/// to end and still answer, and their ports.
///
/// # Errors
/// There is no such service, or it has no such port.
pub(crate) async fn behind(
    store: &impl Store,
    wanted: &ServiceName,
    (protocol, port): (Protocol, Option<u16>),
) -> Result<(u16, Vec<(Known, u16)>)> {
    let ServiceName { namespace, name } = wanted;
    let services: Vec<Service> = all(store, Kind::Service, Some(namespace)).await?;
    let Some(service) = services
        .into_iter()
        .find(|service| service.metadata.name == *name)
    else {
        return Err(CtlError::NoService {
            namespace: namespace.clone(),
            name: name.clone(),
        });
    };
    let ports = &service.spec.ports;
    let is_it = |it: &&ServicePort| (Protocol::from(it.protocol), Some(it.port)) == (protocol, port);
    let Some(found) = ports.iter().find(is_it) else {
        let known = ports
            .iter()
            .map(|it| format!("{}/{}", it.port, Protocol::from(it.protocol)));
        return Err(CtlError::NoServicePort {
            service: format!("{namespace}/{name}"),
            known: known.collect(),
        });
    };
    let mut slices: Vec<EndpointSlice> = all(store, Kind::EndpointSlice, Some(namespace)).await?;
    slices.retain(|slice| slice.service() == Some(name));
    let takers = |takes: fn(&SliceEndpoint) -> bool| {
        let mut takers = Vec::new();
        for slice in &slices {
            let port = slice
                .ports
                .iter()
                .find(|it| it.name == found.name && it.protocol == found.protocol);
            let Some(port) = port.and_then(|it| it.port) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().filter(|endpoint| takes(endpoint)) {
                let address = endpoint.addresses.first().and_then(|text| text.parse().ok());
                takers.extend(address.map(|address| (Known::at(address, endpoint.node_name.clone()), port)));
            }
        }
        takers
    };
    let ready = takers(|endpoint| endpoint.conditions.ready != Some(false));
    if !ready.is_empty() {
        return Ok((found.port, ready));
    }
    let ending = takers(|endpoint| {
        let it = &endpoint.conditions;
        it.terminating == Some(true) && it.serving == Some(true)
    });
    Ok((found.port, ending))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(address: &str, verdict: &str) -> PolicyExplanation {
        let found = json!({
            "source": "10.0.0.1", "destination": address, "protocol": "TCP", "port": 8080, "verdict": verdict, "walks": [],
        });
        serde_json::from_value(found).unwrap()
    }

    fn through(endpoints: Vec<PolicyExplanation>) -> ThroughService {
        ThroughService::of("shop/web".parse().unwrap(), (Protocol::TCP, 80), endpoints)
    }

    #[test]
    fn a_service_is_reached_if_all_behind_it_are() {
        let one = |found: &PolicyExplanation| format!("{} {}\n", found.destination, word(found.verdict));
        let some = through(vec![found("10.0.0.2", "allow"), found("10.0.0.3", "deny")]);
        let text = anstream::adapter::strip_str(&some.text(one)).to_string();
        let expected = "80/TCP of service shop/web goes to one of 2\n\n10.0.0.2 allow\n\n10.0.0.3 deny\n\n\
                        depends: 1 of 2 can be reached\n";
        assert_eq!((text.as_str(), some.verdict), (expected, None));
        let all = through(vec![found("10.0.0.2", "allow")]);
        assert_eq!((all.word(), all.verdict), ("allow", Some(Verdict::Allow)));
        let none = through(Vec::new());
        assert!(none.text(one).contains("nobody is behind it") && none.verdict.is_none());
    }
}
