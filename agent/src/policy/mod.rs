//! The policy task: owner of the node's rules and sets in the kernel, those of policies and of NAT outgoing.
//!
//! Pools come from the view, policies and what they speak of from the store's news, this node's pods from the cni
//! task; [`Rules`] makes the kernel follow. An ADD is answered when the rules for its pod are in force, so that the
//! pod's first packet obeys them. What comes while the kernel is being changed is taken together next time.
//!
//! Nothing is touched before the store has said what there is and the pods of an earlier life have been told of:
//! until then the rules that it left are in force. Nothing is taken away when the agent ends or the task panics.
//!
//! What others do to our rules is looked for at intervals, when nftables tells of it, and at a CHECK, and mended.

mod addresses;
mod cluster;
mod gate;
mod hosts;
mod review;
mod services;
mod tally;
mod what_if;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use manx_api::explanation::{PolicyExplainCall, PolicyExplanation, StagedCount};
use manx_api::what_if::WhatIfCall;
use manx_api::workload::WorkloadEndpoint;
use manx_linux::{Backend, Netns, Rules};
use manx_policy::{Engine, Failsafes, Logged, Settings, Told, Unexplained, Update, Whose, explain, told};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use self::addresses::Addresses;
use self::cluster::{Cluster, Sought, name_of};
pub use self::cluster::{KINDS, News, Pod};
pub use self::gate::{Gate, NotInForce, Unheard};
use self::review::Review;
use self::tally::Tally;
pub use self::what_if::Supposition;
use crate::ask::answer;
use crate::convert;
use crate::metrics::Metrics;
use crate::ready::Guard;
use crate::verdicts::Verdict;
use crate::view::View;
use crate::watch::pauses;

/// How long whoever changes our rules is given to finish.
const SETTLE: Duration = Duration::from_millis(500);

/// How long connections are left alone after they were looked at: the kernel's table may be long.
const REVIEWS: Duration = Duration::from_secs(1);

/// News and requests taken together, at most.
const BATCH: usize = 4096;

/// Whose pauses the task takes: it shares the kernel with nobody, so any will do.
const RETRIES: &str = "policy";

/// How many denied packets a second each rule logs while somebody follows them.
const FOLLOWED: u16 = 20;

/// Why the kernel is not as wanted.
type Refusal = String;

/// Where it is said whether the kernel is as wanted.
type Reply = oneshot::Sender<Result<(), Refusal>>;

/// A request to the policy task.
#[derive(Debug)]
pub enum Request {
    /// A pod is about to be attached; answered when its rules are in force, or with why they are not.
    Join(Pod, Reply),
    /// What the cluster says of a pod of this node; answered when it says something.
    Seek {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        pod: String,
        /// Which of the pods that ever had it; none: any.
        uid: Option<String>,
        /// What it says.
        reply: oneshot::Sender<WorkloadEndpoint>,
    },
    /// A pod of an earlier life is there.
    Adopt(Pod),
    /// Every pod of an earlier life was adopted.
    Settle,
    /// A container's attachment is gone; answered when no set has it any more, or that was tried.
    Leave {
        /// `CNI_CONTAINERID`.
        container_id: String,
        /// `CNI_IFNAME`.
        ifname: String,
        /// Done.
        reply: Reply,
    },
    /// The kernel is to be looked at; answered when it is as wanted, or with why it is not.
    Look(Reply),
    /// Why a packet is let through or not, by what was told so far.
    Explain(
        Box<PolicyExplainCall>,
        oneshot::Sender<Result<PolicyExplanation, Unexplained>>,
    ),
    /// What is known at present, and what would be news if some resources were written and others deleted.
    Suppose(Box<WhatIfCall>, oneshot::Sender<Supposition>),
    /// What staged policies would have done; answered after the kernel was looked at.
    Staged(oneshot::Sender<Result<Vec<StagedCount>, Refusal>>),
    /// Rules are to log what they deny, or no longer, unless settings want it anyway; answered when they do.
    Log(bool, oneshot::Sender<Result<(), Refusal>>),
    /// What is known of logged packets; none of those that no rule of ours logged.
    Name(Vec<Logged>, oneshot::Sender<Vec<Option<Named>>>),
}

/// What is known of a logged packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What the engine says of it.
    pub told: Told,
    /// The pods that sent it, and that it was for.
    pub pods: [Option<String>; 2],
}

/// When policies are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Always: also without policies, pods send from their own addresses alone, and unknown interfaces are closed.
    Always(Settings),
    /// As long as there are policies, or host endpoints of this node that are closed without.
    WhenUsed(Settings),
    /// Not by us.
    Never,
}

