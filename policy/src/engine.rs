//! The engine: resources in, changes of rules and sets out.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use crate::held::Held;
use crate::nat;
use crate::plan::{Delta, plan};
use crate::ruleset::Full;

/// What the engine wants to know of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its addresses.
    pub cidr: IpNetwork,
    /// Whether its pods' packets to the world outside all pools carry the node's address.
    pub nat_outgoing: bool,
}

/// News of a resource.
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
}

/// The last state of each resource, and what follows from it.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    pools: BTreeMap<String, Pool>,
}

impl Engine {
    /// Knows nothing and wants nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in some news; returns what they change, all at once.
    pub fn apply(&mut self, updates: impl IntoIterator<Item = Update>) -> Delta {
        let before = self.snapshot();
        for update in updates {
            match update {
                Update::SetPool { name, pool } => drop(self.pools.insert(name, pool)),
                Update::RemovePool { name } => drop(self.pools.remove(&name)),
            }
        }
        plan(&self.snapshot(), &Held::of(&before))
    }

    /// Everything that is wanted.
    #[must_use]
    pub fn snapshot(&self) -> Full {
        nat::rules(self.pools.values())
    }

    /// The pools, by name.
    #[must_use]
    pub const fn pools(&self) -> &BTreeMap<String, Pool> {
        &self.pools
    }
}
