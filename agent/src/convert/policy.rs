//! Between the policy engine's words and others'.

use std::net::IpAddr;

use jiff::{Timestamp, Unit};
use manx_api::denied::{DeniedEnd, DeniedPacket, DenyReason, LogVerdict};
use manx_api::explanation::{
    Deciding, Party, PolicyExplainCall, PolicyExplanation, PolicyName, PolicyStep, PolicyWalk, TierWalk,
    Verdict,
};
use manx_api::host_endpoint::FailsafePort;
use manx_api::ipam::IpPool;
use manx_api::policy::{DefaultAction, Origin};
use manx_api::rule::{Action, Protocol};
use manx_policy::{
    Decided, Explanation, Failsafe, Failsafes, HostAction, Logged, Marks, Outcome, Reason, Settings, Traffic,
    Walk, Whose,
};

use crate::config::{EndpointToHost, PolicyEnforcement, PolicySettings};
use crate::policy::{Enforcement, Named};

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
    let deciding = found.decided().and_then(deciding);
    PolicyExplanation {
        source: found.source,
        destination: found.destination,
        protocol: asked.protocol,
        port: asked.port,
        verdict: Verdict::of(found.allowed()),
        deciding,
        to_node: found.to_host.and_then(|action| match action {
            HostAction::Accept => Some(Verdict::Allow),
            HostAction::Drop => Some(Verdict::Deny),
            HostAction::Return => None,
        }),
        walks: [found.egress, found.ingress]
            .into_iter()
            .flatten()
            .map(walk)
            .collect(),
    }
}

pub(super) fn deciding(decided: Decided) -> Option<Deciding> {
    Some(Deciding {
        policy: policy_name(&decided.policy?),
        rule: decided.rule,
        tier: decided.tier,
        direction: decided.direction,
    })
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

/// A logged packet, in everybody's words; when it came, where and how often stays to be said.
#[must_use]
pub fn denied(Named { told, pods }: Named, seen: Logged, traffic: (Protocol, [u16; 2])) -> DeniedPacket {
    let (reason, policy, rule, tier) = match told.reason {
        Reason::Rule { policy, tier, rule } => (DenyReason::Rule, Some(policy), Some(rule), Some(tier)),
        Reason::End { tier, policy } => (DenyReason::EndOfTier, policy, None, Some(tier)),
        Reason::Closed => (DenyReason::HostEndpoint, None, None, None),
        Reason::Source => (DenyReason::SourceAddress, None, None, None),
        Reason::Unknown => (DenyReason::UnknownInterface, None, None, None),
        Reason::ToHost => (DenyReason::EndpointToHost, None, None, None),
        Reason::Gone => (DenyReason::Gone, None, None, None),
    };
    let (protocol, [from_port, to_port]) = traffic;
    let port = |port| Some(port).filter(|_| protocol.has_ports());
    let [from_pod, to_pod] = pods;
    DeniedPacket {
        time: String::new(),
        node: String::new(),
        count: 1,
        verdict: if told.denied {
            LogVerdict::Deny
        } else {
            LogVerdict::Log
        },
        direction: told.direction,
        reason,
        policy: policy.as_ref().map(policy_name),
        rule,
        tier,
        source: denied_end(seen.source, port(from_port), (told.source, from_pod)),
        destination: denied_end(seen.destination, port(to_port), (told.destination, to_pod)),
        protocol,
        from_interface: seen.from,
        to_interface: seen.to,
    }
}

fn denied_end(address: IpAddr, port: Option<u16>, (whose, pod): (Whose, Option<String>)) -> DeniedEnd {
    let (namespace, name) = whose
        .endpoint
        .as_deref()
        .and_then(|id| id.split_once('/'))
        .unzip();
    DeniedEnd {
        address,
        port,
        namespace: namespace.filter(|_| !whose.is_host).map(str::to_owned),
        pod: pod.filter(|_| !whose.is_host),
        host_endpoint: name.filter(|_| whose.is_host).map(str::to_owned),
        network_sets: whose.network_sets,
    }
}

/// A time as people and programs read it (RFC 3339), to the millisecond.
#[must_use]
pub fn milliseconds(time: Timestamp) -> String {
    time.round(Unit::Millisecond).unwrap_or(time).to_string()
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