impl Enforcement {
    /// The settings to enforce with, if it is to be done; `followed`: what is denied is to be logged.
    fn settings(self, denies: bool, followed: bool) -> Option<Settings> {
        let settings = match self {
            Self::Always(settings) => settings,
            Self::WhenUsed(settings) if denies => settings,
            Self::WhenUsed(_) | Self::Never => return None,
        };
        Some(Settings {
            log_denied: settings.log_denied.or_else(|| followed.then_some(FOLLOWED)),
            ..settings
        })
    }
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// This node's name.
    pub node: String,
    /// The cluster's pools.
    pub view: watch::Receiver<Arc<View>>,
    /// What policies are made of.
    pub news: mpsc::Receiver<News>,
    /// Requests.
    pub requests: mpsc::Receiver<Request>,
    /// Where the rules go.
    pub netns: Netns,
    /// The back end of iptables that the user chose.
    pub backend: Option<Backend>,
    /// How often what others did to our rules is looked for.
    pub refresh: Duration,
    /// When policies are enforced.
    pub enforcement: Enforcement,
    /// What no host endpoint's policy closes.
    pub failsafes: Failsafes,
    /// Where what policies are to be told of themselves goes.
    pub verdicts: mpsc::Sender<Verdict>,
    /// What is counted.
    pub metrics: Metrics,
    /// Done when the first rules are in the kernel.
    pub programmed: Option<Guard>,
}

/// Runs until nobody can change the view or ask any more.
pub async fn run(mut inbox: Inbox) {
    let mut task = Task::new(&inbox);
    let (mut news, mut requests) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            changed = inbox.view.changed() => if changed.is_err() {
                return;
            },
            count = inbox.news.recv_many(&mut news, BATCH) => if count == 0 {
                return;
            },
            count = inbox.requests.recv_many(&mut requests, BATCH) => if count == 0 {
                return;
            },
            () = sleep_until(task.due), if task.is_ready() => {}
            () = task.addresses.moved() => {}
            Some(()) = OptionFuture::from(task.reviews.0.map(sleep_until)) => task.end_denied(&inbox),
            Some(question) = task.review.question() => {
                question.answer(task.rules.engine());
                continue;
            }
            // What is refused is tried again at its own pace.
            () = task.rules.disturbed(), if task.right => {
                task.due = task.due.min(Instant::now() + SETTLE);
                continue;
            }
        }
        let view = inbox.view.borrow_and_update().clone();
        task.see(&view);
        news.drain(..).for_each(|news| task.hear(news));
        for verdict in task.cluster.verdicts() {
            if let Err(error) = inbox.verdicts.try_send(verdict) {
                tracing::debug!(%error, "a policy is not told what is wrong with it");
            }
        }
        requests.drain(..).for_each(|request| task.take(request));
        task.answer_seekers();
        task.find_hosts();
        if task.is_ready() {
            task.follow(&mut inbox).await;
        }
        task.report(&inbox).await;
    }
}

