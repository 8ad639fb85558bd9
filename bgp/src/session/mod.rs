//! Sessions: from a configured peer to an agreed, living conversation with it.
//!
//! [`fsm`] is RFC 4271's state machine for one connection. [`Peering`](peering::Peering) drives one or two of
//! them per peer: the one that we dial, and one that the peer dialled; [`collision`] says which stays.
//! [`negotiate`] turns two OPENs into the [`Session`] that both agree on.
//!
//! Nothing here knows routes. What a session means for them is said in [`Action`]s, which the speaker performs.

pub(crate) mod backoff;
pub(crate) mod collision;
pub(crate) mod fsm;
pub(crate) mod loss;
pub(crate) mod negotiate;
pub(crate) mod peering;
pub(crate) mod retention;
pub(crate) mod timers;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::config::{Config, PeerConfig};
use crate::wire::{Context, GracefulRestart, LongLivedRestart, Message, RouteRefresh, Update};
use crate::{ConnId, Family};

pub(crate) use loss::Loss;
use retention::{Forwarding, Times};

/// A transport connection that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Which.
    pub(crate) conn: ConnId,
    /// We dialled it.
    pub(crate) dialled: bool,
    /// Our end's address.
    pub(crate) local: IpAddr,
}

/// What two OPENs agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// The peer's BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    /// The smaller of both hold times; zero: neither side sends keepalives.
    pub(crate) hold_time: Duration,
    /// How messages are coded, among it the families that both sides carry.
    pub(crate) context: Context,
    /// What the peer said of graceful restart, where we offered it, too.
    pub(crate) restart: Option<GracefulRestart>,
    /// How long the peer's routes outlive the restart time, as far as we keep them: where both sides offered it (RFC 9494).
    pub(crate) long_lived: Vec<LongLivedRestart>,
    /// The peer knows what a long-lived stale route is, and may have some (RFC 9494 §4.3).
    pub(crate) takes_stale: bool,
    /// Both sides keep routes over a NOTIFICATION and an expired hold timer, too (RFC 8538).
    pub(crate) notification: bool,
    /// The peer can be asked for its routes again (RFC 2918).
    pub(crate) takes_refresh: bool,
    /// Both sides say where what they repeat begins and ends (RFC 7313).
    pub(crate) demarcates_refresh: bool,
}

impl Session {
    /// The families that both sides carry.
    pub(crate) fn families(&self) -> &[Family] {
        &self.context.families
    }

    /// How long the peer's routes of a family outlive the session. What a capability does not list has no time
    /// (RFC 9494 §4.2).
    pub(crate) fn times(&self, family: Family) -> Times {
        let listed = |it: &&GracefulRestart| it.families.iter().any(|(of, _)| *of == family);
        let restart = self.restart.as_ref().filter(listed);
        let long_lived = self.long_lived.iter().find(|it| it.family == family);
        Times {
            restart: Duration::from_secs(restart.map_or(0, |it| it.restart_time.into())),
            long_lived: Duration::from_secs(long_lived.map_or(0, |it| it.stale_time.into())),
        }
    }

    /// Whether the peer kept its forwarding state of a family (RFC 4724 §4.2, RFC 9494 §4.2).
    pub(crate) fn forwarding(&self, family: Family) -> Forwarding {
        let mut restart = self.restart.iter().flat_map(|it| &it.families);
        let mut long_lived = self.long_lived.iter();
        Forwarding {
            restart: restart.any(|(of, forwarding)| *of == family && *forwarding),
            long_lived: long_lived.any(|it| it.family == family && it.forwarding),
        }
    }
}

/// What a session asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Open a connection to the peer.
    Dial(ConnId),
    /// Send our OPEN.
    Open(ConnId),
    /// Decode this connection's further messages so.
    Decode(ConnId, Context),
    /// Send a message.
    Send(ConnId, Message),
    /// Close the connection.
    Close(ConnId),
    /// A session is Established.
    Up(Link, Box<Session>),
    /// An attempt ended, and with it the Established session, if there was one.
    Ended(Option<Box<Session>>, Loss),
    /// The peer's routes changed.
    Update(Box<Update>),
    /// The peer wants all routes of a family again, or begins or ends to repeat its own.
    Refresh(RouteRefresh),
}

/// What a session's steps see of the world, and where they leave their wishes.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    /// The time.
    pub(crate) now: Instant,
    /// The speaker's settings.
    pub(crate) local: &'a Config,
    /// The peer's settings.
    pub(crate) peer: &'a PeerConfig,
    /// All jitter.
    pub(crate) rng: &'a mut StdRng,
    /// How many connections have been dialled.
    pub(crate) dialled: &'a mut u64,
    /// What is asked for.
    pub(crate) out: &'a mut Vec<Action>,
}

impl Cx<'_> {
    /// Asks for a connection to the peer: its number.
    fn dial(&mut self) -> ConnId {
        *self.dialled += 1;
        let conn = ConnId(*self.dialled);
        self.out.push(Action::Dial(conn));
        conn
    }
}
