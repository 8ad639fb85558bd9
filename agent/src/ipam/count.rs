//! Counting addresses for the metrics.

use manx_store::Store;

use super::Task;
use crate::metrics::{AddressLabels, PoolLabels, State};

impl<S: Store> Task<S> {
    /// Counts the addresses of each block by what they are, and what waits for one.
    pub(super) fn count(&self) {
        let rest = self.rest();
        self.metrics.ipam.addresses.clear();
        self.metrics.ipam.pool_blocks.clear();
        for block in self.allocator.blocks() {
            let pool = self.pool_of(block);
            let cooling = block.cooling(rest);
            for (state, number) in [
                (State::InUse, block.held()),
                (State::Cooling, cooling),
                (State::Reserved, block.reserved()),
                (State::Lent, block.lent()),
                (State::Free, block.free().saturating_sub(cooling)),
            ] {
                let labels = AddressLabels {
                    pool: pool.clone(),
                    block: block.cidr().to_string(),
                    state,
                };
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                self.metrics.ipam.addresses.get_or_create(&labels).set(number);
            }
            let blocks = &self.metrics.ipam.pool_blocks;
            blocks.get_or_create(&PoolLabels { pool }).inc();
        }
        let waiting = i64::try_from(self.waiting.len()).unwrap_or(i64::MAX);
        self.metrics.ipam.waiting.set(waiting);
    }
}
