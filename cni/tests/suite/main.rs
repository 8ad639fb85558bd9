//! The plugin against the specification: its sentences, its results, and the binary with an agent or without.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod agent;
mod binary;
mod install;
mod results;
mod runtime;
mod spec;
