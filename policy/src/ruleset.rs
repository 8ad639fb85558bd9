//! Rules and sets: the words that engine, plan and text have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnetwork::IpNetwork;
use sha1::{Digest as _, Sha1};

/// What the comment of each rule of ours begins with.
pub(crate) const MARK: &str = "manx:";

/// What the name of each chain of ours begins with.
pub const CHAIN_PREFIX: &str = "manx-";

/// An address family: each has programs, chains and sets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of a network's addresses.
    #[must_use]
    pub const fn of(net: IpNetwork) -> Self {
        match net {
            IpNetwork::V4(_) => Self::V4,
            IpNetwork::V6(_) => Self::V6,
        }
    }

    /// The name of this family's set: `mx4-…`, `mx6-…`.
    #[must_use]
    pub fn set_name(self, what: &str) -> String {
        match self {
            Self::V4 => format!("mx4-{what}"),
            Self::V6 => format!("mx6-{what}"),
        }
    }

    /// What ipset calls it.
    #[must_use]
    pub const fn ipset_name(self) -> &'static str {
        match self {
            Self::V4 => "inet",
            Self::V6 => "inet6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Consulted for the first packet of each connection only; conntrack treats the others alike.
    Nat,
}

impl Table {
    /// All that we have chains in.
    pub const ALL: [Self; 1] = [Self::Nat];

    /// What iptables calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
        }
    }
}

/// How a set takes an address that a member contains; the most specific member has the say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sense {
    /// The address is in the set.
    Match,
    /// It is not: an exception from a wider member.
    Except,
}

/// A set of networks (`hash:net`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The family of all its members.
    pub family: Family,
    /// Its members: no host bits, and none of length 0, which the kernel does not take.
    pub members: BTreeMap<IpNetwork, Sense>,
}

/// Which chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainId {
    /// Each family has chains of its own.
    pub family: Family,
    /// In which table.
    pub table: Table,
    /// `manx-…`, 28 characters at most.
    pub name: String,
}

/// What a packet must be like for a rule to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Its source is in the set of this name.
    SourceIn(String),
    /// Its destination is not in the set of this name.
    DestinationNotIn(String),
    /// Its destination is outside this network.
    DestinationOutside(IpNetwork),
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceIn(set) => write!(f, "-m set --match-set {set} src"),
            Self::DestinationNotIn(set) => write!(f, "-m set ! --match-set {set} dst"),
            Self::DestinationOutside(net) => write!(f, "! -d {net}"),
        }
    }
}

/// What becomes of a packet that a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It gets the address of the interface that it leaves by, and a source port that nobody can guess: two
    /// processors that pick ports at the same moment do not pick the same one.
    Masquerade,
    /// The chain of this name decides.
    Jump(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => f.write_str("-j MASQUERADE --random-fully"),
            Self::Jump(chain) => write!(f, "-j {chain}"),
        }
    }
}

/// A rule: all matches hold, so the target applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the packet must be like.
    pub matches: Vec<Match>,
    /// What becomes of it.
    pub target: Target,
}

impl Rule {
    /// What tells this rule from every other in its chain, and from what an older Manx wrote there: programs
    /// print rules in words of their own, but comments as they are.
    #[must_use]
    pub fn hash(&self, chain: &str) -> String {
        let mut text = format!("{chain}\n{}", self.target);
        for part in &self.matches {
            text.push_str(&format!("\n{part}"));
        }
        let digest = Sha1::digest(text);
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The rule as iptables takes it behind `-A`: chain, matches, our mark, target.
    #[must_use]
    pub fn words(&self, chain: &str) -> String {
        let mut words = format!("{chain} ");
        for part in &self.matches {
            words.push_str(&format!("{part} "));
        }
        let hash = self.hash(chain);
        words.push_str(&format!("-m comment --comment \"{MARK}{hash}\" {}", self.target));
        words
    }
}

/// A rule in a chain of the kernel's that leads into one of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// Ours.
    pub chain: ChainId,
    /// The kernel's: `POSTROUTING`.
    pub base: &'static str,
}

impl Hook {
    /// The rule in the kernel's chain.
    #[must_use]
    pub fn rule(&self) -> Rule {
        Rule {
            matches: Vec::new(),
            target: Target::Jump(self.chain.name.clone()),
        }
    }
}

/// All rules and sets that are wanted on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Full {
    /// Sets by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains, each with its rules in order.
    pub chains: BTreeMap<ChainId, Vec<Rule>>,
    /// What leads into them.
    pub hooks: BTreeSet<Hook>,
}
