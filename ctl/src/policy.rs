//! `manxctl policy …`: why packets pass or do not.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

use manx_api::Kind;
use manx_api::explanation::{
    Deciding, Party, PolicyExplainCall, PolicyExplanation, PolicyName, PolicyStep, PolicyWalk, StagedCount,
    Verdict,
};
use manx_api::rpc::Method;
use manx_api::rule::{Direction, Protocol};
use manx_api::workload::WorkloadEndpoint;
use manx_store::Store as _;
use serde_json::json;

use crate::cli::PolicyCommand;
use crate::denies;
use crate::error::{CtlError, Result};
use crate::observe::list;
use crate::output::{self, Format};
use crate::target::Target;
use crate::what_if;

/// The interface that a pod is known by.
const INTERFACE: &str = "eth0";

/// One end, as the user writes it: `NS/POD`, `POD` of the default namespace, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Pod(Pod),
    Address(IpAddr),
}

/// A pod, as the user writes it: `NS/POD`, or `POD` of the default namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl FromStr for Pod {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let is_word = |word: &str| !word.is_empty() && !word.contains(['/', ':', ' ']);
        if !is_word(namespace) || !is_word(name) {
            return Err("it is no pod: write NAMESPACE/POD".to_owned());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let refused = |_| "it is no pod and no address: write NAMESPACE/POD, 10.0.0.1 or fd00::1".to_owned();
        text.parse().map(Self::Pod).map_err(refused)
    }
}

/// Where a packet goes, as the user writes it: `NS/POD:PORT/PROTOCOL`, `10.0.0.1:80/TCP`, `[fd00::1]:80/TCP`, or with a
/// protocol that has no ports, `NS/POD:ICMP`. TCP goes without saying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    end: End,
    protocol: Protocol,
    port: Option<u16>,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let example = "write where to, like shop/web:80/TCP, [fd00::1]:53/UDP or shop/web:ICMP";
        let (end, what) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or(example)?,
            None => text.rsplit_once(':').ok_or(example)?,
        };
        let end = end.parse()?;
        let (port, protocol) = match what.split_once('/') {
            Some(both) => both,
            None if what.parse::<u16>().is_ok() => (what, "TCP"),
            None => ("", what),
        };
        let protocol: Protocol = protocol
            .parse()
            .map_err(|_| format!("'{protocol}' is no protocol: {example}"))?;
        let port = match port {
            "" => None,
            port => Some(
                port.parse()
                    .map_err(|_| format!("'{port}' is no port: {example}"))?,
            ),
        };
        if port.is_some() != protocol.has_ports() {
            return Err(format!(
                "'{what}' is no port of a protocol that has ports: {example}"
            ));
        }
        Ok(Self { end, protocol, port })
    }
}

/// `policy …`.
pub(crate) async fn run(target: &Target, command: &PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Explain(args) => match (&args.from, &args.to) {
            (Some(from), Some(to)) => explain(target, (from, to), args.output.output).await,
            _ => what_if::run(target, &args.what_if, args.output.output).await,
        },
        PolicyCommand::Denies(args) => denies::run(target, args),
        PolicyCommand::Staged(args) => list::<StagedCount>(target, args, Method::PolicyStaged),
    }
}

async fn explain(target: &Target, (from, to): (&End, &Destination), format: Format) -> Result<()> {
    let call = PolicyExplainCall {
        from: party(target, from).await?,
        to: party(target, &to.end).await?,
        protocol: to.protocol,
        port: to.port,
    };
    let found: PolicyExplanation = target.ask_any(Method::PolicyExplain, &json!(call))?;
    match format {
        Format::Json => output::emit(&output::json(&found)?),
        Format::Yaml => output::emit(&output::yaml(&found)?),
        Format::Name => output::emit(&format!("{}\n", word(found.verdict))),
        Format::Table | Format::Wide => output::emit(&text(&found)),
    }
}

