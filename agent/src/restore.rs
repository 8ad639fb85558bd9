//! Takes up the pods of an earlier life: routes and describes them anew, then lets go of what is left over.

use std::collections::BTreeSet;

use manx_cni::Attachment;
use manx_routes::Source;
use tokio::sync::mpsc;

use crate::ask::ask;
use crate::cni::{self, Job};
use crate::ready::Guard;

use crate::{ipam, route, workload};

/// What it works with.
#[derive(Debug)]
pub struct Doors {
    /// Who holds what.
    pub ipam: mpsc::Sender<ipam::Request>,
    /// Does it, in the order of each attachment's calls.
    pub cni: mpsc::Sender<Job>,
    /// Told when every pod's route is wanted again.
    pub routes: mpsc::Sender<route::Command>,
    /// Told when every pod is described again.
    pub workloads: mpsc::Sender<workload::Change>,
    /// Done when all of that is.
    pub restored: Guard,
}

/// Runs once.
pub async fn run(doors: Doors) {
    let Doors {
        ipam,
        cni,
        routes,
        workloads,
        restored,
    } = doors;
    let Ok(held) = ask(&ipam, ipam::Request::Recovered).await else {
        return;
    };
    let attachments: BTreeSet<Attachment> = held
        .iter()
        .filter_map(|held| cni::attachment_of(&held.owner))
        .collect();
    let count = attachments.len();
    for attachment in attachments {
        if ask(&cni, |reply| Job::Restore { attachment, reply })
            .await
            .is_err()
        {
            return;
        }
    }
    for source in [Source::Pod, Source::Block] {
        if routes.send(route::Command::Settle(source)).await.is_err() {
            return;
        }
    }
    if workloads.send(workload::Change::Settle).await.is_ok() {
        tracing::info!(pods = count, "pods of an earlier life are taken up");
        restored.done();
    }
}
