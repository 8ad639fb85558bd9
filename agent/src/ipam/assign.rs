//! ADD: which addresses a pod may have, and what it waits for where there is none at hand.

use std::collections::BTreeMap;

use manx_api::ipam::{Allocation, AttachmentId, pool_of};
use manx_ipam::{AssignError, Chooser, Family, Pod, Selection, Want};
use manx_store::Store;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::commit::Answer;
use super::{Assigned, CLAIM_PAUSE, IpamError, Task};
use crate::ask::answer;
use crate::view::View;

/// What is said of a pod beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A block that has to be had before a request can be served: of this family, from one of these pools.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) family: Family,
    /// By name, the preferred first.
    pub(super) pools: Vec<String>,
}

/// Why a need cannot be met, for the time being.
pub(super) struct Failure {
    pub(super) error: IpamError,
    until: Instant,
}

/// An ADD, and how long it waits at most.
pub(super) struct Waiting {
    pub(super) owner: AttachmentId,
    pub(super) wish: Wish,
    pub(super) reply: oneshot::Sender<Result<Assigned, IpamError>>,
    pub(super) until: Instant,
}

impl Need {
    fn of(selection: &Selection<'_>) -> Self {
        let names = selection.pools.iter().map(|pool| pool.metadata.name.clone());
        Self {
            family: selection.family,
            pools: names.collect(),
        }
    }
}

impl<S: Store> Task<S> {
    /// Assigns, or sees to a block and lets the request wait for it.
    pub(super) fn assign(&mut self, request: Waiting) {
        let id = &request.owner;
        let held: Vec<_> = self.allocator.held_by(&id.container_id, &id.ifname).collect();
        let view = self.view.clone();
        if !view.complete && held.is_empty() {
            return self.waiting.push(request);
        }
        let (needs, wants): (Vec<_>, Vec<_>) = match self.wanted(&view, &request) {
            Ok(wanted) => wanted.into_iter().unzip(),
            // Whatever is said by now: what was promised holds.
            Err(_) if !held.is_empty() => held.iter().map(kept).unzip(),
            Err(error) => return answer(request.reply, Err(error)),
        };
        let asked = manx_ipam::Request {
            owner: &request.owner,
            wants: &wants,
            rest: self.rest(),
        };
        match self.allocator.assign(&asked) {
            Ok(assignment) => {
                self.staged.extend(assignment.record);
                self.answers
                    .push(Answer::assigned(request.reply, assignment.allocations, &held));
            }
            Err(AssignError::NoRoom { family }) => {
                let need = needs.into_iter().flatten().find(|need| need.family == family);
                self.wait(request, need);
            }
            Err(AssignError::Hold(error)) => answer(request.reply, Err(error.into())),
        }
    }

    /// Has a need met, unless that was just tried.
    fn wait(&mut self, request: Waiting, need: Option<Need>) {
        let Some(need) = need else {
            return self.waiting.push(request);
        };
        if let Some(error) = self.failure(&need) {
            return answer(request.reply, Err(error.clone()));
        }
        self.waiting.push(request);
        self.claim(need);
    }

    /// Looks again at everything that waits.
    pub(super) fn retry(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().for_each(|request| self.assign(request));
    }

    /// What a pod may have of each family, and what it needs where that is not there.
    fn wanted(&self, view: &View, request: &Waiting) -> Result<Vec<(Option<Need>, Want)>, IpamError> {
        let node = &self.identity.name;
        let namespace = &request.owner.namespace;
        let pod = Pod {
            node,
            node_labels: self.labels(view),
            namespace,
            namespace_metadata: view.namespaces.get(namespace).map(|known| &known.metadata),
            annotations: &request.wish.annotations,
        };
        let selections = manx_ipam::select(&pod, view.pools.values())?;
        let of = |selection: &Selection<'_>| {
            let need = Need::of(selection);
            let want = Want::Any {
                family: selection.family,
                blocks: self.serving(view, &need.pools),
                unrested: self.failure(&need).is_some(),
            };
            (Some(need), want)
        };
        let wanted: Vec<_> = selections
            .iter()
            .filter(|selection| !selection.pools.is_empty())
            .map(of)
            .collect();
        if wanted.is_empty() {
            return Err(IpamError::NoPool {
                node: node.clone(),
                namespace: namespace.clone(),
                why: selections.iter().map(Selection::to_string).collect(),
            });
        }
        if selections.iter().any(|selection| selection.by != Chooser::Pools) {
            tracing::debug!(pod = request.owner.pod, namespace, choice = ?selections.iter().map(Selection::to_string).collect::<Vec<_>>(), "pools chosen");
        }
        Ok(wanted)
    }

    /// Our blocks that give addresses of these pools, in the order of the pools; in a pool the lowest block
    /// first, so that the higher ones drain.
    pub(super) fn serving(&self, view: &View, pools: &[String]) -> Vec<ipnetwork::IpNetwork> {
        let open = self.allocator.blocks().map(manx_ipam::Block::cidr);
        let open = open.filter(|cidr| !self.is_closed(*cidr));
        let placed: Vec<_> = open
            .filter_map(|cidr| Some((&pool_of(cidr, view.pools.values())?.metadata.name, cidr)))
            .collect();
        let of = |pool: &String| {
            let of_pool = placed.iter().filter(move |(name, _)| **name == *pool);
            of_pool.map(|(_, cidr)| *cidr).collect::<Vec<_>>()
        };
        pools.iter().flat_map(of).collect()
    }

    /// Why the need could not be met a moment ago.
    pub(super) fn failure(&self, need: &Need) -> Option<&IpamError> {
        let failure = self.failures.get(need)?;
        (Instant::now() < failure.until).then_some(&failure.error)
    }

    /// Notes that a need could not be met; for a while it is not tried again.
    pub(super) fn failed(&mut self, need: Need, error: IpamError) {
        let until = Instant::now() + CLAIM_PAUSE;
        self.failures.insert(need, Failure { error, until });
    }

    /// This node's labels.
    pub(super) fn labels<'a>(&'a self, view: &'a View) -> &'a BTreeMap<String, String> {
        view.nodes
            .get(&self.identity.name)
            .map_or(&self.identity.labels, |node| &node.metadata.labels)
    }
}

/// What keeps an allocation where it is.
fn kept(held: &Allocation) -> (Option<Need>, Want) {
    (None, Want::Address(held.address))
}
