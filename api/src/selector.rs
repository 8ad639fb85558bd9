//! The selector language: which labelled things a resource speaks of.
//!
//! ```text
//! or       = and { "||" and }
//! and      = unary { "&&" unary }
//! unary    = { "!" } primary
//! primary  = "(" or ")" | "all()" | "global()" | "has(" label ")" | label operation
//! operation = ("==" | "!=" | "contains" | "starts with" | "ends with") literal
//!           | ("in" | "not in") "{" [ literal { "," literal } [ "," ] ] "}"
//! label    = 1 to 512 of A-Z a-z 0-9 _ . / -
//! literal  = '…' or "…", without escapes
//! ```
//!
//! A blank text is `all()`. `startswith`, `endswith` and `notin` are accepted spellings. `!=` and `not in`
//! hold for a thing that lacks the label; `!` negates the whole comparison that follows it. Whitespace is
//! space and tab.
//!
//! Two selectors are equal when their canonical texts are: [`Display`](fmt::Display) writes it, double quotes
//! unless the value holds one, sets sorted, parentheses around every `&&` and `||`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod parser;

/// A parsed selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(Expression);

/// What a selector says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Expression {
    #[default]
    All,
    Global,
    Has(String),
    Compare(String, Comparison, String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

/// How a label's value is compared with a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Comparison {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

impl Comparison {
    fn text(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
        }
    }

    fn holds(self, label: Option<&str>, literal: &str) -> bool {
        match (self, label) {
            (Self::NotEqual, None) => true,
            (Self::Equal | Self::Contains | Self::StartsWith | Self::EndsWith, None) => false,
            (Self::Equal, Some(value)) => value == literal,
            (Self::NotEqual, Some(value)) => value != literal,
            (Self::Contains, Some(value)) => value.contains(literal),
            (Self::StartsWith, Some(value)) => value.starts_with(literal),
            (Self::EndsWith, Some(value)) => value.ends_with(literal),
        }
    }
}

impl Selector {
    /// The selector of everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether it is the selector of everything, as [`Self::all`] is.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// Reads a selector.
    ///
    /// # Errors
    /// [`SelectorError`] tells the column and what should stand there.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parser::parse(text).map(Self)
    }

    /// The selector of things with this label.
    pub fn has(label: impl Into<String>) -> Self {
        Self(Expression::Has(label.into()))
    }

    /// The selector of things whose label has this value.
    pub fn equals(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self(Expression::Compare(label.into(), Comparison::Equal, value.into()))
    }

    /// The selector of things whose label has one of these values.
    pub fn one_of(label: impl Into<String>, values: impl IntoIterator<Item = String>) -> Self {
        Self(Expression::In(label.into(), values.into_iter().collect()))
    }

    /// The selector of things whose label has none of these values, or that lack it.
    pub fn none_of(label: impl Into<String>, values: impl IntoIterator<Item = String>) -> Self {
        Self(Expression::NotIn(label.into(), values.into_iter().collect()))
    }

    /// The selector of things that this one does not select.
    #[must_use]
    pub fn negated(self) -> Self {
        Self(match self.0 {
            Expression::Not(inner) => *inner,
            other @ (Expression::All
            | Expression::Global
            | Expression::Has(_)
            | Expression::Compare(..)
            | Expression::In(..)
            | Expression::NotIn(..)
            | Expression::And(_)
            | Expression::Or(_)) => Expression::Not(Box::new(other)),
        })
    }

    /// The selector of things that every one of these selects; of everything where there is none.
    #[must_use]
    pub fn every(selectors: impl IntoIterator<Item = Self>) -> Self {
        let mut operands: Vec<Expression> = Vec::new();
        for Self(expression) in selectors {
            match expression {
                Expression::All => {}
                Expression::And(inner) => operands.extend(inner),
                other @ (Expression::Global
                | Expression::Has(_)
                | Expression::Compare(..)
                | Expression::In(..)
                | Expression::NotIn(..)
                | Expression::Not(_)
                | Expression::Or(_)) => operands.push(other),
            }
        }
        match <[Expression; 1]>::try_from(operands) {
            Ok([one]) => Self(one),
            Err(operands) if operands.is_empty() => Self::all(),
            Err(operands) => Self(Expression::And(operands)),
        }
    }

    /// Whether it is `global()` and nothing else.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.0 == Expression::Global
    }

    /// Whether `global()` is in it anywhere.
    #[must_use]
    pub fn mentions_global(&self) -> bool {
        self.0.mentions_global()
    }

    /// Whether the selector selects a thing with these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(|label| labels.get(label).map(String::as_str))
    }

    /// As [`Self::matches`], for a thing whose labels `label` knows.
    #[must_use]
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.matches(&label)
    }

    /// What a thing must have for the selector to select it; that may not be enough. By it things and selectors
    /// find each other in an index.
    #[must_use]
    pub fn requirements(&self) -> Vec<Requirement<'_>> {
        let mut requirements = Vec::new();
        self.0.require(&mut requirements);
        requirements
    }
}

