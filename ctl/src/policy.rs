//! `manxctl policy …`: why packets pass or do not.

use std::fmt::Write as _;

use manx_api::explanation::{
    Deciding, PolicyExplainCall, PolicyExplanation, PolicyName, PolicyStep, PolicyWalk, StagedCount, Verdict,
};
use manx_api::rpc::Method;
use manx_api::rule::{Direction, Protocol};
use manx_store::AnyStore;
use serde_json::json;

use crate::cli::{PolicyCommand, ServiceName};
use crate::denies;
use crate::ends::{self, Destination, End, Known, Pod};
use crate::error::{CtlError, Result};
use crate::observe::list;
use crate::output::{self, Format};
use crate::target::Target;
use crate::through::{self, ThroughService};
use crate::what_if;

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

/// What is asked about: who sends, who gets, and what.
async fn explain(target: &Target, (from, to): (&End, &Destination), format: Format) -> Result<()> {
    let store = target.store().await?;
    let source = ends::find(&store, from).await?;
    match service(&store, &to.end).await? {
        Some(service) => through_service(target, &store, &source, (service, to), format).await,
        None => {
            let destination = ends::find(&store, &to.end).await?;
            let found = ask(target, &store, (&source, &destination), (to.protocol, to.port)).await?;
            match format {
                Format::Json => output::emit(&output::json(&found)?),
                Format::Yaml => output::emit(&output::yaml(&found)?),
                Format::Name => output::emit(&format!("{}\n", word(found.verdict))),
                Format::Table | Format::Wide => output::emit(&text(&found)),
            }
        }
    }
}

/// The service that an end is: by its name, by its address in the cluster, or by a name that no pod has.
async fn service(store: &AnyStore, end: &End) -> Result<Option<ServiceName>> {
    match end {
        End::Service(service) => Ok(Some(service.clone())),
        End::Address(address) => through::at(store, *address).await,
        End::Host(_) | End::Pod(_, Some(_)) => Ok(None),
        End::Pod(Pod { namespace, name }, None) => {
            let service = ServiceName {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            let is_pod = !matches!(ends::find(store, end).await, Err(CtlError::NoPod { .. }));
            Ok(if is_pod || !through::exists(store, &service).await? {
                None
            } else {
                Some(service)
            })
        }
    }
}

/// What an agent says of packets of a kind between two ends. What a node sends to its own pods is nobody's to deny, and of
/// what they send to it its own agent knows.
async fn ask(
    target: &Target,
    store: &AnyStore,
    (from, to): (&Known, &Known),
    (protocol, port): (Protocol, Option<u16>),
) -> Result<PolicyExplanation> {
    let source = ends::place(store, from.clone(), to).await?;
    let destination = ends::place(store, to.clone(), &source).await?;
    if let Some((source, destination)) = source.to_own_pod(&destination) {
        return Ok(PolicyExplanation {
            source,
            destination,
            protocol,
            port,
            verdict: Verdict::Allow,
            deciding: None,
            to_node: None,
            walks: Vec::new(),
        });
    }
    let call = PolicyExplainCall {
        from: source.party(&destination),
        to: destination.party(&source),
        protocol,
        port,
    };
    let node = destination.own_node(&source);
    target.ask_any_of(node.as_slice(), Method::PolicyExplain, &json!(call))
}

/// What becomes of packets to a service, at each of its endpoints.
async fn through_service(
    target: &Target,
    store: &AnyStore,
    source: &Known,
    (service, to): (ServiceName, &Destination),
    format: Format,
) -> Result<()> {
    let (port, mut behind) = through::behind(store, &service, (to.protocol, to.port)).await?;
    let asked = match to.end {
        End::Address(address) => Known::at(address, None),
        End::Pod(..) | End::Host(_) | End::Service(_) => source.clone(),
    };
    behind.retain(|(endpoint, _)| endpoint.has_family_of(&asked) && endpoint.has_family_of(source));
    let mut endpoints = Vec::new();
    for (endpoint, own) in behind {
        endpoints.push(ask(target, store, (source, &endpoint), (to.protocol, Some(own))).await?);
    }
    let found = ThroughService::of(service, (to.protocol, port), endpoints);
    match format {
        Format::Json => output::emit(&output::json(&found)?),
        Format::Yaml => output::emit(&output::yaml(&found)?),
        Format::Name => output::emit(&format!("{}\n", found.word())),
        Format::Table | Format::Wide => output::emit(&found.text(text)),
    }
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
        None if found.to_node == Some(Verdict::Deny) => {
            "the node takes nothing from its pods (policy.endpointToHost in its manxd.yaml)".to_owned()
        }
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
    let verdict = output::marked(
        &format!("{}: {why}", word(found.verdict)),
        found.verdict == Verdict::Allow,
    );
    let _ = writeln!(text, "\n{verdict}");
    text
}

fn walked(walk: &PolicyWalk, deciding: Option<&Deciding>) -> String {
    let way = match walk.direction {
        Direction::Egress => "what leaves",
        Direction::Ingress => "what reaches",
    };
    let heading = format!("{way} {}: {}", walk.endpoint, word(walk.verdict));
    let mut text = output::marked(&heading, walk.verdict == Verdict::Allow) + "\n";
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
    fn what_is_denied_is_red_and_the_rest_reads_without_colour() {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "namespace": "shop", "name": "deny-all",
            "rule": null,
        });
        let mut deciding = policy.clone();
        (deciding["tier"], deciding["direction"]) = (json!("default"), json!("Ingress"));
        let mut step = policy;
        step["action"] = json!(null);
        let found = json!({
            "source": "10.0.0.1", "destination": "10.0.0.2", "protocol": "TCP", "port": 80, "verdict": "deny",
            "deciding": deciding,
            "walks": [
                {"endpoint": "shop/db", "direction": "Egress", "verdict": "allow", "tiers": []},
                {"endpoint": "shop/web", "direction": "Ingress", "verdict": "deny", "tiers": [
                    {"tier": "default", "policies": [step], "end": "Deny"},
                ]},
            ],
        });
        let text = text(&serde_json::from_value(found).unwrap());
        assert_eq!(text.matches("\u{1b}[31m").count(), 2, "{text}");
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        10.0.0.1 -> 10.0.0.2:80 TCP

        what leaves shop/db: allow
          no policy applies

        what reaches shop/web: deny
          tier default
            NetworkPolicy.networking.k8s.io shop/deny-all: no rule is for it
            end of the tier: Deny

        deny: no rule is for it, NetworkPolicy.networking.k8s.io shop/deny-all applies, and tier default ends so
        ");
        let found = json!({
            "source": "10.0.0.1", "destination": "192.0.2.1", "protocol": "TCP", "port": 22, "verdict": "deny",
            "toNode": "deny",
            "walks": [{"endpoint": "shop/db", "direction": "Egress", "verdict": "allow", "tiers": []}],
        });
        let text = super::text(&serde_json::from_value(found).unwrap());
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        10.0.0.1 -> 192.0.2.1:22 TCP

        what leaves shop/db: allow
          no policy applies

        deny: the node takes nothing from its pods (policy.endpointToHost in its manxd.yaml)
        ");
    }
}
