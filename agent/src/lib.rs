//! The node daemon manxd: configuration, task graph, socket server, readiness, metrics.
//!
//! Wiring and nothing else: what is to be thought is thought in the pure crates, what is to be done to the
//! world is done in `linux`, `store` and `bgpd`. [`tasks`] draws who talks to whom; [`convert`] is the only
//! place where one domain's types become another's.

pub mod announcing;
pub mod ask;
pub mod availability;
pub mod bgp;
pub mod blocking;
pub mod cni;
pub mod config;
pub mod conntrack;
pub mod convert;
pub mod denies;
pub mod disk;
pub mod endpoint;
pub mod events;
pub mod http;
pub mod identity;
pub mod ipam;
pub mod journal;
pub mod leaving;
pub mod metrics;
mod names;
pub mod node;
pub mod peering;
pub mod policy;
pub mod ready;
pub mod reclaim;
pub mod releases;
pub mod report;
pub mod restore;
pub mod route;
pub mod secrets;
pub mod server;
pub mod services;
pub mod sessions;
mod slices;
pub mod startup;
pub mod status;
pub mod supervise;
pub mod tasks;
pub mod tombstones;
pub mod verdicts;
pub mod view;
pub mod watch;
pub mod workload;
