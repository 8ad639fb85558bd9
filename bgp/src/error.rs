//! Every way in which a peer can be wrong, by name, and the one conversion to what it is told (RFC 4271 §6).
//!
//! [`Error`] ends a session; [`Problem`] is what can be wrong with an UPDATE, and most of it costs only
//! routes (RFC 7606), as the [`Action`] beside it says.

use bytes::{Bytes, BytesMut};
use thiserror::Error as ThisError;

use crate::Prefix;
use crate::wire::attr::{self, code};
use crate::wire::{Capability, Notification, Role};

/// What ends a session: the peer broke a rule and is told which.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The marker is not all ones.
    #[error("the header's marker is not all ones")]
    NotSynchronized,
    /// The header's length is out of the bounds of its message type.
    #[error("{length} octets are too few or too many for a message of this type")]
    MessageLength {
        /// The Length field.
        length: u16,
    },
    /// No such message type.
    #[error("there is no message type {kind}")]
    MessageType {
        /// The Type field.
        kind: u8,
    },
    /// OPEN: not BGP-4.
    #[error("BGP version {version} is not supported, version 4 is")]
    UnsupportedVersion {
        /// The Version field.
        version: u8,
    },
    /// OPEN: an AS number that is reserved, contradicts itself or is not the configured one.
    #[error("AS {asn} is not what the peer should have")]
    BadPeerAs {
        /// The peer's AS.
        asn: u32,
    },
    /// OPEN: the identifier is zero or our own (RFC 6286).
    #[error("BGP identifier {router_id} cannot be a peer's")]
    BadIdentifier {
        /// The BGP Identifier field.
        router_id: std::net::Ipv4Addr,
    },
    /// OPEN: an optional parameter that is no capability list.
    #[error("optional parameter {kind} is not supported, capabilities (2) are")]
    UnsupportedParameter {
        /// The parameter's type.
        kind: u8,
    },
    /// OPEN: optional parameters or a capability whose lengths do not fit (RFC 4271 §6.2, last paragraph).
    #[error("the optional parameters are malformed")]
    MalformedParameters,
    /// OPEN: a hold time of 1 or 2 s, or shorter than the settings take.
    #[error("a hold time of {seconds} s is unacceptable, 0 or at least {min} s is needed")]
    UnacceptableHoldTime {
        /// The Hold Time field.
        seconds: u16,
        /// What would do.
        min: u64,
    },
    /// OPEN: capabilities without which we cannot talk (RFC 5492 §5).
    #[error("the peer lacks capabilities that this session needs: {missing:?}")]
    UnsupportedCapability {
        /// What the peer would have to offer.
        missing: Vec<Capability>,
    },
    /// OPEN: the two sides' roles do not pair, or the peer claims several (RFC 9234 §4.2).
    #[error("the peer's role {theirs:?} does not pair with ours, {ours:?}")]
    RoleMismatch {
        /// Our role.
        ours: Role,
        /// The peer's, as its capability says; none where a strict session needs one.
        theirs: Option<Role>,
    },
    /// UPDATE: beyond repair.
    #[error(transparent)]
    Update(#[from] Problem),
    /// ROUTE-REFRESH: a demarcation of the wrong length (RFC 7313 §5).
    #[error("a route refresh demarcation of {} octets has the wrong length", message.len())]
    RefreshLength {
        /// The complete message.
        message: Bytes,
    },
}

/// What can be wrong with an UPDATE.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Problem {
    /// The lengths of withdrawn routes and attributes exceed the message.
    #[error("withdrawn routes and attributes are longer than the message")]
    FieldLength,
    /// An attribute's length exceeds the attributes' total length.
    #[error("attribute {} runs past the end of the attributes", attr::name(*code))]
    AttributeOverrun {
        /// Its type code; 0 where not even its header fits.
        code: u8,
    },
    /// An attribute came twice.
    #[error("attribute {} came twice", attr::name(*code))]
    Duplicate {
        /// Its type code.
        code: u8,
    },
    /// MP_REACH_NLRI or MP_UNREACH_NLRI whose prefixes cannot be located.
    #[error("{} is cut short or its next hop has a wrong length", attr::name(*code))]
    MultiprotocolFraming {
        /// Its type code.
        code: u8,
    },
    /// An attribute that claims to be well-known and is not.
    #[error("there is no well-known attribute {}", attr::name(*code))]
    UnrecognizedWellKnown {
        /// Its type code.
        code: u8,
        /// The whole attribute.
        attribute: Bytes,
    },
    /// A mandatory attribute is missing.
    #[error("the mandatory attribute {} is missing", attr::name(*code))]
    MissingWellKnown {
        /// Its type code.
        code: u8,
    },
    /// Flags that this attribute cannot have.
    #[error("attribute {} has wrong flags", attr::name(*code))]
    AttributeFlags {
        /// Its type code.
        code: u8,
        /// The whole attribute.
        attribute: Bytes,
    },
    /// A length that this attribute cannot have.
    #[error("attribute {} has a wrong length", attr::name(*code))]
    AttributeLength {
        /// Its type code.
        code: u8,
        /// The whole attribute.
        attribute: Bytes,
    },
    /// ORIGIN is none of the three.
    #[error("the origin is none of IGP, EGP and INCOMPLETE")]
    InvalidOrigin {
        /// The whole attribute.
        attribute: Bytes,
    },
    /// A next hop that is no host's unicast address.
    #[error("the next hop is no host's unicast address")]
    InvalidNextHop {
        /// The whole attribute.
        attribute: Bytes,
    },
    /// The value of an optional attribute is wrong.
    #[error("the value of attribute {} is wrong", attr::name(*code))]
    OptionalAttribute {
        /// Its type code.
        code: u8,
        /// The whole attribute.
        attribute: Bytes,
    },
    /// A prefix that is well-formed and cannot be routed.
    #[error("{prefix} is multicast, loopback or link-local")]
    StrayPrefix {
        /// The first such prefix of its field.
        prefix: Prefix,
    },
    /// A prefix in the message's own fields is longer than its family allows or cut short.
    #[error("a prefix is too long or cut short")]
    InvalidNetwork,
    /// AS_PATH has an unknown, empty or cut segment, holds AS 0, or is empty on an external session.
    #[error("the AS path is malformed")]
    MalformedAsPath,
    /// An attribute that has no business on this kind of session.
    #[error("attribute {} does not belong on this session", attr::name(*code))]
    Misplaced {
        /// Its type code.
        code: u8,
    },
}

