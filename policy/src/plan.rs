//! What lies between what is wanted and what the kernel holds.

use std::collections::BTreeSet;

use manx_api::policy::Family;

use crate::chains::PODS;

use crate::held::{Held, Jump};
use crate::ruleset::{ChainId, Full, Hook, Member, Rule, Sense, SetKind, Table};

/// One step. A delta has them in the order in which they are to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An empty set comes to be.
    CreateSet {
        /// Its name.
        name: String,
        /// Of this family.
        family: Family,
        /// With such members.
        kind: SetKind,
        /// In the place of one that has its name and is something else.
        replace: bool,
    },
    /// A set gains a member, or sees it in another sense.
    PutMember {
        /// Which set.
        set: String,
        /// Which member.
        member: Member,
        /// In what sense.
        sense: Sense,
    },
    /// A chain comes to be, or gets other rules; all at once.
    WriteChain {
        /// Which chain.
        chain: ChainId,
        /// All its rules.
        rules: Vec<Rule>,
    },
    /// A chain of the kernel's leads into one of ours, before all else in it.
    InsertHook(Hook),
    /// A rule in somebody else's chain goes.
    DeleteRule {
        /// Whose family.
        family: Family,
        /// In which table.
        table: Table,
        /// The rule, as the kernel's programs print it, chain first.
        words: String,
    },
    /// A chain that nothing leads into any more goes.
    RemoveChain(ChainId),
    /// A set loses a member.
    RemoveMember {
        /// Which set.
        set: String,
        /// Which member.
        member: Member,
    },
    /// A set that no rule names any more goes.
    DestroySet {
        /// Its name.
        name: String,
    },
}

impl Change {
    /// The rule that a hook is goes.
    pub(crate) fn unhook(hook: &Hook) -> Self {
        Self::DeleteRule {
            family: hook.chain.family,
            table: hook.chain.table,
            words: hook.rule().words(hook.base),
        }
    }

    /// Where among the steps of a delta it is.
    fn phase(&self, created: &BTreeSet<String>) -> Phase {
        match self {
            Self::RemoveMember { set, .. } if is_of_pods(set) => Phase::Expel,
            Self::PutMember { set, .. } if is_of_pods(set) && !created.contains(set) => Phase::Admit,
            Self::CreateSet { .. } | Self::PutMember { .. } => Phase::Gain,
            Self::WriteChain { .. } => Phase::Write,
            Self::DeleteRule { .. } => Phase::Unhook,
            Self::InsertHook(_) => Phase::Hook,
            Self::RemoveChain(_) => Phase::Remove,
            Self::RemoveMember { .. } | Self::DestroySet { .. } => Phase::Lose,
        }
    }
}

/// The order of steps. A pod is known by its membership in one set, and without it is closed: so it gets that when all
/// else that it meets is in force, and loses it before any of that. Where the set itself comes to be, nobody asks it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Expel,
    Gain,
    Write,
    Unhook,
    Hook,
    Remove,
    Admit,
    Lose,
}

/// Whether a set is that of all pods that are known.
fn is_of_pods(set: &str) -> bool {
    Family::ALL.into_iter().any(|family| set == family.set_name(PODS))
}

/// Puts steps in the order in which they are to be made; those of one phase stay in theirs.
pub(crate) fn in_order(delta: Delta) -> Vec<(Phase, Change)> {
    let created = delta.iter().filter_map(|change| match change {
        Change::CreateSet { name, .. } => Some(name.clone()),
        Change::PutMember { .. }
        | Change::WriteChain { .. }
        | Change::InsertHook(_)
        | Change::DeleteRule { .. }
        | Change::RemoveChain(_)
        | Change::RemoveMember { .. }
        | Change::DestroySet { .. } => None,
    });
    let created: BTreeSet<String> = created.collect();
    let mut steps: Vec<(Phase, Change)> = delta
        .into_iter()
        .map(|change| (change.phase(&created), change))
        .collect();
    steps.sort_by_key(|(phase, _)| *phase);
    steps
}

