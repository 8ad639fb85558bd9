//! What `/metrics` counts. Labels take few values each, none of them a peer, a pod or another node's prefix, so
//! that the number of series does not grow with the cluster, only with the node's own blocks.

use manx_bgp::wire::Action;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// All of the agent's metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds that CNI calls took, by operation and outcome.
    pub cni: Family<CniLabels, Histogram, fn() -> Histogram>,
    /// Seconds that one group commit of the address journal took.
    pub journal_commit: Histogram,
    /// Blocks owned.
    pub blocks: Gauge,
    /// Addresses held by pods.
    pub addresses: Gauge,
    /// Addresses and blocks more closely.
    pub ipam: IpamMetrics,
    /// Sessions wanted.
    pub peers: Gauge,
    /// Sessions established.
    pub peers_established: Gauge,
    /// Sessions whose path BFD is to watch.
    pub bfd_sessions: Gauge,
    /// Those among them whose path is up.
    pub bfd_sessions_up: Gauge,
    /// Sessions that came up.
    pub sessions_up: Counter,
    /// Sessions that went down.
    pub sessions_down: Counter,
    /// UPDATEs that were wrong, short of ending their session, by what that cost at most (RFC 7606 §2).
    pub update_faults: Family<FaultLabels, Counter>,
    /// Routes wanted in the kernel.
    pub routes_wanted: Gauge,
    /// Routes that the kernel took.
    pub routes_installed: Gauge,
    /// Route changes that the kernel refused.
    pub route_errors: Counter,
    /// Times that the kernel's whole table was read again.
    pub route_resyncs: Counter,
    /// Seconds that it took to make rules and sets as wanted, or to see that they are.
    pub rules_commit: Histogram,
    /// Times that rules or sets could not be made as wanted.
    pub rule_errors: Counter,
    /// Changes that took back what others did to our rules and sets.
    pub rule_repairs: Counter,
    /// Connections that the kernel was made to forget.
    pub connections_forgotten: Counter,
    /// Packets that staged policies would have done something to.
    pub staged_packets: Family<StagedLabels, Counter>,
    /// Events that the store sent.
    pub store_events: Counter,
    /// Times that all resources were listed.
    pub store_lists: Counter,
    /// Writes of WorkloadEndpoints that failed and are tried again.
    pub workload_retries: Counter,
}

/// What is counted of addresses and blocks.
#[derive(Clone, Debug, Default)]
pub struct IpamMetrics {
    /// Addresses of the node's blocks.
    pub addresses: Family<AddressLabels, Gauge>,
    /// The node's blocks.
    pub pool_blocks: Family<PoolLabels, Gauge>,
    /// Blocks claimed.
    pub claims: Counter,
    /// Claims that brought no block.
    pub claim_failures: Counter,
    /// ADDs that wait for a block.
    pub waiting: Gauge,
}

impl IpamMetrics {
    fn register(self, registry: &mut Registry) {
        registry.register(
            "ipam_block_addresses",
            "Addresses of the node's blocks by state",
            self.addresses,
        );
        registry.register("ipam_pool_blocks", "Blocks of the node by pool", self.pool_blocks);
        registry.register("ipam_claims", "Blocks claimed", self.claims);
        registry.register(
            "ipam_claim_failures",
            "Claims that brought no block",
            self.claim_failures,
        );
        registry.register("ipam_waiting", "ADDs that wait for a block", self.waiting);
    }
}

/// The labels of `manx_ipam_block_addresses`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AddressLabels {
    /// The block's pool.
    pub pool: String,
    /// The block, one of the node's.
    pub block: String,
    /// What the addresses are.
    pub state: State,
}

/// The label of `manx_ipam_pool_blocks`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// The pool.
    pub pool: String,
}

/// What an address of a block is; each address is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum State {
    /// Held by a pod.
    InUse,
    /// Free, and not yet rested.
    Cooling,
    /// Free, and only for who asks for it.
    Reserved,
    /// Lent to another node.
    Lent,
    /// Free for anybody.
    Free,
}

/// The labels of `manx_cni_duration_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CniLabels {
    /// ADD or DEL.
    pub operation: Operation,
    /// How it ended.
    pub outcome: Outcome,
}

/// The labels of `manx_staged_policy_packets_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StagedLabels {
    /// Kind, namespace and name, as in `StagedNetworkPolicy shop/web`.
    pub policy: String,
    /// `Ingress` or `Egress`.
    pub direction: String,
    /// The rule's number, counted from 0, or `none`.
    pub rule: String,
    /// What the rule does, or `none`.
    pub action: String,
}

/// The label of `manx_bgp_update_faults_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabels {
    /// `discard`: an attribute or prefix was dropped; `withdraw`: the routes were.
    pub action: String,
}

impl FaultLabels {
    /// UPDATEs that cost this.
    #[must_use]
    pub fn of(action: Action) -> Self {
        Self {
            action: action.to_string(),
        }
    }
}

/// A CNI operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Operation {
    /// CNI ADD.
    Add,
    /// CNI DEL.
    Del,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// As asked.
    Ok,
    /// With an error to the caller.
    Error,
}

/// From a quarter of a millisecond to four seconds.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 15))
}

