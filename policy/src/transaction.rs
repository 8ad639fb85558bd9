//! Changes as the text that the kernel's programs read.

use std::collections::BTreeMap;

use manx_api::policy::Family;

use crate::plan::Change;
use crate::ruleset::{ChainId, Rule, Sense, Table};

/// Members that a set may have; the kernel's own default, 65,536, is fewer than a large cluster's pods.
const MAX_MEMBERS: u32 = 1 << 20;

/// The text of some changes, in the order in which it is to be carried out; each text is empty or absent where
/// there is nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// For `ipset -exist restore`: what sets gain.
    pub before: String,
    /// For `iptables-restore --noflush` of each family.
    pub rules: BTreeMap<Family, String>,
    /// For `ipset -exist restore`, once no rule needs it any more: what sets lose.
    pub after: String,
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
    pub fn of(changes: &[Change]) -> Self {
        let mut text = Self::default();
        let mut tables: BTreeMap<(Family, Table), Lines> = BTreeMap::new();
        for change in changes {
            match change {
                Change::CreateSet {
                    name,
                    family,
                    kind,
                    replace,
                } => {
                    if *replace {
                        text.before += &format!("destroy {name}\n");
                    }
                    let (kind, family) = (kind.ipset_name(), family.ipset_name());
                    text.before += &format!("create {name} {kind} family {family} maxelem {MAX_MEMBERS}\n");
                }
                Change::PutMember { set, member, sense } => {
                    let sense = match sense {
                        Sense::Match => "",
                        Sense::Except => " nomatch",
                    };
                    text.before += &format!("add {set} {member}{sense}\n");
                }
                Change::WriteChain { chain, rules } => {
                    tables.entry(of(chain)).or_default().write(chain, rules);
                }
                Change::InsertHook(hook) => {
                    let lines = tables.entry(of(&hook.chain)).or_default();
                    let words = hook.rule().words(hook.base);
                    lines.hooks += &format!("-I {words}\n");
                }
                Change::DeleteRule { family, table, words } => {
                    let lines = tables.entry((*family, *table)).or_default();
                    lines.hooks += &format!("-D {words}\n");
                }
                Change::RemoveChain(chain) => {
                    tables.entry(of(chain)).or_default().remove(chain);
                }
                Change::RemoveMember { set, member } => {
                    text.after += &format!("del {set} {member}\n");
                }
                Change::DestroySet { name } => text.after += &format!("destroy {name}\n"),
            }
        }
        for ((family, table), lines) in tables {
            *text.rules.entry(family).or_default() += &lines.text(table);
        }
        text
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
