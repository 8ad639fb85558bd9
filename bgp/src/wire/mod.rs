//! Messages: their meaning as values, and the functions from and to octets (RFC 4271 §4).
//!
//! A message's way in: [`frame`] cuts it off the stream and checks its header, [`decode`] turns it into a
//! [`Message`]. UPDATEs are read tolerantly (RFC 7606): a wrong attribute costs the attribute or the routes,
//! and [`decode_update`] tells what it cost; only what makes prefixes impossible to locate is an [`Error`],
//! which [`Notification`]'s one conversion turns into what the peer is told. Families that were not
//! negotiated are never looked into.
//!
//! The way out: [`encode`] for a message, [`update::pack`] and [`update::pack_withdrawn`] for any number of
//! prefixes in as few messages as hold them.
//!
//! Law: what is encoded decodes to the same value. Every loop over input consumes at least one octet, and
//! nothing allocates more than a small multiple of the message's length.

pub(crate) mod attr;
pub mod bmp;
mod capability;
mod header;
pub mod mrt;
mod nlri;
mod notification;
mod open;
mod refresh;
pub mod update;

use bytes::{Bytes, BytesMut};

use crate::Family;
pub use crate::error::{Action, Error, Problem};
pub use attr::{
    AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, Origin, Segment, UnknownAttribute,
};
pub use capability::{AddPath, Capability, GracefulRestart, LongLivedRestart, Role};
use header::Kind;
pub use header::{frame, frame_update};
pub use nlri::{NextHop, Nlri};
pub use notification::{Cease, Notification, Waiting};
pub use open::Open;
pub use refresh::RouteRefresh;
pub use update::{Reach, Update};

/// The longest message without RFC 8654; OPEN and KEEPALIVE never get longer.
pub const MAX_MESSAGE: usize = 4096;

/// The AS number that stands for one that does not fit in two octets (RFC 6793 §9).
pub const AS_TRANS: u16 = 23456;

/// What reading a field leaves and what it gives. Which of the peer's errors a failure is, the caller knows.
type Step<'a, T> = nom::IResult<&'a [u8], T, ()>;

/// A BGP message (RFC 4271 §4; ROUTE-REFRESH RFC 2918).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens a session.
    Open(Open),
    /// Announces and withdraws.
    Update(Update),
    /// Ends a session with a reason.
    Notification(Notification),
    /// Says that the sender lives.
    Keepalive,
    /// Asks for all routes of a family again.
    RouteRefresh(RouteRefresh),
}

impl Message {
    /// The header's Type field.
    #[must_use]
    pub fn kind(&self) -> u8 {
        let kind = match self {
            Self::Open(_) => Kind::Open,
            Self::Update(_) => Kind::Update,
            Self::Notification(_) => Kind::Notification,
            Self::Keepalive => Kind::Keepalive,
            Self::RouteRefresh(_) => Kind::RouteRefresh,
        };
        kind as u8
    }
}

/// What decoding and encoding must know of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// Both sides speak four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// The peer is of another AS: LOCAL_PREF and reflection attributes are not for us (RFC 7606 §7).
    pub external: bool,
    /// Families that both sides announced.
    pub families: Vec<Family>,
    /// Families whose prefixes arrive with path identifiers (RFC 7911).
    pub add_path_receive: Vec<Family>,
    /// Families whose prefixes leave with path identifiers.
    pub add_path_send: Vec<Family>,
    /// Families whose next hops may be IPv6 addresses though their prefixes are not (RFC 8950).
    pub extended_next_hop: Vec<Family>,
    /// The longest message either side may send: 4,096, or 65,535 with RFC 8654 §3; longer ones are an error.
    pub max_message: usize,
}

impl Default for Context {
    /// What holds before the OPENs: nothing is negotiated.
    fn default() -> Self {
        Self {
            four_octet_as: false,
            external: false,
            families: Vec::new(),
            add_path_receive: Vec::new(),
            add_path_send: Vec::new(),
            extended_next_hop: Vec::new(),
            max_message: MAX_MESSAGE,
        }
    }
}

/// The meaning of one whole message, as [`frame`] cuts it.
///
/// # Errors
/// What the peer did wrong, if that ends the session.
pub fn decode(frame: &Bytes, context: &Context) -> Result<Message, Error> {
    decode_with(frame, context, |_, _| ())
}

/// As [`decode`], telling `report` of everything that was wrong with an UPDATE short of ending the session,
/// for counting and logging (RFC 7606 §6). What ends it is the error alone.
///
/// # Errors
/// What the peer did wrong, if that ends the session.
pub fn decode_with(
    frame: &Bytes,
    context: &Context,
    mut report: impl FnMut(Problem, Action),
) -> Result<Message, Error> {
    let (kind, body) = header::split(frame, context.max_message)?;
    match kind {
        Kind::Open => open::decode(body).map(Message::Open),
        Kind::Update => {
            let (update, problems) = update::decode(body, context)?;
            for (problem, action) in problems {
                report(problem, action);
            }
            Ok(Message::Update(update))
        }
        Kind::Notification => notification::decode(body).map(Message::Notification),
        Kind::Keepalive => Ok(Message::Keepalive),
        Kind::RouteRefresh => refresh::decode(frame, body).map(Message::RouteRefresh),
    }
}

/// The meaning of one whole UPDATE, and what was wrong with it short of ending the session.
///
/// # Errors
/// What the peer did wrong, if that ends the session; [`Error::MessageType`] for another kind of message.
pub fn decode_update(frame: &Bytes, context: &Context) -> Result<(Update, Vec<(Problem, Action)>), Error> {
    match header::split(frame, context.max_message)? {
        (Kind::Update, body) => update::decode(body, context),
        (kind @ (Kind::Open | Kind::Notification | Kind::Keepalive | Kind::RouteRefresh), _) => {
            Err(Error::MessageType { kind: kind as u8 })
        }
    }
}

/// The octets of a message; of an UPDATE, as many messages as it takes.
///
/// An UPDATE's routes that cannot be sent to this peer ([`update::Unsendable`]) are withdrawn instead.
#[must_use]
pub fn encode(message: &Message, context: &Context) -> Bytes {
    let body = |kind, put: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        header::put(&mut out, kind, put);
        out.freeze()
    };
    match message {
        Message::Open(open) => body(Kind::Open, &|out| open.put(out)),
        Message::Update(update) => update::encode(update, context),
        Message::Notification(notification) => body(Kind::Notification, &|out| {
            notification.put(out, context.max_message)
        }),
        Message::Keepalive => body(Kind::Keepalive, &|_| ()),
        Message::RouteRefresh(refresh) => body(Kind::RouteRefresh, &|out| refresh.put(out)),
    }
}
