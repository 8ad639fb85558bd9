//! Tests across crates: simulation, the real kernel, foreign speakers, benches.
//!
//! The suites are in their folders; here is what several of them share.

pub mod apiserver;
pub mod binaries;
pub mod foreign;
pub mod manifests;
pub mod node;
pub mod sample;
pub mod shell;
pub mod tree;
pub mod users;
