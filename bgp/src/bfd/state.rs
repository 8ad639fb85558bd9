//! The session's states, and the table of what a received state does to them (RFC 5880 §6.2, §6.8.6).

use std::fmt;

/// A session's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Held down by an operator; no failure of the path.
    AdminDown,
    /// Nothing is heard, or nothing is heard back.
    #[default]
    Down,
    /// We hear the neighbour and do not know whether it hears us.
    Init,
    /// Each side hears the other.
    Up,
}

/// What a received state does to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The packet is discarded.
    Discard,
    /// The session stays in its state.
    Stay,
    /// The session goes up, or up in part.
    Rise(State),
    /// The neighbour says that the session is down.
    Fail,
    /// The neighbour's operator took the session down: no failure of the path (RFC 5882 §3.2).
    Suspend,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    /// What receiving `remote` does to a session in this state.
    pub(super) fn on(self, remote: Self) -> Step {
        use State::{AdminDown, Down, Init, Up};
        match (self, remote) {
            (AdminDown, AdminDown | Down | Init | Up) => Step::Discard,
            (Down, AdminDown | Up) | (Init, Down) | (Up, Init | Up) => Step::Stay,
            (Down, Down) => Step::Rise(Init),
            (Down, Init) | (Init, Init | Up) => Step::Rise(Up),
            (Init | Up, AdminDown) => Step::Suspend,
            (Up, Down) => Step::Fail,
        }
    }

    /// From the State field's two bits; others are ignored.
    pub(super) fn from_bits(bits: u8) -> Self {
        Self::ALL[usize::from(bits & 3)]
    }

    pub(super) fn bits(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5880 §6.8.6: line by line; the rows are our states, the columns the neighbour's.
    #[test]
    fn a_received_state_does_what_the_rfc_says() {
        use Step::{Discard, Fail, Rise, Stay, Suspend};
        let table = [
            [Discard, Discard, Discard, Discard],
            [Stay, Rise(State::Init), Rise(State::Up), Stay],
            [Suspend, Stay, Rise(State::Up), Rise(State::Up)],
            [Suspend, Fail, Stay, Stay],
        ];
        for (local, row) in State::ALL.into_iter().zip(table) {
            for (remote, step) in State::ALL.into_iter().zip(row) {
                assert_eq!(local.on(remote), step, "{local} on {remote}");
            }
        }
    }
}
