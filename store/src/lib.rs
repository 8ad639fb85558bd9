//! The only crate that talks to a datastore: embedded SQLite, and Kubernetes custom resources.
//!
//! [`Store`] is the seam: everything above reads, writes and watches resources through it. Its contract is
//! Kubernetes' own, so that both backends can keep it:
//!
//! - Every write gets a [`Revision`]; a resource carries that of its last write in
//!   `metadata.resourceVersion`, a [`Listing`] that of the moment it shows.
//! - An update names the revision it was made from and fails with [`Error::Conflict`] when another came
//!   first: read again, decide again, write again.
//! - A watch from a revision yields every later write of its kinds, once and in order. List, then watch from
//!   the listing's revision, and nothing is missed.
//! - A store forgets old events. A watch from before that ends with [`Error::Expired`]: list again. One that knows of
//!   each kind apart what it has forgotten lists that kind itself, tells it whole ([`Event::Listed`]) and goes on.
//!
//! The [`conformance`] suite (feature `conformance`) holds every backend to this.

use futures_util::stream::BoxStream;
use manx_api::{Key, Kind, Resource, Revision};

mod any;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
pub mod kube;
mod rehearsal;
mod rules;
pub mod sqlite;

pub use self::kube::{
    Cluster, Happening, Host, KubeOptions, KubeStore, Lease, LeaseName, NETWORK_UNAVAILABLE, Subject,
};
pub use self::rehearsal::rehearse;
pub use any::AnyStore;
pub use error::Error;
pub use sqlite::SqliteStore;

/// A datastore of resources. Cheap to clone; clones share one connection.
pub trait Store: Clone + Send + Sync + 'static {
    /// The resource with this key.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`].
    fn get(&self, key: &Key) -> impl Future<Output = Result<Resource, Error>> + Send;

    /// All resources of a kind, by namespace and name; `namespace` narrows a namespaced kind to one.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
    ) -> impl Future<Output = Result<Listing, Error>> + Send;

    /// Stores a new resource and returns it with the `uid`, `creationTimestamp` and `resourceVersion` that
    /// it got. It must not bring a `resourceVersion`.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Invalid`], [`Error::Unavailable`].
    fn create(&self, resource: Resource) -> impl Future<Output = Result<Resource, Error>> + Send;

    /// Replaces the resource whose `resourceVersion` the new one names, and returns it with its new one. A
    /// replacement that changes nothing writes nothing and keeps the revision. What is said of the resource
    /// ([`Resource::status`]) stays.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the stored one is at another revision, [`Error::NotFound`],
    /// [`Error::Invalid`] (also for a missing `resourceVersion`), [`Error::Unavailable`].
    fn update(&self, resource: Resource) -> impl Future<Output = Result<Resource, Error>> + Send;

    /// [`Self::update`] of what was made from `before`, which is the resource as a get, a list or a watch gave it. A store
    /// that would have to read it again is spared that.
    ///
    /// # Errors
    /// As [`Self::update`].
    fn amend(
        &self,
        before: &Resource,
        resource: Resource,
    ) -> impl Future<Output = Result<Resource, Error>> + Send {
        let _ = before;
        self.update(resource)
    }

    /// Replaces what is said of a resource ([`Resource::status`]) and nothing else: the rest is as it is stored, and
    /// need not be valid. A store that keeps the two together may take it for an [`Self::update`].
    ///
    /// # Errors
    /// As [`Self::update`].
    fn update_status(&self, resource: Resource) -> impl Future<Output = Result<Resource, Error>> + Send {
        self.update(resource)
    }

    /// Deletes a resource, if given only at that revision, and returns it as it last was, its `resourceVersion`
    /// the deletion's where the datastore tells that. Watches always do.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`], [`Error::Unavailable`].
    fn delete(
        &self,
        key: &Key,
        revision: Option<&Revision>,
    ) -> impl Future<Output = Result<Resource, Error>> + Send;

    /// Every write to resources of `kinds` after `from`, in order, or of a kind what they came to. The stream lives
    /// until it is dropped or has yielded an error.
    fn watch(&self, kinds: &[Kind], from: Revision) -> Events;

    /// The Kubernetes cluster that the store is of, if it is of one. Then WorkloadEndpoints are the cluster's Pods: they
    /// are there before a pod is attached, and nobody writes them.
    fn cluster(&self) -> Option<Cluster> {
        None
    }
}

/// What a watch yields.
pub type Events = BoxStream<'static, Result<Event, Error>>;

/// The resources of a kind at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The moment: watch from here to go on.
    pub revision: Revision,
    /// By namespace and name.
    pub items: Vec<Resource>,
}

/// A write, seen by a watch; or, where writes were missed, what they came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Created or updated: the resource as it is since.
    Applied(Resource),
    /// Deleted: the resource as it last was, its `resourceVersion` the deletion's.
    Deleted(Resource),
    /// What was written to this kind since its last event is forgotten: these are all its resources by now, and what is
    /// not among them is gone.
    Listed(Kind, Listing),
}

impl Event {
    /// The resource that was written; none of a list.
    #[must_use]
    pub fn resource(&self) -> Option<&Resource> {
        match self {
            Self::Applied(resource) | Self::Deleted(resource) => Some(resource),
            Self::Listed(..) => None,
        }
    }

    /// The write's revision, or the list's: a watch from here goes on behind this event.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Applied(resource) | Self::Deleted(resource) => {
                let stored = resource.metadata().resource_version.clone();
                stored.unwrap_or_else(Revision::start)
            }
            Self::Listed(_, listing) => listing.revision.clone(),
        }
    }
}
