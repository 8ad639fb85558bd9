//! The announcing task: keeps what this node announces of services equal to what [`services`](crate::services) makes of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use manx_api::announcement::{ServiceExplainCall, ServiceExplanation};
use tokio::sync::{mpsc, oneshot, watch};

use crate::ask::answer;
use crate::policy::News;
use crate::services::Services;
use crate::view::View;

/// News taken in before anything is told, at most.
const BATCH: usize = 256;

/// A question to the task: why a service is announced as it is; nothing where there is no such service.
pub type Question = (ServiceExplainCall, oneshot::Sender<Option<ServiceExplanation>>);

/// What a node announces of services; none until the datastore was listed.
pub type Announced = Option<Arc<BTreeSet<IpNetwork>>>;

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// This node's name.
    pub node: String,
    /// The cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// News of services.
    pub news: mpsc::Receiver<News>,
    /// Questions.
    pub questions: mpsc::Receiver<Question>,
    /// What is announced.
    pub announced: watch::Sender<Announced>,
    /// The services, once they were listed.
    pub services: Option<Services>,
}

/// Runs until nobody has news any more.
pub async fn run(inbox: &mut Inbox) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let changed = tokio::select! {
            count = inbox.news.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
                let changes = batch.drain(..).map(|news| take(&mut inbox.services, news));
                changes.fold(false, |any, one| any | one)
            }
            Ok(()) = inbox.view.changed() => true,
            Some((call, reply)) = inbox.questions.recv() => {
                let view = inbox.view.borrow().clone();
                let services = inbox.services.as_ref();
                answer(reply, services.and_then(|it| it.explain(&view, &call.namespace, &call.name)));
                false
            }
        };
        if changed {
            announce(inbox);
        }
    }
}

/// Takes news in; whether anything that matters here changed.
fn take(services: &mut Option<Services>, news: News) -> bool {
    match (news, services) {
        (News::Listed(kinds, resources), services) => {
            let services = services.get_or_insert_default();
            kinds.into_iter().for_each(|kind| services.forget(kind));
            for resource in &resources {
                services.put(resource);
            }
            true
        }
        (News::Put(resource), Some(services)) => services.put(&resource),
        (News::Gone(key), Some(services)) => services.remove(&key),
        (News::Put(_) | News::Gone(_), None) => false,
    }
}

fn announce(inbox: &mut Inbox) {
    let view = inbox.view.borrow_and_update().clone();
    let Some(services) = inbox.services.as_ref().filter(|_| view.complete) else {
        return;
    };
    let wanted = services.announced(&view, &inbox.node);
    inbox.announced.send_if_modified(|announced| {
        let differs = announced.as_deref() != Some(&wanted);
        if differs {
            *announced = Some(Arc::new(wanted));
        }
        differs
    });
}
