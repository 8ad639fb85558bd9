//! The route task: owner of the node's routes in the kernel.
//!
//! Three sources meet here: the bgp task's learned routes, our blocks' covering routes, the cni task's pods.
//! [`Syncer`] keeps the kernel as they say, and adopts what an earlier life left until its source has said
//! all it wants. Learned routes come in lists that are flushed in slices, and an ADD waits for one slice at
//! most.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::status::KernelRoute;
use manx_linux::LinkSocket;
use manx_linux::sync::Syncer;
use manx_routes::{Hop, Route, Source, State, Update};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::ask::answer;
use crate::identity::Identity;
use crate::ipam::Owned;
use crate::metrics::Metrics;
use crate::{blocking, convert};

/// How often routes are counted for the metrics.
const COUNT: Duration = Duration::from_secs(5);

/// A command to the route task.
#[derive(Debug)]
pub enum Command {
    /// The bgp task's routes changed.
    Learned(Vec<Update>),
    /// Sessions are about to end, and with them go these routers: what is learned instead follows.
    Lost(Vec<Hop>),
    /// It has.
    Found(Vec<Hop>),
    /// The source has said all it wants.
    Settle(Source),
    /// A pod's routes; answered when they are in the kernel, or with its refusal.
    Attach {
        /// One per address.
        routes: Vec<Route>,
        /// What became of them.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A pod is gone; answered when its routes are.
    Detach {
        /// Its addresses.
        addresses: Vec<IpAddr>,
        /// Done.
        reply: oneshot::Sender<()>,
    },
    /// Every wanted route and how far it has come.
    Show(oneshot::Sender<Vec<KernelRoute>>),
    /// How many there are.
    Count(oneshot::Sender<Count>),
}

/// How many routes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Wanted.
    pub wanted: usize,
    /// In the kernel, as wanted.
    pub installed: usize,
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The kernel's table.
    pub routes: Syncer,
    /// Our blocks.
    pub owned: watch::Receiver<Arc<Owned>>,
    /// Commands.
    pub commands: mpsc::Receiver<Command>,
    /// What is counted.
    pub metrics: Metrics,
}

/// An answer that waits for the kernel.
enum Pending {
    Attach {
        prefixes: Vec<IpNetwork>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Detach {
        reply: oneshot::Sender<()>,
    },
}

struct Task {
    identity: Arc<Identity>,
    routes: Syncer,
    blocks: BTreeSet<IpNetwork>,
    pending: VecDeque<Pending>,
    metrics: Metrics,
}

/// Runs until nobody can send commands any more.
///
/// # Errors
/// The kernel cannot be watched or talked to any more.
pub async fn run(inbox: Inbox) -> manx_linux::Result<()> {
    let Inbox {
        identity,
        routes,
        mut owned,
        mut commands,
        metrics,
    } = inbox;
    let mut task = Task {
        identity,
        routes,
        blocks: BTreeSet::new(),
        pending: VecDeque::new(),
        metrics,
    };
    let mut count = tokio::time::interval(COUNT);
    count.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let more = blocking::in_place(|| task.routes.flush())?;
        task.acknowledge(more);
        let command = tokio::select! {
            command = commands.recv() => Some(command),
            Ok(()) = owned.changed() => None,
            changed = task.routes.changed() => changed.map(|()| None)?,
            _ = count.tick() => {
                task.count();
                None
            }
            () = std::future::ready(()), if more => None,
        };
        // Blocks come before commands: whoever settles them has published them.
        task.cover(&owned.borrow_and_update().clone());
        match command {
            Some(Some(command)) => task.take(command),
            Some(None) => return Ok(()),
            None => {}
        }
    }
}

impl Task {
    fn take(&mut self, command: Command) {
        match command {
            Command::Learned(updates) => updates.into_iter().for_each(|update| self.routes.apply(update)),
            Command::Lost(routers) => self.routes.lose(&routers),
            Command::Found(routers) => self.routes.find(&routers),
            Command::Settle(source) => {
                tracing::info!(
                    ?source,
                    "settled: what an earlier life left and nobody wants goes"
                );
                self.routes.settle(source);
            }
            Command::Attach { routes, reply } => {
                let prefixes = routes.iter().map(|route| route.prefix).collect();
                routes
                    .into_iter()
                    .for_each(|route| self.routes.apply(Update::Set(route)));
                self.pending.push_back(Pending::Attach { prefixes, reply });
            }
            Command::Detach { addresses, reply } => {
                for address in addresses {
                    self.routes.apply(Update::Remove {
                        prefix: address.into(),
                        source: Source::Pod,
                    });
                }
                self.pending.push_back(Pending::Detach { reply });
            }
            Command::Show(reply) => answer(reply, self.show()),
            Command::Count(reply) => answer(reply, self.count()),
        }
    }

    /// Covers our blocks, and no others, with unreachable routes.
    fn cover(&mut self, owned: &Owned) {
        if owned.blocks == self.blocks {
            return;
        }
        let blocks = owned.blocks.clone();
        for gone in self.blocks.difference(&blocks) {
            self.routes.apply(Update::Remove {
                prefix: *gone,
                source: Source::Block,
            });
        }
        for new in blocks.difference(&self.blocks) {
            self.routes.apply(Update::Set(convert::block_route(*new)));
        }
        self.blocks = blocks;
    }

    /// Answers those whose routes the kernel has taken or refused; while there is `more` to flush, the others
    /// wait.
    fn acknowledge(&mut self, more: bool) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Attach { prefixes, reply } => match self.outcome(&prefixes) {
                    Some(outcome) => answer(reply, outcome),
                    None if more => self.pending.push_back(Pending::Attach { prefixes, reply }),
                    None => answer(reply, Err("the kernel lost it at once".to_owned())),
                },
                Pending::Detach { reply } if more => self.pending.push_back(Pending::Detach { reply }),
                Pending::Detach { reply } => answer(reply, ()),
            }
        }
        self.metrics
            .routes_wanted
            .set(i64::try_from(self.routes.wanted()).unwrap_or(i64::MAX));
    }

    /// What became of these prefixes' routes; none while one is still to be made.
    fn outcome(&self, prefixes: &[IpNetwork]) -> Option<Result<(), String>> {
        for prefix in prefixes {
            match self.routes.state(*prefix) {
                Some(State::Installed) => {}
                Some(State::Pending) => return None,
                Some(State::Failed(refusal)) => return Some(Err(refusal)),
                None => return Some(Err("it is not wanted any more".to_owned())),
            }
        }
        Some(Ok(()))
    }

    fn show(&self) -> Vec<KernelRoute> {
        let links = LinkSocket::open()
            .and_then(|mut socket| socket.list())
            .unwrap_or_default();
        let name = |index: u32| {
            links
                .iter()
                .find(|link| link.index == index)
                .map(|link| link.name.clone())
        };
        let status = self.routes.status();
        status
            .map(|(route, state)| convert::kernel_route(&self.identity.name, &route, state, name))
            .collect()
    }

    fn count(&self) -> Count {
        let installed = self
            .routes
            .status()
            .filter(|(_, state)| *state == State::Installed)
            .count();
        self.metrics
            .routes_installed
            .set(i64::try_from(installed).unwrap_or(i64::MAX));
        Count {
            wanted: self.routes.wanted(),
            installed,
        }
    }
}
