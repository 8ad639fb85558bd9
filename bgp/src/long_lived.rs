//! Long-lived stale routes: how they are told, and what is and is not done with them (RFC 9494).

use std::sync::Arc;

use crate::filter::{LLGR_STALE, NO_LLGR};
use crate::rib::{Path, Route};
use crate::wire::Attributes;

/// Whether a route is long-lived stale, here or at whoever passed it on.
pub(crate) fn is_stale(attributes: &Attributes) -> bool {
    attributes.communities.contains(&LLGR_STALE)
}

/// Whether a path does not outlive the restart time: its sender or a filter says so (RFC 9494 §4.2).
pub(crate) fn is_unwilling(path: &Path) -> bool {
    [&path.received, &path.route]
        .into_iter()
        .any(|route| route.attributes.communities.contains(&NO_LLGR))
}

/// The route as a long-lived stale one (RFC 9494 §4.2).
pub(crate) fn marked(route: &Route) -> Route {
    let mut attributes = (*route.attributes).clone();
    mark(&mut attributes);
    Route {
        next_hop: route.next_hop,
        attributes: Arc::new(attributes),
        priority: route.priority,
    }
}

/// Sees to it that what filters made of a stale route still says that it is one (RFC 9494 §4.3).
pub(crate) fn keep_mark(before: &Attributes, after: &mut Attributes) {
    if is_stale(before) {
        mark(after);
    }
}

fn mark(attributes: &mut Attributes) {
    if !is_stale(attributes) {
        attributes.communities.push(LLGR_STALE);
    }
}
