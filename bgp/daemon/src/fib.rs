//! Best paths into the kernel, for `fib: true`.

use manx_bgpd::Event;
use manx_bgpd::bgp::{Choice, Gateway, Prefix};
use manx_linux::Result;
use manx_linux::sync::Syncer;
use manx_routes::{Hop, Route, Source, Target, Update};

/// The kernel's main table; without one, nothing happens.
#[derive(Debug)]
pub(crate) struct Fib(Option<Syncer>);

impl Fib {
    /// Starts with what an earlier life left in the kernel, if `wanted`.
    pub(crate) fn start(wanted: bool) -> Result<Self> {
        wanted.then(Syncer::start).transpose().map(Self)
    }

    /// Whether routes of an earlier life are there, so that forwarding went on while we were away.
    pub(crate) fn outlived(&self) -> bool {
        self.0
            .iter()
            .flat_map(Syncer::status)
            .any(|(route, _)| route.source == Source::Bgp)
    }

    /// Carries an event to the kernel; yields between large portions.
    pub(crate) async fn apply(&mut self, event: &Event) -> Result<()> {
        let Some(routes) = &mut self.0 else { return Ok(()) };
        match event {
            Event::Selected(paths) => paths.iter().for_each(|path| routes.apply(update(path))),
            Event::Converged => routes.settle(Source::Bgp),
            Event::Session { .. } | Event::Bfd { .. } => {}
        }
        flush(routes).await
    }

    /// Puts right what others change in the kernel, until it cannot be watched any more.
    pub(crate) async fn keep(&mut self) -> Result<()> {
        match &mut self.0 {
            None => std::future::pending().await,
            Some(routes) => {
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

/// What the speaker's choice asks of the kernel; a choice of no next hop removes the route.
fn update((prefix, choice): &(Prefix, Choice)) -> Update {
    let hop = |&Gateway { address, scope }: &Gateway| Hop {
        gateway: address,
        device: (scope != 0).then_some(scope),
    };
    let target = Target::Via(choice.next_hops.iter().map(hop).collect());
    Update::Set(Route {
        prefix: prefix.network(),
        target,
        source: Source::Bgp,
        metric: choice.priority,
    })
}
