//! The real kernel, in network namespaces that the tests make.
//!
//! Needs root, or a user namespace: `unshare -Urnm sh -c 'mount -t tmpfs none /run && cargo test --test netns'`.

#![expect(
    clippy::unwrap_used,
    reason = "in a test and its harness, an unwrap is an assertion"
)]

mod agent_harness;
mod agent_node;
mod agent_nodes;
mod api_calls;
mod api_faults;
mod bfd;
mod blocks;
#[path = "../kubernetes/mod.rs"]
mod clusters;
mod cni_chain;
mod cni_runtime;
mod cni_spec;
mod coexistence;
mod conntrack;
mod container;
mod containerd;
mod containers;
mod cri;
mod daemon;
mod failover;
mod filters;
mod first_packet;
mod harness;
mod host_endpoints;
#[path = "../policy/host_reference.rs"]
mod host_reference;
mod interruptions;
mod ipam;
mod ipset;
mod kubernetes;
mod lab_announcing;
mod lab_denies;
mod lab_explain;
mod lab_harness;
mod lab_ipam;
mod lab_outage;
mod lab_policies;
mod lab_routers;
mod lab_services;
mod lab_staged;
mod lab_traits;
mod lab_up;
mod lab_what_if;
mod leases;
mod links;
mod migration;
mod namespaces;
mod nat;
mod nflog;
mod ordeal;
mod packet;
mod packet_site;
mod packet_worlds;
mod passwords;
mod pod_traits;
mod podman;
mod pods;
mod policies;
mod policy_packets;
mod rack;
#[path = "../policy/reference.rs"]
mod reference;
mod routes;
mod rules;
mod security;
#[path = "../policy/told.rs"]
mod told;
mod units;
mod unnumbered;
mod upkeep;
#[path = "../policy/world.rs"]
mod world;
