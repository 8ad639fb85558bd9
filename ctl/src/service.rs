//! `manxctl svc …`: who announces a service's addresses, and why.

use manx_api::announcement::{AddressKind, AnnouncedAddress, ServiceExplainCall, ServiceExplanation};
use manx_api::rpc::Method;
use manx_api::service::TrafficPolicy;
use serde_json::json;

use crate::cli::{ServiceCommand, ServiceName};
use crate::error::{CtlError, Result};
use crate::output::{self, Format};
use crate::target::Target;

/// `svc …`.
pub(crate) fn run(target: &Target, command: &ServiceCommand) -> Result<()> {
    let ServiceCommand::Explain { service, output } = command;
    let ServiceName { namespace, name } = service.clone();
    let call = ServiceExplainCall { namespace, name };
    let found: Option<ServiceExplanation> = target.ask_any(Method::ServiceExplain, &json!(call))?;
    let found = found.ok_or_else(|| CtlError::NoService {
        namespace: call.namespace,
        name: call.name,
    })?;
    match output.output {
        Format::Json => output::emit(&output::json(&found)?),
        Format::Yaml => output::emit(&output::yaml(&found)?),
        Format::Name => {
            let prefixes = found
                .addresses
                .iter()
                .flat_map(|it| &it.nodes)
                .flat_map(|it| &it.announces);
            let mut prefixes: Vec<String> = prefixes.map(ToString::to_string).collect();
            prefixes.sort();
            prefixes.dedup();
            output::emit(
                &prefixes
                    .iter()
                    .map(|prefix| format!("{prefix}\n"))
                    .collect::<String>(),
            )
        }
        Format::Table | Format::Wide => output::emit(&text(&found)),
    }
}

fn text(found: &ServiceExplanation) -> String {
    let policy = match found.external_traffic_policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    };
    let mut text = format!(
        "{}/{}: externalTrafficPolicy {policy}\n",
        found.namespace, found.name
    );
    if found.addresses.is_empty() {
        text += "\nit has no address\n";
    }
    for address in &found.addresses {
        text += &format!("\n{}", addressed(address));
    }
    text
}

fn addressed(it: &AnnouncedAddress) -> String {
    let kind = match it.kind {
        AddressKind::Cluster => "cluster IP",
        AddressKind::External => "external IP",
        AddressKind::LoadBalancer => "load balancer's IP",
    };
    let Some(range) = it.range else {
        return format!(
            "{} ({kind}): nobody announces it: it is in no range of {} in the BGPConfiguration 'default'\n",
            it.address,
            it.kind.field()
        );
    };
    let lines = it.nodes.iter().map(|node| {
        let announces: Vec<String> = node.announces.iter().map(ToString::to_string).collect();
        let announces = if announces.is_empty() {
            "-".to_owned()
        } else {
            announces.join(", ")
        };
        let cells = vec![node.node.clone(), announces, node.reason.words().to_owned()];
        (cells, true)
    });
    let table = output::table(&["NODE", "ANNOUNCES", "BECAUSE"], lines);
    format!(
        "{} ({kind}), in {range} of {}\n{table}",
        it.address,
        it.kind.field()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_says_what_it_announces_and_why() {
        let found = json!({
            "namespace": "shop", "name": "web", "externalTrafficPolicy": "Local",
            "addresses": [
                {"address": "10.96.0.10", "kind": "cluster", "range": "10.96.0.0/12", "nodes": [
                    {"node": "node1", "announces": ["10.96.0.0/12", "10.96.0.10/32"], "reason": "readyEndpoint"},
                    {"node": "node2", "announces": ["10.96.0.0/12"], "reason": "noReadyEndpoint"},
                    {"node": "node3", "announces": [], "reason": "cordoned"},
                ]},
                {"address": "203.0.113.7", "kind": "loadBalancer", "nodes": []},
            ],
        });
        let found: ServiceExplanation = serde_json::from_value(found).unwrap();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text(&found)).to_string());
    }
}
