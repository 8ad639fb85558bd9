//! Adj-RIB-Out: what a peer was told, and what it is to be told next (RFC 4271 §3.2).
//!
//! Nothing is queued but the numbers of prefixes: what is said of a prefix is worked out when there is room to say
//! it, from the table as it is then. So a peer that reads slowly holds up nobody, costs no more memory than one
//! number per prefix, and hears only the last word (RFC 4271 §9.2). Withdrawals go before announcements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::export::Target;
use crate::filter::{Step, Verdict};
use crate::rib::{Neighbor, Path, PrefixId, Rib, Route};
use crate::session::Session;
use crate::speaker::SEND_BUDGET;
use crate::wire::update::Estimate;
use crate::wire::{self, Context, Message, Nlri, RouteRefresh, update};
use crate::{Family, Prefix};

/// Prefixes looked at per step: enough to fill messages, few enough to notice soon that a peer is slow.
const BATCH: usize = 4096;

/// Octets after which a step says no more, whatever attributes a route has.
const STEP: usize = SEND_BUDGET;

/// A path that a peer was told: its prefix, and the identifier that we gave it there (RFC 7911 §3), 0 where the
/// session has none.
type Place = (PrefixId, u32);

/// A peer's Adj-RIB-Out.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// What the peer has.
    sent: BTreeMap<Place, Arc<Route>>,
    /// What is to be looked at, and whether the peer wants to hear it even if nothing changed.
    pending: BTreeMap<PrefixId, bool>,
    /// Families whose initial routes are among `pending`.
    unfinished: Vec<Family>,
    /// Families that the peer wants to hear again, once all before is said.
    requested: BTreeSet<Family>,
    /// Families whose routes, among `pending`, it hears again.
    repeated: BTreeSet<Family>,
    /// Bytes sent and not yet taken.
    pub(crate) in_flight: usize,
}

impl Outbound {
    /// A session is up: the peer has nothing yet, and gets every prefix that may be for it and an end mark per family.
    pub(crate) fn start(&mut self, families: &[Family], hears_inside: bool, rib: &Rib) {
        self.pending = if hears_inside {
            rib.prefixes().map(|(id, _)| (id, false)).collect()
        } else {
            rib.open().map(|id| (id, false)).collect()
        };
        self.unfinished = families.to_vec();
    }

    /// The session is over: the peer has nothing.
    pub(crate) fn clear(&mut self, rib: &mut Rib) {
        for (id, _) in std::mem::take(self).sent.into_keys() {
            rib.release(id);
        }
    }

    /// A prefix may have to be told.
    pub(crate) fn mark(&mut self, id: PrefixId) {
        self.pending.entry(id).or_insert(false);
    }

    /// The rules have changed: every prefix may have to be told.
    pub(crate) fn mark_all(&mut self, rib: &Rib) {
        for (id, _) in rib.prefixes() {
            self.mark(id);
        }
    }

    /// The peer wants to hear all of a family again (RFC 2918).
    pub(crate) fn repeat(&mut self, family: Family) {
        self.requested.insert(family);
    }

    /// Nothing waits to be said.
    pub(crate) fn has_said_all(&self) -> bool {
        self.pending.is_empty() && self.requested.is_empty()
    }

    /// How many paths the peer has.
    pub(crate) fn advertised(&self) -> usize {
        self.sent.len()
    }

    /// The next messages; nothing once all is said.
    pub(crate) fn next_messages(
        &mut self,
        target: &Target<'_>,
        session: &Session,
        rib: &mut Rib,
    ) -> Option<Vec<Bytes>> {
        let ends = !self.unfinished.is_empty() || !self.repeated.is_empty();
        if !self.pending.is_empty() || ends {
            let batch = self.next_batch(target, rib);
            let mut messages = self.encode(batch, &session.context, rib);
            if self.pending.is_empty() {
                messages.extend(self.unfinished.drain(..).map(update::end_of_rib));
                let repeated = std::mem::take(&mut self.repeated);
                messages.extend(demarcation(repeated, RouteRefresh::END, session));
            }
            return Some(messages);
        }
        if self.requested.is_empty() {
            return None;
        }
        self.repeated = std::mem::take(&mut self.requested);
        let wanted = |prefix: Prefix| self.repeated.contains(&prefix.family());
        let again = rib.prefixes().filter(|(_, prefix)| wanted(*prefix));
        self.pending.extend(again.map(|(id, _)| (id, true)));
        Some(demarcation(self.repeated.iter().copied(), RouteRefresh::BEGIN, session).collect())
    }

