//! Adj-RIB-Out: what a peer was told, and what it is to be told next (RFC 4271 §3.2).
//!
//! Nothing is queued but the numbers of prefixes: what is said of a prefix is worked out when there is room to say
//! it, from the table as it is then. So a peer that reads slowly holds up nobody, costs no more memory than one
//! number per prefix, and hears only the last word (RFC 4271 §9.2). Withdrawals go before announcements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::export::Target;
use crate::filter::{Step, Verdict};
use crate::rib::{Neighbor, Path, PrefixId, PrefixMap, PrefixSet, Rib, Route};
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
    sent: Sent,
    /// What is to be looked at.
    pending: PrefixSet,
    /// What of it the peer wants to hear even if nothing changed.
    again: PrefixSet,
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
        if hears_inside {
            self.mark_all(rib);
        } else {
            self.pending.extend(rib.open());
        }
        self.unfinished = families.to_vec();
    }

    /// The session is over: the peer has nothing.
    pub(crate) fn clear(&mut self, rib: &mut Rib) {
        for (id, _) in std::mem::take(self).sent.places() {
            rib.release(id);
        }
    }

    /// A prefix may have to be told.
    pub(crate) fn mark(&mut self, id: PrefixId) {
        self.pending.insert(id);
    }

    /// The rules have changed: every prefix may have to be told.
    pub(crate) fn mark_all(&mut self, rib: &Rib) {
        self.pending.extend(rib.prefixes().map(|(id, _)| id));
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
            let said = self.encode(batch, &session.context, rib);
            let mut messages: Vec<Bytes> = Some(said).filter(|said| !said.is_empty()).into_iter().collect();
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
        self.again.extend(again.map(|(id, _)| id));
        self.pending.extend(self.again.iter());
        Some(demarcation(self.repeated.iter().copied(), RouteRefresh::BEGIN, session).collect())
    }

    /// Looks at the next pending prefixes, and books what the peer will have been told of them.
    fn next_batch(&mut self, target: &Target<'_>, rib: &mut Rib) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            if batch.octets >= STEP {
                break;
            }
            let Some(id) = self.pending.pop_first() else {
                break;
            };
            let repeat = self.again.remove(id);
            let Some(prefix) = rib.prefix(id) else { continue };
            let wanted: SmallVec<[(u32, Arc<Route>); 1]> = wanted(id, prefix, target, rib, &batch)
                .into_iter()
                .filter_map(|wanted| batch.route(target, prefix.family(), wanted, rib))
                .collect();
            let mut gone = self.sent.labels(id);
            gone.retain(|had| !wanted.iter().any(|(label, _)| label == had));
            for label in gone {
                batch.withdraw(nlri(prefix, label));
                self.forget((id, label), rib);
            }
            for (label, route) in wanted {
                let place = (id, label);
                let known = self.sent.get(place).is_some_and(|it| Arc::ptr_eq(it, &route));
                if repeat || !known {
                    batch.announce(&route, nlri(prefix, label), target.context);
                    if self.sent.insert(place, route) {
                        rib.hold(id);
                    }
                }
            }
        }
        batch
    }

    /// Books that the peer does not have a path.
    fn forget(&mut self, place: Place, rib: &mut Rib) {
        if self.sent.remove(place) {
            rib.release(place.0);
        }
    }

    /// The messages of a step, which are empty where there is nothing to say.
    fn encode(&mut self, batch: Batch, context: &Context, rib: &mut Rib) -> Bytes {
        let mut withdrawn = batch.withdrawn;
        let mut announcements = BytesMut::new();
        for Announced { route, nlri, .. } in batch.announced {
            let Some(next_hop) = route.next_hop else { continue };
            let put = update::put_announced(&route.attributes, next_hop, &nlri, context, &mut announcements);
            if let Err(error) = put {
                tracing::warn!(%error, prefixes = nlri.len(), "routes cannot be announced to this peer");
                for Nlri { prefix, path_id } in &nlri {
                    if let Some(id) = rib.id(*prefix) {
                        self.forget((id, path_id.unwrap_or(0)), rib);
                    }
                }
                withdrawn.extend(nlri);
            }
        }
        if withdrawn.is_empty() {
            return announcements.freeze();
        }
        let mut messages = BytesMut::new();
        update::put_withdrawn(&withdrawn, context, &mut messages);
        messages.unsplit(announcements);
        messages.freeze()
    }
}

/// What a peer has, by place.
#[derive(Debug, Default)]
struct Sent {
    /// Paths without an identifier: one of a prefix.
    plain: PrefixMap<Arc<Route>>,
    labelled: BTreeMap<Place, Arc<Route>>,
}

impl Sent {
    fn len(&self) -> usize {
        self.plain.len() + self.labelled.len()
    }

    fn get(&self, place: Place) -> Option<&Arc<Route>> {
        match place {
            (id, 0) => self.plain.get(id),
            _ => self.labelled.get(&place),
        }
    }

    /// Whether nothing was there.
    fn insert(&mut self, place: Place, route: Arc<Route>) -> bool {
        let before = match place {
            (id, 0) => self.plain.insert(id, route),
            _ => self.labelled.insert(place, route),
        };
        before.is_none()
    }

