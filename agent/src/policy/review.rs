//! Connections under new policies: those that would not be let through today are ended.
//!
//! The kernel's table may be long, and an ADD must not wait for a look through it. So a thread walks it, and asks the
//! policy task of some connections at a time: that answers between other things, and the kernel goes on listing when it
//! has. Nothing is held but those few.

use std::mem::take;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use manx_api::policy::Protocol;
use manx_linux::{Connection, ConnectionSocket, Netns, Result};
use manx_policy::{Engine, Family, Party, Traffic, explain};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::ask::answer;
use crate::metrics::Metrics;

/// Connections that are asked of at once: some 2 ms of the policy task's time at most.
const AT_ONCE: usize = 256;

/// Looks in a row, at most. One that fails, or that ends a connection, is followed by another: a packet that was under way
/// the other way, where it may go, makes the kernel take the connection for a new one, begun by who answers.
const ATTEMPTS: u32 = 3;

/// Between them: longer than such a packet is under way.
const PAUSE: Duration = Duration::from_millis(500);

/// Which of these connections do policies deny?
#[derive(Debug)]
pub(super) struct Question {
    connections: Vec<Connection>,
    reply: oneshot::Sender<Vec<Connection>>,
}

impl Question {
    pub(super) fn answer(self, engine: &Engine) {
        let mut connections = self.connections;
        connections.retain(|connection| is_denied(connection, engine));
        answer(self.reply, connections);
    }
}

/// The last review, with the way by which it asks.
#[derive(Debug)]
pub(super) struct Review {
    ask: mpsc::Sender<Question>,
    questions: mpsc::Receiver<Question>,
    running: Option<oneshot::Receiver<()>>,
}

impl Review {
    pub(super) fn new() -> Self {
        let (ask, questions) = mpsc::channel(1);
        let running = None;
        Self {
            ask,
            questions,
            running,
        }
    }

    /// The next question of the one that runs.
    pub(super) async fn question(&mut self) -> Option<Question> {
        self.questions.recv().await
    }

    /// Has the kernel forget every connection that policies deny: rules let packets of established ones pass, whatever
    /// has changed since. Returns whether that is begun: one review at a time.
    pub(super) fn begin(&mut self, netns: &Netns, metrics: &Metrics) -> bool {
        let runs = |running: &mut oneshot::Receiver<()>| running.try_recv() == Err(TryRecvError::Empty);
        if self.running.as_mut().is_some_and(runs) {
            return false;
        }
        let (done, running) = oneshot::channel();
        self.running = Some(running);
        let (netns, metrics, ask) = (netns.clone(), metrics.clone(), self.ask.clone());
        spawn_blocking(move || {
            for _ in 0..ATTEMPTS {
                match end_denied(&netns, &ask) {
                    Ok(0) => break,
                    Ok(ended) => {
                        tracing::info!(ended, "connections that policies deny now are ended");
                        metrics.connections_forgotten.inc_by(ended as u64);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "connections that policies deny now may go on; looking again");
                    }
                }
                sleep(PAUSE);
            }
            answer(done, ());
        });
        true
    }
}

fn end_denied(netns: &Netns, ask: &mpsc::Sender<Question>) -> Result<usize> {
    let [mut walker, mut ender] = [
        ConnectionSocket::open_in(netns)?,
        ConnectionSocket::open_in(netns)?,
    ];
    let (mut ended, mut asked) = (Ok(0), Vec::new());
    let mut end_some = |connections: Vec<Connection>| {
        if let Ok(before) = ended {
            let denied = denied_among(connections, ask);
            ended = ender.forget(&denied).map(|more| before + more);
        }
    };
    for family in Family::ALL {
        walker.walk(family, |connection| {
            asked.push(connection);
            if asked.len() == AT_ONCE {
                end_some(take(&mut asked));
            }
        })?;
    }
    end_some(asked);
    ended
}

/// Those that the policy task says are denied; none once it has ended.
fn denied_among(connections: Vec<Connection>, ask: &mpsc::Sender<Question>) -> Vec<Connection> {
    let (reply, denied) = oneshot::channel();
    let question = Question { connections, reply };
    match ask.blocking_send(question) {
        Ok(()) => denied.blocking_recv().unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Whether policies deny the first packet of a connection, as the rules for forwarded packets saw it: on its way from
/// whoever began it to whoever answers.
fn is_denied(connection: &Connection, engine: &Engine) -> bool {
    let port = |end: SocketAddr| (end.port() != 0).then_some(end.port());
    let traffic = Traffic {
        protocol: Protocol(connection.protocol),
        source_port: port(connection.source),
        port: port(connection.answerer),
        icmp: None,
    };
    let [from, to] = [connection.source, connection.answerer].map(|end| Party::Address(end.ip()));
    explain(engine, &from, &to, traffic).is_ok_and(|explanation| !explanation.allowed())
}
