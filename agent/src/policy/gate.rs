//! Where ADD, DEL and CHECK wait for the kernel's rules.

use std::time::Duration;

use manx_api::ipam::AttachmentId;
use manx_api::workload::WorkloadEndpoint;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Pod, Request};
use crate::ask::{Gone, ask};

/// How long a call waits for the kernel: longer than the programs that write rules wait for others.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an ADD waits for the cluster to tell of its pod: a watch that works is quicker.
const HEARSAY: Duration = Duration::from_secs(5);

/// The way to the policy task.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Requests to the task.
    pub requests: mpsc::Sender<Request>,
}

/// A pod's packets would not be treated as policies and pools want it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rules for this pod are not in the kernel yet: {reason}")]
pub struct NotInForce {
    /// What the kernel's programs said, or that nothing was heard of them.
    pub reason: String,
}

/// Nobody can say which policies a pod is under.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API server has not told this node of pod {namespace}/{pod} yet, and without its labels nobody knows its policies"
)]
pub struct Unheard {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
}

impl Gate {
    /// Waits until the cluster has said what a pod of this node is; `uid`: which of those that ever had its name.
    ///
    /// # Errors
    /// It does not say so in time.
    pub async fn seek(&self, owner: &AttachmentId, uid: Option<String>) -> Result<WorkloadEndpoint, Unheard> {
        let seek = |reply| Request::Seek {
            namespace: owner.namespace.clone(),
            pod: owner.pod.clone(),
            uid,
            reply,
        };
        match timeout(HEARSAY, ask(&self.requests, seek)).await {
            Ok(Ok(endpoint)) => Ok(endpoint),
            Ok(Err(Gone)) | Err(_) => Err(Unheard {
                namespace: owner.namespace.clone(),
                pod: owner.pod.clone(),
            }),
        }
    }

    /// Waits until this pod's packets are treated as policies and pools want it. Its link need not be there yet.
    ///
    /// # Errors
    /// It does not come to be in time.
    pub async fn join(&self, pod: Pod) -> Result<(), NotInForce> {
        self.request(|reply| Request::Join(pod, reply)).await
    }

    /// Waits until no set has a container's attachment any more.
    ///
    /// # Errors
    /// The kernel does not let go of it in time.
    pub async fn leave(&self, container_id: String, ifname: String) -> Result<(), NotInForce> {
        let leave = |reply| Request::Leave {
            container_id,
            ifname,
            reply,
        };
        self.request(leave).await
    }

    /// Has the kernel looked at, and mended.
    ///
    /// # Errors
    /// The rules are not there and cannot be written, or nothing is heard of them in time.
    pub async fn check(&self) -> Result<(), NotInForce> {
        self.request(Request::Look).await
    }

    /// Tells of something that nobody waits for.
    pub async fn tell(&self, request: Request) {
        if self.requests.send(request).await.is_err() {
            tracing::debug!("the policy task has ended");
        }
    }

    async fn request(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Request,
    ) -> Result<(), NotInForce> {
        match timeout(PATIENCE, ask(&self.requests, request)).await {
            Ok(Ok(outcome)) => outcome.map_err(|reason| NotInForce { reason }),
            Ok(Err(Gone)) | Err(_) => Err(NotInForce {
                reason: "nothing was heard of them".to_owned(),
            }),
        }
    }
}
