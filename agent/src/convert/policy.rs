//! Between the policy engine's words and others'.

use manx_api::explanation::{
    Deciding, Party, PolicyExplainCall, PolicyExplanation, PolicyName, PolicyStep, PolicyWalk, TierWalk,
    Verdict,
};
use manx_api::host_endpoint::FailsafePort;
use manx_api::ipam::IpPool;
use manx_api::policy::{DefaultAction, Origin};
use manx_api::rule::Action;
use manx_policy::{Explanation, Failsafe, Failsafes, HostAction, Marks, Outcome, Settings, Traffic, Walk};

use crate::config::{EndpointToHost, PolicyEnforcement, PolicySettings};
use crate::policy::Enforcement;

/// What the policy engine wants to know of a pool.
#[must_use]
pub fn policy_pool(pool: &IpPool) -> manx_policy::Pool {
    manx_policy::Pool {
        cidr: pool.spec.cidr,
        nat_outgoing: pool.spec.nat_outgoing,
    }
}

/// When policies are enforced, and with which settings.
#[must_use]
pub fn enforcement(setting: &PolicySettings) -> Enforcement {
    let settings = Settings {
        marks: Marks::of(setting.mark_mask).unwrap_or_default(),
        to_host: match setting.endpoint_to_host {
            EndpointToHost::Accept => HostAction::Accept,
            EndpointToHost::Drop => HostAction::Drop,
            EndpointToHost::Return => HostAction::Return,
        },
        log_group: setting.log_group,
        log_denied: setting.log_denied,
    };
    match setting.enforcement {
        PolicyEnforcement::WhenUsed => Enforcement::WhenUsed(settings),
        PolicyEnforcement::Always => Enforcement::Always(settings),
        PolicyEnforcement::Never => Enforcement::Never,
    }
}

/// The ports that no host endpoint's policy closes.
#[must_use]
pub fn failsafes(setting: &PolicySettings) -> Failsafes {
    let ports = |ports: &[FailsafePort]| {
        let ports = ports.iter().map(|it| Failsafe {
            protocol: it.protocol,
            port: it.port,
        });
        ports.collect()
    };
    let Failsafes { inbound, outbound } = Failsafes::default();
    let set = |setting: &Option<Vec<FailsafePort>>, default| setting.as_deref().map_or(default, ports);
    Failsafes {
        inbound: set(&setting.failsafe_inbound_host_ports, inbound),
        outbound: set(&setting.failsafe_outbound_host_ports, outbound),
    }
}

/// An end of a packet, in the engine's words.
#[must_use]
pub fn party(party: Party) -> manx_policy::Party {
    match party {
        Party::Endpoint(name) => manx_policy::Party::Endpoint(name),
        Party::Address(address) => manx_policy::Party::Address(address),
    }
}

/// The kind of packet that is asked about.
#[must_use]
pub const fn traffic(call: &PolicyExplainCall) -> Traffic {
    Traffic {
        protocol: call.protocol,
        source_port: None,
        port: call.port,
        icmp: None,
    }
}

/// What the engine says of a packet, in everybody's words.
#[must_use]
pub fn explanation(found: Explanation, asked: Traffic) -> PolicyExplanation {
    let deciding = found.deciding().and_then(|(walk, tier)| {
        let (origin, rule) = match &tier.outcome {
            Outcome::Rule { policy, rule, .. } => (policy, Some(*rule)),
            Outcome::End(_) | Outcome::Staged | Outcome::Failsafe => {
                let enforced = tier.policies.iter().find(|step| !step.staged)?;
                (&enforced.policy, None)
            }
        };
        Some(Deciding {
            policy: policy_name(origin),
            rule,
            tier: tier.tier.clone(),
            direction: walk.direction,
        })
    });
    PolicyExplanation {
        source: found.source,
        destination: found.destination,
        protocol: asked.protocol,
        port: asked.port,
        verdict: Verdict::of(found.allowed()),
        deciding,
        walks: [found.egress, found.ingress]
            .into_iter()
            .flatten()
            .map(walk)
            .collect(),
    }
}

fn walk(walk: Walk) -> PolicyWalk {
    let tiers = walk.tiers.into_iter().map(|tier| TierWalk {
        tier: tier.tier,
        policies: tier.policies.into_iter().map(step).collect(),
        end: match tier.outcome {
            Outcome::End(DefaultAction::Deny) => Some(Action::Deny),
            Outcome::End(DefaultAction::Pass) => Some(Action::Pass),
            Outcome::Failsafe => Some(Action::Allow),
            Outcome::Rule { .. } | Outcome::Staged => None,
        },
    });
    PolicyWalk {
        endpoint: walk.endpoint,
        direction: walk.direction,
        verdict: Verdict::of(walk.allowed),
        tiers: tiers.collect(),
    }
}

fn step(step: manx_policy::PolicyWalk) -> PolicyStep {
    PolicyStep {
        policy: policy_name(&step.policy),
        staged: step.staged,
        rule: step.decision.map(|(rule, _)| rule),
        action: step.decision.map(|(_, action)| action),
        logged: step.logged,
    }
}

/// What everybody calls a policy.
#[must_use]
pub fn policy_name(origin: &Origin) -> PolicyName {
    PolicyName {
        api_version: origin.kind.api_version().to_owned(),
        kind: origin.kind.written().to_owned(),
        namespace: origin.namespace.clone(),
        name: origin.name.clone(),
    }
}
