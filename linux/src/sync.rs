//! The kernel's routes, kept as wanted: the whole of a route task but its loop.
//!
//! ```ignore
//! let mut routes = Syncer::start()?;
//! loop {
//!     tokio::select! {
//!         update = updates.recv() => routes.apply(update?),
//!         changed = routes.changed() => changed?,
//!     }
//!     while routes.flush()? {
//!         tokio::task::yield_now().await;
//!     }
//! }
//! ```

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_routes::{Hop, Reconciler, Route, Source, State, Update};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::link::{Link, LinkSocket};
use crate::netns::Netns;
use crate::pod::is_host_ifname;
use crate::routes::RouteSocket;
use crate::watch::{Event, Watcher};

/// Changes that one [`Syncer::flush`] makes at most: some 20 ms of work.
const FLUSH: usize = 4096;

/// How soon something refused is tried again; doubled each time in vain.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// How late at most.
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Keeps the main table of the namespace it was started in as wanted. One owner per namespace.
#[derive(Debug)]
pub struct Syncer {
    socket: RouteSocket,
    watcher: Watcher,
    reconciler: Reconciler,
    /// Interfaces that were up, and had a carrier, when we last heard of them.
    up: BTreeSet<u32>,
    /// What the kernel holds has to be read again.
    stale: bool,
    /// When to read again because something was refused, and after how long the next time.
    retry: Option<Instant>,
    pause: Duration,
}

impl Syncer {
    /// Keeps the calling thread's namespace (see [`Self::start_in`]).
    ///
    /// # Errors
    /// As [`Self::start_in`].
    pub fn start() -> Result<Self> {
        Self::start_in(&Netns::current()?)
    }

    /// Starts watching, and adopts what an earlier life left: it stays until [`Self::settle`]. Wants a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`Error::Os`] or [`Error::Refused`] if the kernel's tables cannot be read or watched.
    pub fn start_in(netns: &Netns) -> Result<Self> {
        let mut socket = RouteSocket::open_in(netns)?;
        // Watching comes first: what happens during the reading is not lost.
        let watcher = Watcher::open_in(netns, Some(socket.port()))?;
        let links = LinkSocket::open_in(netns)?.list()?;
        let up = links.into_iter().filter(works).map(|link| link.index).collect();
        let mut reconciler = if socket.has_nexthops()? {
            Reconciler::with_groups()
        } else {
            Reconciler::new()
        }
        .keyed(RandomState::new().hash_one(()));
        let found = socket.found()?;
        reconciler.adopt(&found);
        reconciler.resync(&found);
        Ok(Self {
            socket,
            watcher,
            reconciler,
            up,
            stale: false,
            retry: None,
            pause: RETRY_FIRST,
        })
    }

    /// Takes a source's word; [`Self::flush`] carries it to the kernel.
    pub fn apply(&mut self, update: Update) {
        self.reconciler.apply(update);
    }

    /// The source has said all it wants: what an earlier life left of it, and it did not name, goes with the
    /// next flush.
    pub fn settle(&mut self, source: Source) {
        self.reconciler.settle(source);
    }

    /// These routers are lost: the next flush leads all that goes through them around them, as far as the sources have
    /// said how, by one change for all routes alike (see [`Reconciler::lose`]).
    pub fn lose(&mut self, routers: &[Hop]) {
        self.reconciler.lose(routers);
    }

    /// The sources know by now of these routers (see [`Reconciler::find`]).
    pub fn find(&mut self, routers: &[Hop]) {
        self.reconciler.find(routers);
    }

    /// Waits until the kernel's table was changed by somebody else, or something refused is due again. Flush
    /// then. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel cannot be watched any more.
    pub async fn changed(&mut self) -> Result<()> {
        let due = self.retry.unwrap_or_else(|| Instant::now() + RETRY_LAST);
        tokio::select! {
            event = self.watcher.next() => {
                self.take(event?);
                while let Some(event) = self.watcher.try_next()? {
                    self.take(event);
                }
            }
            () = tokio::time::sleep_until(due), if self.retry.is_some() => self.stale = true,
        }
        Ok(())
    }

    /// Makes due changes; returns whether there are more. What the kernel refuses is tried again later, and
    /// [`Self::status`] tells why.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel cannot be talked to.
    pub fn flush(&mut self) -> Result<bool> {
        match self.try_flush() {
            Err(error @ (Error::Overrun | Error::Interrupted)) => {
                tracing::warn!(%error, "reading the route table again");
                self.stale = true;
                self.schedule();
                Ok(false)
            }
            other => other,
        }
    }

    /// Every wanted route and how far it has come.
    pub fn status(&self) -> impl Iterator<Item = (Route, State)> + '_ {
        self.reconciler.status()
    }

    /// How far the route wanted for exactly this prefix has come; none where none is wanted.
    #[must_use]
    pub fn state(&self, prefix: IpNetwork) -> Option<State> {
        self.reconciler.state(prefix)
    }

    /// The number of prefixes that have a wanted route.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.reconciler.table().len()
    }

    fn try_flush(&mut self) -> Result<bool> {
        if self.stale {
            let found = self.socket.found()?;
            self.reconciler.resync(&found);
            self.stale = false;
        }
        let changes = self.reconciler.changes(FLUSH);
        if changes.is_empty() {
            self.schedule();
            return Ok(false);
        }
        for (change, outcome) in changes.iter().zip(self.socket.commit(&changes)?) {
            if let Err(error) = &outcome {
                tracing::debug!(?change, %error, "refused");
            }
            self.reconciler
                .committed(change, outcome.map_err(|error| error.to_string()));
        }
        Ok(true)
    }

    /// Sets the time of the next attempt, if one is needed.
    fn schedule(&mut self) {
        if !self.stale && !self.reconciler.has_failed() {
            (self.retry, self.pause) = (None, RETRY_FIRST);
        } else if self.retry.is_none_or(|due| due <= Instant::now()) {
            self.retry = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(RETRY_LAST);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Route(observed) => self.stale |= self.reconciler.observed(observed),
            Event::Link(link) => self.link_changed(&link, works(&link)),
            Event::LinkGone(link) => self.link_changed(&link, false),
            // A gateway may be in reach now.
            Event::Address(..) => self.stale |= self.reconciler.has_failed(),
            Event::AddressGone(..) => {}
            Event::Resync => self.stale = true,
        }
    }

    /// The kernel drops nexthop objects, and routes through them, with the interface's carrier, and does not say so; IPv4
    /// routes straight out of it when it goes down or away.
    fn link_changed(&mut self, link: &Link, up: bool) {
        self.reconciler.device_changed(link.index);
        let turned = if up {
            self.up.insert(link.index)
        } else {
            self.up.remove(&link.index)
        };
        // Pods come and go by the dozen; only routes straight out of their interfaces go with them.
        let router_side = !is_host_ifname(&link.name);
        self.stale |= turned && router_side && (!up || self.reconciler.has_failed());
    }
}

/// Whether packets leave through an interface.
const fn works(link: &Link) -> bool {
    link.up && link.carrier
}
