//! Whole meshes of speakers under a virtual clock.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod collision;
mod corpus;
#[path = "../fuzz/src/speakers.rs"]
#[expect(unreachable_pub, reason = "the fuzz package publishes it")]
mod fuzz;
mod laws;
mod mesh;
mod model;
mod network;
mod ordeal;
mod plan;
mod restart;
mod scale;
mod storm;
mod stress;
