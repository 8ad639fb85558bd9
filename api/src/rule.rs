//! The words of policies: orders, actions, protocols, ports, and how a manifest writes them.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::str::FromStr;

#[cfg(feature = "schema")]
use crate::schema;
use ipnetwork::IpNetwork;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A place in an order: lower comes first, and none given comes last.
///
/// A finite number; Calico's `order` fields are fractions, so that a policy always fits between two others.
#[derive(Clone, Copy, Debug)]
pub struct Order(f64);

impl Order {
    /// After everything that has a number.
    pub const LAST: Self = Self(f64::INFINITY);

    /// The place of a number; none if it is not finite.
    #[must_use]
    pub fn new(order: f64) -> Option<Self> {
        // -0.0 and 0.0 are one place.
        order.is_finite().then_some(Self(order + 0.0))
    }

    /// The number, if one was given.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        self.0.is_finite().then_some(self.0)
    }

    /// Whether none was given.
    #[must_use]
    pub fn is_last(&self) -> bool {
        *self == Self::LAST
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::LAST
    }
}

impl From<u32> for Order {
    fn from(order: u32) -> Self {
        Self(order.into())
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Order {}

/// `100`, `0.5`; nothing for what comes last.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => write!(f, "{number}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Order {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // 100 is written as 100, and not as 100.0.
        match (self.number(), self.to_string().parse::<i64>()) {
            (None, _) => serializer.serialize_none(),
            (Some(_), Ok(whole)) => serializer.serialize_i64(whole),
            (Some(number), Err(_)) => serializer.serialize_f64(number),
        }
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(number) = Option::<f64>::deserialize(deserializer)? else {
            return Ok(Self::LAST);
        };
        Self::new(number).ok_or_else(|| {
            Error::invalid_value(Unexpected::Float(number), &"a finite number, as in 100 or 0.5")
        })
    }
}

/// The end of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DefaultAction {
    /// Dropped.
    #[default]
    Deny,
    /// Left to the next tier.
    Pass,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Action {
    /// The packet may go on.
    Allow,
    /// The packet is dropped.
    Deny,
    /// The next tier decides.
    Pass,
    /// The packet is logged, and the next rule is asked.
    Log,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Log => "Log",
        })
    }
}

/// A way that packets go, as the thing sees it that a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Direction {
    /// To it.
    Ingress,
    /// From it.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        })
    }
}

/// An address family: each has programs, chains and sets of its own. Written `4` or `6`.
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

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::V4 => 4,
            Self::V6 => 6,
        })
    }
}

impl<'de> Deserialize<'de> for Family {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            other => Err(Error::invalid_value(Unexpected::Unsigned(other), &"4 or 6")),
        }
    }
}

/// An IP protocol, by its number (IANA "Protocol Numbers"); written as its name where it has one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Those whose packets have ports.
    pub const WITH_PORTS: [Self; 4] = [Self::TCP, Self::UDP, Self::SCTP, Self::UDPLITE];

    /// ICMP of IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP of IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDPLITE: Self = Self(136);

    const NAMES: [(Self, &str); 6] = [
        (Self::TCP, "TCP"),
        (Self::UDP, "UDP"),
        (Self::SCTP, "SCTP"),
        (Self::ICMP, "ICMP"),
        (Self::ICMPV6, "ICMPv6"),
        (Self::UDPLITE, "UDPLite"),
    ];

    /// Whether its packets have ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        Self::WITH_PORTS.contains(&self)
    }

    /// The family whose ICMP it is.
    #[must_use]
    pub fn icmp_family(self) -> Option<Family> {
        match self {
            Self::ICMP => Some(Family::V4),
            Self::ICMPV6 => Some(Family::V6),
            Self(_) => None,
        }
    }

    fn name(self) -> Option<&'static str> {
        let named = Self::NAMES.iter().find(|(protocol, _)| *protocol == self);
        named.map(|(_, name)| *name)
    }
}

/// `TCP`, or `47` for what has no name here.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A text that is no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no protocol: write {PROTOCOLS}")]
pub struct ProtocolError(String);

const PROTOCOLS: &str = "TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite, or a number from 1 to 255";

impl FromStr for Protocol {
    type Err = ProtocolError;

    /// Takes names in any case, and numbers.
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let named = Self::NAMES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        let number = || text.parse().ok().filter(|number| *number != 0).map(Self);
        named
            .map(|(protocol, _)| *protocol)
            .or_else(number)
            .ok_or_else(|| ProtocolError(text.to_owned()))
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NumberOrText::read(deserializer, PROTOCOLS)
    }
}

/// ICMP messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Icmp {
    /// The type.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "schema", schemars(range(max = 254)))]
    pub kind: u8,
    /// The code; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// Ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// These numbers.
    Numbers(PortRange),
    /// What the endpoint at that side calls so, for the packet's protocol.
    Named(String),
}

/// Port numbers from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl From<PortRange> for RangeInclusive<u16> {
    fn from(PortRange { first, last }: PortRange) -> Self {
        first..=last
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

/// `80`, `8000:8099`, `http`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(PortRange { first, last }) if first == last => write!(f, "{first}"),
            Self::Numbers(PortRange { first, last }) => write!(f, "{first}:{last}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A text that is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no port: write {PORTS}")]
pub struct PortError(String);

const PORTS: &str = "a number from 0 to 65535, a range with the smaller number first as in 8000:8099, or a name of up \
                     to 128 letters, digits, '_', '.' and '-'";

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let refused = || PortError(text.to_owned());
        if let Some((first, last)) = text.split_once(':') {
            let number = |text: &str| text.parse::<u16>().map_err(|_| refused());
            let (first, last) = (number(first)?, number(last)?);
            return (first <= last)
                .then_some(Self::Numbers(PortRange { first, last }))
                .ok_or_else(refused);
        }
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self::Numbers(port.into()));
        }
        let usual = |octet: u8| octet.is_ascii_alphanumeric() || b"_.-".contains(&octet);
        let named = (1..=128).contains(&text.len())
            && text.bytes().all(usual)
            && !text.bytes().all(|octet| octet.is_ascii_digit());
        named.then(|| Self::Named(text.to_owned())).ok_or_else(refused)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Numbers(PortRange { first, last }) if first == last => serializer.serialize_u16(*first),
            Self::Numbers(_) | Self::Named(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NumberOrText::read(deserializer, PORTS)
    }
}

/// Reads what may be written as a number or as text.
struct NumberOrText<T> {
    /// What would be right.
    right: &'static str,
    read: PhantomData<T>,
}

impl<'de, T: FromStr<Err: fmt::Display>> NumberOrText<T> {
    fn read<D: Deserializer<'de>>(deserializer: D, right: &'static str) -> Result<T, D::Error> {
        let read = PhantomData;
        deserializer.deserialize_any(Self { right, read })
    }
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.right)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// A port that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamedPort {
    /// The name.
    #[cfg_attr(feature = "schema", schemars(with = "schema::PortName"))]
    pub name: String,
    /// The protocol. Default TCP.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// The number.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub port: u16,
}

fn tcp() -> Protocol {
    Protocol::TCP
}