impl Metrics {
    /// The metrics, and the registry that prints them under `manx_…`.
    #[must_use]
    pub fn new() -> (Self, Registry) {
        let metrics = Self {
            cni: Family::new_with_constructor(durations),
            journal_commit: durations(),
            blocks: Gauge::default(),
            addresses: Gauge::default(),
            ipam: IpamMetrics::default(),
            peers: Gauge::default(),
            peers_established: Gauge::default(),
            bfd_sessions: Gauge::default(),
            bfd_sessions_up: Gauge::default(),
            sessions_up: Counter::default(),
            sessions_down: Counter::default(),
            update_faults: Family::default(),
            routes_wanted: Gauge::default(),
            routes_installed: Gauge::default(),
            route_errors: Counter::default(),
            route_resyncs: Counter::default(),
            rules_commit: durations(),
            staged_packets: Family::default(),
            rule_errors: Counter::default(),
            rule_repairs: Counter::default(),
            connections_forgotten: Counter::default(),
            store_events: Counter::default(),
            store_lists: Counter::default(),
            workload_retries: Counter::default(),
        };
        for action in [Action::Discard, Action::Withdraw] {
            // A rate needs a beginning.
            drop(metrics.update_faults.get_or_create(&FaultLabels::of(action)));
        }
        let registry = metrics.register();
        (metrics, registry)
    }

    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("manx");
        let m = self.clone();
        registry.register("cni_duration_seconds", "Time that CNI calls took", m.cni);
        registry.register(
            "ipam_journal_commit_seconds",
            "Time of a journal group commit",
            m.journal_commit,
        );
        registry.register("ipam_blocks", "Blocks owned", m.blocks);
        registry.register("ipam_addresses", "Addresses held by pods", m.addresses);
        m.ipam.register(&mut registry);
        registry.register("bgp_peers", "Sessions wanted", m.peers);
        registry.register(
            "bgp_peers_established",
            "Sessions established",
            m.peers_established,
        );
        registry.register(
            "bgp_bfd_sessions",
            "Sessions whose path BFD is to watch",
            m.bfd_sessions,
        );
        registry.register(
            "bgp_bfd_sessions_up",
            "Sessions whose path BFD sees up",
            m.bfd_sessions_up,
        );
        registry.register("bgp_sessions_up", "Sessions that came up", m.sessions_up);
        registry.register("bgp_sessions_down", "Sessions that went down", m.sessions_down);
        registry.register("bgp_update_faults", "UPDATEs with errors", m.update_faults);
        self.register_kernel(&mut registry);
        registry.register("store_events", "Events that the store sent", m.store_events);
        registry.register(
            "store_lists",
            "Times that all resources, or all of a kind, were listed",
            m.store_lists,
        );
        registry.register(
            "workload_retries",
            "WorkloadEndpoint writes to be tried again",
            m.workload_retries,
        );
        registry
    }

    /// What the kernel holds of ours: routes, rules and sets.
    fn register_kernel(&self, registry: &mut Registry) {
        let m = self.clone();
        registry.register("routes_wanted", "Routes wanted in the kernel", m.routes_wanted);
        registry.register(
            "routes_installed",
            "Routes that the kernel took",
            m.routes_installed,
        );
        registry.register(
            "route_errors",
            "Route changes that the kernel refused",
            m.route_errors,
        );
        registry.register(
            "route_resyncs",
            "Times the kernel's table was read again",
            m.route_resyncs,
        );
        registry.register(
            "rules_commit_seconds",
            "Time of making rules and sets as wanted",
            m.rules_commit,
        );
        registry.register(
            "rule_errors",
            "Times that rules could not be made as wanted",
            m.rule_errors,
        );
        registry.register(
            "rule_repairs",
            "Changes that took back what others did to our rules",
            m.rule_repairs,
        );
        registry.register(
            "staged_policy_packets",
            "Packets that staged policies would have done something to",
            m.staged_packets,
        );
        registry.register(
            "connections_forgotten",
            "Connections of pods that have gone, which the kernel was made to forget",
            m.connections_forgotten,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;

    /// nasty case 57: no label takes a value per peer, pod, node or another node's prefix.
    #[test]
    fn the_number_of_series_does_not_grow_with_the_cluster() {
        let (metrics, registry) = Metrics::new();
        for operation in [Operation::Add, Operation::Del] {
            for outcome in [Outcome::Ok, Outcome::Error] {
                let labels = CniLabels { operation, outcome };
                metrics.cni.get_or_create(&labels).observe(0.001);
            }
        }
        let labels = AddressLabels {
            pool: "p".to_owned(),
            block: "10.0.0.0/26".to_owned(),
            state: State::Free,
        };
        metrics.ipam.addresses.get_or_create(&labels).set(64);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let labels: BTreeSet<&str> = series
            .clone()
            .filter_map(|line| line.split_once('{')?.1.split_once('}'))
            .flat_map(|(labels, _)| labels.split(','))
            .filter_map(|label| label.split('=').next())
            .collect();
        let known = ["action", "block", "le", "operation", "outcome", "pool", "state"];
        assert_eq!(labels, BTreeSet::from(known));
        assert!(series.count() < 200);
    }
}
