//! Between the policy engine's words and others'.

use manx_api::ipam::IpPool;
use manx_policy::{HostAction, Marks, Settings};

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
