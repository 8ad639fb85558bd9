//! What every store refuses, however it keeps resources.

use manx_api::ipam::{IpBlock, IpPool};
use manx_api::{
    Key, Kind, Problem, Resource, Revision, validate, validate_among_pools, validate_delete,
    validate_delete_tier,
};

use crate::{Error, Store};

const REVISION: &str = "metadata.resourceVersion";

/// Refuses what has problems.
pub(crate) fn refuse(key: &Key, problems: Vec<Problem>) -> Result<(), Error> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid {
        key: key.clone(),
        problems,
    })
}

/// Refuses what cannot be created.
pub(crate) fn creatable(key: &Key, resource: &Resource) -> Result<(), Error> {
    let mut problems = validate(resource);
    if let Some(revision) = &resource.metadata().resource_version {
        let message = "must be left out of what is created: the store gives it";
        problems.push(Problem::new(REVISION, revision, message));
    }
    refuse(key, problems)
}

/// Refuses what can replace nothing; returns the revision that is to be replaced.
pub(crate) fn replaceable(key: &Key, resource: &Resource) -> Result<Revision, Error> {
    let mut problems = validate(resource);
    let expected = resource.metadata().resource_version.clone();
    if expected.is_none() {
        let message = "is missing: read the resource, change that, and write it back";
        problems.push(Problem::new(REVISION, "", message));
    }
    refuse(key, problems)?;
    Ok(expected.unwrap_or_else(Revision::start))
}

/// The kinds that a resource is compared with before it is written: all of them are [`writable`]'s others.
pub(crate) const fn compared_at_write(kind: Kind) -> &'static [Kind] {
    if matches!(kind, Kind::IpPool) {
        return &[Kind::IpPool];
    }
    &[]
}

/// Refuses a resource that does not go with others.
pub(crate) fn writable(key: &Key, resource: &Resource, others: &[Resource]) -> Result<(), Error> {
    let Resource::IpPool(pool) = resource else {
        return Ok(());
    };
    refuse(key, validate_among_pools(pool, &those::<IpPool>(others)))
}

/// The kinds that may need a resource: all of them are [`deletable`]'s others.
pub(crate) const fn compared_at_deletion(kind: Kind) -> &'static [Kind] {
    if matches!(kind, Kind::Tier) {
        return &[Kind::GlobalNetworkPolicy, Kind::NetworkPolicy];
    }
    if matches!(kind, Kind::IpPool) {
        return &[Kind::IpPool, Kind::IpBlock];
    }
    &[]
}

/// Refuses to delete what others need.
pub(crate) fn deletable(key: &Key, resource: &Resource, others: &[Resource]) -> Result<(), Error> {
    if let Resource::Tier(tier) = resource {
        return refuse(key, validate_delete_tier(tier, others));
    }
    let Resource::IpPool(pool) = resource else {
        return Ok(());
    };
    let (pools, blocks) = (those(others), those::<IpBlock>(others));
    refuse(key, validate_delete(pool, &pools, &blocks))
}

/// All resources of these kinds.
pub(crate) async fn all_of(store: &impl Store, kinds: &[Kind]) -> Result<Vec<Resource>, Error> {
    let mut all = Vec::new();
    for kind in kinds {
        all.extend(store.list(*kind, None).await?.items);
    }
    Ok(all)
}

/// Those that are of a type.
fn those<T: TryFrom<Resource>>(resources: &[Resource]) -> Vec<T> {
    let resources = resources.iter().cloned();
    resources
        .filter_map(|resource| T::try_from(resource).ok())
        .collect()
}