    /// Looks at the next pending prefixes, and books what the peer will have been told of them.
    fn next_batch(&mut self, target: &Target<'_>, rib: &mut Rib) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            if batch.octets >= STEP {
                break;
            }
            let Some((id, repeat)) = self.pending.pop_first() else {
                break;
            };
            let Some(prefix) = rib.prefix(id) else { continue };
            let wanted: SmallVec<[(u32, Arc<Route>); 1]> = wanted(id, prefix, target, rib)
                .into_iter()
                .filter_map(|(label, path, verdict)| {
                    let route = batch.route(target, prefix.family(), &path, verdict, rib)?;
                    Some((label, route))
                })
                .collect();
            let had = self.sent.range((id, 0)..=(id, u32::MAX));
            let gone: SmallVec<[u32; 1]> = had
                .map(|((_, label), _)| *label)
                .filter(|had| !wanted.iter().any(|(label, _)| label == had))
                .collect();
            for label in gone {
                batch.withdraw(nlri(prefix, label));
                self.forget((id, label), rib);
            }
            for (label, route) in wanted {
                let place = (id, label);
                let known = self.sent.get(&place).is_some_and(|it| Arc::ptr_eq(it, &route));
                if repeat || !known {
                    batch.announce(route.clone(), place, nlri(prefix, label), target.context);
                    if self.sent.insert(place, route).is_none() {
                        rib.hold(id);
                    }
                }
            }
        }
        batch
    }

    /// Books that the peer does not have a path.
    fn forget(&mut self, place: Place, rib: &mut Rib) {
        if self.sent.remove(&place).is_some() {
            rib.release(place.0);
        }
    }

    fn encode(&mut self, batch: Batch, context: &Context, rib: &mut Rib) -> Vec<Bytes> {
        let mut withdrawn = batch.withdrawn;
        let mut announcements = Vec::with_capacity(batch.announced.len());
        for announced in batch.announced {
            let Announced {
                route, places, nlri, ..
            } = announced;
            let Some(next_hop) = route.next_hop else { continue };
            match update::pack(&route.attributes, next_hop, &nlri, context) {
                Ok(bytes) => announcements.push(bytes),
                Err(error) => {
                    tracing::warn!(%error, prefixes = nlri.len(), "routes cannot be announced to this peer");
                    for place in places {
                        self.forget(place, rib);
                    }
                    withdrawn.extend(nlri);
                }
            }
        }
        let withdrawals = (!withdrawn.is_empty()).then(|| update::pack_withdrawn(&withdrawn, context));
        withdrawals.into_iter().chain(announcements).collect()
    }
}

/// The paths of a prefix that the peer shall have, by identifier, with what its export policy says: of the
/// candidates that it may have, the first few.
fn wanted<'a>(
    id: PrefixId,
    prefix: Prefix,
    target: &Target<'a>,
    rib: &Rib,
) -> SmallVec<[(u32, Path, Verdict<'a>); 1]> {
    let family = prefix.family();
    let labelled = target.adds_paths(family);
    let limit = if labelled {
        target.peer.features.paths_to_send(family)
    } else {
        1
    };
    let candidates = target.candidates(id, family, rib).into_iter();
    let admitted = candidates.filter_map(|path| Some((path, target.admit(prefix, path).ok()?)));
    admitted
        .take(limit)
        .map(|(path, verdict)| (if labelled { path.label } else { 0 }, path.clone(), verdict))
        .collect()
}

fn nlri(prefix: Prefix, label: u32) -> Nlri {
    Nlri {
        path_id: (label != 0).then_some(label),
        prefix,
    }
}

/// The marks before or after what is repeated, where both sides know them. They never stand before the end mark of
/// the initial routes, which is said before any request is looked at (RFC 7313 §4).
fn demarcation(
    families: impl IntoIterator<Item = Family>,
    subtype: u8,
    session: &Session,
) -> impl Iterator<Item = Bytes> {
    let families = families.into_iter().filter(|_| session.demarcates_refresh);
    families.map(move |family| {
        let mark = Message::RouteRefresh(RouteRefresh {
            family: Some(family),
            subtype,
        });
        wire::encode(&mark, &session.context)
    })
}

/// What a step has to say.
#[derive(Debug, Default)]
struct Batch {
    /// No fewer than what there is to say will take.
    octets: usize,
    withdrawn: Vec<Nlri>,
    /// Prefixes by route, in order of first use.
    announced: Vec<Announced>,
    /// Where in `announced` a route is.
    indices: HashMap<*const Route, usize, FixedState>,
    /// What becomes of a route from a source on the way out: it is the same for all prefixes of a family that
    /// one rule lets through.
    translated: HashMap<Way, Option<Arc<Route>>, FixedState>,
}

/// A route and its source, by their places in memory: the table keeps them there meanwhile.
type Learned = (*const Route, Option<*const Neighbor>);

/// Of a family, let through by a rule.
type Way = (Learned, Family, Option<*const Step>);

#[derive(Debug)]
struct Announced {
    route: Arc<Route>,
    estimate: Estimate,
    places: Vec<Place>,
    nlri: Vec<Nlri>,
}

impl Batch {
    /// The route as the peer sees it.
    fn route(
        &mut self,
        target: &Target<'_>,
        family: Family,
        path: &Path,
        verdict: Verdict<'_>,
        rib: &mut Rib,
    ) -> Option<Arc<Route>> {
        let learned = (Arc::as_ptr(&path.route), path.from.as_ref().map(Arc::as_ptr));
        self.translated
            .entry((learned, family, verdict.step.map(std::ptr::from_ref)))
            .or_insert_with(|| {
                target
                    .route(family, path.from.as_deref(), &path.route, verdict.operations())
                    .map(|route| rib.intern(route))
            })
            .clone()
    }

    fn withdraw(&mut self, nlri: Nlri) {
        self.octets += Estimate::WITHDRAWN;
        self.withdrawn.push(nlri);
    }

    fn announce(&mut self, route: Arc<Route>, place: Place, nlri: Nlri, context: &Context) {
        let index = *self
            .indices
            .entry(Arc::as_ptr(&route))
            .or_insert(self.announced.len());
        if index == self.announced.len() {
            let estimate = Estimate::of(&route.attributes, context);
            self.octets += estimate.route;
            self.announced.push(Announced {
                route,
                estimate,
                places: Vec::new(),
                nlri: Vec::new(),
            });
        }
        let announced = &mut self.announced[index];
        self.octets += announced.estimate.prefix;
        announced.places.push(place);
        announced.nlri.push(nlri);
    }
}
