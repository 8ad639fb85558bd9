//! What the runtime calls an attachment: a container and an interface in it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest container id taken, in bytes. Runtimes use 64; it and an interface name fit into a file name.
const MAX_CONTAINER_ID: usize = 200;

/// The longest interface name that Linux has, in bytes.
const MAX_INTERFACE_NAME: usize = 15;

/// A container id: starts with an alphanumeric character, then alphanumeric ones, `_`, `.` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// An interface name: 1 to 15 bytes, not `.` or `..`, without `/`, `:` and white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// An attachment of a container to a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub ifname: InterfaceName,
}

/// A name that is not what the specification allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' is no {what}: {rule}")]
pub struct InvalidName {
    what: &'static str,
    value: String,
    rule: &'static str,
}

/// Whether the text is a name as CNI has them for containers and networks.
pub(crate) fn is_cni_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, InvalidName> {
        if is_cni_name(&value) && value.len() <= MAX_CONTAINER_ID {
            return Ok(Self(value));
        }
        let rule =
            "it starts with a letter or digit, goes on with these, '_', '.' and '-', and has at most 200";
        Err(InvalidName {
            what: "container id",
            value,
            rule,
        })
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, InvalidName> {
        let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
        let long = value.is_empty() || value.len() > MAX_INTERFACE_NAME;
        if !long && value != "." && value != ".." && !value.contains(bad) {
            return Ok(Self(value));
        }
        let rule = "it has 1 to 15 bytes, is not '.' or '..', and has no '/', ':' or white space";
        Err(InvalidName {
            what: "interface name",
            value,
            rule,
        })
    }
}

impl ContainerId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InterfaceName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of container {}",
            self.ifname.as_str(),
            self.container_id.as_str()
        )
    }
}
