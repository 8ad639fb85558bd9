//! The BFD Control packet (RFC 5880 §4.1): octets, and what they mean.
//!
//! Decoding has two levels: first the octets are checked for what makes them a whole packet, then they are
//! given their meaning. Both follow the order of RFC 5880 §6.8.6.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error as ThisError;

use super::State;

/// Octets of a packet without authentication.
pub const LEN: usize = 24;

/// The version that we speak.
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// A BFD Control packet. Its intervals have whole microseconds; what 32 bits do not hold is sent as the most
/// that they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: an answer is wanted at once (§6.5).
    pub poll: bool,
    /// F: this is the answer.
    pub finish: bool,
    /// C: the sender's BFD outlives its control plane.
    pub control_plane_independent: bool,
    /// D: the sender wants no periodic packets while both sides are Up (§6.6).
    pub demand: bool,
    /// How many packets in a row may be lost.
    pub multiplier: NonZeroU8,
    /// The sender's name for the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's, where the sender knows it.
    pub your_discriminator: Option<NonZeroU32>,
    /// The sender would like to send no faster than this.
    pub desired_min_tx: Duration,
    /// The sender takes no more than one packet in this time; zero: none at all.
    pub required_min_rx: Duration,
    /// The same for echoes; zero: the sender returns none.
    pub required_min_echo_rx: Duration,
}

/// Why a session last left Up (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Diagnostic {
    /// Nothing has happened.
    #[default]
    None,
    /// Nothing came for the detection time.
    ControlDetectionTimeExpired,
    /// Echoes did not return.
    EchoFunctionFailed,
    /// The neighbour said that the session is down.
    NeighborSignaledSessionDown,
    /// The forwarding plane was reset.
    ForwardingPlaneReset,
    /// The path is known to be down.
    PathDown,
    /// A path beyond this one is down.
    ConcatenatedPathDown,
    /// An operator took the session down.
    AdministrativelyDown,
    /// The same, in the other direction.
    ReverseConcatenatedPathDown,
    /// None that RFC 5880 knows; 9 to 31.
    Other(u8),
}

/// What makes octets no packet of ours; it is discarded (RFC 5880 §6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum Malformed {
    /// Not even the mandatory section is there.
    #[error("{length} octets are too few, {LEN} are needed")]
    Short {
        /// How many there are.
        length: usize,
    },
    /// Another protocol version.
    #[error("BFD version {version} is not supported, version {VERSION} is")]
    Version {
        /// The Version field.
        version: u8,
    },
    /// The Length field is below the minimum or beyond the datagram.
    #[error("a Length of {length} does not fit into a datagram of {datagram} octets")]
    Length {
        /// The Length field.
        length: u8,
        /// The datagram's octets.
        datagram: usize,
    },
    /// The packet is authenticated, and nothing is configured to check it with.
    #[error("the packet is authenticated, the session is not")]
    Authenticated,
    /// The multiplier is zero.
    #[error("the detection multiplier is zero")]
    Multiplier,
    /// The multipoint bit is set.
    #[error("the multipoint bit is set")]
    Multipoint,
    /// The sender does not name its session.
    #[error("My Discriminator is zero")]
    MyDiscriminator,
    /// The sender is past Down and does not name our session.
    #[error("Your Discriminator is zero in state {state}")]
    YourDiscriminator {
        /// The State field.
        state: State,
    },
}

