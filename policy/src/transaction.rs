//! Changes as they are carried out: those of sets in turn, and those of rules as text.

use std::collections::BTreeMap;
use std::fmt;

use manx_api::policy::Family;

use crate::plan::{Change, Phase, in_order};
use crate::ruleset::{ChainId, Member, Rule, Sense, SetKind, Table};

/// Members that a set may have; the kernel's own default, 65,536, is fewer than a large cluster's pods.
pub const MAX_MEMBERS: u32 = 1 << 20;

/// Some changes, in the order in which they are to be carried out; each part is empty where there is nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What sets gain; and pods that go are known no longer. One that fails is the last: what comes behind it may open
    /// what it was to close.
    pub before: Vec<SetChange>,
    /// For `iptables-restore --noflush` of each family.
    pub rules: BTreeMap<Family, String>,
    /// Pods that come are known from now on; and what sets lose, once no rule needs it any more.
    pub after: Vec<SetChange>,
}

/// One step of a set's. A member that is there already is no failure, nor is one that is gone already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// An empty set comes to be, if there is none like it.
    Create {
        /// Its name.
        name: String,
        /// The family of its members.
        family: Family,
        /// What they are.
        kind: SetKind,
    },
    /// A set gains a member, or sees it in another sense.
    Put {
        /// Which set.
        set: String,
        /// Which member.
        member: Member,
        /// In what sense.
        sense: Sense,
    },
    /// A set loses a member.
    Remove {
        /// Which set.
        set: String,
        /// Which member.
        member: Member,
    },
    /// A set goes.
    Destroy {
        /// Its name.
        name: String,
    },
}

impl SetChange {
    /// The name of the set.
    #[must_use]
    pub fn set(&self) -> &str {
        match self {
            Self::Create { name, .. } | Self::Destroy { name } => name,
            Self::Put { set, .. } | Self::Remove { set, .. } => set,
        }
    }
}

/// The change in ipset's words, so that whoever reads of it can try it by hand.
impl fmt::Display for SetChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { name, family, kind } => {
                let (kind, family) = (kind.ipset_name(), family.ipset_name());
                write!(f, "create {name} {kind} family {family} maxelem {MAX_MEMBERS}")
            }
            Self::Put { set, member, sense } => {
                let sense = match sense {
                    Sense::Match => "",
                    Sense::Except => " nomatch",
                };
                write!(f, "add {set} {member}{sense}")
            }
            Self::Remove { set, member } => write!(f, "del {set} {member}"),
            Self::Destroy { name } => write!(f, "destroy {name}"),
        }
    }
}

/// The lines of one table. Chains come before the rules that lead into them.
#[derive(Default)]
struct Lines {
    chains: String,
    rules: String,
    hooks: String,
    removals: String,
}

impl Transaction {
    /// Writes the changes down.
    #[must_use]
    pub fn of(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut whole = Self::default();
        let mut tables: BTreeMap<(Family, Table), Lines> = BTreeMap::new();
        for (phase, change) in in_order(changes.into_iter().collect()) {
            let sets = if phase < Phase::Write {
                &mut whole.before
            } else {
                &mut whole.after
            };
            match change {
                Change::CreateSet {
                    name,
                    family,
                    kind,
                    replace,
                } => {
                    if replace {
                        sets.push(SetChange::Destroy { name: name.clone() });
                    }
                    sets.push(SetChange::Create { name, family, kind });
                }
                Change::PutMember { set, member, sense } => {
                    sets.push(SetChange::Put { set, member, sense });
                }
                Change::WriteChain { chain, rules } => {
                    tables.entry(of(&chain)).or_default().write(&chain, &rules);
                }
                Change::InsertHook(hook) => {
                    let lines = tables.entry(of(&hook.chain)).or_default();
                    let words = hook.rule().words(hook.base);
                    lines.hooks += &format!("-I {words}\n");
                }
                Change::DeleteRule { family, table, words } => {
                    let lines = tables.entry((family, table)).or_default();
                    lines.hooks += &format!("-D {words}\n");
                }
                Change::RemoveChain(chain) => {
                    tables.entry(of(&chain)).or_default().remove(&chain);
                }
                Change::RemoveMember { set, member } => {
                    sets.push(SetChange::Remove { set, member });
                }
                Change::DestroySet { name } => sets.push(SetChange::Destroy { name }),
            }
        }
        for ((family, table), lines) in tables {
            *whole.rules.entry(family).or_default() += &lines.text(table);
        }
        whole
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.rules.is_empty() && self.after.is_empty()
    }
}

const fn of(chain: &ChainId) -> (Family, Table) {
    (chain.family, chain.table)
}

impl Lines {
    /// Declaring a chain makes it, or empties it.
    fn write(&mut self, chain: &ChainId, rules: &[Rule]) {
        self.chains += &format!(":{} - [0:0]\n", chain.name);
        for rule in rules {
            self.rules += &format!("-A {}\n", rule.words(&chain.name));
        }
    }

    fn remove(&mut self, chain: &ChainId) {
        self.chains += &format!(":{} - [0:0]\n", chain.name);
        self.removals += &format!("-X {}\n", chain.name);
    }

    fn text(&self, table: Table) -> String {
        let Self {
            chains,
            rules,
            hooks,
            removals,
        } = self;
        let name = table.name();
        format!("*{name}\n{chains}{rules}{hooks}{removals}COMMIT\n")
    }
}
