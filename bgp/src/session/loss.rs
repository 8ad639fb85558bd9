//! Why a connection ended, what the peer is told, and what becomes of its routes.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::Session;
use crate::speaker::monitor::SessionEnd;
use crate::wire::{Cease, Notification};

/// Events of the state machine after which a session ends in silence (RFC 4271 §8.1).
const MANUAL_STOP: u16 = 2;
const OPEN_COLLISION_DUMP: u16 = 23;

/// Why a connection, and the session on it, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// A dial failed.
    Unreachable,
    /// The transport connection failed or was closed by the peer.
    Closed,
    /// Nothing came from the peer for the hold time.
    HoldExpired,
    /// The peer took nothing from us (RFC 9687).
    SendHoldExpired,
    /// The peer broke the rules, or we end it: it is told so.
    Sent(Notification),
    /// The peer said so.
    Received(Notification),
    /// The other connection stays (RFC 4271 §6.8).
    Collision,
    /// The peer restarted and is back on a new connection (RFC 4724 §4.2).
    Takeover,
    /// We leave for a restart: the peer shall keep our routes.
    Restart,
}

impl Loss {
    /// We end it on purpose (RFC 4486).
    pub(crate) fn cease(reason: Cease) -> Self {
        Self::Sent(Notification::cease(reason))
    }

    /// What the peer is told; nothing where it is gone, where it told us (RFC 4271 §6.4) or where silence makes it keep our routes.
    pub(crate) fn notification(&self) -> Option<Notification> {
        match self {
            Self::HoldExpired => Some(Notification::hold_timer_expired()),
            Self::SendHoldExpired => Some(Notification::send_hold_timer_expired()),
            Self::Sent(notification) => Some(notification.clone()),
            Self::Collision => Some(Notification::cease(Cease::ConnectionCollision)),
            Self::Unreachable | Self::Closed | Self::Received(_) | Self::Takeover | Self::Restart => None,
        }
    }

    /// How it ended a session, as monitoring is told (RFC 7854 §4.9).
    pub(crate) fn end(&self, session: &Session) -> SessionEnd {
        if let Some(notification) = self.notification() {
            return SessionEnd::Sent(on_the_wire(notification, Some(session)));
        }
        match self {
            Self::Received(notification) => SessionEnd::Received(notification.clone()),
            Self::Takeover => SessionEnd::Silent(OPEN_COLLISION_DUMP),
            Self::Restart => SessionEnd::Silent(MANUAL_STOP),
            Self::Unreachable
            | Self::Closed
            | Self::HoldExpired
            | Self::SendHoldExpired
            | Self::Sent(_)
            | Self::Collision => SessionEnd::Closed,
        }
    }

    /// Whether the peer's routes stay for its restart time.
    ///
    /// RFC 4724 §4.2: they do when the connection just ends. RFC 8538 §3: where both sides said so, they
    /// also do after a NOTIFICATION or an expired hold timer, unless it is a hard reset. A collision's loser
    /// hands over to the winner.
    pub(crate) fn keeps_routes(&self, session: &Session) -> bool {
        let graceful = session.restart.is_some();
        match self {
            Self::Closed | Self::Takeover | Self::Collision => graceful,
            Self::HoldExpired | Self::SendHoldExpired => session.notification,
            Self::Received(notification) if is(notification, Cease::ConnectionCollision) => graceful,
            Self::Sent(notification) | Self::Received(notification) => {
                session.notification && !is_hard(notification)
            }
            Self::Unreachable | Self::Restart => false,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("the peer could not be connected to"),
            Self::Closed => f.write_str("the connection closed"),
            Self::HoldExpired => f.write_str("nothing came from the peer for the hold time"),
            Self::SendHoldExpired => f.write_str("the peer took nothing for the send hold time"),
            Self::Sent(notification) => write!(f, "we sent {notification}"),
            Self::Received(notification) => write!(f, "the peer sent {notification}"),
            Self::Collision => f.write_str("another connection with the peer stays"),
            Self::Takeover => f.write_str("the peer restarted and is back on a new connection"),
            Self::Restart => f.write_str("we leave for a restart"),
        }
    }
}

/// What goes on the wire: where NOTIFICATIONs keep routes, one that shall not says so in a hard reset around
/// it (RFC 8538 §3.1).
pub(crate) fn on_the_wire(notification: Notification, session: Option<&Session>) -> Notification {
    if !session.is_some_and(|session| session.notification) || !is_hard(&notification) {
        return notification;
    }
    let mut data = BytesMut::with_capacity(2 + notification.data.len());
    data.put_slice(&[notification.code, notification.subcode]);
    data.put_slice(&notification.data);
    Notification {
        data: data.freeze(),
        ..Notification::cease(Cease::HardReset)
    }
}

/// The reasons after which we are not coming back soon (RFC 8538 §4), or not to the routes that there were.
fn is_hard(notification: &Notification) -> bool {
    [
        Cease::MaximumPrefixes,
        Cease::AdministrativeShutdown,
        Cease::PeerDeconfigured,
        Cease::HardReset,
        Cease::BfdDown,
    ]
    .into_iter()
    .any(|reason| is(notification, reason))
}

fn is(notification: &Notification, reason: Cease) -> bool {
    let cease = Notification::cease(reason);
    (notification.code, notification.subcode) == (cease.code, cease.subcode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::session;

    /// RFC 8538 §4: a NOTIFICATION keeps routes where both sides said so, unless it is a hard reset.
    #[test]
    fn routes_stay_as_far_as_both_sides_agreed() {
        let plain = session();
        let graceful = Session {
            restart: Some(crate::wire::GracefulRestart::default()),
            ..session()
        };
        let notified = Session {
            notification: true,
            ..graceful.clone()
        };
        let received = |reason| Loss::Received(Notification::cease(reason));
        let table = [
            (Loss::Closed, false, true, true),
            (Loss::Takeover, false, true, true),
            (Loss::Collision, false, true, true),
            (received(Cease::ConnectionCollision), false, true, true),
            (Loss::HoldExpired, false, false, true),
            (Loss::SendHoldExpired, false, false, true),
            (received(Cease::AdministrativeReset), false, false, true),
            (Loss::cease(Cease::OtherConfigurationChange), false, false, true),
            (received(Cease::AdministrativeShutdown), false, false, false),
            (received(Cease::HardReset), false, false, false),
            (Loss::cease(Cease::PeerDeconfigured), false, false, false),
        ];
        for (loss, without, with, with_notification) in table {
            assert_eq!(loss.keeps_routes(&plain), without, "{loss}");
            assert_eq!(loss.keeps_routes(&graceful), with, "{loss}");
            assert_eq!(loss.keeps_routes(&notified), with_notification, "{loss}");
        }
    }

    /// RFC 8538 §3.1: the reason is inside.
    #[test]
    fn a_hard_reset_is_wrapped_only_where_notifications_keep_routes() {
        let notified = Session {
            notification: true,
            ..session()
        };
        let hard = Notification::cease(Cease::PeerDeconfigured);
        let soft = Notification::cease(Cease::OtherConfigurationChange);
        assert_eq!(on_the_wire(hard.clone(), Some(&session())), hard);
        assert_eq!(on_the_wire(hard.clone(), None), hard);
        assert_eq!(on_the_wire(soft.clone(), Some(&notified)), soft);
        let wrapped = on_the_wire(hard, Some(&notified));
        assert_eq!(
            (wrapped.code, wrapped.subcode, &wrapped.data[..]),
            (6, 9, &[6, 3][..])
        );
    }
}
