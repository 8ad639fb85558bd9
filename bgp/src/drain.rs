//! Drains: before a session ends, the peer is told to prefer any other way (RFC 8326).
//!
//! A drained session goes through the phases of [`Phase`]: its routes are marked, so that both sides find other ways
//! while these still work; then withdrawn; then the session ends, and stays away until it is asked back. The speaker
//! carries the plan out: [`Input::Drain`](crate::Input::Drain).

use std::time::{Duration, Instant};

use crate::filter::GRACEFUL_SHUTDOWN;
use crate::wire::Attributes;

/// How long withdrawals have to leave; a peer that does not take them is not waited for.
const WITHDRAWAL: Duration = Duration::from_secs(5);

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Routes in both directions are marked as the last to be taken.
    Marked {
        /// When they are withdrawn.
        until: Instant,
    },
    /// Our routes are being withdrawn.
    Withdrawn {
        /// When the session ends, if they have not all left before.
        until: Instant,
    },
    /// The session has ended and stays away.
    Down,
}

/// A drain under way, or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// How far it is.
    pub(crate) phase: Phase,
    /// What the peer reads when the session ends (RFC 9003).
    pub(crate) words: String,
}

impl Phase {
    /// When it ends by itself.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Marked { until } | Self::Withdrawn { until } => Some(until),
            Self::Down => None,
        }
    }

    /// What follows it.
    pub(crate) fn next(self, now: Instant) -> Self {
        match self {
            Self::Marked { .. } => Self::Withdrawn {
                until: now + WITHDRAWAL,
            },
            Self::Withdrawn { .. } | Self::Down => Self::Down,
        }
    }
}

/// Makes a route the last to be taken: by the community, which any AS understands (RFC 8326 §4.2), and within an AS by
/// the lowest preference, too.
pub(crate) fn mark(attributes: &mut Attributes, internal: bool) {
    if !attributes.communities.contains(&GRACEFUL_SHUTDOWN) {
        attributes.communities.push(GRACEFUL_SHUTDOWN);
    }
    if internal {
        attributes.local_pref = Some(0);
    }
}
