//! What the kernel holds of ours: its sets, and rules as `iptables-save` prints them.

use std::collections::{BTreeMap, BTreeSet};

use manx_api::policy::Family;

use crate::ruleset::{CHAIN_PREFIX, ChainId, Full, MARK, Set, Table};

/// What of ours the kernel holds. Rules are known by the hashes in their comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Sets by name; without content, one that has our name and is not as we make them.
    pub sets: BTreeMap<String, Option<Set>>,
    /// Chains, each with the hashes of its rules; a rule without one is not ours.
    pub chains: BTreeMap<ChainId, Vec<Option<String>>>,
    /// Rules in others' chains that lead into ours or carry our mark, in order.
    pub jumps: Vec<Jump>,
}

/// A rule of ours in somebody else's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// Whose family.
    pub family: Family,
    /// In which table.
    pub table: Table,
    /// Whether packets meet it before any rule of others.
    pub first: bool,
    /// The hash in its comment.
    pub hash: Option<String>,
    /// The rule as it was printed, chain first: what `-D` takes to delete it.
    pub words: String,
}

/// A line that `iptables-save` does not print.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not understood: '{0}'")]
pub struct Unreadable(pub String);

impl Held {
    /// What a kernel holds that has been given exactly this.
    #[must_use]
    pub fn of(full: &Full) -> Self {
        let hashes = |chain: &ChainId, rules: &[crate::Rule]| {
            rules.iter().map(|rule| Some(rule.hash(&chain.name))).collect()
        };
        Self {
            sets: full
                .sets
                .iter()
                .map(|(name, set)| (name.clone(), Some(set.clone())))
                .collect(),
            chains: full
                .chains
                .iter()
                .map(|(chain, rules)| (chain.clone(), hashes(chain, rules)))
                .collect(),
            jumps: full.hooks.iter().map(Jump::of).collect(),
        }
    }

    /// Whether there is nothing of ours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.chains.is_empty() && self.jumps.is_empty()
    }

    /// Takes in what `iptables-save` or `ip6tables-save` printed.
    ///
    /// # Errors
    /// The first line that is none of theirs.
    pub fn read_rules(&mut self, family: Family, text: &str) -> Result<(), Unreadable> {
        let mut table = None;
        // Chains that have a rule of others.
        let mut others = BTreeSet::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.name() == name);
                continue;
            }
            let Some(table) = table else {
                continue;
            };
            let chain = |name: &str| ChainId {
                family,
                table,
                name: name.to_owned(),
            };
            if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split(' ').next().unwrap_or(declared);
                if name.starts_with(CHAIN_PREFIX) {
                    self.chains.entry(chain(name)).or_default();
                }
            } else if let Some(words) = line.strip_prefix("-A ") {
                let rule = Printed::read(words).ok_or_else(|| Unreadable(line.to_owned()))?;
                if rule.chain.starts_with(CHAIN_PREFIX) {
                    self.chains.entry(chain(&rule.chain)).or_default().push(rule.hash);
                } else if rule.hash.is_some() || rule.leads_to_us {
                    self.jumps.push(Jump {
                        family,
                        table,
                        first: !others.contains(&(table, rule.chain)),
                        hash: rule.hash,
                        words: words.to_owned(),
                    });
                } else {
                    others.insert((table, rule.chain));
                }
            }
        }
        Ok(())
    }
}

impl Jump {
    /// The rule that stands for a hook.
    pub(crate) fn of(hook: &crate::Hook) -> Self {
        Self {
            family: hook.chain.family,
            table: hook.chain.table,
            first: true,
            hash: Some(hook.rule().hash(hook.base)),
            words: hook.rule().words(hook.base),
        }
    }

    /// The chain that the rule is in.
    #[must_use]
    pub fn base(&self) -> &str {
        self.words.split(' ').next().unwrap_or_default()
    }
}

/// What we read of a printed rule.
struct Printed {
    chain: String,
    hash: Option<String>,
    leads_to_us: bool,
}

impl Printed {
    fn read(words: &str) -> Option<Self> {
        let words = split(words)?;
        let mut rule = Self {
            chain: words.first()?.clone(),
            hash: None,
            leads_to_us: false,
        };
        for pair in words.windows(2) {
            match pair[0].as_str() {
                "--comment" => rule.hash = pair[1].strip_prefix(MARK).map(str::to_owned),
                "-j" | "-g" => rule.leads_to_us |= pair[1].starts_with(CHAIN_PREFIX),
                _ => {}
            }
        }
        Some(rule)
    }
}

/// Splits a printed rule at its spaces, but for those in quotes; none if a quote is left open.
fn split(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut chars) = (false, text.chars());
    while let Some(char) = chars.next() {
        match char {
            '"' => quoted = !quoted,
            '\\' => word.push(chars.next()?),
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    (!quoted).then_some(words)
}
