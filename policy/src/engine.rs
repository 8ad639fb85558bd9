//! The engine: resources in, changes of rules and sets out.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use manx_api::policy::{Endpoint, NamespacedName, NetworkSet, Origin, Policy, Tier};

use crate::graph::Graph;
use crate::held::Held;
use crate::input::{Failsafes, HostInterface, Local, Needs, Pool, ServiceEndpoint, Settings};
use crate::nat;
use crate::plan::{Delta, plan, sorted};
use crate::ruleset::Full;
use crate::trial::Trial;

/// News of a resource. What is not told of is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A pool is there, and like this.
    SetPool {
        /// Its name.
        name: String,
        /// What it is like.
        pool: Pool,
    },
    /// A pool is gone.
    RemovePool {
        /// Its name.
        name: String,
    },
    /// Policies are enforced, like this; without, they are only known.
    Enforce(Option<Settings>),
    /// What host endpoints' policies do not close is this; without a word, the default.
    Failsafes(Failsafes),
    /// A tier is like this, or gone. A policy's tier of which nothing was heard comes last, and denies at its end.
    Tier(String, Option<Tier>),
    /// A policy is like this, or gone.
    Policy(Origin, Option<Box<Policy>>),
    /// A namespace has these labels, or is gone.
    Namespace(String, Option<BTreeMap<String, String>>),
    /// A service account has these labels, or is gone.
    ServiceAccount(NamespacedName, Option<BTreeMap<String, String>>),
    /// An endpoint of the cluster is like this, or gone; by a name of the caller's choice (`namespace/pod`).
    Endpoint(String, Option<Box<Endpoint>>),
    /// The endpoint of this name is a pod of this node, or no longer.
    Local(String, Option<Local>),
    /// The endpoint of this name is an interface of this node, or no longer.
    Host(String, Option<HostInterface>),
    /// A network set is like this, or gone.
    NetworkSet(Origin, Option<Box<NetworkSet>>),
    /// These are behind a service; where there are none, or no service, nobody.
    Service(NamespacedName, BTreeSet<ServiceEndpoint>),
}

/// The last state of each resource, and what follows from it.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    pools: BTreeMap<String, Pool>,
    pub(crate) graph: Graph,
}

impl Engine {
    /// Knows nothing and wants nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in some news; returns what they change, all at once. The cost is that of what they touch.
    pub fn apply(&mut self, updates: impl IntoIterator<Item = Update>) -> Delta {
        let mut delta = Delta::new();
        let mut pools = None;
        for update in updates {
            match update {
                Update::SetPool { name, pool } => {
                    pools.get_or_insert_with(|| self.pools.clone());
                    self.pools.insert(name, pool);
                }
                Update::RemovePool { name } => {
                    pools.get_or_insert_with(|| self.pools.clone());
                    self.pools.remove(&name);
                }
                Update::Enforce(_)
                | Update::Failsafes(_)
                | Update::Tier(..)
                | Update::Policy(..)
                | Update::Namespace(..)
                | Update::ServiceAccount(..)
                | Update::Endpoint(..)
                | Update::Local(..)
                | Update::Host(..)
                | Update::NetworkSet(..)
                | Update::Service(..) => self.graph.tell(update),
            }
        }
        if let Some(before) = pools {
            let (before, after) = (nat::rules(before.values()), nat::rules(self.pools.values()));
            delta = plan(&after, &Held::of(&before));
        }
        self.graph.flush(&mut delta);
        sorted(delta)
    }

    /// Everything that is wanted.
    #[must_use]
    pub fn snapshot(&self) -> Full {
        let mut full = nat::rules(self.pools.values());
        self.graph.add_wanted(&mut full);
        full
    }

    /// The chains that count what staged policies would do.
    #[must_use]
    pub fn trials(&self) -> Vec<Trial> {
        self.graph.trials().collect()
    }

    /// What a pod of this node needs of the kernel.
    #[must_use]
    pub fn needs(&self, pod: &str) -> Needs {
        let id = pod.into();
        let thing = self.graph.things.endpoint(&id).map(|(_, thing)| thing);
        let is_hidden = |net: &IpNetwork| {
            let mut hiding = self.pools.values().filter(|pool| pool.nat_outgoing);
            hiding.any(|pool| pool.cidr.contains(net.ip()))
        };
        let mut nets = thing.iter().flat_map(|thing| &thing.nets);
        if self.graph.has_list(&id) || nets.any(is_hidden) {
            Needs::Rules
        } else if self.graph.enforces() {
            Needs::Sets
        } else {
            Needs::Nothing
        }
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn wants_nothing(&self) -> bool {
        self.graph.wants_nothing() && nat::rules(self.pools.values()) == Full::default()
    }

    /// The pools, by name.
    #[must_use]
    pub const fn pools(&self) -> &BTreeMap<String, Pool> {
        &self.pools
    }
}
