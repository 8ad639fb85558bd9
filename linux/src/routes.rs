//! The kernel's main route table, and the nexthop objects that its routes lead through: read, and changed in batches.

#![expect(clippy::wildcard_enum_match_arm, reason = "a dump holds one kind of message")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use manx_routes::{Actual, Change, Found, Hop, Nexthop, Object, PROTOCOL_BGP, PROTOCOL_OWN};
use nix::errno::Errno;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Error, Refusal, Result};
use crate::netns::Netns;
use crate::nexthop::{self, NexthopMessage, TableMessage};
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
pub struct RouteSocket(nl::Socket<TableMessage>);

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

    /// Our routes in the main table, of both families, and the routers that they lead to: the kernel passes over the
    /// others'.
    ///
    /// # Errors
    /// As [`nl::Socket::dump`].
    pub fn dump(&mut self) -> Result<Vec<Actual>> {
        self.read(&[PROTOCOL_BGP, PROTOCOL_OWN], |_| true)
            .map(|found| found.expanded())
    }

    /// Every route in the main table, whoever made it.
    ///
    /// # Errors
    /// As [`nl::Socket::dump`].
    pub fn dump_all(&mut self) -> Result<Vec<Actual>> {
        self.read(&[0], |_| true).map(|found| found.expanded())
    }

    /// Our routes and our nexthop objects, as they are written.
    ///
    /// # Errors
    /// As [`nl::Socket::dump`].
    pub fn found(&mut self) -> Result<Found> {
        self.read(&[PROTOCOL_BGP, PROTOCOL_OWN], |protocol| protocol == PROTOCOL_BGP)
    }

    /// Whether the kernel has nexthop objects: since Linux 5.3.
    ///
    /// # Errors
    /// As [`nl::Socket::dump`].
    pub fn has_nexthops(&mut self) -> Result<bool> {
        self.nexthops(|_| false).map(|all| all.is_some())
    }

    /// Objects come first: a route is never without the one that it leads through.
    fn read(&mut self, protocols: &[u8], whose: impl Fn(u8) -> bool) -> Result<Found> {
        let nexthops = self.nexthops(whose)?.unwrap_or_default();
        let mut routes = Vec::new();
        for protocol in protocols {
            routes.extend(self.dump_protocol(*protocol)?);
        }
        Ok(Found { routes, nexthops })
    }

    /// None where the kernel does not know what they are.
    fn nexthops(&mut self, whose: impl Fn(u8) -> bool) -> Result<Option<Vec<Nexthop>>> {
        let all = TableMessage::Nexthop(NexthopMessage::GetAll);
        let answers = match self.0.dump(&all, "list nexthop objects") {
            Err(Error::Refused { refusal, .. }) if refusal.errno == Errno::EOPNOTSUPP => return Ok(None),
            answers => answers?,
        };
        let ours = answers.into_iter().filter_map(|answer| match answer {
            TableMessage::Nexthop(NexthopMessage::New { nexthop, protocol }) if whose(protocol) => {
                Some(nexthop)
            }
            _ => None,
        });
        Ok(Some(ours.collect()))
    }

    fn dump_protocol(&mut self, protocol: u8) -> Result<Vec<Actual>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let question = TableMessage::Route(message::get_table_routes(family, protocol));
            let answers = self.0.dump(&question, "list routes")?;
            found.extend(answers.iter().filter_map(|answer| match answer {
                TableMessage::Route(RouteNetlinkMessage::NewRoute(route)) => message::read_route(route),
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
        let (mut devices, mut refused) = (BTreeMap::new(), BTreeMap::new());
        for (place, change) in changes.iter().enumerate() {
            if let Change::Put(Nexthop {
                object:
                    Object::Hop(Hop {
                        gateway,
                        device: None,
                    }),
                ..
            }) = change
            {
                match self.device_towards(*gateway)? {
                    Ok(device) => drop(devices.insert(place, device)),
                    Err(refusal) => drop(refused.insert(place, refusal)),
                }
            }
        }
        let sent = changes.iter().enumerate();
        let sent = sent.filter(|(place, _)| !refused.contains_key(place));
        let outcomes = self
            .0
            .batch(sent.map(|(place, change)| request(change, devices.get(&place).copied())))?;
        let mut outcomes = outcomes.into_iter();
        let mut outcome = |place| match refused.remove(&place) {
            Some(refusal) => Err(refusal),
            None => outcomes.next().unwrap_or(Ok(())),
        };
        let changes = changes.iter().enumerate();
        Ok(changes
            .map(|(place, change)| meaning(change, outcome(place)))
            .collect())
    }

    /// The interface that a gateway is on the link of: a nexthop object wants to be told what the kernel finds out for a
    /// route by itself.
    fn device_towards(&mut self, gateway: IpAddr) -> Result<Result<u32, Refusal>> {
        let question = TableMessage::Route(message::get_route_to(gateway));
        let device = match self.0.get(question, "look up the route to a gateway") {
            Ok(TableMessage::Route(RouteNetlinkMessage::NewRoute(route))) => message::device_of_link(&route),
            Ok(_) => None,
            Err(Error::Refused { refusal, .. }) => return Ok(Err(refusal)),
            Err(error) => return Err(error),
        };
        Ok(device.ok_or_else(|| Refusal {
            errno: Errno::ENETUNREACH,
            message: Some(format!("{gateway} is on none of our links")),
        }))
    }
}

/// What is asked of the kernel. `device` is where a router is that the change does not say this of.
fn request(change: &Change, device: Option<u32>) -> nl::Request<TableMessage> {
    let nl::Request { message, flags } = match change {
        Change::Add(route) => message::add_table_route(route),
        Change::Replace(route) => message::replace_table_route(route),
        Change::Delete {
            prefix,
            protocol,
            metric,
        } => message::delete_table_route(*prefix, *protocol, *metric),
        Change::Put(nexthop) => return nexthop::put(nexthop, device),
        Change::Drop(id) => return nexthop::delete(*id),
    };
    nl::Request {
        message: TableMessage::Route(message),
        flags,
    }
}

/// What the kernel's answer means for this change.
fn meaning(change: &Change, outcome: Result<(), Refusal>) -> Result<(), CommitError> {
    let Err(refusal) = outcome else { return Ok(()) };
    match (change, refusal.errno) {
        (Change::Delete { .. }, Errno::ESRCH) | (Change::Drop(_), Errno::ENOENT) => Ok(()),
        (Change::Add(route), Errno::EEXIST) => Err(CommitError::Occupied(route.metric)),
        (_, Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN) => {
            Err(CommitError::Unreachable(refusal))
        }
        _ => Err(CommitError::Refused(refusal)),
    }
}
