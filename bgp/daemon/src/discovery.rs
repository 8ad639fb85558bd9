//! Looks at the interfaces that lead to neighbours: which are up, and who is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manx_linux::LinkSocket;
use manx_linux::link::Link;
use manx_linux::watch::{Event, Watcher};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::driver::Job;
use crate::inbox::Inbox;
use crate::links::{News, Wanted};
use crate::radv;

/// Pause before a kernel that cannot be watched is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The driver's end of the task, which starts with the first interface that is wanted.
#[derive(Debug)]
pub(crate) struct Discovery {
    wanted: watch::Sender<Wanted>,
    task: Option<AbortOnDropHandle<()>>,
    inbox: Inbox,
}

impl Discovery {
    /// Looks at nothing yet.
    pub(crate) fn new(inbox: Inbox) -> Self {
        Self {
            wanted: watch::Sender::new(Wanted::new()),
            task: None,
            inbox,
        }
    }

    /// Looks at these interfaces from now on.
    pub(crate) fn want(&mut self, wanted: Wanted) {
        let news = self.wanted.send_if_modified(|before| {
            let news = *before != wanted;
            *before = wanted;
            news
        });
        if news && self.task.is_none() {
            let task = tokio::spawn(run(self.wanted.subscribe(), self.inbox.clone()));
            self.task = Some(AbortOnDropHandle::new(task));
        }
    }
}

async fn run(mut wanted: watch::Receiver<Wanted>, inbox: Inbox) {
    let mut looks = Looks {
        links: BTreeMap::new(),
        looked_at: BTreeMap::new(),
        inbox,
    };
    while let Err(error) = look(&mut wanted, &mut looks).await {
        tracing::error!(%error, "interfaces cannot be watched; trying again");
        sleep(RETRY).await;
    }
}

/// Until nobody wants anything any more, or a failure.
async fn look(wanted: &mut watch::Receiver<Wanted>, looks: &mut Looks) -> manx_linux::Result<()> {
    // Watching comes first: what happens during the reading is not lost.
    let mut watcher = Watcher::links()?;
    looks.read()?;
    loop {
        let current = wanted.borrow_and_update().clone();
        looks.at(&current).await;
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return Ok(());
            },
            event = watcher.next() => match event? {
                Event::Link(link) => drop(looks.links.insert(link.index, link)),
                // A port that leaves its bridge says that it is gone, too.
                Event::LinkGone(_) | Event::Resync => looks.read()?,
                Event::Route(_) | Event::Address(..) | Event::AddressGone(..) => {}
            },
        }
    }
}

#[derive(Debug)]
struct Looks {
    /// All there are, by index.
    links: BTreeMap<u32, Link>,
    looked_at: BTreeMap<Arc<str>, Look>,
    inbox: Inbox,
}

/// An interface that is looked at.
#[derive(Debug)]
struct Look {
    /// Its index, or why no packets pass.
    state: Result<u32, &'static str>,
    /// Looks for a neighbour.
    search: Option<AbortOnDropHandle<()>>,
}

impl Looks {
    fn read(&mut self) -> manx_linux::Result<()> {
        let links = LinkSocket::open()?.list()?;
        self.links = links.into_iter().map(|link| (link.index, link)).collect();
        Ok(())
    }

    /// Tells what has changed.
    async fn at(&mut self, wanted: &Wanted) {
        self.looked_at.retain(|name, _| wanted.contains_key(name));
        let links: BTreeMap<&str, &Link> = self
            .links
            .values()
            .map(|link| (link.name.as_str(), link))
            .collect();
        for (name, &searched) in wanted {
            let state = state(links.get(&**name).copied());
            let known = self.looked_at.get(name).map(|look| look.state);
            if known != Some(state) {
                let interface = name.clone();
                let news = match state {
                    Ok(index) => News::Up { interface, index },
                    Err(reason) => News::Down { interface, reason },
                };
                self.looked_at.insert(name.clone(), Look { state, search: None });
                if !self.inbox.send(Job::Link(news)).await {
                    return;
                }
            }
            let Some(look) = self.looked_at.get_mut(name) else {
                continue;
            };
            match state {
                Ok(index) if searched => {
                    look.search.get_or_insert_with(|| {
                        let task = radv::serve(name.clone(), index, self.inbox.clone());
                        AbortOnDropHandle::new(tokio::spawn(task))
                    });
                }
                Ok(_) | Err(_) => look.search = None,
            }
        }
    }
}

/// The index of an interface that packets pass, or why they do not.
fn state(link: Option<&Link>) -> Result<u32, &'static str> {
    match link {
        None => Err("there is no such interface (yet)"),
        Some(link) if !link.up => Err("the interface is down: set it up"),
        Some(link) if !link.carrier => Err("the interface has no carrier: its other end is down"),
        Some(link) => Ok(link.index),
    }
}
