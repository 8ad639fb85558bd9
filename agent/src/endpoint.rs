//! The endpoint task: owner of the node's ends of pods' links.
//!
//! It keeps nothing between requests: the kernel knows what there is. So it survives its own panics. The
//! kernel takes some 40 ms to let go of a link, most of which it only waits; so several requests run side by
//! side, and an ADD does not stand in line behind a node's worth of DELs. Requests about one link never do:
//! the cni task has put them in order.

use manx_linux::pod::{self, Adopted, Amendments};
use manx_linux::{Attached, LinkSocket, PodLink, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::ask::answer;
use crate::supervise;

/// Requests that run side by side, at most.
const PARALLEL: usize = 16;

/// A request to the endpoint task.
#[derive(Debug)]
pub enum Request {
    /// Makes a pod's link, or finds it made.
    Attach {
        /// What it should be.
        link: PodLink,
        /// What it is.
        reply: oneshot::Sender<Result<Attached>>,
    },
    /// Takes a pod's link away, if it is there.
    Detach {
        /// The name of the node's end.
        host_ifname: String,
        /// Done.
        reply: oneshot::Sender<Result<()>>,
    },
    /// Compares a pod's link, and the node's routes to it, with what they should be.
    Check {
        /// What the link should be.
        link: PodLink,
        /// What others have changed of it.
        amendments: Amendments,
        /// Every difference, in words.
        reply: oneshot::Sender<Result<Vec<String>>>,
    },
    /// Gives the node's end that Calico made the name that it has here.
    Adopt {
        /// The name that Calico gave it.
        stranger: String,
        /// The name of the node's end.
        host_ifname: String,
        /// What came of it.
        reply: oneshot::Sender<Result<Adopted>>,
    },
    /// The node's end, if it is there.
    Find {
        /// Its name.
        host_ifname: String,
        /// What there is.
        reply: oneshot::Sender<Result<Option<Found>>>,
    },
}

/// The node's end of a pod's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its index.
    pub index: u32,
    /// Whether it is set up: one that is not was left by an ADD that was cut short, and takes no route.
    pub up: bool,
}

/// Runs until nobody can send requests any more.
pub async fn run(requests: &mut mpsc::Receiver<Request>) {
    let mut jobs = JoinSet::new();
    loop {
        tokio::select! {
            request = requests.recv(), if jobs.len() < PARALLEL => match request {
                Some(request) => drop(jobs.spawn_blocking(move || serve(request))),
                None => return,
            },
            Some(ended) = jobs.join_next() => if let Err(error) = ended {
                let panic = supervise::panic_of(error);
                tracing::error!(reason = supervise::reason(&*panic), "a request about a pod's link panicked");
            },
        }
    }
}

fn serve(request: Request) {
    match request {
        Request::Attach { link, reply } => answer(reply, pod::attach(&link)),
        Request::Detach { host_ifname, reply } => {
            // The node's end takes the pod's with it; the namespace need not be entered.
            answer(reply, pod::detach(&host_ifname, None, ""));
        }
        Request::Check {
            link,
            amendments,
            reply,
        } => answer(reply, check(&link, &amendments)),
        Request::Adopt {
            stranger,
            host_ifname,
            reply,
        } => answer(reply, pod::adopt(&stranger, &host_ifname)),
        Request::Find { host_ifname, reply } => {
            let found = LinkSocket::open().and_then(|mut socket| socket.get(&host_ifname));
            let found = found.map(|link| {
                link.map(|link| Found {
                    index: link.index,
                    up: link.up,
                })
            });
            answer(reply, found);
        }
    }
}

fn check(link: &PodLink, amendments: &Amendments) -> Result<Vec<String>> {
    let mut differences = pod::check(link, amendments)?;
    differences.extend(pod::check_routes(link)?);
    Ok(differences)
}
