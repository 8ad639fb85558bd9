//! A block's free addresses, in the order in which they became free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Reserved;

/// How long a freed address rests before somebody else gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Now, in seconds of UTC.
    pub now: u64,
    /// How many seconds; none, and an address may be given anew at once.
    pub seconds: u64,
}

impl Rest {
    /// Whether an address that was freed then has rested. A clock that was set back delays this by
    /// [`Self::seconds`] at most.
    pub(crate) fn is_over(self, freed: Option<u64>) -> bool {
        freed.is_none_or(|freed| self.now.abs_diff(freed) >= self.seconds)
    }
}

/// A free address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Free {
    /// One that nobody had in the block's present life.
    Unused(IpAddr),
    /// One that was freed then, in seconds of UTC.
    Since(IpAddr, u64),
}

impl Free {
    /// An address, and when it was freed, if it was.
    pub(crate) fn new(address: IpAddr, freed: Option<u64>) -> Self {
        freed.map_or(Self::Unused(address), |at| Self::Since(address, at))
    }

    /// The address.
    pub(crate) fn address(self) -> IpAddr {
        match self {
            Self::Unused(address) | Self::Since(address, _) => address,
        }
    }

    /// When it was freed.
    pub(crate) fn freed(self) -> Option<u64> {
        match self {
            Self::Unused(_) => None,
            Self::Since(_, at) => Some(at),
        }
    }
}

/// A queue of free addresses, the longest free first. Those that are reserved keep their places, and are
/// passed over without being looked at.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Free>", into = "Vec<Free>")]
pub(crate) struct FreeList {
    /// By place in the queue.
    queue: BTreeMap<u64, Free>,
    /// Each address's place.
    places: BTreeMap<IpAddr, u64>,
    /// The places of addresses that are not reserved.
    open: BTreeSet<u64>,
    /// The next place.
    end: u64,
    reserved: Reserved,
}

/// Lists are equal where they hold the same addresses in the same order: what is reserved is a setting.
impl PartialEq for FreeList {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for FreeList {}

impl From<Vec<Free>> for FreeList {
    fn from(free: Vec<Free>) -> Self {
        free.into_iter().collect()
    }
}

impl From<FreeList> for Vec<Free> {
    fn from(list: FreeList) -> Self {
        list.iter().collect()
    }
}

impl FromIterator<Free> for FreeList {
    fn from_iter<I: IntoIterator<Item = Free>>(free: I) -> Self {
        let mut list = Self::default();
        free.into_iter().for_each(|free| list.push(free));
        list
    }
}

impl FreeList {
    /// Every free address, the reserved ones too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Free> {
        self.queue.values().copied()
    }

    /// How many there are, with the reserved ones.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// How many may be given to whoever asks for any.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// How many of these have not rested.
    pub(crate) fn cooling(&self, rest: Rest) -> usize {
        let open = self.open.iter().filter_map(|place| self.queue.get(place));
        open.filter(|free| !rest.is_over(free.freed())).count()
    }

    /// How many may be given at once to whoever asks for any, as far as `most`.
    pub(crate) fn rested(&self, rest: Rest, most: usize) -> usize {
        // The longest free comes first: behind one that has not rested, none has.
        let open = self.open.iter().filter_map(|place| self.queue.get(place));
        open.take_while(|free| rest.is_over(free.freed()))
            .take(most)
            .count()
    }

    /// Whether the address is free and has rested.
    pub(crate) fn has_rested(&self, address: IpAddr, rest: Rest) -> bool {
        let free = self.places.get(&address).and_then(|place| self.queue.get(place));
        free.is_some_and(|free| rest.is_over(free.freed()))
    }

    /// The one that is free for the longest time, of those that are not reserved.
    pub(crate) fn first(&self) -> Option<Free> {
        self.queue.get(self.open.first()?).copied()
    }

    /// Whether the address is free, reserved or not.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.places.contains_key(&address)
    }

    /// Puts an address at the end of the queue.
    pub(crate) fn push(&mut self, free: Free) {
        let place = self.end;
        self.end = place.saturating_add(1);
        self.queue.insert(place, free);
        self.places.insert(free.address(), place);
        if !self.reserved.contains(free.address()) {
            self.open.insert(place);
        }
    }

    /// Takes an address out, wherever it is in the queue.
    pub(crate) fn remove(&mut self, address: IpAddr) {
        if let Some(place) = self.places.remove(&address) {
            self.queue.remove(&place);
            self.open.remove(&place);
        }
    }

    /// Passes these over from now on, and no others.
    pub(crate) fn reserve(&mut self, reserved: Reserved) {
        let is_open = |(_, free): &(&u64, &Free)| !reserved.contains(free.address());
        self.open = self
            .queue
            .iter()
            .filter(is_open)
            .map(|(place, _)| *place)
            .collect();
        self.reserved = reserved;
    }
}
