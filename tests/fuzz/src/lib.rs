//! What the fuzz targets check, as plain functions.

pub mod bfd;
pub mod journal;
pub mod manifest;
pub mod speakers;
pub mod twins;
pub mod wire;

// The network and its reference model, which serve the stable tests as well.
#[allow(dead_code)]
#[path = "../../sim/laws.rs"]
mod laws;
#[allow(dead_code)]
#[path = "../../sim/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../../sim/network/mod.rs"]
mod network;
#[allow(dead_code)]
#[path = "../../sim/plan.rs"]
mod plan;
