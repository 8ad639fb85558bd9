//! Whole meshes of speakers under a virtual clock.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod collision;
mod mesh;
mod model;
mod network;
mod ordeal;
mod plan;
mod restart;
mod stress;
