//! Sets of prefixes and tables by prefix, by number: a bit, or a slot, for each.
//!
//! Numbers are given densely, so a prefix costs a bit here where a tree would cost it a node. Both come in pages,
//! of which a peer that has to do with a few prefixes among many has few.

use super::PrefixId;

/// Prefixes of a page of a set.
const BITS: usize = 512;
/// Prefixes of a page of a table.
const SLOTS: usize = 64;

const WORD: usize = u64::BITS as usize;

type Page = [u64; BITS / WORD];

/// Prefixes, in order of their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixSet {
    /// None are empty.
    pages: Vec<Option<Box<Page>>>,
    count: usize,
    /// All before this page are absent.
    first: usize,
}

/// Where a prefix is: page, word, bit.
fn place(PrefixId(number): PrefixId) -> (usize, usize, u64) {
    let number = number as usize;
    (number / BITS, number % BITS / WORD, 1 << (number % WORD))
}

/// The numbers of a word's bits.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(bit)
    })
}

fn numbered(page: usize, word: usize, bit: usize) -> PrefixId {
    // It was a prefix's number before.
    PrefixId(u32::try_from(page * BITS + word * WORD + bit).unwrap_or(u32::MAX))
}

impl PrefixSet {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it is one of them.
    pub(crate) fn contains(&self, id: PrefixId) -> bool {
        let (page, word, bit) = place(id);
        let page = self.pages.get(page).and_then(Option::as_ref);
        page.is_some_and(|page| page[word] & bit != 0)
    }

    /// Adds one; whether it is new.
    pub(crate) fn insert(&mut self, id: PrefixId) -> bool {
        let (page, word, bit) = place(id);
        if self.pages.len() <= page {
            self.pages.resize(page + 1, None);
        }
        let word = &mut self.pages[page].get_or_insert_default()[word];
        let new = *word & bit == 0;
        *word |= bit;
        self.count += usize::from(new);
        self.first = self.first.min(page);
        new
    }

    /// Takes one out; whether it was there.
    pub(crate) fn remove(&mut self, id: PrefixId) -> bool {
        let (page, word, bit) = place(id);
        let Some(slot) = self.pages.get_mut(page) else {
            return false;
        };
        let Some(words) = slot.as_mut().filter(|words| words[word] & bit != 0) else {
            return false;
        };
        words[word] &= !bit;
        if **words == Page::default() {
            *slot = None;
        }
        self.count -= 1;
        true
    }

    /// Takes the first one out.
    pub(crate) fn pop_first(&mut self) -> Option<PrefixId> {
        while self.pages.get(self.first)?.is_none() {
            self.first += 1;
        }
        let words = self.pages[self.first].as_ref()?;
        let word = words.iter().position(|word| *word != 0)?;
        let first = numbered(self.first, word, words[word].trailing_zeros() as usize);
        self.remove(first);
        Some(first)
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PrefixId> {
        let pages = self.pages.iter().enumerate().skip(self.first);
        let pages = pages.filter_map(|(number, page)| Some((number, page.as_deref()?)));
        pages.flat_map(|(page, words)| {
            let words = words.iter().enumerate();
            words.flat_map(move |(word, it)| bits(*it).map(move |bit| numbered(page, word, bit)))
        })
    }
}

impl Extend<PrefixId> for PrefixSet {
    fn extend<I: IntoIterator<Item = PrefixId>>(&mut self, ids: I) {
        for id in ids {
            self.insert(id);
        }
    }
}

impl FromIterator<PrefixId> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = PrefixId>>(ids: I) -> Self {
        let mut set = Self::default();
        set.extend(ids);
        set
    }
}

/// Something for each of some prefixes.
#[derive(Clone, Debug)]
pub(crate) struct PrefixMap<T> {
    /// None are empty.
    pages: Vec<Option<Box<Slots<T>>>>,
}

#[derive(Clone, Debug)]
struct Slots<T> {
    used: usize,
    slots: [Option<T>; SLOTS],
}

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> PrefixMap<T> {
    /// What a prefix has.
    pub(crate) fn get(&self, PrefixId(number): PrefixId) -> Option<&T> {
        let number = number as usize;
        let page = self.pages.get(number / SLOTS)?.as_ref()?;
        page.slots[number % SLOTS].as_ref()
    }

    /// Gives a prefix something; what it had before.
    pub(crate) fn insert(&mut self, PrefixId(number): PrefixId, value: T) -> Option<T> {
        let number = number as usize;
        let page = number / SLOTS;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| {
            Box::new(Slots {
                used: 0,
                slots: [const { None }; SLOTS],
            })
        });
        let before = page.slots[number % SLOTS].replace(value);
        if before.is_none() {
            page.used += 1;
        }
        before
    }

    /// Takes from a prefix what it has.
    pub(crate) fn remove(&mut self, PrefixId(number): PrefixId) -> Option<T> {
        let number = number as usize;
        let slot = self.pages.get_mut(number / SLOTS)?;
        let page = slot.as_mut()?;
        let before = page.slots[number % SLOTS].take()?;
        page.used -= 1;
        if page.used == 0 {
            *slot = None;
        }
        Some(before)
    }

    /// The prefixes that have something, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PrefixId> {
        let pages = self.pages.iter().enumerate();
        let pages = pages.filter_map(|(number, page)| Some((number, page.as_deref()?)));
        pages.flat_map(|(number, page)| {
            let used = page.slots.iter().enumerate().filter(|(_, slot)| slot.is_some());
            // They were prefixes' numbers before.
            used.map(move |(slot, _)| PrefixId(u32::try_from(number * SLOTS + slot).unwrap_or(u32::MAX)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever happens to a set and a table happens to a tree as well.
        #[test]
        fn are_what_trees_are(steps in prop::collection::vec((0_u8..4, 0_u32..2000), 0..300)) {
            let (mut set, mut map) = (PrefixSet::default(), PrefixMap::default());
            let (mut tree, mut table) = (BTreeSet::new(), BTreeMap::new());
            for (number, (step, id)) in steps.into_iter().enumerate() {
                let id = PrefixId(id);
                match step {
                    0 | 1 => {
                        prop_assert_eq!(set.insert(id), tree.insert(id));
                        prop_assert_eq!(map.insert(id, number), table.insert(id, number));
                    }
                    2 => {
                        prop_assert_eq!(set.remove(id), tree.remove(&id));
                        prop_assert_eq!(map.remove(id), table.remove(&id));
                    }
                    _ => prop_assert_eq!(set.pop_first(), tree.pop_first()),
                }
                prop_assert_eq!(set.contains(id), tree.contains(&id));
                prop_assert_eq!(map.get(id), table.get(&id));
            }
            prop_assert_eq!(set.is_empty(), tree.is_empty());
            prop_assert!(set.iter().eq(tree));
            prop_assert!(map.ids().eq(table.into_keys()));
        }
    }
}
