//! Cutting a pool into blocks, and which of them a node tries to claim.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::IpPool;

use crate::address::{from_number, to_number};
use crate::{Family, Reserved};

/// The blocks of a pool, numbered from 0 in address order.
///
/// Nothing is enumerated: an IPv6 pool may have more blocks than memory has bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    pool: IpNetwork,
    prefix: u8,
}

impl Blocks {
    /// The blocks of `pool`.
    #[must_use]
    pub fn of(pool: &IpPool) -> Self {
        Self {
            pool: pool.spec.cidr,
            prefix: pool.spec.block_size(),
        }
    }

    /// How many there are; none where a block would be larger than the pool.
    ///
    /// 2¹²⁸ (single addresses of `::/0`) counts as one less.
    #[must_use]
    pub fn count(&self) -> u128 {
        match self.prefix.checked_sub(self.pool.prefix()) {
            Some(bits) => 1u128.checked_shl(bits.into()).unwrap_or(u128::MAX),
            None => 0,
        }
    }

    /// Block number `index`.
    #[must_use]
    pub fn get(&self, index: u128) -> Option<IpNetwork> {
        if index >= self.count() {
            return None;
        }
        let family = Family::of_network(self.pool);
        let host_bits = family.bits().checked_sub(self.prefix)?;
        // A single block of the whole family has number 0 and 128 host bits: more than a shift takes.
        let offset = index.checked_shl(host_bits.into()).unwrap_or(0);
        let address = from_number(family, to_number(self.pool.network()) | offset);
        IpNetwork::new(address, self.prefix).ok()
    }

    /// Whether `cidr` is one of the blocks.
    #[must_use]
    pub fn contains(&self, cidr: IpNetwork) -> bool {
        Family::of_network(cidr) == Family::of_network(self.pool)
            && cidr.prefix() == self.prefix
            && self.prefix >= self.pool.prefix()
            && cidr.ip() == cidr.network()
            && self.pool.contains(cidr.ip())
    }

    /// The number of the block that an address of the pool is in.
    pub(crate) fn number_of(&self, address: IpAddr) -> u128 {
        let host_bits = Family::of_network(self.pool).bits().saturating_sub(self.prefix);
        let offset = to_number(address).saturating_sub(to_number(self.pool.network()));
        offset.checked_shr(host_bits.into()).unwrap_or(0)
    }

    /// Where `node` starts looking: spread by the node's name, so that nodes which start together rarely
    /// meet, and the same at every call, so that a node finds its own blocks side by side.
    fn start(&self, node: &str) -> u128 {
        match self.count() {
            0 => 0,
            count => u128::from(spread(node)) % count,
        }
    }
}

/// The blocks of `pool` that `node` may try to claim, in the order to try them: from the node's own start
/// position upwards, around the end, without those in `claimed` and those whose every address is reserved.
///
/// Lazy; finding the next one takes at most as many steps as there are claimed blocks and reservations, however
/// many blocks these cover, and the iterator ends after one round.
pub fn candidates<'a>(
    pool: &IpPool,
    claimed: &'a BTreeSet<IpNetwork>,
    reserved: &'a Reserved,
    node: &str,
) -> impl Iterator<Item = IpNetwork> + use<'a> {
    let blocks = Blocks::of(pool);
    let (start, count) = (blocks.start(node), blocks.count());
    let run = move |mut next: u128, end: u128| {
        std::iter::from_fn(move || {
            let index = Some(next).filter(|index| *index < end)?;
            let block = blocks.get(index)?;
            let past = reserved
                .range_over(block)
                .map_or(index, |last| blocks.number_of(last));
            next = past.saturating_add(1);
            Some(block)
        })
    };
    run(start, count)
        .chain(run(0, start))
        .filter(|block| !claimed.contains(block) && !reserved.covers(*block))
}

/// A 64-bit hash of a name: FNV-1a, then mixed once more (as `SplitMix64` ends), since the names differ
/// in their last characters only and a small pool looks at the low bits only.
pub(crate) fn spread(name: &str) -> u64 {
    let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
