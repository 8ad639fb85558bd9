//! Which interfaces there are, for filters that ask: read when one first does, and again whenever they change.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use manx_bgp::Interface;
use manx_linux::watch::Watcher;
use manx_linux::{LinkSocket, Result};

/// The interfaces of our namespace. Nobody pays for them before a filter asks.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    watcher: Option<Watcher>,
    known: Arc<[Interface]>,
}

impl Interfaces {
    /// A filter asks: what there is, if nobody has asked before. Without the kernel's help, no rule about an
    /// interface matches.
    pub(crate) fn start(&mut self) -> Option<Arc<[Interface]>> {
        if self.watcher.is_some() {
            return None;
        }
        // What changes while we read comes as an event.
        let watched = Watcher::links().and_then(|watcher| Ok((watcher, read()?)));
        match watched {
            Ok((watcher, interfaces)) => {
                self.watcher = Some(watcher);
                self.known = interfaces.clone();
                Some(interfaces)
            }
            Err(error) => {
                tracing::error!(%error, "cannot see the interfaces: no filter's rule about one matches");
                None
            }
        }
    }

    /// Waits until they are others than before. Nothing is lost if the future is dropped.
    pub(crate) async fn changed(&mut self) -> Arc<[Interface]> {
        let Some(watcher) = &mut self.watcher else {
            return std::future::pending().await;
        };
        loop {
            match news(watcher).await.and_then(|()| read()) {
                Ok(interfaces) if interfaces == self.known => {}
                Ok(interfaces) => {
                    self.known = interfaces.clone();
                    return interfaces;
                }
                Err(error) => {
                    tracing::error!(%error, "the interfaces cannot be watched any more: filters know them as they were");
                    return std::future::pending().await;
                }
            }
        }
    }
}

/// Waits for an event, and takes all that there are with it.
async fn news(watcher: &mut Watcher) -> Result<()> {
    watcher.next().await?;
    while watcher.try_next()?.is_some() {}
    Ok(())
}

/// A host's address on the loopback interface says nothing about where packets go.
fn read() -> Result<Arc<[Interface]>> {
    let mut socket = LinkSocket::open()?;
    let mut interfaces = Vec::new();
    for link in socket.list()? {
        let tells = |network: &IpNetwork| link.name != "lo" || network.prefix() < host(network);
        let addresses = socket.addresses(link.index)?;
        interfaces.push(Interface {
            index: link.index,
            name: link.name.as_str().into(),
            addresses: addresses.into_iter().filter(tells).collect(),
        });
    }
    Ok(interfaces.into())
}

/// The length of a single address.
const fn host(network: &IpNetwork) -> u8 {
    match network {
        IpNetwork::V4(_) => 32,
        IpNetwork::V6(_) => 128,
    }
}
