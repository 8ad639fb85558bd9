//! The store that settings name, for programs that may have either.

use manx_api::{Key, Kind, Resource, Revision};

use crate::{Cluster, Error, Events, KubeStore, Listing, SqliteStore, Store};

/// A store of either sort.
#[derive(Clone, Debug)]
pub enum AnyStore {
    /// The embedded one.
    Sqlite(SqliteStore),
    /// A Kubernetes API server.
    Kubernetes(KubeStore),
}

impl Store for AnyStore {
    async fn get(&self, key: &Key) -> Result<Resource, Error> {
        match self {
            Self::Sqlite(store) => store.get(key).await,
            Self::Kubernetes(store) => store.get(key).await,
        }
    }

    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        match self {
            Self::Sqlite(store) => store.list(kind, namespace).await,
            Self::Kubernetes(store) => store.list(kind, namespace).await,
        }
    }

    async fn create(&self, resource: Resource) -> Result<Resource, Error> {
        match self {
            Self::Sqlite(store) => store.create(resource).await,
            Self::Kubernetes(store) => store.create(resource).await,
        }
    }

    async fn update(&self, resource: Resource) -> Result<Resource, Error> {
        match self {
            Self::Sqlite(store) => store.update(resource).await,
            Self::Kubernetes(store) => store.update(resource).await,
        }
    }

    async fn amend(&self, before: &Resource, resource: Resource) -> Result<Resource, Error> {
        match self {
            Self::Sqlite(store) => store.amend(before, resource).await,
            Self::Kubernetes(store) => store.amend(before, resource).await,
        }
    }

    async fn update_status(&self, resource: Resource) -> Result<Resource, Error> {
        match self {
            Self::Sqlite(store) => store.update_status(resource).await,
            Self::Kubernetes(store) => store.update_status(resource).await,
        }
    }

    async fn delete(&self, key: &Key, revision: Option<&Revision>) -> Result<Resource, Error> {
        match self {
            Self::Sqlite(store) => store.delete(key, revision).await,
            Self::Kubernetes(store) => store.delete(key, revision).await,
        }
    }

    fn watch(&self, kinds: &[Kind], from: Revision) -> Events {
        match self {
            Self::Sqlite(store) => store.watch(kinds, from),
            Self::Kubernetes(store) => store.watch(kinds, from),
        }
    }

    fn cluster(&self) -> Option<Cluster> {
        match self {
            Self::Sqlite(store) => store.cluster(),
            Self::Kubernetes(store) => store.cluster(),
        }
    }
}
