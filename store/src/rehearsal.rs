//! What a store would refuse, said without writing anything.

use manx_api::{Key, Resource, validate_update};

use crate::rules::{all_of, compared_at_deletion, compared_at_write, creatable, deletable, refuse, writable};
use crate::{Error, Store};

/// Why some of these resources could not be written (made, or put in the place of what is there), and others not be
/// deleted; nothing is, as far as the store's own rules go.
pub async fn rehearse(store: &impl Store, put: &[Resource], without: &[Key]) -> Vec<Error> {
    let mut errors = Vec::new();
    for new in put {
        errors.extend(written(store, new).await.err());
    }
    for key in without {
        errors.extend(deleted(store, key, (put, without)).await.err());
    }
    errors
}

async fn written(store: &impl Store, new: &Resource) -> Result<(), Error> {
    let key = new.key();
    let mut fresh = new.clone();
    let named = fresh.metadata_mut().resource_version.take();
    creatable(&key, &fresh)?;
    match store.get(&key).await {
        Err(Error::NotFound(_)) => {}
        old => {
            let old = old?;
            let actual = old.metadata().resource_version.clone();
            if let Some((expected, actual)) = named.zip(actual).filter(|(named, actual)| named != actual) {
                return Err(Error::Conflict {
                    key,
                    expected,
                    actual,
                });
            }
            refuse(&key, validate_update(&old, new))?;
        }
    }
    writable(&key, new, &all_of(store, compared_at_write(key.kind)).await?)
}

async fn deleted(store: &impl Store, key: &Key, (put, without): (&[Resource], &[Key])) -> Result<(), Error> {
    let resource = store.get(key).await?;
    let mut others = all_of(store, compared_at_deletion(key.kind)).await?;
    others.retain(|other| !without.contains(&other.key()));
    others.extend(put.iter().cloned());
    deletable(key, &resource, &others)
}