    /// Whether something was there.
    fn remove(&mut self, place: Place) -> bool {
        let before = match place {
            (id, 0) => self.plain.remove(id),
            _ => self.labelled.remove(&place),
        };
        before.is_some()
    }

    /// The identifiers of a prefix's paths.
    fn labels(&self, id: PrefixId) -> SmallVec<[u32; 1]> {
        let plain = self.plain.get(id).map(|_| 0);
        let labelled = self.labelled.range((id, 1)..=(id, u32::MAX));
        plain
            .into_iter()
            .chain(labelled.map(|((_, label), _)| *label))
            .collect()
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let plain = self.plain.ids().map(|id| (id, 0));
        plain.chain(self.labelled.keys().copied())
    }
}

/// A path that the peer shall have, by identifier.
enum Wanted<'a> {
    /// What becomes of it on the way out is known.
    Known(u32, Option<Arc<Route>>),
    /// What its export policy says of it.
    New(u32, Path, Verdict<'a>),
}

/// The paths of a prefix that the peer shall have: of the candidates that it may have, the first few.
fn wanted<'a>(
    id: PrefixId,
    prefix: Prefix,
    target: &Target<'a>,
    rib: &Rib,
    batch: &Batch,
) -> SmallVec<[Wanted<'a>; 1]> {
    let family = prefix.family();
    let labelled = target.adds_paths(family);
    let limit = if labelled {
        target.peer.features.paths_to_send(family)
    } else {
        1
    };
    let candidates = target.candidates(id, family, rib).into_iter();
    let admitted = candidates.filter_map(|path| Some((path, target.admit(prefix, path).ok()?)));
    let wanted = admitted.take(limit).map(|(path, verdict)| {
        let label = if labelled { path.label } else { 0 };
        match batch.translated(&way(path, family, &verdict)) {
            Some(route) => Wanted::Known(label, route.clone()),
            None => Wanted::New(label, path.clone(), verdict),
        }
    });
    wanted.collect()
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
    /// Where in `announced` a route is, and which was asked for last: neighbouring prefixes often share theirs.
    indices: HashMap<*const Route, usize, FixedState>,
    last_index: Option<(*const Route, usize)>,
    /// What becomes of a route from a source on the way out: it is the same for all prefixes of a family that
    /// one rule lets through.
    translated: HashMap<Way, Option<Arc<Route>>, FixedState>,
    last_translated: Option<(Way, Option<Arc<Route>>)>,
}

/// A route and its source, by their places in memory: the table keeps them there meanwhile.
type Learned = (*const Route, Option<*const Neighbor>);

/// Of a family, let through by a rule.
type Way = (Learned, Family, Option<*const Step>);

fn way(path: &Path, family: Family, verdict: &Verdict<'_>) -> Way {
    let learned = (Arc::as_ptr(&path.route), path.from.as_ref().map(Arc::as_ptr));
    (learned, family, verdict.step.map(std::ptr::from_ref))
}

#[derive(Debug)]
struct Announced {
    route: Arc<Route>,
    estimate: Estimate,
    nlri: Vec<Nlri>,
}

impl Batch {
    /// What becomes of a route on the way out, where this step has met it before.
    fn translated(&self, way: &Way) -> Option<&Option<Arc<Route>>> {
        match &self.last_translated {
            Some((last, route)) if last == way => Some(route),
            Some(_) | None => self.translated.get(way),
        }
    }

    /// The route as the peer sees it.
    fn route(
        &mut self,
        target: &Target<'_>,
        family: Family,
        wanted: Wanted<'_>,
        rib: &mut Rib,
    ) -> Option<(u32, Arc<Route>)> {
        match wanted {
            Wanted::Known(label, route) => Some((label, route?)),
            Wanted::New(label, path, verdict) => {
                let route = target.route(family, path.from.as_deref(), &path.route, verdict.operations());
                let route = route.map(|route| rib.intern(route));
                let way = way(&path, family, &verdict);
                self.translated.insert(way, route.clone());
                self.last_translated = Some((way, route.clone()));
                Some((label, route?))
            }
        }
    }

    fn withdraw(&mut self, nlri: Nlri) {
        self.octets += Estimate::WITHDRAWN;
        self.withdrawn.push(nlri);
    }

    fn announce(&mut self, route: &Arc<Route>, nlri: Nlri, context: &Context) {
        let key = Arc::as_ptr(route);
        let index = match self.last_index {
            Some((last, index)) if last == key => index,
            Some(_) | None => *self.indices.entry(key).or_insert(self.announced.len()),
        };
        self.last_index = Some((key, index));
        if index == self.announced.len() {
            let estimate = Estimate::of(&route.attributes, context);
            self.octets += estimate.route;
            self.announced.push(Announced {
                route: route.clone(),
                estimate,
                nlri: Vec::new(),
            });
        }
        let announced = &mut self.announced[index];
        self.octets += announced.estimate.prefix;
        announced.nlri.push(nlri);
    }
}
