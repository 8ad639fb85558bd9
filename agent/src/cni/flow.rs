//! ADD and DEL, step by step.
//!
//! ADD: address journalled → veth pair and routes in the kernel, and meanwhile the rules for the pod → answer. DEL:
//! routes away → veth pair away → the rules' sets without it → connections forgotten → address free. In that order an address is never given anew while a
//! packet could still reach its last holder, or pass as its. Whatever fails midway in a first ADD is undone; an attachment that stood before stays.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use manx_api::Resource;
use manx_api::ipam::{Allocation, AttachmentId, Release};
use manx_api::workload::WorkloadEndpoint;
use manx_cni::{Attachment, Call, Code, Error, Success, tombstone};
use manx_ipam::{HoldError, PlaceError, Settled};
use manx_linux::pod::{Adopted, HOST_MAC};
use manx_linux::{Attached, Netns, PodLink};
use manx_store::{Happening, Subject};
use tokio::sync::{mpsc, oneshot};

use super::review::Review;
use super::traits::Traits;
use super::{Job, Restored};
use crate::ask::{Gone, answer};
use crate::endpoint::Found;
use crate::events::Events;
use crate::identity::Identity;
use crate::ipam::{Assigned, IpamError, Wish, recovery};
use crate::metrics::{CniLabels, Metrics, Operation, Outcome};
use crate::{conntrack, convert, endpoint, ipam, policy, route, workload};

/// The smallest MTU that IPv6 runs over, in bytes (RFC 8200 §5).
const MIN_MTU_V6: u32 = 1280;

/// What jobs are done with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Where tombstones are.
    pub state_dir: PathBuf,
    /// Addresses.
    pub ipam: mpsc::Sender<ipam::Request>,
    /// Veth pairs.
    pub endpoints: mpsc::Sender<endpoint::Request>,
    /// Routes.
    pub routes: mpsc::Sender<route::Command>,
    /// Rules.
    pub gate: policy::Gate,
    /// Connections.
    pub connections: mpsc::Sender<conntrack::Forget>,
    /// WorkloadEndpoints; none where the cluster has them as its Pods.
    pub workloads: Option<mpsc::Sender<workload::Change>>,
    /// Further jobs, in the order of their attachments.
    pub jobs: mpsc::WeakSender<Job>,
    /// Where operators hear of what they have to act on.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
}

/// Does the job and answers.
pub(super) async fn run(job: Job, parts: Parts) {
    match job {
        Job::Add { call, reply } => {
            let outcome = parts.timed(Operation::Add, parts.add(&call)).await;
            answer(reply, outcome);
        }
        Job::Del { attachment, reply } => {
            let outcome = parts.timed(Operation::Del, parts.delete(&attachment)).await;
            answer(reply, outcome);
        }
        Job::Check { call, reply } => answer(reply, parts.check(&call).await),
        Job::Collect {
            network,
            valid,
            reply,
        } => answer(reply, parts.collect(&network, &valid).await),
        Job::Restore { attachment, reply } => answer(reply, parts.restore(&attachment).await),
        Job::Adopt { attachment, reply } => answer(reply, parts.adopt(&attachment).await),
        Job::Release {
            attachment,
            release,
            reply,
        } => answer(reply, parts.release(&attachment, release).await),
        Job::Bury(attachment) if !parts.has_tombstone(&attachment) => {
            tracing::debug!(%attachment, "its tombstone went meanwhile: an ADD took its place, or it is done");
        }
        Job::Bury(attachment) => match parts.delete(&attachment).await {
            Ok(()) => parts.remove_tombstone(&attachment),
            Err(error) => {
                tracing::warn!(%attachment, %error, "a tombstone's attachment is not removed yet; trying again");
            }
        },
    }
}

