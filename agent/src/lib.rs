//! The node daemon manxd: configuration, task graph, socket server, readiness, metrics.

pub mod config;
pub mod http;
pub mod metrics;
pub mod ready;
pub mod supervise;
