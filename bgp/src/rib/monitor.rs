//! Where Adj-RIBs-In have changed since someone asked, for monitoring (RFC 7854 §5).

use std::collections::BTreeSet;

use crate::speaker::monitor::Place;

/// Places that changed, each once however often it did; none are noted while nobody asks for them.
#[derive(Debug, Default)]
pub(crate) struct Changes(Option<BTreeSet<Place>>);

impl Changes {
    /// Begins to note, or ends and forgets.
    pub(crate) fn set(&mut self, wanted: bool) {
        self.0 = wanted.then(|| self.take());
    }

    /// Something came, went or changed there.
    pub(crate) fn note(&mut self, place: Place) {
        if let Some(places) = &mut self.0 {
            places.insert(place);
        }
    }

    /// Takes what was noted.
    pub(crate) fn take(&mut self) -> BTreeSet<Place> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
