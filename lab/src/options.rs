//! What a lab is asked to be.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Nodes in one lab, at most: a segment's host numbers 11 to 210.
pub const MAX_NODES: u16 = 200;
/// Pods on one node, at most: two blocks of the smaller family.
pub const MAX_PODS_PER_NODE: u16 = 100;
/// Reflectors, at most.
pub const MAX_REFLECTORS: u16 = 4;
/// The length of a lab's name, at most: it begins the names of namespaces and of sockets' paths.
const MAX_NAME: usize = 32;

/// A lab's name: lower-case letters, digits and inner hyphens, 32 at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let right = !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(inner);
        if right && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(OptionsError::Name(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = OptionsError;

    fn try_from(text: String) -> Result<Self, OptionsError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a lab is asked to be. A [`Plan`](crate::Plan) follows from it and from nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// What the lab is called; labs of different names live side by side.
    pub name: Name,
    /// Nodes, 1 to [`MAX_NODES`].
    pub nodes: u16,
    /// Who peers with whom.
    pub topology: Topology,
    /// Pods that each node gets, up to [`MAX_PODS_PER_NODE`].
    pub pods_per_node: u16,
    /// IPv6 beside IPv4.
    pub dual_stack: bool,
}

/// Who peers with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Topology {
    /// Every node with every other, on one segment.
    Mesh,
    /// Nodes with the router of their rack only; a rack is an AS, and routers peer with each other.
    Tor {
        /// What the routers run.
        software: Software,
        /// Racks, 1 to the number of nodes.
        racks: u16,
    },
    /// Nodes with route reflectors only, on one segment.
    Rr {
        /// Reflectors, 1 to [`MAX_REFLECTORS`].
        reflectors: u16,
    },
}

/// What a router runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Software {
    /// Our own `manx-bgpd`.
    Manx,
    /// BIRD 2.
    Bird,
    /// FRR: `zebra` and `bgpd`.
    Frr,
    /// GoBGP, with BIRD as its hand in the kernel.
    Gobgp,
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manx => "manx-bgpd",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
        })
    }
}

/// Why there is no such lab.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The name would not do in names of namespaces.
    #[error("'{0}' is no name for a lab: write 1 to 32 lower-case letters, digits and inner hyphens")]
    Name(String),
    /// A number is out of range.
    #[error("{what}: {value} is out of range, write {min} to {max}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What it was.
        value: u16,
        /// The least that will do.
        min: u16,
        /// The most that will do.
        max: u16,
    },
}

impl Options {
    /// Whether there can be such a lab.
    ///
    /// # Errors
    /// The first number that is out of range.
    pub fn check(&self) -> Result<(), OptionsError> {
        in_range("nodes", self.nodes, 1, MAX_NODES)?;
        in_range("pods per node", self.pods_per_node, 0, MAX_PODS_PER_NODE)?;
        match self.topology {
            Topology::Mesh => Ok(()),
            Topology::Tor { racks, .. } => in_range("racks", racks, 1, self.nodes),
            Topology::Rr { reflectors } => in_range("reflectors", reflectors, 1, MAX_REFLECTORS),
        }
    }
}

fn in_range(what: &'static str, value: u16, min: u16, max: u16) -> Result<(), OptionsError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(OptionsError::OutOfRange {
            what,
            value,
            min,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_not_do_are_refused() {
        for right in ["a", "lab", "two-labs", "7"] {
            assert_eq!(right.parse::<Name>().map(String::from), Ok(right.to_owned()));
        }
        for wrong in ["", "-a", "a-", "Lab", "a/b", "a b", "a.b", &"x".repeat(33)] {
            assert_eq!(wrong.parse::<Name>(), Err(OptionsError::Name(wrong.to_owned())));
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_the_range() {
        let mesh = |nodes, pods_per_node| Options {
            name: Name("a".into()),
            nodes,
            topology: Topology::Mesh,
            pods_per_node,
            dual_stack: false,
        };
        assert_eq!(mesh(3, 2).check(), Ok(()));
        let error = mesh(0, 2).check().unwrap_err();
        assert_eq!(error.to_string(), "nodes: 0 is out of range, write 1 to 200");
        assert!(mesh(3, 101).check().is_err());
        let racks = |racks| Options {
            topology: Topology::Tor {
                software: Software::Bird,
                racks,
            },
            ..mesh(3, 2)
        };
        assert_eq!(racks(3).check(), Ok(()));
        assert_eq!(
            racks(4).check().unwrap_err().to_string(),
            "racks: 4 is out of range, write 1 to 3"
        );
    }
}
