//! One speaker among peers that are played by hand.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::disallowed_methods,
    reason = "there is no other way to make an Instant"
)]

mod add_path;
mod bounds;
mod dynamic;
mod explain;
mod features;
mod filters;
mod groups;
mod handling;
mod link_local;
mod long_lived;
mod malformed;
mod monitor;
mod operator;
mod policy;
mod rig;
mod routes;
mod session;
mod start;
mod twins;
mod wire_cases;
