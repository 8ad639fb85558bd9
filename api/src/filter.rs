//! Filters of BGP routes.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::formats::cidr;
#[cfg(feature = "schema")]
use crate::schema;

/// Rules for routes on their way in and out, for BGPPeers and the mesh to name. Calico's fields, and more
/// operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BgpFilter {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: BgpFilterSpec,
}

/// The rules, per direction and family. The first one that matches a route decides; a route that none matches
/// is left to the session's default, which lets through what lies inside a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BgpFilterSpec {
    /// For IPv4 routes on the way out.
    #[serde(rename = "exportV4", skip_serializing_if = "Vec::is_empty")]
    pub export_v4: Vec<FilterRule>,
    /// For IPv4 routes on the way in.
    #[serde(rename = "importV4", skip_serializing_if = "Vec::is_empty")]
    pub import_v4: Vec<FilterRule>,
    /// For IPv6 routes on the way out.
    #[serde(rename = "exportV6", skip_serializing_if = "Vec::is_empty")]
    pub export_v6: Vec<FilterRule>,
    /// For IPv6 routes on the way in.
    #[serde(rename = "importV6", skip_serializing_if = "Vec::is_empty")]
    pub import_v6: Vec<FilterRule>,
}

/// A rule: routes for which everything that it says of them holds, and what becomes of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterRule {
    /// A network to compare the route's prefix with, as `match_operator` says.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "cidr::optional"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Cidr>"))]
    pub cidr: Option<IpNetwork>,
    /// How the prefix has to stand to `cidr`; with `cidr`, and only with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// How long the prefix has to be. Default: as long as `cidr` or longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// Only routes that a peer announced, not the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<MatchSource>,
    /// Only routes from or to such a peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerType>,
    /// Only routes with these communities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Communities>,
    /// Only routes whose AS_PATH begins with these, nearest first.
    #[serde(default, rename = "asPathPrefix", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(inner(range(min = 1))))]
    pub as_path_prefix: Vec<u32>,
    /// Only routes that lead over this interface; `*` stands for any characters. The node's own lead over none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::InterfacePattern>"))]
    pub interface: Option<String>,
    /// Only routes with this metric in the node's kernel; on the way out alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 2_147_483_646)))]
    pub priority: Option<u32>,
    /// What becomes of them.
    pub action: FilterAction,
    /// What is changed of an accepted route, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 10)))]
    pub operations: Vec<FilterOperation>,
}

/// How a prefix stands to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MatchOperator {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// Inside, or the same.
    In,
    /// Not inside.
    NotIn,
}

/// Lengths of prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PrefixLength {
    /// At least. Default: the length of `cidr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u8>,
    /// At most. Default 32, or 128 for IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u8>,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MatchSource {
    /// From a BGP peer.
    RemotePeers,
}

/// What kind of peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PeerType {
    /// Of another AS.
    #[serde(rename = "eBGP")]
    External,
    /// Of our AS.
    #[serde(rename = "iBGP")]
    Internal,
}

/// Communities of any kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Communities {
    /// All of these.
    pub values: Vec<Community>,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FilterAction {
    /// It passes.
    Accept,
    /// It does not pass.
    Reject,
}

/// A change of a route: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FilterOperation {
    /// Adds a community.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_community: Option<CommunityValue>,
    /// Replaces all communities, of every kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_communities: Option<Communities>,
    /// Puts AS numbers in front of the AS_PATH.
    #[serde(rename = "prependASPath", skip_serializing_if = "Option::is_none")]
    pub prepend_as_path: Option<AsPathPrefix>,
    /// Sets LOCAL_PREF. Towards another AS it is not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_local_preference: Option<NumberValue>,
    /// Sets MULTI_EXIT_DISC.
    #[serde(rename = "setMED", skip_serializing_if = "Option::is_none")]
    pub set_med: Option<NumberValue>,
    /// Sets the route's metric in the node's kernel; of a prefix's routes the lowest is taken. On the way in alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_priority: Option<NumberValue>,
}

/// A community.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CommunityValue {
    /// The community.
    pub value: Community,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NumberValue {
    /// The number.
    pub value: u32,
}

/// AS numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AsPathPrefix {
    /// The AS numbers, nearest first: 1 to 10.
    #[cfg_attr(
        feature = "schema",
        schemars(length(min = 1, max = 10), inner(range(min = 1)))
    )]
    pub prefix: Vec<u32>,
}

/// A community as it is written: `64512:1` (RFC 1997), `64512:1:2` (RFC 8092), `rt:64512:1` or `soo:192.0.2.1:1`
/// (RFC 4360), or a well-known one by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Community(String);

/// Text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no community: write 64512:1, 64512:1:2, rt:64512:1, soo:192.0.2.1:1, no-export, no-advertise, \
     no-export-subconfed, graceful-shutdown, llgr-stale or no-llgr"
)]
pub struct NotACommunity(String);

impl Community {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Community> for String {
    fn from(community: Community) -> Self {
        community.0
    }
}

impl FromStr for Community {
    type Err = NotACommunity;

    fn from_str(text: &str) -> Result<Self, NotACommunity> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Community {
    type Error = NotACommunity;

    fn try_from(text: String) -> Result<Self, NotACommunity> {
        let is = |text: &str, max: u32| {
            text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok_and(|it| it <= max)
        };
        let (short, long) = (u16::MAX.into(), u32::MAX);
        let parts: Vec<&str> = text.split(':').collect();
        let right = match parts[..] {
            [name] => matches!(
                name,
                "no-export"
                    | "no-advertise"
                    | "no-export-subconfed"
                    | "graceful-shutdown"
                    | "llgr-stale"
                    | "no-llgr"
            ),
            [a, b] => is(a, short) && is(b, short),
            ["rt" | "soo", administrator, local] => {
                is(administrator, short) && is(local, long)
                    || is(local, short)
                        && (is(administrator, long) || administrator.parse::<Ipv4Addr>().is_ok())
            }
            [a, b, c] => [a, b, c].iter().all(|part| is(part, long)),
            _ => false,
        };
        if right {
            Ok(Self(text))
        } else {
            Err(NotACommunity(text))
        }
    }
}
