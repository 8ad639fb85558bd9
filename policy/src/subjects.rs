//! Subjects by what they require, so that a thing finds those that may select it without asking the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use manx_api::policy::{Scope, Subject};
use manx_api::{Requirement, Selector};

use crate::things::{Labels, Thing, Things};

/// A required label, of a thing or of its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Required {
    Nothing,
    Label(Arc<str>),
    Value(Arc<str>, Arc<str>),
}

impl Required {
    /// The hardest of a selector's requirements.
    fn of(selector: &Selector) -> Self {
        let all = selector
            .requirements()
            .into_iter()
            .map(|requirement| match requirement {
                Requirement::Equal(key, value) => Self::Value(key.into(), value.into()),
                Requirement::Has(key) => Self::Label(key.into()),
            });
        all.max().unwrap_or(Self::Nothing)
    }

    /// What things with these labels may meet.
    fn met_by(labels: &Labels) -> impl Iterator<Item = Self> {
        let met = labels
            .iter()
            .flat_map(|(key, value)| [Self::Label(key.clone()), Self::Value(key.clone(), value.clone())]);
        std::iter::once(Self::Nothing).chain(met)
    }
}

/// What a subject requires of where a thing is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Anywhere,
    Global,
    Namespace(Arc<str>),
    Namespaces(Required),
}

impl Place {
    fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Anywhere => Self::Anywhere,
            Scope::Global => Self::Global,
            Scope::Namespace(name) => Self::Namespace(name.as_str().into()),
            Scope::Namespaces(labels) => Self::Namespaces(Required::of(labels)),
        }
    }

    /// Where a thing of this namespace is.
    fn all_of(things: &Things, namespace: Option<&Arc<str>>) -> Vec<Self> {
        let Some(namespace) = namespace else {
            return vec![Self::Anywhere, Self::Global];
        };
        let none = Labels::default();
        let labels = things.namespace_labels(namespace).unwrap_or(&none);
        let mut places = vec![Self::Anywhere, Self::Namespace(namespace.clone())];
        places.extend(Required::met_by(labels).map(Self::Namespaces));
        places
    }
}

/// Subjects, each with what it is the subject of.
#[derive(Clone, Debug)]
pub(crate) struct SubjectIndex<T>(BTreeMap<Place, BTreeMap<Required, BTreeMap<T, Subject>>>);

impl<T> Default for SubjectIndex<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Clone> SubjectIndex<T> {
    pub(crate) fn insert(&mut self, subject: &Subject, of: T) {
        let by_label = self.0.entry(Place::of(&subject.scope)).or_default();
        let alike = by_label.entry(Required::of(&subject.labels)).or_default();
        alike.insert(of, subject.clone());
    }

    pub(crate) fn remove(&mut self, subject: &Subject, of: &T) {
        let (place, required) = (Place::of(&subject.scope), Required::of(&subject.labels));
        let Some(by_label) = self.0.get_mut(&place) else {
            return;
        };
        if let Some(alike) = by_label.get_mut(&required) {
            alike.remove(of);
            if alike.is_empty() {
                by_label.remove(&required);
            }
        }
        if by_label.is_empty() {
            self.0.remove(&place);
        }
    }

    /// What the thing is selected for.
    pub(crate) fn selecting(&self, things: &Things, thing: &Thing) -> Vec<T> {
        let mut found = Vec::new();
        for place in Place::all_of(things, thing.namespace.as_ref()) {
            let Some(by_label) = self.0.get(&place) else {
                continue;
            };
            for required in Required::met_by(thing.labels()) {
                let alike = by_label.get(&required).into_iter().flatten();
                let selecting = alike.filter(|(_, subject)| things.selects(subject, thing));
                found.extend(selecting.map(|(of, _)| of.clone()));
            }
        }
        found
    }
}
