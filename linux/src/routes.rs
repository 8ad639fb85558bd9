//! The kernel's main route table: read, and changed in batches.

#![expect(clippy::wildcard_enum_match_arm, reason = "a dump holds one kind of message")]

use manx_routes::{Actual, Change, PROTOCOL_BGP, PROTOCOL_OWN};
use nix::errno::Errno;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Refusal, Result};
use crate::netns::Netns;
use crate::{message, nl};

/// Why the kernel did not make a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A route with this prefix and metric is there already, and not known to be ours.
    #[error("a route of another owner has this prefix and metric {0}: it stays, and ours waits")]
    Occupied(u32),
    /// The gateway is not on any network of ours, or its interface is down.
    #[error("the gateway is not reachable over any interface that is up: {0}")]
    Unreachable(Refusal),
    /// Anything else.
    #[error(transparent)]
    Refused(Refusal),
}

/// A socket for the main table, in the namespace it was opened in.
#[derive(Debug)]
pub struct RouteSocket(nl::Socket);

impl RouteSocket {
    /// Opens it in the calling thread's namespace.
    ///
    /// # Errors
    /// As [`nl::Socket::open`].
    pub fn open() -> Result<Self> {
        nl::Socket::open().map(Self)
    }

    /// Opens it in another namespace.
    ///
    /// # Errors
    /// As [`nl::Socket::open`], or if the namespace cannot be entered.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// The socket's address: with it a watcher tells our own changes from others'.
    #[must_use]
    pub const fn port(&self) -> u32 {
        self.0.port()
    }

    /// Our routes in the main table, of both families: the kernel passes over the others'.
    ///
    /// # Errors
    /// As [`nl::Socket::dump`].
    pub fn dump(&mut self) -> Result<Vec<Actual>> {
        let mut found = Vec::new();
        for protocol in [PROTOCOL_BGP, PROTOCOL_OWN] {
            found.extend(self.dump_protocol(protocol)?);
        }
        Ok(found)
    }

    /// Every route in the main table, whoever made it.
    ///
    /// # Errors
    /// As [`nl::Socket::dump`].
    pub fn dump_all(&mut self) -> Result<Vec<Actual>> {
        self.dump_protocol(0)
    }

    fn dump_protocol(&mut self, protocol: u8) -> Result<Vec<Actual>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let answers = self
                .0
                .dump(&message::get_table_routes(family, protocol), "list routes")?;
            found.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => message::read_route(route),
                _ => None,
            }));
        }
        Ok(found)
    }

    /// Makes the changes in order; returns what became of each. A route to be deleted that is not there
    /// (any more) is a success.
    ///
    /// # Errors
    /// [`crate::Error::Overrun`] or [`crate::Error::Os`] when it is not known what became of them: read the
    /// table again.
    pub fn commit(&mut self, changes: &[Change]) -> Result<Vec<Result<(), CommitError>>> {
        let outcomes = self.0.batch(changes.iter().map(request))?;
        Ok(changes
            .iter()
            .zip(outcomes)
            .map(|(change, outcome)| meaning(change, outcome))
            .collect())
    }
}

fn request(change: &Change) -> nl::Request {
    match change {
        Change::Add(route) => message::add_table_route(route),
        Change::Replace(route) => message::replace_table_route(route),
        Change::Delete {
            prefix,
            protocol,
            metric,
        } => message::delete_table_route(*prefix, *protocol, *metric),
    }
}

/// What the kernel's answer means for this change.
fn meaning(change: &Change, outcome: Result<(), Refusal>) -> Result<(), CommitError> {
    let Err(refusal) = outcome else { return Ok(()) };
    match (change, refusal.errno) {
        (Change::Delete { .. }, Errno::ESRCH) => Ok(()),
        (Change::Add(route), Errno::EEXIST) => Err(CommitError::Occupied(route.metric)),
        (_, Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN) => {
            Err(CommitError::Unreachable(refusal))
        }
        _ => Err(CommitError::Refused(refusal)),
    }
}
