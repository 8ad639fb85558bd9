//! ADD: which addresses a pod may have, and what it waits for where there is none at hand.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, AttachmentId, pool_of};
use manx_ipam::{AssignError, Chooser, Family, HoldError, Place, PlaceError, Pod, Selection, Want};
use manx_store::Store;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::commit::Answer;
use super::{Assigned, CLAIM_PAUSE, IpamError, Task, recovery};
use crate::ask::answer;
use crate::view::View;

/// What is said of a pod beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The addresses that the runtime wants for it, one of a family at most.
    pub addresses: Vec<IpAddr>,
}

/// A block that has to be had before a request can be served: of this family, from one of these pools.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) family: Family,
    /// By name, the preferred first.
    pub(super) pools: Vec<String>,
    pub(super) site: Site,
}

/// Where the address has to be that a need is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Site {
    /// In any block of the pools.
    Any,
    /// In this block, which nobody owns.
    Block(IpNetwork),
    /// In this part of another node's block.
    Part { of: IpNetwork, part: IpNetwork },
}

/// Why a need cannot be met, for the time being.
pub(super) struct Failure {
    error: IpamError,
    until: Instant,
    /// Nobody lends anything, either.
    unlent: bool,
}

impl Failure {
    fn lasts(&self) -> bool {
        Instant::now() < self.until
    }
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
            site: Site::Any,
        }
    }
}

impl<S: Store> Task<S> {
    /// Assigns, or sees to a block and lets the request wait for it.
    pub(super) fn assign(&mut self, request: Waiting) {
        let id = &request.owner;
        let identified = recovery::identify(&mut self.allocator, id, self.clock.now());
        self.staged.extend(identified);
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
            Err(error) => {
                let family = match &error {
                    AssignError::NoRoom { family } => *family,
                    AssignError::Hold(HoldError::Outside { address } | HoldError::Held { address, .. }) => {
                        Family::of(*address)
                    }
                };
                let need = needs.into_iter().flatten().find(|need| need.family == family);
                match (need, error) {
                    (Some(need), _) => self.wait(request, need),
                    (None, AssignError::Hold(error)) => answer(request.reply, Err(error.into())),
                    (None, AssignError::NoRoom { .. }) => self.waiting.push(request),
                }
            }
        }
    }

    /// Has a need met, unless that was just tried.
    fn wait(&mut self, request: Waiting, need: Need) {
        // There may be room in what an earlier life had.
        if !self.is_recovered() {
            return self.waiting.push(request);
        }
        let failure = self.failures.get(&need).filter(|failure| failure.lasts());
        let unlent = failure.is_some_and(|failure| failure.unlent);
        let may_borrow = !self.view.ipam.strict_affinity && !unlent;
        match (failure.map(|failure| failure.error.clone()), need.site) {
            (Some(error), _) if !may_borrow || !error.is_shortage() => answer(request.reply, Err(error)),
            (None, Site::Any | Site::Block(_)) => {
                self.waiting.push(request);
                self.claim(need);
            }
            (Some(error), _) => {
                self.waiting.push(request);
                self.borrow(need, error);
            }
            (None, Site::Part { of, part }) => {
                self.waiting.push(request);
                let reason = format!("the owner of block {of} does not lend {}", part.ip());
                self.borrow(need, IpamError::NotYet { reason });
            }
        }
    }

    /// Looks again at everything that waits.
    pub(super) fn retry(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().for_each(|request| self.assign(request));
    }

    /// What a pod may have of each family, and what it needs where that is not there.
    fn wanted(&self, view: &View, request: &Waiting) -> Result<Vec<(Option<Need>, Want)>, IpamError> {
        let addresses = manx_ipam::requested(&request.wish.annotations, &request.wish.addresses)?;
        if !addresses.is_empty() {
            let wanted = addresses
                .into_iter()
                .map(|address| self.wanted_address(view, address));
            return wanted.collect();
        }
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

    /// This very address, and what it needs where it is in no block of ours.
    fn wanted_address(&self, view: &View, address: IpAddr) -> Result<(Option<Need>, Want), IpamError> {
        let block = self.allocator.block_of(address);
        let lent = block.is_some_and(|block| block.loans().any(|(part, _)| part.contains(address)));
        let block = block.filter(|_| !lent).map(manx_ipam::Block::cidr);
        let want = Want::Address(address);
        if let Some(block) = block.filter(|block| !self.is_closed(*block)) {
            return match pool_of(block, view.pools.values()) {
                Some(pool) if pool.spec.disabled => Err(IpamError::Place(PlaceError::Disabled {
                    address,
                    pool: pool.metadata.name.clone(),
                })),
                Some(_) | None => Ok((None, want)),
            };
        }
        match manx_ipam::place(address, view.pools.values(), view.blocks.values())? {
            Place::Free { pool, block } => {
                let need = Need {
                    family: Family::of(address),
                    pools: vec![pool.metadata.name.clone()],
                    site: Site::Block(block),
                };
                Ok((Some(need), want))
            }
            Place::Elsewhere { block } if view.ipam.strict_affinity || block.spec.lease.is_some() => {
                Err(IpamError::Elsewhere {
                    address,
                    block: block.spec.cidr,
                    node: block.spec.node.clone().unwrap_or_default(),
                })
            }
            Place::Elsewhere { block } => {
                let need = Need {
                    family: Family::of(address),
                    pools: vec![block.spec.pool.clone()],
                    site: Site::Part {
                        of: block.spec.cidr,
                        part: IpNetwork::from(address),
                    },
                };
                Ok((Some(need), want))
            }
        }
    }

    /// Our blocks that give addresses of these pools, in the order of the pools; in a pool the lowest block
    /// first, so that the higher ones drain.
    pub(super) fn serving(&self, view: &View, pools: &[String]) -> Vec<IpNetwork> {
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
        let failure = self.failures.get(need).filter(|failure| failure.lasts())?;
        Some(&failure.error)
    }

    /// Notes that a need could not be met; for a while it is not tried again.
    /// `unlent` says that no lease could be had for it, either.
    pub(super) fn failed(&mut self, need: Need, error: IpamError, unlent: bool) {
        let until = Instant::now() + CLAIM_PAUSE;
        let failure = Failure { error, until, unlent };
        self.failures.insert(need, failure);
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
