//! The node daemon manxd: configuration, task graph, socket server, readiness, metrics.
