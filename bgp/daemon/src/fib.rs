//! Best paths into the kernel, for `fib: true`.

use std::collections::BTreeMap;

use manx_bgpd::bgp::{Choice, Gateway, PeerKey, Prefix};
use manx_bgpd::{Event, Lost};
use manx_linux::Result;
use manx_linux::sync::Syncer;
use manx_routes::{Hop, Route, Source, Target, Update};

/// The kernel's main table; without one, nothing happens.
#[derive(Debug)]
pub(crate) struct Fib(Option<Kernel>);

#[derive(Debug)]
struct Kernel {
    routes: Syncer,
    /// Routers to go around until the speaker has said what follows from the loss of these peers.
    lost: BTreeMap<PeerKey, Vec<Hop>>,
}

impl Fib {
    /// Starts with what an earlier life left in the kernel, if `wanted`.
    pub(crate) fn start(wanted: bool) -> Result<Self> {
        let kernel = |routes| Kernel {
            routes,
            lost: BTreeMap::new(),
        };
        wanted
            .then(Syncer::start)
            .transpose()
            .map(|routes| Self(routes.map(kernel)))
    }

    /// Whether routes of an earlier life are there, so that forwarding went on while we were away.
    pub(crate) fn outlived(&self) -> bool {
        self.0
            .iter()
            .flat_map(|kernel| kernel.routes.status())
            .any(|(route, _)| route.source == Source::Bgp)
    }

    /// Carries an event to the kernel; yields between large portions.
    pub(crate) async fn apply(&mut self, event: &Event) -> Result<()> {
        let Some(Kernel { routes, lost }) = &mut self.0 else {
            return Ok(());
        };
        match event {
            Event::Selected(paths) => paths.iter().for_each(|path| routes.apply(update(path))),
            Event::Lost(Lost { peer, routers }) => {
                let routers: Vec<Hop> = routers.iter().map(hop).collect();
                routes.lose(&routers);
                lost.entry(*peer).or_default().extend(routers);
            }
            Event::Session { peer, .. } => {
                if let Some(routers) = lost.remove(peer) {
                    routes.find(&routers);
                }
            }
            Event::Converged => routes.settle(Source::Bgp),
            Event::Bfd { .. } | Event::Faults(_) => {}
        }
        flush(routes).await
    }

    /// Puts right what others change in the kernel, until it cannot be watched any more.
    pub(crate) async fn keep(&mut self) -> Result<()> {
        match &mut self.0 {
            None => std::future::pending().await,
            Some(Kernel { routes, .. }) => {
                routes.changed().await?;
                flush(routes).await
            }
        }
    }
}

async fn flush(routes: &mut Syncer) -> Result<()> {
    while routes.flush()? {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Where the next hop is. A global address is enough for the kernel to find the interface.
fn hop(&Gateway { address, scope }: &Gateway) -> Hop {
    Hop {
        gateway: address,
        device: (scope != 0).then_some(scope),
    }
}

/// What the speaker's choice asks of the kernel; a choice of no next hop removes the route.
fn update((prefix, choice): &(Prefix, Choice)) -> Update {
    Update::Set(Route {
        prefix: prefix.network(),
        target: Target::Via(choice.next_hops.iter().map(hop).collect()),
        backup: choice.backup.as_ref().map(hop),
        source: Source::Bgp,
        metric: choice.priority,
    })
}