struct Task {
    rules: Rules,
    cluster: Cluster,
    addresses: Addresses,
    enforcement: Enforcement,
    /// With what policies are enforced at present.
    enforced: Option<Settings>,
    /// Whether somebody follows what is denied.
    followed: bool,
    /// Told, and not taken in yet.
    updates: Vec<Update>,
    /// Whether one of them may deny what was let through.
    stricter: bool,
    /// When connections are to be looked at for that, and when they last were.
    reviews: (Option<Instant>, Option<Instant>),
    review: Review,
    /// Who waits until that is in force, and for which pod.
    waiting: Vec<(Option<String>, Reply)>,
    /// Who waits until the store tells of a pod, and of which.
    seekers: Vec<(Sought, oneshot::Sender<WorkloadEndpoint>)>,
    /// What staged policies would have done, and who waits to hear of it.
    tally: Tally,
    asking: Vec<oneshot::Sender<Result<Vec<StagedCount>, Refusal>>>,
    /// When the kernel's counts were read last.
    counted: Instant,
    /// Whether the view and the store's list are whole, and the pods of an earlier life are known.
    ready: [bool; 3],
    /// Whether the kernel was as wanted when we last saw it.
    right: bool,
    /// When to look again.
    due: Instant,
    retries: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Task {
    fn new(inbox: &Inbox) -> Self {
        Self {
            rules: Rules::start_in(&inbox.netns, inbox.backend),
            cluster: Cluster::seen_from(inbox.node.clone()),
            addresses: Addresses::of(inbox.netns.clone()),
            enforcement: inbox.enforcement,
            enforced: None,
            followed: false,
            updates: Cluster::beginning()
                .chain([Update::Failsafes(inbox.failsafes.clone())])
                .collect(),
            stricter: false,
            reviews: (None, None),
            review: Review::new(),
            waiting: Vec::new(),
            seekers: Vec::new(),
            tally: Tally::default(),
            asking: Vec::new(),
            counted: Instant::now(),
            ready: [false; 3],
            right: false,
            due: Instant::now(),
            retries: Box::new(pauses(RETRIES)),
        }
    }

    fn is_ready(&self) -> bool {
        self.ready == [true; 3]
    }

    /// Takes in what the view says of pools.
    fn see(&mut self, view: &View) {
        if view.complete {
            self.ready[0] = true;
            self.updates.extend(pools(self.rules.engine(), view));
        }
    }

    fn hear(&mut self, news: News) {
        self.ready[1] |= matches!(news, News::Listed(..));
        let updates = self.cluster.hear(news);
        self.stricter |= !updates.is_empty();
        self.updates.extend(updates);
    }

    /// Finds the interfaces that host endpoints are.
    fn find_hosts(&mut self) {
        match self.addresses.find(self.cluster.sought()) {
            Ok(Some(interfaces)) => {
                self.stricter = true;
                self.updates.extend(self.cluster.place(interfaces));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot find the interfaces of host endpoints; trying again")
            }
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Join(pod, reply) => {
                let name = name_of(&pod.endpoint);
                self.updates.extend(self.cluster.join(pod));
                self.waiting.push((Some(name), reply));
            }
            Request::Seek {
                namespace,
                pod,
                uid,
                reply,
            } => self.seekers.push(((namespace, pod, uid), reply)),
            Request::Adopt(pod) => self.updates.extend(self.cluster.join(pod)),
            Request::Settle => self.ready[2] = true,
            Request::Leave {
                container_id,
                ifname,
                reply,
            } => {
                self.updates.extend(self.cluster.leave(&container_id, &ifname));
                if self.is_ready() {
                    self.waiting.push((None, reply));
                } else {
                    // The rules of an earlier life keep it until ours are written; its interface is no more.
                    answer(reply, Ok(()));
                }
            }
            Request::Staged(reply) => self.asking.push(reply),
            Request::Explain(call, reply) => answer(reply, self.explain(*call)),
            Request::Suppose(call, reply) => {
                let known = (self.rules.engine(), &self.updates[..]);
                answer(reply, Supposition::of(known, &self.cluster, *call));
            }
            Request::Log(followed, reply) => {
                self.followed = followed;
                self.waiting.push((None, reply));
            }
            Request::Name(logged, reply) => {
                answer(reply, logged.iter().map(|logged| self.name(logged)).collect());
            }
            Request::Look(reply) => {
                self.waiting.push((None, reply));
                self.due = Instant::now();
            }
        }
    }

    /// Answers who seeks a pod that the store has told of.
    fn answer_seekers(&mut self) {
        for (sought, reply) in std::mem::take(&mut self.seekers) {
            match self.cluster.find(&sought) {
                Some(found) => answer(reply, found.clone()),
                None if reply.is_closed() => {}
                None => self.seekers.push((sought, reply)),
            }
        }
    }

    fn explain(&self, call: PolicyExplainCall) -> Result<PolicyExplanation, Unexplained> {
        let traffic = convert::traffic(&call);
        let (from, to) = (convert::party(call.from), convert::party(call.to));
        let engine = self.rules.engine();
        let found = explain(engine, &from, &to, traffic)?;
        let own = self.addresses.has(found.destination).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot say whether a packet is for this node");
            false
        });
        let found = if own { found.at_node(engine) } else { found };
        Ok(convert::explanation(found, traffic))
    }

    fn name(&self, logged: &Logged) -> Option<Named> {
        let told = told(self.rules.engine(), logged)?;
        let pod = |whose: &Whose| self.cluster.pod(whose.endpoint.as_deref()?);
        let pods = [pod(&told.source), pod(&told.destination)];
        Some(Named { told, pods })
    }

    /// Makes the kernel follow what was told, looks for what others did to our rules where that is due, and answers
    /// who waits.
    async fn follow(&mut self, inbox: &mut Inbox) {
        let late = self.due <= Instant::now();
        let settings = self.enforcement.settings(self.cluster.denies(), self.followed);
        if self.enforced != settings {
            self.enforced = settings;
            self.updates.push(Update::Enforce(settings));
        }
        if !self.updates.is_empty() || late {
            let outcome = self.change(inbox, late && self.right).await;
            self.right = outcome.is_ok();
            let pause = if self.right {
                self.retries = Box::new(pauses(RETRIES));
                inbox.refresh
            } else {
                self.retries.next().unwrap_or(inbox.refresh)
            };
            if late || !self.right {
                self.due = Instant::now() + pause;
            }
            for (pod, reply) in self.waiting.drain(..) {
                // What is refused may be nothing that the pod needs.
                let served = pod.is_some_and(|pod| self.rules.serve(&pod));
                answer(reply, if served { Ok(()) } else { outcome.clone() });
            }
        }
        for (_, reply) in self.waiting.drain(..) {
            answer(reply, Ok(()));
        }
    }

    /// Adds up what the kernel counted of staged policies, where somebody asks or it is time, and answers who asks.
    async fn report(&mut self, inbox: &Inbox) {
        let late = self.counted.elapsed() >= inbox.refresh;
        if self.asking.is_empty() && !late {
            return;
        }
        self.counted = Instant::now();
        let outcome = match self.rules.trials().await {
            Ok(trials) => {
                self.tally.take(&trials, &inbox.metrics.staged_packets);
                Ok(self.tally.counts(&inbox.node))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read what staged policies would have done");
                Err(error.to_string())
            }
        };
        for reply in self.asking.drain(..) {
            answer(reply, outcome.clone());
        }
    }

    fn end_denied(&mut self, inbox: &Inbox) {
        let now = Instant::now();
        self.reviews = if self.review.begin(&inbox.netns, &inbox.metrics) {
            (None, Some(now))
        } else {
            (Some(now + REVIEWS), self.reviews.1)
        };
    }

    async fn change(&mut self, inbox: &mut Inbox, look: bool) -> Result<(), Refusal> {
        let begun = Instant::now();
        let mut outcome = self.rules.apply(self.updates.drain(..)).await;
        if look && outcome.is_ok() {
            outcome = self.rules.check().await;
            if let Ok(repairs @ 1..) = outcome {
                tracing::warn!(repairs, "somebody changed our rules; they are as wanted again");
                inbox.metrics.rule_repairs.inc_by(repairs as u64);
            }
        }
        inbox.metrics.rules_commit.observe(begun.elapsed().as_secs_f64());
        let changes = outcome.map_err(|error| {
            tracing::error!(%error, "rules are not as wanted; trying again");
            inbox.metrics.rule_errors.inc();
            error.to_string()
        })?;
        if changes > 0 {
            tracing::debug!(changes, backend = ?self.rules.backend(), "rules are as wanted");
        }
        if std::mem::take(&mut self.stricter) && changes > 0 {
            let soon = self.reviews.1.map_or(begun, |last| last + REVIEWS);
            self.reviews.0.get_or_insert(soon);
        }
        if let Some(guard) = inbox.programmed.take() {
            guard.done();
        }
        Ok(())
    }
}