/// A label that a thing must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement<'a> {
    /// With this value.
    Equal(&'a str, &'a str),
    /// With whatever value.
    Has(&'a str),
}

impl Expression {
    fn mentions_global(&self) -> bool {
        match self {
            Self::Global => true,
            Self::Not(operand) => operand.mentions_global(),
            Self::And(operands) | Self::Or(operands) => operands.iter().any(Self::mentions_global),
            Self::All | Self::Has(_) | Self::Compare(..) | Self::In(..) | Self::NotIn(..) => false,
        }
    }

    fn matches<'a>(&self, value_of: &impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::All | Self::Global => true,
            Self::Has(label) => value_of(label).is_some(),
            Self::Compare(label, comparison, literal) => comparison.holds(value_of(label), literal),
            Self::In(label, set) => value_of(label).is_some_and(|value| set.contains(value)),
            Self::NotIn(label, set) => value_of(label).is_none_or(|value| !set.contains(value)),
            Self::Not(operand) => !operand.matches(value_of),
            Self::And(operands) => operands.iter().all(|operand| operand.matches(value_of)),
            Self::Or(operands) => operands.iter().any(|operand| operand.matches(value_of)),
        }
    }

    fn require<'a>(&'a self, into: &mut Vec<Requirement<'a>>) {
        match self {
            Self::Compare(label, Comparison::Equal, value) => into.push(Requirement::Equal(label, value)),
            Self::In(label, set) => into.push(match set.first() {
                Some(value) if set.len() == 1 => Requirement::Equal(label, value),
                _ => Requirement::Has(label),
            }),
            Self::Has(label)
            | Self::Compare(label, Comparison::Contains | Comparison::StartsWith | Comparison::EndsWith, _) => {
                into.push(Requirement::Has(label))
            }
            Self::And(operands) => operands.iter().for_each(|operand| operand.require(into)),
            Self::All
            | Self::Global
            | Self::Compare(_, Comparison::NotEqual, _)
            | Self::NotIn(..)
            | Self::Not(_)
            | Self::Or(_) => {}
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Compare(label, comparison, literal) => {
                write!(f, "{label} {} {}", comparison.text(), Quoted(literal))
            }
            Self::In(label, set) => write!(f, "{label} in {}", Set(set)),
            Self::NotIn(label, set) => write!(f, "{label} not in {}", Set(set)),
            Self::Not(operand) => write!(f, "!{operand}"),
            Self::And(operands) => joined(f, operands, " && "),
            Self::Or(operands) => joined(f, operands, " || "),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, operands: &[Expression], operator: &str) -> fmt::Result {
    for (i, operand) in operands.iter().enumerate() {
        write!(f, "{}{operand}", if i == 0 { "(" } else { operator })?;
    }
    f.write_str(")")
}

/// A literal in the quotes that it does not hold.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

/// A set of literals.
struct Set<'a>(&'a BTreeSet<String>);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, literal) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Quoted(literal))?;
        }
        f.write_str("}")
    }
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no selector: column {column}: {expected}")]
pub struct SelectorError {
    /// The text.
    pub text: String,
    /// Where it stops making sense, counted in characters from 1.
    pub column: usize,
    /// What should stand there.
    pub expected: String,
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
