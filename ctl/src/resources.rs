//! `get`, `create`, `apply`, `replace`, `delete`: the datastore's resources.
//!
//! Every file is read and checked before anything is written, so that a typo in the last document does not
//! leave the first half applied. What the datastore itself refuses is told resource by resource.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use manx_api::manifest;
use manx_api::{Key, Kind, Resource};
use manx_store::{Error as StoreError, Listing, SqliteStore, Store as _};

use crate::cli::{Delete, Get, Manifests};
use crate::cluster::Cluster;
use crate::columns;
use crate::error::Error;
use crate::output::{self, Format};

/// Tries of a change that others keep overtaking.
const TRIES: usize = 10;

/// `get`.
pub(crate) async fn get(cluster: &Cluster, arguments: &Get) -> Result<(), Error> {
    let kind = arguments.kind;
    let namespace = (kind.is_namespaced() && !arguments.scope.all_namespaces).then_some(&*arguments.scope.namespace);
    let mut items = listing(cluster, kind, namespace).await?.items;
    let named = &arguments.names;
    items.retain(|item| named.is_empty() || named.contains(&item.metadata().name));
    let missing = named.iter().filter(|name| !items.iter().any(|item| item.metadata().name == **name));
    let missing: Vec<String> = missing.map(|name| format!("{} does not exist", label(kind, name))).collect();
    // One that was asked for by name is shown as itself, not as a list of one.
    let single = named.len() == 1 && items.len() == 1;
    match arguments.output.format {
        format @ (Format::Table | Format::Wide) => {
            if !items.is_empty() || missing.is_empty() {
                output::table(columns::heads(kind), items.iter().map(columns::cells), format)?;
            }
        }
        Format::Yaml if single => output::yaml(&items[0])?,
        Format::Json if single => output::json(&items[0])?,
        Format::Yaml => output::yaml(&output::as_list(&values(&items)?))?,
        Format::Json => output::json(&output::as_list(&values(&items)?))?,
        Format::Name => items.iter().try_for_each(|item| output::line(&label(kind, &item.metadata().name)))?,
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Resources(missing)) }
}

/// Every resource of a kind.
pub(crate) async fn listing(cluster: &Cluster, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
    let listing = cluster.store().await?.list(kind, namespace).await;
    listing.map_err(|source| Error::Store { path: cluster.store_path(), source })
}

/// `create`.
pub(crate) async fn create(cluster: &Cluster, arguments: &Manifests) -> Result<(), Error> {
    write(cluster, arguments, async |store, resource| store.create(resource).await.map(|_| "created")).await
}

/// `apply`.
pub(crate) async fn apply(cluster: &Cluster, arguments: &Manifests) -> Result<(), Error> {
    write(cluster, arguments, async |store, resource| match change(store, resource.clone()).await {
        Err(StoreError::NotFound(_)) => store.create(resource).await.map(|_| "created"),
        other => other,
    })
    .await
}

/// `replace`.
pub(crate) async fn replace(cluster: &Cluster, arguments: &Manifests) -> Result<(), Error> {
    write(cluster, arguments, change).await
}

/// `delete`.
pub(crate) async fn delete(cluster: &Cluster, arguments: &Delete) -> Result<(), Error> {
    let keys = match arguments.kind {
        Some(kind) => arguments.names.iter().map(|name| key(kind, &arguments.namespace, name)).collect(),
        None => load(&arguments.files)?.iter().map(Resource::key).collect::<Vec<_>>(),
    };
    let store = cluster.store().await?;
    let mut failures = Vec::new();
    for key in keys {
        let label = label(key.kind, &key.name);
        match store.delete(&key, None).await {
            Ok(_) => output::line(&format!("{label} deleted"))?,
            Err(StoreError::NotFound(_)) if arguments.skip_not_exists => {}
            Err(error) => failures.push(format!("{label}: {error}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::Resources(failures)) }
}

/// `validate`.
pub(crate) fn validate(arguments: &Manifests) -> Result<(), Error> {
    load(&arguments.files)?.iter().try_for_each(|resource| {
        output::line(&format!("{} is valid", label(resource.kind(), &resource.metadata().name)))
    })
}

/// Writes every resource of the files and says what came of each.
async fn write(
    cluster: &Cluster,
    arguments: &Manifests,
    verb: impl AsyncFn(&SqliteStore, Resource) -> Result<&'static str, StoreError>,
) -> Result<(), Error> {
    let resources = load(&arguments.files)?;
    let store = cluster.store().await?;
    let mut failures = Vec::new();
    for resource in resources {
        let label = label(resource.kind(), &resource.metadata().name);
        match verb(&store, resource).await {
            Ok(done) => output::line(&format!("{label} {done}"))?,
            Err(error) => failures.push(format!("{label}: {error}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::Resources(failures)) }
}

/// Replaces what exists. A manifest that names a `resourceVersion` replaces that one only; another is put
/// over whatever is there, again when somebody else was quicker.
async fn change(store: &SqliteStore, mut resource: Resource) -> Result<&'static str, StoreError> {
    let key = resource.key();
    let pinned = resource.metadata().resource_version.is_some();
    for tries in 1.. {
        let stored = store.get(&key).await?;
        let revision = stored.metadata().resource_version.clone();
        if !pinned {
            resource.metadata_mut().resource_version.clone_from(&revision);
        }
        match store.update(resource.clone()).await {
            Ok(written) if written.metadata().resource_version == revision => return Ok("unchanged"),
            Ok(_) => return Ok("configured"),
            Err(StoreError::Conflict { .. }) if !pinned && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the last try returns")
}

/// Reads every resource of the files; nothing of any where one has an error.
fn load(files: &[PathBuf]) -> Result<Vec<Resource>, Error> {
    let mut resources = Vec::new();
    let mut errors = Vec::new();
    for file in files {
        for (name, text) in read(file)? {
            match manifest::load(&name, &text) {
                Ok(loaded) => resources.extend(loaded),
                Err(found) => errors.extend(found),
            }
        }
    }
    if errors.is_empty() { Ok(resources) } else { Err(Error::Manifests(errors)) }
}

/// The texts that a file name stands for: itself, a folder's manifests by name, or standard input.
fn read(file: &Path) -> Result<Vec<(String, String)>, Error> {
    let failed = |path: &Path| Error::io(format!("cannot read {}", path.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(Error::io("cannot read standard input"))?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let mut paths = vec![file.to_owned()];
    if file.is_dir() {
        let entries = std::fs::read_dir(file).map_err(failed(file))?;
        paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_manifest(path)).collect();
        paths.sort();
    }
    let text = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
        Ok((path.display().to_string(), text))
    };
    paths.into_iter().map(text).collect()
}

fn is_manifest(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ["yaml", "yml", "json"].contains(&ending))
}

fn key(kind: Kind, namespace: &str, name: &str) -> Key {
    if kind.is_namespaced() { Key::namespaced(kind, namespace, name) } else { Key::cluster(kind, name) }
}

/// `ippool/default`.
fn label(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.name().to_lowercase())
}

fn values(items: &[Resource]) -> Result<Vec<serde_json::Value>, Error> {
    let values = items.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    values.map_err(|error| Error::io("cannot write the output")(error.into()))
}
