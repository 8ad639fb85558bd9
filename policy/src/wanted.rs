//! Chains as they come to be, and what changed.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::Change;
use crate::ruleset::{ChainId, Hook, Rule};
use crate::sets::Sets;

/// All chains, and what leads into them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chains {
    chains: BTreeMap<ChainId, Vec<Rule>>,
    hooks: BTreeSet<Hook>,
    /// Chains that were touched since the last [`Chains::flush`], as they were then.
    before: BTreeMap<ChainId, Option<Vec<Rule>>>,
    hooks_before: Option<BTreeSet<Hook>>,
}

impl Chains {
    /// A chain comes to be, or gets other rules. Sets that they name are defined by now.
    pub(crate) fn put(&mut self, chain: ChainId, rules: Vec<Rule>, sets: &mut Sets) {
        for set in rules.iter().flat_map(Rule::sets) {
            sets.use_by_rule(set);
        }
        self.remove(&chain, sets);
        self.before.entry(chain.clone()).or_insert(None);
        self.chains.insert(chain, rules);
    }

    /// A chain goes.
    pub(crate) fn remove(&mut self, chain: &ChainId, sets: &mut Sets) {
        let Some(rules) = self.chains.remove(chain) else {
            return;
        };
        for set in rules.iter().flat_map(Rule::sets) {
            sets.unuse_by_rule(set);
        }
        self.before.entry(chain.clone()).or_insert(Some(rules));
    }

    /// All chains go.
    pub(crate) fn clear(&mut self, sets: &mut Sets) {
        for chain in self.chains.keys().cloned().collect::<Vec<_>>() {
            self.remove(&chain, sets);
        }
        self.set_hooks(BTreeSet::new());
    }

    /// What leads into the chains is this.
    pub(crate) fn set_hooks(&mut self, hooks: BTreeSet<Hook>) {
        let before = std::mem::replace(&mut self.hooks, hooks);
        self.hooks_before.get_or_insert(before);
    }

    pub(crate) const fn all(&self) -> &BTreeMap<ChainId, Vec<Rule>> {
        &self.chains
    }

    pub(crate) const fn hooks(&self) -> &BTreeSet<Hook> {
        &self.hooks
    }

    /// Adds what changed since the last time.
    pub(crate) fn flush(&mut self, changes: &mut Vec<Change>) {
        let mut gone = Vec::new();
        for (chain, before) in std::mem::take(&mut self.before) {
            match self.chains.get(&chain) {
                Some(rules) if before.as_ref() != Some(rules) => changes.push(Change::WriteChain {
                    chain,
                    rules: rules.clone(),
                }),
                None if before.is_some() => gone.push(Change::RemoveChain(chain)),
                Some(_) | None => {}
            }
        }
        if let Some(before) = self.hooks_before.take() {
            changes.extend(before.difference(&self.hooks).map(Change::unhook));
            let new = self.hooks.difference(&before).cloned();
            changes.extend(new.map(Change::InsertHook));
        }
        changes.append(&mut gone);
    }
}
