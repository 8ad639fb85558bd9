//! Takes up the pods of an earlier life: routes and describes them anew, then lets go of what is left over.

use std::collections::BTreeSet;
use std::time::Duration;

use manx_cni::Attachment;
use manx_routes::Source;
use tokio::sync::mpsc;

use crate::ask::{Gone, ask};
use crate::cni::{self, Job, Restored};
use crate::ready::Guard;

use crate::{ipam, policy, route, workload};

/// Pause before pods that could not be taken up are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What it works with.
#[derive(Debug)]
pub struct Doors {
    /// Who holds what.
    pub ipam: mpsc::Sender<ipam::Request>,
    /// Does it, in the order of each attachment's calls.
    pub cni: mpsc::Sender<Job>,
    /// Told when every pod's route is wanted again.
    pub routes: mpsc::Sender<route::Command>,
    /// Told when every pod is described again; none where nobody has to.
    pub workloads: Option<mpsc::Sender<workload::Change>>,
    /// Told when it knows every pod.
    pub gate: policy::Gate,
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
        gate,
        restored,
    } = doors;
    let Ok(held) = ask(&ipam, ipam::Request::Recovered).await else {
        return;
    };
    let mut attachments: BTreeSet<Attachment> = held
        .iter()
        .filter_map(|held| cni::attachment_of(&held.owner))
        .collect();
    let count = attachments.len();
    let mut strangers = BTreeSet::new();
    // Not before all are taken up may what nobody wants go: it would be the route of a pod that lives.
    while !attachments.is_empty() {
        let Ok(left) = take_up(&cni, attachments, &mut strangers).await else {
            return;
        };
        attachments = left;
        if !attachments.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    gate.tell(policy::Request::Settle).await;
    for source in [Source::Pod, Source::Block] {
        if routes.send(route::Command::Settle(source)).await.is_err() {
            return;
        }
    }
    if let Some(workloads) = workloads
        && workloads.send(workload::Change::Settle).await.is_err()
    {
        return;
    }
    if adopt(&cni, &gate, strangers).await.is_err() {
        return;
    }
    tracing::info!(pods = count, "pods of an earlier life are taken up");
    restored.done();
}

/// Has links that Calico made adopted, as soon as rules are in force: until then those hold that Calico left.
async fn adopt(
    cni: &mpsc::Sender<Job>,
    gate: &policy::Gate,
    mut strangers: BTreeSet<Attachment>,
) -> Result<(), Gone> {
    while !strangers.is_empty() {
        let mut left = BTreeSet::new();
        match gate.check().await {
            Ok(()) => {
                for attachment in strangers {
                    let job = |reply| Job::Adopt {
                        attachment: attachment.clone(),
                        reply,
                    };
                    if let Err(error) = ask(cni, job).await? {
                        tracing::error!(%attachment, %error, "a link that Calico made cannot be renamed; trying again");
                        left.insert(attachment);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "pods of Calico's keep its rules until ours are in force");
                left = strangers;
            }
        }
        strangers = left;
        if !strangers.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Has attachments routed and described; gives back those that could not be, and notes whose links Calico made.
async fn take_up(
    cni: &mpsc::Sender<Job>,
    attachments: BTreeSet<Attachment>,
    strangers: &mut BTreeSet<Attachment>,
) -> Result<BTreeSet<Attachment>, Gone> {
    let mut left = BTreeSet::new();
    for attachment in attachments {
        let job = |reply| Job::Restore {
            attachment: attachment.clone(),
            reply,
        };
        match ask(cni, job).await? {
            Ok(Restored::Ours) => {}
            Ok(Restored::Calicos) => drop(strangers.insert(attachment)),
            Err(error) => {
                tracing::error!(%attachment, %error, "a pod of an earlier life is not taken up; trying again");
                left.insert(attachment);
            }
        }
    }
    Ok(left)
}
