//! What would change, in everybody's words.

use std::collections::{BTreeMap, BTreeSet};

use manx_api::explanation::Verdict;
use manx_api::policy::{Port, PortRange};
use manx_api::what_if::{WhatIf, WhatIfChange, WhatIfGroup, WhatIfPackets, WhatIfVerdict};
use manx_policy::{Message, Packets, Place};

use super::policy::deciding;

/// What the engine says would change; endpoints' pods are known by `pods`.
#[must_use]
pub fn what_if(found: manx_policy::WhatIf, pods: &BTreeMap<String, String>) -> WhatIf {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for endpoint in &found.endpoints {
        if let Some((namespace, pod)) = pod(endpoint, pods) {
            known.entry(namespace.to_owned()).or_default().insert(pod);
        }
    }
    let known = known.into_iter();
    WhatIf {
        flows: found.flows,
        changed: found.changed,
        left_out: found.left_out,
        ignored: Vec::new(),
        pods: known.map(|(namespace, pods)| (namespace, pods.len())).collect(),
        networks: found.networks,
        groups: found
            .groups
            .into_iter()
            .map(|places| group(places, pods))
            .collect(),
        changes: found.changes.into_iter().map(change).collect(),
    }
}

fn change(change: manx_policy::WhatIfChange) -> WhatIfChange {
    WhatIfChange {
        from: change.from,
        to: change.to,
        families: change.families.into_iter().collect(),
        packets: change.packets.into_iter().map(packets).collect(),
        flows: change.flows,
        before: verdict(change.before),
        after: verdict(change.after),
    }
}

/// The pod of an endpoint, as `<namespace>/<name>`, and its namespace.
fn pod<'a>(endpoint: &'a str, pods: &BTreeMap<String, String>) -> Option<(&'a str, String)> {
    let (namespace, _) = endpoint.split_once('/')?;
    let name = pods.get(endpoint)?;
    Some((namespace, format!("{namespace}/{name}")))
}

fn group(places: BTreeSet<Place>, pods: &BTreeMap<String, String>) -> WhatIfGroup {
    let (mut group, mut named) = (WhatIfGroup::default(), BTreeSet::new());
    for place in places {
        match place {
            Place::Outside(network) => group.networks.push(network),
            Place::Endpoint(endpoint) => match pod(&endpoint, pods) {
                Some((_, pod)) => drop(named.insert(pod)),
                None => group.host_endpoints.push(endpoint),
            },
        }
    }
    group.pods = named.into_iter().collect();
    group
}

fn packets(packets: Packets) -> WhatIfPackets {
    let none = WhatIfPackets::default();
    match packets {
        Packets::Of(protocol, ports) => WhatIfPackets {
            protocol: Some(protocol),
            ports: ports.into_iter().map(port).collect(),
            ..none
        },
        Packets::Messages(protocol, messages) => WhatIfPackets {
            protocol: Some(protocol),
            messages: messages.into_iter().map(message).collect(),
            ..none
        },
        Packets::Others(than) => WhatIfPackets {
            other_than: than.into_iter().collect(),
            ..none
        },
    }
}

fn port(range: PortRange) -> String {
    Port::Numbers(range).to_string()
}

fn message(message: Message) -> String {
    let number = |number: Option<u8>| number.map_or_else(|| "other".to_owned(), |number| number.to_string());
    match message.kind {
        None => number(None),
        kind => format!("{}/{}", number(kind), number(message.code)),
    }
}

fn verdict(verdict: manx_policy::Verdict) -> WhatIfVerdict {
    WhatIfVerdict {
        verdict: Verdict::of(verdict.allowed),
        deciding: verdict.decided.and_then(deciding),
    }
}