impl Packet {
    /// Reads a datagram.
    ///
    /// # Errors
    /// What it breaks; it is to be discarded.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let octets = checked(datagram)?;
        let word =
            |at: usize| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        let interval = |at: usize| Duration::from_micros(word(at).into());
        let flag = |bit: u8| octets[1] & bit != 0;
        let multiplier = NonZeroU8::new(octets[2]).ok_or(Malformed::Multiplier)?;
        if flag(MULTIPOINT) {
            return Err(Malformed::Multipoint);
        }
        let my_discriminator = NonZeroU32::new(word(4)).ok_or(Malformed::MyDiscriminator)?;
        let state = State::from_bits(octets[1] >> 6);
        let your_discriminator = NonZeroU32::new(word(8));
        if your_discriminator.is_none() && matches!(state, State::Init | State::Up) {
            return Err(Malformed::YourDiscriminator { state });
        }
        Ok(Self {
            diagnostic: Diagnostic::from_bits(octets[0] & 0x1f),
            state,
            poll: flag(POLL),
            finish: flag(FINAL),
            control_plane_independent: flag(CONTROL_PLANE_INDEPENDENT),
            demand: flag(DEMAND),
            multiplier,
            my_discriminator,
            your_discriminator,
            desired_min_tx: interval(12),
            required_min_rx: interval(16),
            required_min_echo_rx: interval(20),
        })
    }

    /// The octets to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let flags = [
            (self.poll, POLL),
            (self.finish, FINAL),
            (self.control_plane_independent, CONTROL_PLANE_INDEPENDENT),
            (self.demand, DEMAND),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit);
        let mut octets = BytesMut::with_capacity(LEN);
        octets.put_u8(VERSION << 5 | self.diagnostic.bits());
        octets.put_u8(flags.fold(self.state.bits() << 6, |octet, bit| octet | bit));
        octets.put_slice(&[self.multiplier.get(), 24]);
        octets.put_u32(self.my_discriminator.get());
        octets.put_u32(self.your_discriminator.map_or(0, NonZeroU32::get));
        for interval in [
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ] {
            octets.put_u32(u32::try_from(interval.as_micros()).unwrap_or(u32::MAX));
        }
        octets.freeze()
    }
}

/// The mandatory section of a datagram that holds a whole packet of our version, without authentication.
fn checked(datagram: &[u8]) -> Result<&[u8; LEN], Malformed> {
    let octets = datagram.first_chunk::<LEN>().ok_or(Malformed::Short {
        length: datagram.len(),
    })?;
    let [first, second, _, length, ..] = *octets;
    if first >> 5 != VERSION {
        return Err(Malformed::Version { version: first >> 5 });
    }
    let authenticated = second & AUTHENTICATION != 0;
    let least = if authenticated { LEN + 2 } else { LEN };
    if usize::from(length) < least || usize::from(length) > datagram.len() {
        return Err(Malformed::Length {
            length,
            datagram: datagram.len(),
        });
    }
    if authenticated {
        return Err(Malformed::Authenticated);
    }
    Ok(octets)
}

impl Diagnostic {
    fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::None,
            1 => Self::ControlDetectionTimeExpired,
            2 => Self::EchoFunctionFailed,
            3 => Self::NeighborSignaledSessionDown,
            4 => Self::ForwardingPlaneReset,
            5 => Self::PathDown,
            6 => Self::ConcatenatedPathDown,
            7 => Self::AdministrativelyDown,
            8 => Self::ReverseConcatenatedPathDown,
            other => Self::Other(other),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::ControlDetectionTimeExpired => 1,
            Self::EchoFunctionFailed => 2,
            Self::NeighborSignaledSessionDown => 3,
            Self::ForwardingPlaneReset => 4,
            Self::PathDown => 5,
            Self::ConcatenatedPathDown => 6,
            Self::AdministrativelyDown => 7,
            Self::ReverseConcatenatedPathDown => 8,
            Self::Other(bits) => bits & 0x1f,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no diagnostic",
            Self::ControlDetectionTimeExpired => "nothing came for the detection time",
            Self::EchoFunctionFailed => "echoes did not return",
            Self::NeighborSignaledSessionDown => "the neighbour signaled the session down",
            Self::ForwardingPlaneReset => "the forwarding plane was reset",
            Self::PathDown => "the path is down",
            Self::ConcatenatedPathDown => "a concatenated path is down",
            Self::AdministrativelyDown => "administratively down",
            Self::ReverseConcatenatedPathDown => "a reverse concatenated path is down",
            Self::Other(code) => return write!(f, "diagnostic {code}"),
        })
    }
}
