//! The message header: 16 octets of ones, length, type (RFC 4271 §4.1, §6.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::{Error, MAX_MESSAGE};

/// The header's octets: marker, Length, Type.
pub(super) const HEADER: usize = 19;
const MARKER: [u8; 16] = [0xff; 16];

/// The message types (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

impl Kind {
    fn of(octet: u8) -> Option<Self> {
        [
            Self::Open,
            Self::Update,
            Self::Notification,
            Self::Keepalive,
            Self::RouteRefresh,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == octet)
    }

    /// The shortest and the longest message of this type.
    fn bounds(self, max_message: usize) -> (usize, usize) {
        match self {
            Self::Open => (29, MAX_MESSAGE),
            Self::Update => (23, max_message),
            Self::Notification => (21, max_message),
            Self::Keepalive => (HEADER, HEADER),
            Self::RouteRefresh => (23, max_message),
        }
    }
}

/// Cuts one whole message off the front of `buf`; none while it is incomplete.
///
/// # Errors
/// The header is wrong: nothing that follows on this stream can be trusted.
pub fn frame(buf: &mut BytesMut, max_message: usize) -> Result<Option<Bytes>, Error> {
    let Some(header) = buf.first_chunk() else {
        return Ok(None);
    };
    let (_, length) = check(header, max_message)?;
    if buf.len() < length {
        // Room for the rest, so that reading does not grow the buffer step by step.
        buf.reserve(length - buf.len());
        return Ok(None);
    }
    Ok(Some(buf.split_to(length).freeze()))
}

/// Cuts the message at the front of `buf` off, if it is a whole UPDATE of no more than `limit` octets: it says no more
/// than those before it.
pub fn frame_update(buf: &mut BytesMut, max_message: usize, limit: usize) -> Option<Bytes> {
    let (kind, length) = check(buf.first_chunk()?, max_message).ok()?;
    let is_whole = length <= buf.len().min(limit);
    (kind == Kind::Update && is_whole).then(|| buf.split_to(length).freeze())
}

/// The type and the body of a message that must be as long as its header says.
pub(super) fn split(frame: &[u8], max_message: usize) -> Result<(Kind, &[u8]), Error> {
    let length = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    let Some((header, body)) = frame.split_first_chunk() else {
        return Err(Error::MessageLength { length });
    };
    let (kind, wanted) = check(header, max_message)?;
    if frame.len() != wanted {
        return Err(Error::MessageLength { length });
    }
    Ok((kind, body))
}

/// The type of a message and its length in octets, which is within what was agreed (RFC 4271 §6.1, RFC 8654 §5).
fn check(header: &[u8; HEADER], max_message: usize) -> Result<(Kind, usize), Error> {
    let [marker @ .., high, low, kind] = header;
    if *marker != MARKER {
        return Err(Error::NotSynchronized);
    }
    let length = u16::from_be_bytes([*high, *low]);
    let within = |(shortest, longest): (usize, usize)| (shortest..=longest).contains(&length.into());
    if !within((HEADER, max_message)) {
        return Err(Error::MessageLength { length });
    }
    let kind = Kind::of(*kind).ok_or(Error::MessageType { kind: *kind })?;
    if !within(kind.bounds(max_message)) {
        return Err(Error::MessageLength { length });
    }
    Ok((kind, length.into()))
}

/// Appends a message whose body `put` writes; the caller keeps it within 65,535 octets.
pub(super) fn put(out: &mut BytesMut, kind: Kind, put: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind as u8);
    put(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start + MARKER.len()..start + MARKER.len() + 2].copy_from_slice(&length.to_be_bytes());
}
