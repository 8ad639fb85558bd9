//! A document as a tree that remembers the line of everything.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::Fault;

/// A value and its line.
#[derive(Debug)]
pub(super) struct Tree {
    /// Counted from 1.
    pub(super) line: u64,
    pub(super) branch: Branch,
}

/// A value.
#[derive(Debug)]
pub(super) enum Branch {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

/// A field of a mapping.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The key's line.
    pub(super) line: u64,
    pub(super) value: Tree,
}

impl Tree {
    /// The value of a field; none when there is none or this is no mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Branch::Map(entries) = &self.branch else {
            return None;
        };
        entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
    }

    /// The text, if this is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.branch {
            Branch::Text(text) => Some(text),
            Branch::Null
            | Branch::Bool(_)
            | Branch::Unsigned(_)
            | Branch::Signed(_)
            | Branch::Float(_)
            | Branch::List(_)
            | Branch::Map(_) => None,
        }
    }

    /// The value as it may be shown, if it is a single one.
    pub(super) fn scalar(&self) -> Option<String> {
        match &self.branch {
            Branch::Null => Some("null".to_owned()),
            Branch::Bool(value) => Some(value.to_string()),
            Branch::Unsigned(value) => Some(value.to_string()),
            Branch::Signed(value) => Some(value.to_string()),
            Branch::Float(value) => Some(value.to_string()),
            Branch::Text(value) => Some(value.clone()),
            Branch::List(_) | Branch::Map(_) => None,
        }
    }

    /// The value in a sentence: `'text'`, `a list`.
    pub(super) fn words(&self) -> String {
        let collection = match &self.branch {
            Branch::List(_) => "a list",
            Branch::Null
            | Branch::Bool(_)
            | Branch::Unsigned(_)
            | Branch::Signed(_)
            | Branch::Float(_)
            | Branch::Text(_)
            | Branch::Map(_) => "a mapping",
        };
        self.scalar()
            .map_or_else(|| collection.to_owned(), |value| format!("'{value}'"))
    }

    /// Something wrong with this value.
    pub(super) fn fault(&self, field: &str, message: String) -> Fault {
        Fault {
            line: Some(self.line),
            field: field.to_owned(),
            value: self.scalar(),
            message,
        }
    }

    /// The line of the field at a path like `spec.allocations[0].address` or `metadata.labels[app]`, or of
    /// the innermost thing around it that is there.
    pub(super) fn line_of(&self, path: &str) -> Option<u64> {
        let (line, inner, rest) = self.step(path)?;
        inner.line_of(rest.trim_start_matches('.')).or(Some(line))
    }

    /// Follows the path's first step: the line of what is there, its value, and the steps left.
    fn step<'p>(&self, path: &'p str) -> Option<(u64, &Self, &'p str)> {
        match &self.branch {
            Branch::List(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item.line, item, rest))
            }
            // A key may hold dots, so keys are tried against the path and not the other way round.
            Branch::Map(entries) => entries.iter().find_map(|entry| {
                let rest = match path.strip_prefix('[') {
                    Some(path) => path.strip_prefix(entry.key.as_str())?.strip_prefix(']')?,
                    None => path.strip_prefix(entry.key.as_str())?,
                };
                let whole = rest.is_empty() || rest.starts_with(['.', '[']);
                whole.then_some((entry.line, &entry.value, rest))
            }),
            Branch::Null
            | Branch::Bool(_)
            | Branch::Unsigned(_)
            | Branch::Signed(_)
            | Branch::Float(_)
            | Branch::Text(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Branch>::deserialize(deserializer)?;
        Ok(Self {
            line: spanned.referenced.line(),
            branch: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Branch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BranchVisitor)
    }
}

struct BranchVisitor;

impl<'de> Visitor<'de> for BranchVisitor {
    type Value = Branch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Branch, E> {
        Ok(Branch::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Branch, E> {
        Ok(Branch::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Branch, E> {
        Ok(Branch::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Branch, E> {
        Ok(Branch::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Branch, E> {
        Ok(Branch::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Branch, E> {
        Ok(Branch::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Branch, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Branch::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Branch, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Tree>()? {
            let line = key.referenced.line();
            entries.push(Entry {
                key: key.value,
                line,
                value,
            });
        }
        Ok(Branch::Map(entries))
    }
}
