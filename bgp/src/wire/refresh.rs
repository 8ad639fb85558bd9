//! ROUTE-REFRESH (RFC 2918; the subtypes RFC 7313).

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;
use nom::number::complete::{be_u8, be_u16};

use super::{Error, Step};
use crate::Family;

/// ROUTE-REFRESH (RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Which routes; none for a family that this speaker does not carry.
    pub family: Option<Family>,
    /// [`REQUEST`](Self::REQUEST), [`BEGIN`](Self::BEGIN) or [`END`](Self::END); others mean nothing (RFC 7313 §5).
    pub subtype: u8,
}

impl RouteRefresh {
    /// All routes are wanted again.
    pub const REQUEST: u8 = 0;
    /// All routes follow again (RFC 7313 §3.2).
    pub const BEGIN: u8 = 1;
    /// All routes have followed (RFC 7313 §3.2).
    pub const END: u8 = 2;

    /// The request for a family's routes.
    #[must_use]
    pub fn request(family: Family) -> Self {
        Self {
            family: Some(family),
            subtype: Self::REQUEST,
        }
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        // AFI and SAFI 0 are reserved, so they name no family.
        out.put_u16(self.family.map_or(0, Family::afi));
        out.put_u8(self.subtype);
        out.put_u8(self.family.map_or(0, Family::safi));
    }
}

fn fields(body: &[u8]) -> Step<'_, (u16, u8, u8)> {
    (be_u16, be_u8, be_u8).parse(body)
}

/// What follows a request's fields are outbound route filters (RFC 5291), which we never offer to apply.
pub(super) fn decode(frame: &Bytes, body: &[u8]) -> Result<RouteRefresh, Error> {
    let wrong_length = || Error::RefreshLength {
        message: frame.clone(),
    };
    let (rest, (afi, subtype, safi)) = fields(body).map_err(|_| wrong_length())?;
    if matches!(subtype, RouteRefresh::BEGIN | RouteRefresh::END) && !rest.is_empty() {
        return Err(wrong_length());
    }
    Ok(RouteRefresh {
        family: Family::from_wire(afi, safi),
        subtype,
    })
}