impl Problem {
    /// The type code of the attribute in question; none where it is about the message's own fields.
    #[must_use]
    pub fn code(&self) -> Option<u8> {
        match self {
            Self::AttributeOverrun { code }
            | Self::Duplicate { code }
            | Self::MultiprotocolFraming { code }
            | Self::UnrecognizedWellKnown { code, .. }
            | Self::MissingWellKnown { code }
            | Self::AttributeFlags { code, .. }
            | Self::AttributeLength { code, .. }
            | Self::OptionalAttribute { code, .. }
            | Self::Misplaced { code } => Some(*code),
            Self::InvalidOrigin { .. } => Some(code::ORIGIN),
            Self::InvalidNextHop { attribute } => attribute.get(1).copied(),
            Self::MalformedAsPath => Some(code::AS_PATH),
            Self::FieldLength | Self::InvalidNetwork | Self::StrayPrefix { .. } => None,
        }
    }
}

/// What a problem costs, from cheap to dear (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The attribute, or the prefix, is dropped; the routes stay.
    Discard,
    /// The message's routes are treated as withdrawn.
    Withdraw,
    /// The session ends.
    Reset,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Discard => "discard",
            Self::Withdraw => "withdraw",
            Self::Reset => "reset",
        })
    }
}

impl From<Error> for Notification {
    fn from(error: Error) -> Self {
        let (code, subcode, data) = match error {
            Error::NotSynchronized => (1, 1, Bytes::new()),
            Error::MessageLength { length } => (1, 2, Bytes::copy_from_slice(&length.to_be_bytes())),
            Error::MessageType { kind } => (1, 3, Bytes::copy_from_slice(&[kind])),
            // The largest version that we speak, in two octets.
            Error::UnsupportedVersion { .. } => (2, 1, Bytes::from_static(&[0, 4])),
            Error::BadPeerAs { .. } => (2, 2, Bytes::new()),
            Error::BadIdentifier { .. } => (2, 3, Bytes::new()),
            Error::UnsupportedParameter { .. } => (2, 4, Bytes::new()),
            Error::MalformedParameters => (2, 0, Bytes::new()),
            Error::UnacceptableHoldTime { .. } => (2, 6, Bytes::new()),
            Error::UnsupportedCapability { missing } => {
                let mut data = BytesMut::new();
                for capability in &missing {
                    capability.put(&mut data);
                }
                (2, 7, data.freeze())
            }
            Error::RoleMismatch { .. } => (2, 11, Bytes::new()),
            Error::Update(problem) => update(problem),
            Error::RefreshLength { message } => (7, 1, message),
        };
        Self { code, subcode, data }
    }
}

/// Code, subcode and data of an UPDATE error (RFC 4271 §6.3; RFC 4760 §7 for the multiprotocol attributes).
fn update(problem: Problem) -> (u8, u8, Bytes) {
    let (subcode, data) = match problem {
        Problem::FieldLength
        | Problem::AttributeOverrun { .. }
        | Problem::Duplicate { .. }
        | Problem::MultiprotocolFraming { .. }
        | Problem::Misplaced { .. } => (1, Bytes::new()),
        Problem::UnrecognizedWellKnown { attribute, .. } => (2, attribute),
        Problem::MissingWellKnown { code } => (3, Bytes::copy_from_slice(&[code])),
        Problem::AttributeFlags { attribute, .. } => (4, attribute),
        Problem::AttributeLength { attribute, .. } => (5, attribute),
        Problem::InvalidOrigin { attribute } => (6, attribute),
        Problem::InvalidNextHop { attribute } => (8, attribute),
        Problem::OptionalAttribute { attribute, .. } => (9, attribute),
        Problem::InvalidNetwork | Problem::StrayPrefix { .. } => (10, Bytes::new()),
        Problem::MalformedAsPath => (11, Bytes::new()),
    };
    (3, subcode, data)
}
