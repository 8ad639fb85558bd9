//! NOTIFICATION: why a session ends (RFC 4271 §4.5), with every reason that this speaker gives by name.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;
use nom::number::complete::be_u8;

use super::header::{HEADER, Kind};
use super::{Error, MAX_MESSAGE, Step};
use crate::Family;

const OPEN_ERROR: u8 = 2;
const UPDATE_ERROR: u8 = 3;
const HOLD_TIMER_EXPIRED: u8 = 4;
const FSM_ERROR: u8 = 5;
const CEASE: u8 = 6;
const REFRESH_ERROR: u8 = 7;
const SEND_HOLD_TIMER_EXPIRED: u8 = 8;

/// The longest words of an operator, in octets (RFC 9003 §2).
const MAX_WORDS: usize = 255;

/// NOTIFICATION (RFC 4271 §4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// The error subcode.
    pub subcode: u8,
    /// What the code asks for.
    pub data: Bytes,
}

/// Why we end a session that went well (RFC 4271 §6.7; RFC 4486 §3; 9 RFC 8538 §3.1, 10 RFC 9384 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cease {
    /// The peer sent more prefixes than it may.
    MaximumPrefixes = 1,
    /// An operator shut the session down.
    AdministrativeShutdown = 2,
    /// The peer is no longer configured.
    PeerDeconfigured = 3,
    /// An operator reset the session.
    AdministrativeReset = 4,
    /// A connection came that is not wanted.
    ConnectionRejected = 5,
    /// A setting changed that needs a new session.
    OtherConfigurationChange = 6,
    /// Of two connections this one lost (RFC 4271 §6.8).
    ConnectionCollision = 7,
    /// Memory or the like is short.
    OutOfResources = 8,
    /// The session ends, and graceful restart shall not keep its routes.
    HardReset = 9,
    /// BFD says that the path is down.
    BfdDown = 10,
}

/// What a session waited for when an unexpected message came: the subcode (RFC 6608 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiting {
    /// For OPEN.
    OpenSent = 1,
    /// For KEEPALIVE.
    OpenConfirm = 2,
    /// For anything but OPEN.
    Established = 3,
}

impl Notification {
    /// We end the session (RFC 4486).
    #[must_use]
    pub fn cease(reason: Cease) -> Self {
        Self {
            code: CEASE,
            subcode: reason as u8,
            data: Bytes::new(),
        }
    }

    /// The peer announces more prefixes of a family than `max` (RFC 4486 §4).
    #[must_use]
    pub fn maximum_prefixes(family: Family, max: u32) -> Self {
        let mut data = BytesMut::with_capacity(7);
        data.put_u16(family.afi());
        data.put_u8(family.safi());
        data.put_u32(max);
        Self {
            data: data.freeze(),
            ..Self::cease(Cease::MaximumPrefixes)
        }
    }

    /// Nothing came for the hold time (RFC 4271 §6.5).
    #[must_use]
    pub fn hold_timer_expired() -> Self {
        Self {
            code: HOLD_TIMER_EXPIRED,
            subcode: 0,
            data: Bytes::new(),
        }
    }

    /// The peer took nothing from us for longer than it may (RFC 9687).
    #[must_use]
    pub fn send_hold_timer_expired() -> Self {
        Self {
            code: SEND_HOLD_TIMER_EXPIRED,
            subcode: 0,
            data: Bytes::new(),
        }
    }

    /// A message of type `kind` came where it may not (RFC 6608 §4).
    #[must_use]
    pub fn unexpected_message(waiting: Waiting, kind: u8) -> Self {
        Self {
            code: FSM_ERROR,
            subcode: waiting as u8,
            data: Bytes::copy_from_slice(&[kind]),
        }
    }

    /// The type of the message that the error was found in, where it can only be one (RFC 4271 §6, RFC 7313 §5).
    pub(crate) fn message(&self) -> Option<u8> {
        let kind = match self.code {
            OPEN_ERROR => Kind::Open,
            UPDATE_ERROR => Kind::Update,
            REFRESH_ERROR => Kind::RouteRefresh,
            _ => return None,
        };
        Some(kind as u8)
    }

    /// Appends the body; data that would make the message too long is cut.
    pub(super) fn put(&self, out: &mut BytesMut, max_message: usize) {
        out.put_slice(&[self.code, self.subcode]);
        let room = max_message.min(MAX_MESSAGE) - HEADER - 2;
        out.put_slice(&self.data[..self.data.len().min(room)]);
    }

    /// Adds an operator's words (RFC 9003 §2): 255 octets of them at most, cut between two characters.
    #[must_use]
    pub fn saying(self, words: &str) -> Self {
        let words = &words[..words.floor_char_boundary(MAX_WORDS)];
        let mut data = BytesMut::with_capacity(1 + words.len());
        data.put_u8(u8::try_from(words.len()).unwrap_or(u8::MAX));
        data.put_slice(words.as_bytes());
        Self {
            data: data.freeze(),
            ..self
        }
    }