/// What agents call an end.
async fn party(target: &Target, end: &End) -> Result<Party> {
    let (namespace, name) = match end {
        End::Address(address) => return Ok(Party::Address(*address)),
        End::Pod(Pod { namespace, name }) => (namespace, name),
    };
    let store = target.store().await?;
    let listing = store.list(Kind::WorkloadEndpoint, Some(namespace)).await?;
    let endpoints = listing.items.into_iter().map(WorkloadEndpoint::try_from);
    let of_pod = endpoints.flatten().filter(|endpoint| endpoint.spec.pod == *name);
    let found = of_pod.min_by_key(|endpoint| endpoint.spec.endpoint != INTERFACE);
    let Some(endpoint) = found else {
        return Err(CtlError::NoPod {
            pod: format!("{namespace}/{name}"),
        });
    };
    Ok(Party::Endpoint(format!("{namespace}/{}", endpoint.metadata.name)))
}

fn text(found: &PolicyExplanation) -> String {
    let port = found.port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut text = format!(
        "{} -> {}{port} {}\n",
        found.source, found.destination, found.protocol
    );
    for walk in &found.walks {
        // A string takes all.
        let _ = write!(text, "\n{}", walked(walk, found.deciding.as_ref()));
    }
    let why = match &found.deciding {
        None => "no policy speaks of it".to_owned(),
        Some(Deciding {
            policy,
            rule: Some(rule),
            ..
        }) => format!("rule {rule} of {}", called(policy)),
        Some(Deciding { policy, tier, .. }) => {
            format!(
                "no rule is for it, {} applies, and tier {tier} ends so",
                called(policy)
            )
        }
    };
    let _ = writeln!(text, "\n{}: {why}", word(found.verdict));
    text
}

fn walked(walk: &PolicyWalk, deciding: Option<&Deciding>) -> String {
    let way = match walk.direction {
        Direction::Egress => "what leaves",
        Direction::Ingress => "what reaches",
    };
    let mut text = format!("{way} {}: {}\n", walk.endpoint, word(walk.verdict));
    if walk.tiers.is_empty() {
        text.push_str("  no policy applies\n");
    }
    for tier in &walk.tiers {
        let _ = writeln!(text, "  tier {}", tier.tier);
        for step in &tier.policies {
            let here = deciding.is_some_and(|it| it.direction == walk.direction && it.rule.is_some())
                && deciding.is_some_and(|it| it.policy == step.policy);
            let _ = writeln!(
                text,
                "    {}{}",
                stepped(step),
                if here { "   <- decides" } else { "" }
            );
        }
        if let Some(end) = tier.end {
            let _ = writeln!(text, "    end of the tier: {end}");
        }
    }
    text
}

fn stepped(step: &PolicyStep) -> String {
    let staged = if step.staged { " (staged)" } else { "" };
    let logged: String = step
        .logged
        .iter()
        .map(|rule| format!("rule {rule} logs it, "))
        .collect();
    let found = match (step.rule, step.action) {
        (Some(rule), Some(action)) => format!("rule {rule}: {action}"),
        _ => "no rule is for it".to_owned(),
    };
    format!("{}{staged}: {logged}{found}", called(&step.policy))
}

/// A policy as people call it.
pub(crate) fn called(policy: &PolicyName) -> String {
    let namespace = policy
        .namespace
        .as_ref()
        .map(|it| format!("{it}/"))
        .unwrap_or_default();
    // Two kinds are called NetworkPolicy.
    let group = policy.api_version.split('/').next().unwrap_or_default();
    format!("{}.{group} {namespace}{}", policy.kind, policy.name)
}

pub(crate) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_pods_or_addresses() {
        let pod = |namespace: &str, name: &str| {
            End::Pod(Pod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        };
        let udp = Protocol::UDP;
        for (text, end, protocol, port) in [
            ("shop/web:80/TCP", pod("shop", "web"), Protocol::TCP, Some(80)),
            ("web:80", pod("default", "web"), Protocol::TCP, Some(80)),
            (
                "10.0.0.1:53/udp",
                End::Address("10.0.0.1".parse().unwrap()),
                udp,
                Some(53),
            ),
            (
                "[fd00::1]:53/UDP",
                End::Address("fd00::1".parse().unwrap()),
                udp,
                Some(53),
            ),
            ("shop/web:ICMP", pod("shop", "web"), Protocol::ICMP, None),
        ] {
            assert_eq!(text.parse(), Ok(Destination { end, protocol, port }), "{text}");
        }
        for text in [
            "shop/web",
            "shop/web:ICMP/80",
            "shop/web:80/ICMP",
            "web:TCP",
            "a/b/c:80",
            "web:70000",
            ":80",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}
