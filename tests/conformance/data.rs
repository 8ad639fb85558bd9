//! What we hold ourselves to, as the files beside this one list it.

use std::collections::BTreeMap;

use manx_tests::tree::root;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A document and what of it binds us.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rfc {
    /// Its number.
    pub(crate) rfc: u32,
    /// Its title.
    pub(crate) title: String,
    /// Its clauses, in order.
    pub(crate) clauses: Vec<Clause>,
}

/// A demand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Clause {
    /// Section, with a keyword in parentheses where it makes several demands: `6.2 (version)`.
    pub(crate) section: String,
    /// How strong the demand is.
    pub(crate) level: Level,
    /// The demand, in our own words.
    pub(crate) demands: String,
    /// Why we do not do it.
    #[serde(default)]
    pub(crate) declined: Option<String>,
}

/// RFC 2119's words.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Level {
    Must,
    Should,
    May,
}

impl Level {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        }
    }
}

/// The RFCs, in order.
pub(crate) fn rfcs() -> Vec<Rfc> {
    read("clauses.yaml")
}

/// The nasty cases by number: what once went wrong elsewhere and must not here.
pub(crate) fn cases() -> BTreeMap<u32, String> {
    read("cases.yaml")
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = root().join("tests/conformance").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}
