//! Which blocks a node can do without.

use ipnetwork::IpNetwork;

use crate::Block;

/// A block of a node, as far as giving it back goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The block.
    pub cidr: IpNetwork,
    /// Its pool gives this node addresses, and it is nobody else's by now.
    pub open: bool,
    /// Nobody has held an address of it for long enough.
    pub idle: bool,
    /// How many addresses it has.
    pub capacity: usize,
    /// How many of them are free.
    pub free: usize,
}

impl Holding {
    /// A block with what only its owner's surroundings know.
    #[must_use]
    pub fn of(block: &Block, open: bool, idle: bool) -> Self {
        Self {
            cidr: block.cidr(),
            open,
            idle,
            capacity: block.capacity(),
            free: block.free(),
        }
    }
}

/// The idle blocks of one family that a node gives back: those that serve nobody any more (their pool is
/// cordoned, or does not select the node), and those that the others can stand in for. A node keeps at least one
/// block that serves, and half a block of free addresses, so that it does not claim again what it has just given.
///
/// The order of `holdings` does not matter: of blocks that are alike, the lowest stays.
#[must_use]
pub fn surplus(holdings: &[Holding]) -> Vec<IpNetwork> {
    let mut idle: Vec<&Holding> = holdings.iter().filter(|block| block.idle).collect();
    idle.sort_by_key(|block| (block.open, std::cmp::Reverse(block.cidr)));
    let mut staying: Vec<&Holding> = holdings.iter().filter(|block| block.open).collect();
    let mut given = Vec::new();
    for block in idle {
        if block.open {
            let without: Vec<&Holding> = staying
                .iter()
                .copied()
                .filter(|other| other.cidr != block.cidr)
                .collect();
            let room: usize = without.iter().map(|other| other.free).sum();
            if without.is_empty() || room < block.capacity.div_ceil(2) {
                continue;
            }
            staying = without;
        }
        given.push(block.cidr);
    }
    given.sort_unstable();
    given
}
