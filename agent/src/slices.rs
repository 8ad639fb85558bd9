//! The slices of services: for each service, what is kept of each of its slices.

use std::collections::BTreeMap;

use manx_api::Key;
use manx_api::policy::NamespacedName;
use manx_api::service::EndpointSlice;

/// What is kept of slices, by the service that each of them names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slices<T> {
    /// Whose slice each is.
    service: BTreeMap<Key, NamespacedName>,
    by_service: BTreeMap<NamespacedName, BTreeMap<Key, T>>,
}

impl<T> Default for Slices<T> {
    fn default() -> Self {
        Self {
            service: BTreeMap::new(),
            by_service: BTreeMap::new(),
        }
    }
}

impl<T: PartialEq> Slices<T> {
    /// A slice is like this. Returns the services that are not as before: it may have been another's.
    pub(crate) fn put(&mut self, key: Key, slice: &EndpointSlice, kept: T) -> Vec<NamespacedName> {
        let before = self.take(&key);
        let now = key.namespace.clone().zip(slice.service());
        let now = now.map(|(namespace, name)| NamespacedName {
            namespace,
            name: name.to_owned(),
        });
        if let (Some((old, was)), Some(new)) = (&before, &now)
            && (old, was) == (new, &kept)
        {
            self.insert(key, new.clone(), kept);
            return Vec::new();
        }
        let mut changed: Vec<NamespacedName> = before.into_iter().map(|(service, _)| service).collect();
        if let Some(service) = now {
            if !changed.contains(&service) {
                changed.push(service.clone());
            }
            self.insert(key, service, kept);
        }
        changed
    }

    /// A slice is gone. Returns the service that is not as before.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<NamespacedName> {
        self.take(key).map(|(service, _)| service)
    }

    /// What is kept of a service's slices.
    pub(crate) fn of(&self, service: &NamespacedName) -> impl Iterator<Item = &T> {
        let slices = self.by_service.get(service).into_iter();
        slices.flat_map(BTreeMap::values)
    }

    fn insert(&mut self, key: Key, service: NamespacedName, kept: T) {
        let slices = self.by_service.entry(service.clone()).or_default();
        slices.insert(key.clone(), kept);
        self.service.insert(key, service);
    }

    fn take(&mut self, key: &Key) -> Option<(NamespacedName, T)> {
        let service = self.service.remove(key)?;
        let slices = self.by_service.get_mut(&service)?;
        let kept = slices.remove(key)?;
        if slices.is_empty() {
            self.by_service.remove(&service);
        }
        Some((service, kept))
    }
}
