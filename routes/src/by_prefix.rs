//! A table by prefix, in no order that means anything.
//!
//! Tables of many thousands of prefixes are looked up several times for each change of a route: hashing costs a fraction of
//! what walking a tree does. And what is worked off in a table's order is worked off scattered over all addresses,
//! which is how the kernel's trie of routes is emptied fastest: in the order of addresses, it is rebuilt again and again.

use std::hash::{Hash, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnetwork::IpNetwork;

/// Something for each of some prefixes.
pub(crate) type ByPrefix<T> = HashMap<Key, T, FixedState>;

/// A prefix, hashed as one or two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) IpNetwork);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            IpNetwork::V4(net) => {
                state.write_u64(u64::from(net.prefix()) << 32 | u64::from(net.ip().to_bits()));
            }
            IpNetwork::V6(net) => {
                state.write_u8(net.prefix());
                state.write_u128(net.ip().to_bits());
            }
        }
    }
}