impl Parts {
    async fn add(&self, call: &Call) -> Result<Success, Error> {
        self.remove_tombstone(&call.attachment);
        let owner = call.attachment_id();
        let traits = self.traits(call, &owner).await?;
        let request = |reply| ipam::Request::Assign {
            owner: owner.clone(),
            wish: Wish {
                annotations: call.annotations.clone(),
                addresses: call.requested.clone(),
            },
            reply,
        };
        let assigned = ask(&self.ipam, request).await?;
        let Assigned { allocations, fresh } = assigned.map_err(|error| {
            self.warn_of(&error);
            refused(error)
        })?;
        let wired = match foreign(&allocations, call).and_then(|()| granted(&allocations, call)) {
            Ok(()) => self.wire(call, &owner, traits, &allocations).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &wired {
            tracing::warn!(attachment = %call.attachment, %error, "ADD failed");
            if fresh {
                self.undo(&call.attachment).await;
            }
        }
        wired.map_err(|error| vanished(call).unwrap_or(error))
    }

    /// Tells operators that pods find no address here.
    fn warn_of(&self, error: &IpamError) {
        if error.is_shortage() {
            self.events.tell(Happening {
                subject: Subject::Host(self.identity.name.clone()),
                reason: "NoFreeAddress",
                message: error.to_string(),
            });
        }
    }

    /// What policies are to know the pod by: what the cluster says of it, or the runtime where there is none.
    async fn traits(&self, call: &Call, owner: &AttachmentId) -> Result<Traits, Error> {
        let said = Traits::of(call)?;
        if self.workloads.is_some() || call.args.pod_name.is_none() {
            return Ok(said);
        }
        let told = self.gate.seek(owner, call.args.pod_uid.clone()).await;
        let told = told.map_err(|error| Error::new(Code::TryAgainLater, error.to_string()))?;
        Ok(Traits::from(told))
    }

    /// Makes the link and its routes, and has the attachment described.
    async fn wire(
        &self,
        call: &Call,
        owner: &AttachmentId,
        traits: Traits,
        allocations: &[Allocation],
    ) -> Result<Success, Error> {
        let addresses: Vec<IpAddr> = allocations.iter().map(|held| held.address).collect();
        let link = self.link(call, owner, addresses.clone())?;
        traits.keep(&self.state_dir, &call.attachment).map_err(|error| {
            Error::new(
                Code::Io,
                format!("cannot keep what policies know the pod by: {error}"),
            )
        })?;
        let endpoint = self.describe(owner, &link.host_ifname, addresses.clone(), traits);
        check_endpoint(&endpoint)?;
        let pod = policy::Pod {
            endpoint: Box::new(endpoint.clone()),
        };
        let (attached, in_force) = tokio::join!(self.attach(&link), self.gate.join(pod));
        let attached = attached?;
        in_force.map_err(|error| Error::new(Code::TryAgainLater, error.to_string()))?;
        tracing::info!(pod = %format_args!("{}/{}", owner.namespace, owner.pod), ?addresses, "pod attached");
        self.tell(workload::Change::Put(Box::new(endpoint))).await;
        Ok(convert::cni_success(&link, &attached, call.config.dns.clone()))
    }

    /// Makes the link, and its routes.
    async fn attach(&self, link: &PodLink) -> Result<Attached, Error> {
        let attach = |reply| endpoint::Request::Attach {
            link: link.clone(),
            reply,
        };
        let attached = ask(&self.endpoints, attach).await?.map_err(convert::cni_error)?;
        self.route(&link.addresses, attached.host_ifindex).await?;
        Ok(attached)
    }

    /// What the attachment's link should be.
    fn link(&self, call: &Call, owner: &AttachmentId, addresses: Vec<IpAddr>) -> Result<PodLink, Error> {
        let Some(netns) = call.netns.clone() else {
            return Err(Error::new(Code::InvalidEnvironment, "CNI_NETNS is not set"));
        };
        if call.mac.map(convert::mac) == Some(HOST_MAC) {
            let message = format!("MAC {HOST_MAC}: the node's end of every link has it; choose another");
            return Err(Error::new(Code::InvalidConfig, message));
        }
        let mtu = call.config.mtu.unwrap_or(self.identity.mtu);
        if mtu < MIN_MTU_V6 && addresses.iter().any(IpAddr::is_ipv6) {
            let message =
                format!("mtu {mtu}: IPv6 needs {MIN_MTU_V6} at least, and the pod has an IPv6 address");
            return Err(Error::new(Code::InvalidConfig, message));
        }
        Ok(PodLink {
            netns: netns.into(),
            ifname: owner.ifname.clone(),
            host_ifname: recovery::interface(&owner.container_id, &owner.ifname),
            addresses,
            mtu: Some(mtu),
            mac: call.mac.map(convert::mac),
        })
    }

    async fn route(&self, addresses: &[IpAddr], index: u32) -> Result<(), Error> {
        let routes = addresses
            .iter()
            .map(|address| convert::pod_route(*address, index))
            .collect();
        let outcome = ask(&self.routes, |reply| route::Command::Attach { routes, reply }).await?;
        outcome.map_err(|refusal| {
            Error::new(Code::Internal, "the pod's route is not in the kernel").with_details(refusal)
        })
    }

    fn describe(
        &self,
        owner: &AttachmentId,
        interface: &str,
        addresses: Vec<IpAddr>,
        traits: Traits,
    ) -> WorkloadEndpoint {
        convert::workload_endpoint(&self.identity.name, owner, interface, addresses, traits)
    }

    async fn tell(&self, change: workload::Change) {
        if let Some(workloads) = &self.workloads
            && workloads.send(change).await.is_err()
        {
            tracing::debug!("the workload task has ended");
        }
    }

    async fn undo(&self, attachment: &Attachment) {
        if let Err(error) = self.delete(attachment).await {
            tracing::error!(%attachment, %error, "a failed ADD is not undone; the runtime's DEL will");
        }
    }

    async fn delete(&self, attachment: &Attachment) -> Result<(), Error> {
        let (container_id, ifname) = names(attachment);
        let held = self.held(attachment).await?;
        let addresses: Vec<IpAddr> = held.iter().map(|held| held.address).collect();
        let detach = |reply| route::Command::Detach {
            addresses: addresses.clone(),
            reply,
        };
        ask(&self.routes, detach).await?;
        let owner = held
            .iter()
            .map(|held| &held.owner)
            .find(|owner| !owner.is_quarantined());
        let found = match owner {
            Some(owner) => self.find(owner).await?,
            None => None,
        };
        let host_ifname = found.map_or_else(|| recovery::interface(&container_id, &ifname), |found| found.0);
        let detach = |reply| endpoint::Request::Detach { host_ifname, reply };
        ask(&self.endpoints, detach).await?.map_err(convert::cni_error)?;
        if let Err(error) = self.gate.leave(container_id.clone(), ifname.clone()).await {
            tracing::warn!(%attachment, %error, "rules still know a pod that has gone");
        }
        if !addresses.is_empty() {
            ask(&self.connections, |reply| conntrack::Forget { addresses, reply }).await?;
        }
        // Before the address is free: whoever gets it next is never described beside its last holder. And a DEL
        // that is repeated because the release was refused finds nothing that it could name the pod by.
        if let Some(owner) = owner {
            tracing::info!(pod = %format_args!("{}/{}", owner.namespace, owner.pod), "pod detached");
            let key = convert::workload_key(&self.identity.name, owner);
            let container_id = container_id.clone();
            self.tell(workload::Change::Remove { key, container_id }).await;
        }
        if let Err(error) = Traits::forget(&self.state_dir, attachment) {
            tracing::warn!(%attachment, %error, "what policies knew a pod by is not removed");
        }
        let request = |reply| ipam::Request::Release {
            container_id,
            ifname,
            reply,
        };
        ask(&self.ipam, request).await?.map(drop).map_err(refused)
    }

    /// Compares an attachment with what ADD made and answered; every difference is named.
    async fn check(&self, call: &Call) -> Result<(), Error> {
        let attachment = &call.attachment;
        let held = self.held(attachment).await?;
        if held.is_empty() {
            let message = format!("{attachment} holds no address: ADD it again");
            return Err(Error::new(Code::UnknownContainer, message));
        }
        let answered = call.config.previous()?.unwrap_or_default();
        let addresses: Vec<IpAddr> = held.iter().map(|held| held.address).collect();
        let mut link = self.link(call, &call.attachment_id(), addresses.clone())?;
        let Review {
            mut differences,
            mac,
            amendments,
        } = Review::of(&answered, &link)?;
        link.mac = mac.or(link.mac);
        let request = |reply| endpoint::Request::Check {
            link,
            amendments,
            reply,
        };
        let found = ask(&self.endpoints, request).await?;
        differences.extend(found.map_err(convert::cni_error)?);
        differences.extend(self.gate.check().await.err().map(|error| error.to_string()));
        if differences.is_empty() {
            return Ok(());
        }
        let message = format!("{attachment} is not as ADD left it: DEL and ADD it again");
        Err(Error::new(Code::Internal, message).with_details(differences.join("; ")))
    }

    /// Removes every attachment to the network that is not among the valid ones: as many as go, whatever becomes
    /// of the others.
    async fn collect(&self, network: &str, valid: &[Attachment]) -> Result<(), Error> {
        let blocks = ask(&self.ipam, ipam::Request::Show).await?;
        let owners = blocks
            .iter()
            .flat_map(|block| &block.allocations)
            .map(|held| &held.owner);
        let held: BTreeSet<Attachment> = stale(owners, network, valid).collect();
        let mut failures = Vec::new();
        for attachment in held {
            tracing::info!(%attachment, network, "collected: the runtime does not know it");
            let Some(jobs) = self.jobs.upgrade() else {
                return Err(gone(Gone));
            };
            let of = attachment.to_string();
            if let Err(error) = ask(&jobs, |reply| Job::Del { attachment, reply }).await? {
                failures.push(format!("{of}: {error}"));
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let message = format!("{} attachments could not be removed: repeat GC", failures.len());
        Err(Error::new(Code::TryAgainLater, message).with_details(failures.join("; ")))
    }

    /// Frees what an attachment holds, if this allocation is still its own and its interface is gone.
    async fn release(&self, attachment: &Attachment, release: Release) -> Result<Settled, Error> {
        let held = self.held(attachment).await?;
        let same = |held: &Allocation| held.address == release.address && held.sequence == release.sequence;
        let Some(owner) = held.iter().find(|held| same(held)).map(|held| &held.owner) else {
            return Ok(Settled::Gone);
        };
        let address = release.address;
        if let Some((interface, _)) = self.find(owner).await? {
            tracing::warn!(%address, interface, "an operator wants an address freed that is in use: it stays");
            return Ok(Settled::Kept);
        }
        let container = &owner.container_id;
        tracing::info!(%address, container, "freed: an operator asked, and its interface is gone");
        self.delete(attachment).await?;
        Ok(Settled::Gone)
    }

    /// The node's end of an attachment's link, if it is there, by the name that it has: ours, or the one that Calico gave it.
    async fn find(&self, owner: &AttachmentId) -> Result<Option<(String, Found)>, Error> {
        let ours = recovery::interface(&owner.container_id, &owner.ifname);
        for name in [Some(ours), recovery::calicos(owner)].into_iter().flatten() {
            let find = |reply| endpoint::Request::Find {
                host_ifname: name.clone(),
                reply,
            };
            if let Some(found) = ask(&self.endpoints, find).await?.map_err(convert::cni_error)? {
                return Ok(Some((name, found)));
            }
        }
        Ok(None)
    }

    /// Routes and describes an attachment of an earlier life, if its interface is still there.
    async fn restore(&self, attachment: &Attachment) -> Result<Restored, Error> {
        let held = self.held(attachment).await?;
        let Some(owner) = held.first().map(|held| held.owner.clone()) else {
            return Ok(Restored::Ours);
        };
        let name = recovery::interface(&owner.container_id, &owner.ifname);
        let (present, index) = match self.find(&owner).await? {
            Some((present, Found { index, up: true })) => (present, index),
            // Nobody was answered: the runtime's next ADD or DEL finds what there is.
            Some((_, Found { up: false, .. })) => {
                tracing::info!(%attachment, "an earlier life was cut short over an ADD: its link is not set up");
                return Ok(Restored::Ours);
            }
            None => return Ok(Restored::Ours),
        };
        let addresses: Vec<IpAddr> = held.iter().map(|held| held.address).collect();
        self.route(&addresses, index).await?;
        let traits = Traits::kept(&self.state_dir, attachment);
        let endpoint = self.describe(&owner, &name, addresses, traits);
        let pod = policy::Pod {
            endpoint: Box::new(endpoint.clone()),
        };
        self.gate.tell(policy::Request::Adopt(pod)).await;
        if !owner.is_quarantined() {
            self.tell(workload::Change::Keep(Box::new(endpoint))).await;
        }
        Ok(if present == name {
            Restored::Ours
        } else {
            Restored::Calicos
        })
    }

    /// Gives a link that Calico made its name here. From then on our rules are those that it meets, and no longer Calico's.
    async fn adopt(&self, attachment: &Attachment) -> Result<(), Error> {
        let held = self.held(attachment).await?;
        // A DEL may have come meanwhile.
        let Some(owner) = held.first().map(|held| &held.owner) else {
            return Ok(());
        };
        let Some(stranger) = recovery::calicos(owner) else {
            return Ok(());
        };
        let host_ifname = recovery::interface(&owner.container_id, &owner.ifname);
        let adopt = |reply| endpoint::Request::Adopt {
            stranger: stranger.clone(),
            host_ifname,
            reply,
        };
        let adopted = ask(&self.endpoints, adopt).await?.map_err(convert::cni_error)?;
        if let Adopted::Unrouted { host_ifindex } = adopted {
            let addresses: Vec<IpAddr> = held.iter().map(|held| held.address).collect();
            // Or nobody would write anew what was there before.
            let detach = |reply| route::Command::Detach {
                addresses: addresses.clone(),
                reply,
            };
            ask(&self.routes, detach).await?;
            self.route(&addresses, host_ifindex).await?;
        }
        tracing::info!(pod = %format_args!("{}/{}", owner.namespace, owner.pod), stranger, ?adopted, "a link of Calico's is ours");
        Ok(())
    }

    async fn held(&self, attachment: &Attachment) -> Result<Vec<Allocation>, Error> {
        let (container_id, ifname) = names(attachment);
        ask(&self.ipam, |reply| ipam::Request::Held {
            container_id,
            ifname,
            reply,
        })
        .await
    }

    fn tombstone(&self, attachment: &Attachment) -> PathBuf {
        tombstone::directory(&self.state_dir).join(tombstone::file_name(attachment))
    }

    fn has_tombstone(&self, attachment: &Attachment) -> bool {
        self.tombstone(attachment).exists()
    }

    fn remove_tombstone(&self, attachment: &Attachment) {
        let path = self.tombstone(attachment);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a tombstone cannot be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    async fn timed<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let done = work.await;
        let outcome = if done.is_ok() { Outcome::Ok } else { Outcome::Error };
        let labels = CniLabels { operation, outcome };
        self.metrics
            .cni
            .get_or_create(&labels)
            .observe(begun.elapsed().as_secs_f64());
        done
    }
}

fn names(attachment: &Attachment) -> (String, String) {
    (
        attachment.container_id.as_str().to_owned(),
        attachment.ifname.as_str().to_owned(),
    )
}

/// The attachment of an owner; none for names that CNI does not allow, which no ADD brought.
pub(crate) fn attachment_of(owner: &AttachmentId) -> Option<Attachment> {
    Some(Attachment {
        container_id: owner.container_id.clone().try_into().ok()?,
        ifname: owner.ifname.clone().try_into().ok()?,
    })
}

/// The attachments to a network that are not among the valid ones. Of some a lost journal has left no more than
/// their interface, or not their network: they are this one's where the node knows of no other.
fn stale<'a>(
    owners: impl Iterator<Item = &'a AttachmentId> + Clone,
    network: &'a str,
    valid: &[Attachment],
) -> impl Iterator<Item = Attachment> {
    let interface = |attachment: &Attachment| {
        let (container_id, ifname) = names(attachment);
        recovery::interface(&container_id, &ifname)
    };
    let valid: BTreeSet<String> = valid.iter().map(interface).collect();
    let networks = owners.clone().filter_map(|owner| owner.network.as_deref());
    let only = networks.into_iter().all(|other| other == network);
    let is_of = move |owner: &&AttachmentId| owner.network.as_deref().map_or(only, |of| of == network);
    let is_stale = move |owner: &&AttachmentId| {
        !valid.contains(&recovery::interface(&owner.container_id, &owner.ifname))
    };
    owners.filter(is_of).filter(is_stale).filter_map(attachment_of)
}

/// Refuses what no WorkloadEndpoint can say: nobody could select the pod by it.
fn check_endpoint(endpoint: &WorkloadEndpoint) -> Result<(), Error> {
    let problems = manx_api::validate(&Resource::WorkloadEndpoint(endpoint.clone()));
    let Some(problem) = problems.first() else {
        return Ok(());
    };
    Err(Error::new(Code::InvalidConfig, problem.to_string()))
}

/// Refuses an attachment that another network has: a container has one interface of a name.
fn foreign(allocations: &[Allocation], call: &Call) -> Result<(), Error> {
    let holder = allocations.iter().find_map(|held| held.owner.network.as_deref());
    match holder.filter(|network| *network != call.config.name) {
        None => Ok(()),
        Some(network) => {
            let message = format!(
                "{} is attached to network '{network}' already: DEL it there first",
                call.attachment
            );
            Err(Error::new(Code::InvalidEnvironment, message))
        }
    }
}

/// That the pod has gone, which is why the kernel refused this or that.
fn vanished(call: &Call) -> Option<Error> {
    match Netns::open(call.netns.as_deref()?) {
        Err(gone @ manx_linux::Error::NoNetns(_)) => Some(convert::cni_error(gone)),
        Ok(_) | Err(_) => None,
    }
}

/// Refuses what is not what the runtime asked for.
fn granted(allocations: &[Allocation], call: &Call) -> Result<(), Error> {
    let held = |address: &&IpAddr| allocations.iter().any(|held| held.address == **address);
    match call.requested.iter().find(|address| !held(address)) {
        None => Ok(()),
        Some(address) => {
            let message = format!("the requested address {address} cannot be had");
            Err(Error::new(Code::NoAddress, message))
        }
    }
}

fn refused(error: IpamError) -> Error {
    let code = match error {
        IpamError::NoPool { .. }
        | IpamError::Exhausted { .. }
        | IpamError::Limit { .. }
        | IpamError::NoClaims { .. } => Code::NoAddress,
        IpamError::Annotation(_) => Code::InvalidConfig,
        // Its holder may go.
        IpamError::Hold(HoldError::Held { .. }) | IpamError::Place(PlaceError::Held { .. }) => {
            Code::TryAgainLater
        }
        IpamError::Hold(HoldError::Outside { .. })
        | IpamError::Place(PlaceError::Outside { .. } | PlaceError::Disabled { .. })
        | IpamError::Elsewhere { .. } => Code::NoAddress,
        IpamError::NotYet { .. } => Code::TryAgainLater,
        IpamError::Journal { .. } => Code::Io,
    };
    Error::new(code, error.to_string())
}

fn gone(gone: Gone) -> Error {
    Error::new(Code::TryAgainLater, gone.to_string())
}

async fn ask<M, T>(
    door: &mpsc::Sender<M>,
    question: impl FnOnce(oneshot::Sender<T>) -> M,
) -> Result<T, Error> {
    crate::ask::ask(door, question).await.map_err(gone)
}

#[cfg(test)]
mod tests {
    use manx_api::ipam::QUARANTINE;

    use super::*;

    fn owner(container_id: &str, ifname: &str, network: Option<&str>) -> AttachmentId {
        AttachmentId {
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
            namespace: "default".to_owned(),
            pod: container_id.to_owned(),
            network: network.map(str::to_owned),
        }
    }

    #[test]
    fn what_the_runtime_does_not_list_is_stale_as_far_as_it_is_the_networks() {
        let quarantined = |container| owner(QUARANTINE, &recovery::interface(container, "eth0"), None);
        let mut owners = vec![
            owner("valid", "eth0", Some("blue")),
            owner("gone", "eth0", Some("blue")),
            owner("nameless", "eth0", None),
            quarantined("valid"),
            quarantined("lost"),
        ];
        let valid = [attachment_of(&owners[0]).unwrap()];
        let found = |owners: &[AttachmentId]| -> Vec<String> {
            let stale = stale(owners.iter(), "blue", &valid);
            stale
                .map(|attachment| attachment.ifname.as_str().to_owned())
                .collect()
        };
        let lost = recovery::interface("lost", "eth0");
        assert_eq!(found(&owners), ["eth0", "eth0", &lost]);
        owners.push(owner("other", "eth0", Some("red")));
        assert_eq!(found(&owners), ["eth0"], "whose the others are nobody knows");
    }
}