/// What the view says of pools that the engine does not know.
fn pools(engine: &Engine, view: &View) -> Vec<Update> {
    let known = engine.pools();
    let gone = known.keys().filter(|name| !view.pools.contains_key(*name));
    let gone = gone.map(|name| Update::RemovePool { name: name.clone() });
    let pools = view
        .pools
        .iter()
        .map(|(name, pool)| (name, convert::policy_pool(pool)));
    let set = pools
        .filter(|(name, pool)| known.get(*name) != Some(pool))
        .map(|(name, pool)| Update::SetPool {
            name: name.clone(),
            pool,
        });
    gone.chain(set).collect()
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "these updates are of pools")]
mod tests {
    use manx_api::ipam::{IpPool, IpPoolSpec};

    use super::*;

    fn view(pools: &[(&str, &str, bool)]) -> Arc<View> {
        let mut view = View {
            complete: true,
            ..View::default()
        };
        for (name, cidr, nat_outgoing) in pools {
            let spec = serde_json::json!({"cidr": cidr, "natOutgoing": nat_outgoing});
            let pool = IpPool {
                metadata: serde_json::from_value(serde_json::json!({"name": name})).unwrap(),
                spec: serde_json::from_value::<IpPoolSpec>(spec).unwrap(),
            };
            view.pools.insert((*name).to_owned(), pool);
        }
        Arc::new(view)
    }

    #[test]
    fn news_are_pools_that_came_changed_or_went() {
        let mut engine = Engine::new();
        let before = view(&[
            ("a", "10.1.0.0/16", false),
            ("b", "10.2.0.0/16", true),
            ("c", "10.3.0.0/16", false),
        ]);
        assert_eq!(pools(&engine, &before).len(), 3);
        engine.apply(pools(&engine, &before));
        assert_eq!(pools(&engine, &before), []);
        let after = view(&[("b", "10.2.0.0/16", false), ("c", "10.3.0.0/16", false)]);
        let names: Vec<String> = pools(&engine, &after)
            .into_iter()
            .filter_map(|update| match update {
                Update::SetPool { name, .. } => Some(format!("+{name}")),
                Update::RemovePool { name } => Some(format!("-{name}")),
                _ => None,
            })
            .collect();
        assert_eq!(names, ["-a", "+b"]);
    }
}
