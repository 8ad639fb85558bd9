//! The node task: keeps this node's own Node resource saying what the node is.

use std::sync::Arc;

use manx_api::Resource;
use manx_store::{Error, Store};
use tokio::sync::watch::Receiver;

use crate::identity::Identity;
use crate::view::View;
use crate::watch;

/// What the task works with.
#[derive(Debug)]
pub struct Inbox<S> {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The datastore.
    pub store: S,
    /// The cluster.
    pub view: Receiver<Arc<View>>,
}

/// Runs until the view ends.
pub async fn run<S: Store>(inbox: &mut Inbox<S>) {
    let mut pauses = watch::pauses(&inbox.identity.name);
    while let Ok(view) = inbox
        .view
        .wait_for(|view| view.complete)
        .await
        .map(|view| view.clone())
    {
        match write(inbox, &view).await {
            Ok(()) => pauses = watch::pauses(&inbox.identity.name),
            // Somebody was faster; the view will show it.
            Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot write this node's resource; trying again");
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                continue;
            }
        }
        if inbox.view.changed().await.is_err() {
            return;
        }
    }
}

async fn write<S: Store>(inbox: &Inbox<S>, view: &View) -> Result<(), Error> {
    let existing = view.nodes.get(&inbox.identity.name);
    let wanted = inbox.identity.node(existing);
    match existing {
        Some(existing) if *existing == wanted => {}
        Some(_) => drop(inbox.store.update(Resource::Node(wanted)).await?),
        None => drop(inbox.store.create(Resource::Node(wanted)).await?),
    }
    Ok(())
}
