//! What the specifications say of packets that meet a host endpoint: Calico's, whose fields these are.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of twenty kinds, one selects host endpoints"
)]

use manx_api::Resource;
use manx_api::host_endpoint::HostEndpoint;
use manx_api::rule::Direction;

use super::reference::{decided, speaks_tiered};
use super::world::{Packet, World};

/// Ports that are never closed, to the node and from it, by protocol.
const FAILSAFE: [u16; 7] = [179, 2379, 2380, 5473, 6443, 6666, 6667];
const FAILSAFE_UDP: [u16; 2] = [3784, 4784];
const FAILSAFE_IN: [(u8, u16); 2] = [(6, 22), (17, 68)];
const FAILSAFE_OUT: [(u8, u16); 2] = [(17, 53), (17, 67)];

/// When policies are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Untracked,
    PreDnat,
    /// The node itself gets or sends the packet.
    Own,
    Forwarded,
}

/// Whether a packet gets past a host endpoint, on its way in or out; `own`: it is the node that gets or sends it.
pub(crate) fn passes(
    world: &World,
    host: &HostEndpoint,
    (packet, direction): (&Packet, Direction),
    own: bool,
) -> bool {
    let failsafe = is_failsafe(packet, direction);
    let ingress = direction == Direction::Ingress;
    let said = |stage: Stage, open: bool| {
        let applies = |policy: &Resource| applies(policy, host, direction, stage);
        decided(world, (packet, direction), applies, open)
    };
    // Before the packet is routed, nobody knows whether it is for the node: failsafes are exempt in any case.
    let untracked = (!failsafe && (ingress || own)).then(|| said(Stage::Untracked, true));
    let before_nat = || {
        (!failsafe && ingress)
            .then(|| said(Stage::PreDnat, true))
            .flatten()
    };
    if let Some(early) = untracked.flatten().or_else(before_nat) {
        return early;
    }
    if own {
        failsafe || said(Stage::Own, false).unwrap_or(!host.spec.profiles.is_empty())
    } else {
        said(Stage::Forwarded, false).unwrap_or(true)
    }
}

fn is_failsafe(packet: &Packet, direction: Direction) -> bool {
    let Some((_, port)) = packet.ports else {
        return false;
    };
    let more = match direction {
        Direction::Ingress => FAILSAFE_IN,
        Direction::Egress => FAILSAFE_OUT,
    };
    let everywhere = match packet.protocol {
        6 => FAILSAFE.contains(&port),
        17 => FAILSAFE_UDP.contains(&port),
        _ => false,
    };
    everywhere || more.contains(&(packet.protocol, port))
}

/// Whether a policy applies to a host endpoint: a global one that does not look for namespaces or service accounts.
fn applies(policy: &Resource, host: &HostEndpoint, direction: Direction, stage: Stage) -> bool {
    let spec = match policy {
        Resource::GlobalNetworkPolicy(policy) => &policy.spec,
        _ => return false,
    };
    let acts = match (spec.do_not_track, spec.pre_dnat) {
        (true, _) => stage == Stage::Untracked,
        (_, true) => stage == Stage::PreDnat,
        _ => stage == Stage::Own || (stage == Stage::Forwarded && spec.apply_on_forward),
    };
    let namespaces = spec.namespace_selector.as_ref();
    acts && speaks_tiered(spec, direction)
        && namespaces.is_none_or(|wanted| wanted.to_string() == "global()")
        && spec.service_account_selector.is_none()
        && spec.selector.matches(&host.metadata.labels)
}
