//! Monitoring stations (BMP, RFC 7854): every collector hears of sessions, and of what peers announce before policy.
//!
//! ```text
//!  exporter (1 per collector) ──begins, asks for more──► driver ──► Monitor ──► Backlog (1 per connection)
//!      dials, writes          ◄─────── octets ─────────
//! ```
//! A collector takes octets at its own pace, [`CHUNK`](backlog::CHUNK) at a time, and the next are made when it has
//! taken them. Until then it costs the speaker the names of what has changed, at most
//! [`LIMIT`](backlog::LIMIT) of them; what it has not heard of yet it hears of as it stands by then (RFC 7854 §5 has it
//! so). When changes are too many to be named, the table is told again; when withdrawals are, which no table shows, the
//! connection is dropped, and another one begins from the start.

mod backlog;
mod exporter;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use manx_bgp::wire::Context;
use manx_bgp::wire::bmp::{self, Subject};
use manx_bgp::{Established, Family, PeerKey, SessionEnd, Speaker};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::backlog::{Backlog, View};
use crate::config::Collector;
use crate::inbox::Inbox;

/// A collector's number; one whose settings changed gets another.
pub(crate) type Id = u64;

/// What an exporter says.
#[derive(Debug)]
pub(crate) enum Request {
    /// Its collector is there, and knows nothing yet. The token tells it to drop the connection.
    Begin(Id, CancellationToken),
    /// It has written everything, and waits for more.
    More(Id, oneshot::Sender<Bytes>),
    /// Its collector is gone.
    End(Id),
}

/// How a connection with a peer began, as far as it has.
#[derive(Debug)]
pub(crate) struct Opening {
    local: SocketAddr,
    remote: SocketAddr,
    /// Our first message, which is our OPEN.
    sent: Option<Bytes>,
    received: Option<Bytes>,
}

impl Opening {
    /// A connection between these ends.
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local,
            remote,
            sent: None,
            received: None,
        }
    }

    /// Whole messages leave.
    pub(crate) fn sends(&mut self, messages: &Bytes) {
        self.sent.get_or_insert_with(|| messages.clone());
    }

    /// The peer's OPEN has come.
    pub(crate) fn receives(&mut self, open: Bytes) {
        self.received = Some(open);
    }
}

/// A session that is up, as collectors are told of it.
#[derive(Debug)]
struct Session {
    subject: Subject,
    peer_up: Bytes,
    /// How its routes are written.
    context: Context,
}

/// A collector, and what it has not been told.
#[derive(Debug)]
struct Running {
    collector: Collector,
    /// Stops its exporter.
    _stop: DropGuard,
    /// While it is connected.
    backlog: Option<Backlog>,
}

/// All collectors, and all sessions that they are told of.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    collectors: BTreeMap<Id, Running>,
    /// How many there have been.
    started: Id,
    exporters: JoinSet<()>,
    sessions: BTreeMap<PeerKey, Session>,
}

impl Monitor {
    /// These are the collectors from now on; those that were there before notice nothing.
    pub(crate) fn configure(&mut self, wanted: Vec<Collector>, inbox: &Inbox) {
        while self.exporters.try_join_next().is_some() {}
        self.collectors
            .retain(|_, running| wanted.contains(&running.collector));
        for collector in wanted {
            if self
                .collectors
                .values()
                .any(|running| running.collector == collector)
            {
                continue;
            }
            self.started += 1;
            let stop = CancellationToken::new();
            self.exporters.spawn(exporter::run(
                self.started,
                collector.clone(),
                inbox.clone(),
                stop.clone(),
            ));
            let running = Running {
                collector,
                _stop: stop.drop_guard(),
                backlog: None,
            };
            self.collectors.insert(self.started, running);
        }
    }

    /// Tells all collectors goodbye.
    pub(crate) fn stop(&mut self) {
        self.collectors.clear();
    }

    /// Returns when those that were told goodbye have heard it, or have had the time to.
    pub(crate) async fn left(&mut self) {
        while self.exporters.join_next().await.is_some() {}
    }

    /// Does what an exporter asks for; one whose collector is no longer wanted has no say.
    pub(crate) fn perform(&mut self, request: Request, speaker: &mut Speaker) {
        let (Request::Begin(id, _) | Request::More(id, _) | Request::End(id)) = request;
        let Some(running) = self.collectors.get_mut(&id) else {
            return;
        };
        match request {
            Request::Begin(_, behind) => {
                let interval = running.collector.statistics();
                let peers = self.sessions.keys().copied();
                running.backlog = Some(Backlog::new(peers, behind, interval));
            }
            Request::More(_, reply) => {
                if let Some(backlog) = &mut running.backlog {
                    backlog.asked(reply);
                }
            }
            Request::End(_) => running.backlog = None,
        }
        speaker.monitor(self.backlogs().next().is_some());
    }

    /// A session is up. One whose OPENs are not known has ended meanwhile.
    pub(crate) fn up(&mut self, peer: PeerKey, established: Established, opening: &Opening) {
        let (Some(sent), Some(received)) = (&opening.sent, &opening.received) else {
            return;
        };
        let subject = Subject {
            key: peer,
            asn: established.asn,
            router_id: established.router_id,
            at: unix_time().saturating_sub(established.since.elapsed()),
        };
        let (local, port) = (opening.local, opening.remote.port());
        let session = Session {
            subject,
            peer_up: bmp::peer_up(&subject, local, port, sent, received),
            context: Context {
                four_octet_as: true,
                // What the peer sends with identifiers is told with them.
                add_path_send: established.context.add_path_receive.clone(),
                extended_next_hop: Family::ALL.to_vec(),
                ..established.context
            },
        };
        self.sessions.insert(peer, session);
        for backlog in self.backlogs() {
            backlog.up(peer);
        }
    }

    /// A session is down.
    pub(crate) fn down(&mut self, peer: PeerKey, end: &SessionEnd) {
        let Some(session) = self.sessions.remove(&peer) else {
            return;
        };
        let subject = Subject {
            at: unix_time(),
            ..session.subject
        };
        let peer_down = bmp::peer_down(&subject, end);
        for backlog in self.backlogs() {
            backlog.down(peer, &peer_down);
        }
    }

    /// When [`turn`](Self::turn) has something to say at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let backlogs = self.collectors.values().filter_map(|it| it.backlog.as_ref());
        backlogs.filter_map(Backlog::deadline).min()
    }

    /// Gives every collector that waits what has come up since the last turn.
    pub(crate) fn turn(&mut self, speaker: &mut Speaker) {
        if self.backlogs().next().is_none() {
            return;
        }
        let changes = speaker.received_changes();
        let view = View {
            speaker,
            sessions: &self.sessions,
            time: unix_time(),
        };
        for running in self.collectors.values_mut() {
            running.backlog.take_if(|backlog| {
                backlog.changed(&changes, &view);
                !backlog.turn(&view)
            });
        }
        let attended = self.backlogs().next().is_some();
        speaker.monitor(attended);
    }

    fn backlogs(&mut self) -> impl Iterator<Item = &mut Backlog> {
        self.collectors.values_mut().filter_map(|it| it.backlog.as_mut())
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