/// Steps, in order.
pub type Delta = Vec<Change>;

/// The steps that make what is held what is wanted; none if it is. A hook that somebody put other rules in front
/// of is put back to the front, or those would let packets through that policies deny; but in the nat table, where
/// whoever translates first may.
#[must_use]
pub fn plan(wanted: &Full, held: &Held) -> Delta {
    let mut delta = Delta::new();
    gain_members(wanted, held, &mut delta);
    write_chains(wanted, held, &mut delta);
    hook(wanted, held, &mut delta);
    let unwanted = held
        .chains
        .keys()
        .filter(|chain| !wanted.chains.contains_key(chain));
    delta.extend(unwanted.cloned().map(Change::RemoveChain));
    lose_members(wanted, held, &mut delta);
    sorted(delta)
}

/// The same steps in order.
pub(crate) fn sorted(delta: Delta) -> Delta {
    in_order(delta).into_iter().map(|(_, change)| change).collect()
}

fn gain_members(wanted: &Full, held: &Held, delta: &mut Delta) {
    for (name, set) in &wanted.sets {
        let found = held.sets.get(name);
        let same = found
            .and_then(Option::as_ref)
            .filter(|there| (there.family, there.kind) == (set.family, set.kind));
        if same.is_none() {
            delta.push(Change::CreateSet {
                name: name.clone(),
                family: set.family,
                kind: set.kind,
                replace: found.is_some(),
            });
        }
        for (member, sense) in &set.members {
            if same.and_then(|there| there.members.get(member)) != Some(sense) {
                delta.push(Change::PutMember {
                    set: name.clone(),
                    member: member.clone(),
                    sense: *sense,
                });
            }
        }
    }
}

fn write_chains(wanted: &Full, held: &Held, delta: &mut Delta) {
    for (chain, rules) in &wanted.chains {
        let hashes = rules.iter().map(|rule| Some(rule.hash(&chain.name)));
        let found = held.chains.get(chain);
        if !found.is_some_and(|found| hashes.eq(found.iter().cloned())) {
            delta.push(Change::WriteChain {
                chain: chain.clone(),
                rules: rules.clone(),
            });
        }
    }
}

/// Each hook once, and nothing else that leads into our chains.
fn hook(wanted: &Full, held: &Held, delta: &mut Delta) {
    let mut missing: Vec<&Hook> = wanted.hooks.iter().collect();
    let mut right = Vec::new();
    missing.retain(|hook| {
        let want = Jump::of(hook);
        let key = |jump: &Jump| (jump.family, jump.table, jump.base().to_owned(), jump.hash.clone());
        let alike: Vec<&Jump> = held.jumps.iter().filter(|jump| key(jump) == key(&want)).collect();
        // A rule is deleted by its words: of two alike, nobody knows which would go.
        let [jump] = alike[..] else {
            return true;
        };
        let stays = jump.first || jump.table == Table::Nat;
        right.extend(stays.then_some(jump));
        !stays
    });
    let stray = held.jumps.iter().filter(|jump| !right.contains(jump));
    delta.extend(stray.map(|jump| Change::DeleteRule {
        family: jump.family,
        table: jump.table,
        words: jump.words.clone(),
    }));
    delta.extend(missing.into_iter().cloned().map(Change::InsertHook));
}

/// Sets lose members in the opposite order to that in which they gain them.
fn lose_members(wanted: &Full, held: &Held, delta: &mut Delta) {
    for (name, set) in held.sets.iter().rev() {
        let Some(want) = wanted.sets.get(name) else {
            delta.push(Change::DestroySet { name: name.clone() });
            continue;
        };
        let members = set
            .iter()
            .filter(|set| (set.family, set.kind) == (want.family, want.kind));
        for member in members.flat_map(|set| set.members.keys()) {
            if !want.members.contains_key(member) {
                delta.push(Change::RemoveMember {
                    set: name.clone(),
                    member: member.clone(),
                });
            }
        }
    }
}
