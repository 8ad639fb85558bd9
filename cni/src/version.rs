//! Versions of the CNI specification.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of the CNI specification that Manx speaks, older before newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SpecVersion {
    /// 0.3.1: ADD, DEL, VERSION.
    #[serde(rename = "0.3.1")]
    V0_3_1,
    /// 0.4.0: CHECK.
    #[serde(rename = "0.4.0")]
    V0_4_0,
    /// 1.0.0: addresses without a `version` field.
    #[serde(rename = "1.0.0")]
    V1_0_0,
    /// 1.1.0: STATUS and GC, an interface's MTU in the result.
    #[serde(rename = "1.1.0")]
    V1_1_0,
}

impl SpecVersion {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest, which answers a caller whose version is unknown.
    pub const NEWEST: Self = Self::V1_1_0;

    /// The version of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// The name, as in `cniVersion`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
