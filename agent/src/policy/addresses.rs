//! Which of the node's interfaces have the addresses that somebody looks for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use manx_linux::watch::{Event, Watcher};
use manx_linux::{LinkSocket, Netns, Result};

use crate::blocking;

/// The node's addresses. As long as none is sought, nobody looks.
#[derive(Debug)]
pub(super) struct Addresses {
    netns: Netns,
    sought: BTreeSet<IpAddr>,
    watcher: Option<Watcher>,
    /// Whether what was found may be true no longer.
    moved: bool,
}

impl Addresses {
    pub(super) const fn of(netns: Netns) -> Self {
        Self {
            netns,
            sought: BTreeSet::new(),
            watcher: None,
            moved: false,
        }
    }

    /// The interfaces that have these addresses; nothing if that was said last time, and is so still.
    ///
    /// # Errors
    /// The kernel cannot be asked; it is asked again next time.
    pub(super) fn find(&mut self, sought: BTreeSet<IpAddr>) -> Result<Option<BTreeMap<IpAddr, String>>> {
        if self.sought != sought {
            self.sought = sought;
            self.moved = true;
        }
        if !self.moved {
            return Ok(None);
        }
        let found = if self.sought.is_empty() {
            self.watcher = None;
            BTreeMap::new()
        } else {
            // What changes while the kernel is read is told afterwards.
            if self.watcher.is_none() {
                self.watcher = Some(Watcher::links_in(&self.netns)?);
            }
            blocking::in_place(|| self.look())?
        };
        self.moved = false;
        Ok(Some(found))
    }

    /// Whether the node has an address now, sought or not.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(super) fn has(&self, address: IpAddr) -> Result<bool> {
        let all = blocking::in_place(|| LinkSocket::open_in(&self.netns)?.all_addresses())?;
        Ok(all.iter().any(|(_, own)| own.ip() == address))
    }

    fn look(&self) -> Result<BTreeMap<IpAddr, String>> {
        let mut socket = LinkSocket::open_in(&self.netns)?;
        let links = socket.list()?.into_iter();
        let names: BTreeMap<u32, String> = links.map(|link| (link.index, link.name)).collect();
        let addresses = socket.all_addresses()?.into_iter();
        let sought = addresses.filter(|(_, address)| self.sought.contains(&address.ip()));
        Ok(sought
            .filter_map(|(index, address)| Some((address.ip(), names.get(&index)?.clone())))
            .collect())
    }

    /// Waits until one of those that are sought has come or gone.
    pub(super) async fn moved(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return std::future::pending().await;
        };
        loop {
            let is_ours = match watcher.next().await {
                Ok(Event::Address(_, address) | Event::AddressGone(_, address)) => {
                    self.sought.contains(&address.ip())
                }
                Ok(Event::Resync) => true,
                Ok(Event::Link(_) | Event::LinkGone(_) | Event::Route(_)) => false,
                Err(error) => {
                    tracing::warn!(%error, "cannot watch this node's addresses; trying again");
                    self.watcher = None;
                    self.moved = true;
                    return;
                }
            };
            if is_ours {
                self.moved = true;
                return;
            }
        }
    }
}
