//! Tests across crates: simulation, the real kernel, foreign speakers, benches.
