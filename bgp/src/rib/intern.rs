//! Equal routes are one value in memory.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::wire::{Attributes, NextHop};

/// Where packets go, and with which attributes the way there is announced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    /// Through whom; nobody for our own prefixes.
    pub(crate) next_hop: Option<NextHop>,
    /// With which attributes.
    pub(crate) attributes: Arc<Attributes>,
    /// Its rank in the kernel.
    pub(crate) priority: u32,
}

/// The routes in use: equal ones are the same `Arc`, so that comparing them is comparing pointers.
#[derive(Debug)]
pub(crate) struct Interner {
    /// With their hashes, so that a table that grows looks at none of them.
    routes: HashTable<(u64, Arc<Route>)>,
    hasher: FixedState,
    /// How many routes make it worth looking for those that nobody uses any more.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 1024;

impl Interner {
    /// An empty one.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            routes: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            sweep_at: FIRST_SWEEP,
        }
    }

    /// The one value equal to `route`.
    pub(crate) fn intern(&mut self, route: Route) -> Arc<Route> {
        let hash = self.hasher.hash_one(&route);
        let is_it = |(known, other): &(u64, Arc<Route>)| *known == hash && **other == route;
        if let Some((_, known)) = self.routes.find(hash, is_it) {
            return known.clone();
        }
        if self.routes.len() >= self.sweep_at {
            self.sweep();
        }
        let route = Arc::new(route);
        self.routes
            .insert_unique(hash, (hash, route.clone()), |(hash, _)| *hash);
        route
    }

    /// How many routes somebody uses.
    pub(crate) fn in_use(&self) -> usize {
        self.routes
            .iter()
            .filter(|(_, route)| Arc::strong_count(route) > 1)
            .count()
    }

    /// Forgets what nobody uses. As many routes have to come again before the next sweep, so it costs a
    /// constant per route.
    fn sweep(&mut self) {
        self.routes.retain(|(_, route)| Arc::strong_count(route) > 1);
        self.sweep_at = FIRST_SWEEP.max(self.routes.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(med: u32) -> Route {
        Route {
            next_hop: None,
            attributes: Arc::new(Attributes {
                med: Some(med),
                ..Attributes::default()
            }),
            priority: 1025,
        }
    }

    #[test]
    fn equal_routes_are_one() {
        let mut interner = Interner::new(1);
        let first = interner.intern(route(1));
        assert!(Arc::ptr_eq(&first, &interner.intern(route(1))));
        assert!(!Arc::ptr_eq(&first, &interner.intern(route(2))));
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let mut interner = Interner::new(1);
        let kept = interner.intern(route(0));
        for med in 1..100_000 {
            interner.intern(route(med));
        }
        assert!(
            interner.routes.len() <= 2 * FIRST_SWEEP,
            "{}",
            interner.routes.len()
        );
        assert!(Arc::ptr_eq(&kept, &interner.intern(route(0))));
    }
}