    /// What an operator said when shutting down or resetting (RFC 9003 §2). Whatever is wrong with it is no error
    /// (RFC 9003 §4): octets that are no text are replaced, and where the length is wrong there is nothing.
    fn communication(&self) -> Option<Cow<'_, str>> {
        let spoken = [
            Cease::AdministrativeShutdown as u8,
            Cease::AdministrativeReset as u8,
        ];
        if self.code != CEASE || !spoken.contains(&self.subcode) {
            return None;
        }
        let (length, text) = self.data.split_first()?;
        let text = text.get(..usize::from(*length)).filter(|text| !text.is_empty())?;
        Some(String::from_utf8_lossy(text))
    }

    /// The reason inside a hard reset (RFC 8538 §3.1), which is not another one.
    fn reason(&self) -> Option<Self> {
        let hard = (CEASE, Cease::HardReset as u8);
        let (data, (code, subcode)) = fields(&self.data).ok()?;
        let inside = (self.code, self.subcode) == hard && (code, subcode) != hard;
        inside.then(|| Self {
            code,
            subcode,
            data: Bytes::copy_from_slice(data),
        })
    }
}

fn fields(body: &[u8]) -> Step<'_, (u8, u8)> {
    (be_u8, be_u8).parse(body)
}

pub(super) fn decode(body: &[u8]) -> Result<Notification, Error> {
    let (data, (code, subcode)) = fields(body).map_err(|_| Error::MessageLength {
        length: u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX),
    })?;
    Ok(Notification {
        code,
        subcode,
        data: Bytes::copy_from_slice(data),
    })
}

impl fmt::Display for Notification {
    /// `cease: peer de-configured (6/3)`; unknown codes by number alone. A hard reset is followed by its reason, a
    /// shutdown by the operator's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, subcode, .. } = self;
        match (code_name(*code), subcode_name(*code, *subcode)) {
            (Some(name), Some(detail)) => write!(f, "{name}: {detail} ({code}/{subcode})")?,
            (Some(name), None) => write!(f, "{name} ({code}/{subcode})")?,
            (None, _) => write!(f, "error {code}/{subcode}")?,
        }
        if let Some(reason) = self.reason() {
            return write!(f, ", {reason}");
        }
        match self.communication() {
            // An operator's words may hold anything; control characters must not reach a terminal.
            Some(text) => write!(f, ", \"{}\"", text.escape_debug()),
            None => Ok(()),
        }
    }
}

fn code_name(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "message header error",
        OPEN_ERROR => "OPEN error",
        UPDATE_ERROR => "UPDATE error",
        HOLD_TIMER_EXPIRED => "hold timer expired",
        FSM_ERROR => "finite state machine error",
        CEASE => "cease",
        REFRESH_ERROR => "ROUTE-REFRESH error",
        SEND_HOLD_TIMER_EXPIRED => "send hold timer expired",
        _ => return None,
    })
}

/// The names that IANA registered, as far as they say more than the code alone.
fn subcode_name(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (1, 1) => "connection not synchronized",
        (1, 2) => "bad message length",
        (1, 3) => "bad message type",
        (2, 1) => "unsupported version number",
        (2, 2) => "bad peer AS",
        (2, 3) => "bad BGP identifier",
        (2, 4) => "unsupported optional parameter",
        (2, 6) => "unacceptable hold time",
        (2, 7) => "unsupported capability",
        (2, 11) => "role mismatch",
        (3, 1) => "malformed attribute list",
        (3, 2) => "unrecognized well-known attribute",
        (3, 3) => "missing well-known attribute",
        (3, 4) => "attribute flags error",
        (3, 5) => "attribute length error",
        (3, 6) => "invalid ORIGIN attribute",
        (3, 8) => "invalid NEXT_HOP attribute",
        (3, 9) => "optional attribute error",
        (3, 10) => "invalid network field",
        (3, 11) => "malformed AS_PATH",
        (FSM_ERROR, 1) => "unexpected message in OpenSent",
        (FSM_ERROR, 2) => "unexpected message in OpenConfirm",
        (FSM_ERROR, 3) => "unexpected message in Established",
        (CEASE, 1) => "maximum number of prefixes reached",
        (CEASE, 2) => "administrative shutdown",
        (CEASE, 3) => "peer de-configured",
        (CEASE, 4) => "administrative reset",
        (CEASE, 5) => "connection rejected",
        (CEASE, 6) => "other configuration change",
        (CEASE, 7) => "connection collision resolution",
        (CEASE, 8) => "out of resources",
        (CEASE, 9) => "hard reset",
        (CEASE, 10) => "BFD down",
        (7, 1) => "invalid message length",
        _ => return None,
    })
}
