//! `get`, `apply`, `create`, `replace`, `delete`: resources in the datastore.

use std::cmp::Reverse;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use manx_api::{Key, Kind, Resource, Revision, manifest};
use manx_store::{AnyStore, Store as _};
use serde::Serialize;

use crate::cli::{DeleteArgs, FileArgs, GetArgs};
use crate::error::{CtlError, Result};
use crate::output::{self, Format};
use crate::rows;
use crate::target::Target;

/// Standard input, as a file's name.
const STDIN: &str = "-";
/// How often a change is made anew when somebody else writes between its reading and its writing.
const ATTEMPTS: u32 = 5;

/// What to do with resources that a file names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    /// Create or replace.
    Apply,
    /// Create only.
    Create,
    /// Replace only.
    Replace,
}

/// Several resources in one document, as `kubectl` writes them and as `-f` reads them.
#[derive(Serialize)]
pub(crate) struct List<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    items: &'a [Resource],
}

/// Resources in one document.
pub(crate) fn list(items: &[Resource]) -> List<'_> {
    List {
        api_version: "v1",
        kind: "List",
        items,
    }
}

/// `get`.
pub(crate) async fn get(target: &Target, args: &GetArgs) -> Result<()> {
    let store = target.store().await?;
    let namespace = args.namespace.namespace.as_str();
    let mut found = Vec::new();
    let mut kinds: Vec<Kind> = Vec::new();
    if let Some(word) = &args.kind {
        let kind: Kind = word.parse()?;
        kinds.push(kind);
        if args.names.is_empty() {
            let narrowed = (kind.is_namespaced() && !args.all_namespaces).then_some(namespace);
            found = store.list(kind, narrowed).await?.items;
        }
        for name in &args.names {
            found.push(store.get(&key(kind, namespace, name)).await?);
        }
    } else {
        for resource in read(&args.file, namespace)? {
            kinds.push(resource.kind());
            found.push(store.get(&resource.key()).await?);
        }
    }
    let single = found.len() == 1 && (!args.names.is_empty() || !args.file.is_empty());
    output::emit(&text(&found, &kinds, single, args.output.output)?)
}

fn text(found: &[Resource], kinds: &[Kind], single: bool, format: Format) -> Result<String> {
    let list = list(found);
    match (format, found) {
        (Format::Json, [resource]) if single => output::json(resource),
        (Format::Json, _) => output::json(&list),
        (Format::Yaml, [resource]) if single => output::yaml(resource),
        (Format::Yaml, _) => output::yaml(&list),
        (Format::Name, _) => Ok(found
            .iter()
            .map(|resource| resource.key().to_string() + "\n")
            .collect()),
        (Format::Table | Format::Wide, _) => Ok(tables(found, kinds, format == Format::Wide)),
    }
}

/// One table for each kind.
fn tables(found: &[Resource], kinds: &[Kind], wide: bool) -> String {
    let mut tables = Vec::new();
    for kind in Kind::all().iter().filter(|kind| kinds.contains(kind)) {
        let (columns, narrow) = rows::columns(*kind);
        let shown = if wide { columns } else { &columns[..narrow] };
        let of_kind = found.iter().filter(|resource| resource.kind() == *kind);
        tables.push(output::table(
            shown,
            of_kind.map(|resource| (rows::cells(resource), true)),
        ));
    }
    tables.join("\n")
}

/// `apply`, `create`, `replace`. Nothing is written unless every file is right; then one resource that is
/// refused does not keep the others from being written.
pub(crate) async fn write(target: &Target, args: &FileArgs, how: Write) -> Result<()> {
    let resources = read(&args.file, &args.namespace.namespace)?;
    let store = target.store().await?;
    let all = resources.len();
    let mut failed = 0;
    for resource in resources {
        let key = resource.key();
        let written = match how {
            Write::Apply => apply(&store, resource).await,
            Write::Create => store
                .create(resource)
                .await
                .map(|_| "created")
                .map_err(CtlError::from),
            Write::Replace => replace(&store, resource).await,
        };
        match written {
            Ok(what) => output::emit(&format!("{key} {what}\n"))?,
            Err(error) if all == 1 => return Err(error),
            Err(error) => {
                anstream::eprintln!("manxctl: {error}");
                failed += 1;
            }
        }
    }
    partly(failed, all)
}

/// Creates, or replaces whatever is there; what the file does not know, such as the revision, is read anew.
async fn apply(store: &AnyStore, resource: Resource) -> Result<&'static str> {
    let mut fresh = resource.clone();
    fresh.metadata_mut().resource_version = None;
    match store.create(fresh).await {
        Ok(_) => Ok("created"),
        Err(manx_store::Error::AlreadyExists(_)) => replace(store, resource).await,
        Err(error) => Err(error.into()),
    }
}

/// Replaces what is there. A file that names a revision was made from it, and must not undo what came after.
async fn replace(store: &AnyStore, resource: Resource) -> Result<&'static str> {
    let pinned = resource.metadata().resource_version.clone();
    let changed = settle(store, &resource.key(), pinned, |_| Ok(resource.clone())).await?;
    Ok(if changed { "configured" } else { "unchanged" })
}

/// Writes what `change` makes of a resource, anew where somebody else has written meanwhile, unless the revision that it
/// is to replace is given; says whether that changed anything.
pub(crate) async fn settle(
    store: &AnyStore,
    key: &Key,
    pinned: Option<Revision>,
    change: impl Fn(&Resource) -> Result<Resource>,
) -> Result<bool> {
    let mut attempt = 1;
    loop {
        let old = store.get(key).await?;
        let mut new = change(&old)?;
        let revision = old.metadata().resource_version.clone();
        new.metadata_mut().resource_version = pinned.clone().or_else(|| revision.clone());
        match store.update(new).await {
            Err(manx_store::Error::Conflict { .. }) if pinned.is_none() && attempt < ATTEMPTS => attempt += 1,
            written => return Ok(written?.metadata().resource_version != revision),
        }
    }
}

/// `delete`.
pub(crate) async fn delete(target: &Target, args: &DeleteArgs) -> Result<()> {
    let namespace = args.namespace.namespace.as_str();
    let keys: Vec<Key> = match &args.kind {
        Some(word) => {
            let kind: Kind = word.parse()?;
            args.names.iter().map(|name| key(kind, namespace, name)).collect()
        }
        None => backwards(read(&args.file, namespace)?.iter().map(Resource::key).collect()),
    };
    let store = target.store().await?;
    let mut failed = 0;
    for key in &keys {
        match store.delete(key, None).await {
            Ok(_) => output::emit(&format!("{key} deleted\n"))?,
            Err(manx_store::Error::NotFound(_)) if args.skip_not_exists => {}
            Err(error) if keys.len() == 1 => return Err(error.into()),
            Err(error) => {
                anstream::eprintln!("manxctl: {error}");
                failed += 1;
            }
        }
    }
    partly(failed, keys.len())
}

/// In the order in which kinds are best deleted: what others refer to goes last.
fn backwards(mut keys: Vec<Key>) -> Vec<Key> {
    keys.sort_by_key(|key| Reverse(Kind::all().iter().position(|kind| *kind == key.kind)));
    keys
}

/// That some of all failed, each of which has been told of.
pub(crate) fn partly(failed: usize, all: usize) -> Result<()> {
    if failed == 0 {
        Ok(())
    } else {
        Err(CtlError::Partly { failed, all })
    }
}

/// The key of a resource as the command line names it.
pub(crate) fn key(kind: Kind, namespace: &str, name: &str) -> Key {
    if kind.is_namespaced() {
        Key::namespaced(kind, namespace, name)
    } else {
        Key::cluster(kind, name)
    }
}

/// The resources of files, folders and standard input, those without a namespace put into `namespace`.
pub(crate) fn read(files: &[PathBuf], namespace: &str) -> Result<Vec<Resource>> {
    let (mut resources, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        let before = resources.len() + errors.len();
        for (name, text) in texts(file)? {
            match manifest::load_into(&name, &text, Some(namespace)) {
                Ok(mut loaded) => resources.append(&mut loaded),
                Err(mut wrong) => errors.append(&mut wrong),
            }
        }
        if resources.len() + errors.len() == before {
            return Err(CtlError::Empty { path: file.clone() });
        }
    }
    if !errors.is_empty() {
        return Err(CtlError::Manifest { errors });
    }
    Ok(resources)
}

/// The texts behind a path, with names for messages: one, or a folder's in the order of their names.
pub(crate) fn texts(path: &Path) -> Result<Vec<(String, String)>> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CtlError::Read { path, source }
    };
    if path == Path::new(STDIN) {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed(path))?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(failed(path))?;
        files = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| is_manifest(file))
            .collect();
        files.sort();
    }
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).map_err(failed(file))?;
        Ok((file.display().to_string(), text))
    };
    files.iter().map(read).collect()
}

fn is_manifest(file: &Path) -> bool {
    file.is_file()
        && file
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str =
        "apiVersion: manx.network/v1\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.1.0.0/16}\n";
    const PEER: &str = "apiVersion: manx.network/v1\nkind: BGPPeer\nmetadata: {name: r}\nspec: {peerIP: 192.0.2.1, asNumber: 65001}\n";

    fn resources() -> Vec<Resource> {
        manifest::load("test", &format!("{POOL}---\n{PEER}")).unwrap()
    }

    fn shown(format: Format) -> String {
        let found = resources();
        let kinds: Vec<Kind> = found.iter().map(Resource::kind).collect();
        anstream::adapter::strip_str(&text(&found, &kinds, false, format).unwrap()).to_string()
    }

    #[test]
    fn each_kind_has_its_own_table() {
        insta::assert_snapshot!(shown(Format::Table), @r"
        NAME  CIDR         SELECTOR
        p     10.1.0.0/16  all()

        NAME  PEERIP     NODE      ASN
        r     192.0.2.1  (global)  65001
        ");
        insta::assert_snapshot!(shown(Format::Name), @r"
        IPPool/p
        BGPPeer/r
        ");
    }

    #[test]
    fn what_get_prints_apply_reads() {
        for format in [Format::Yaml, Format::Json] {
            assert_eq!(manifest::load("test", &shown(format)).unwrap(), resources());
            let one = &resources()[..1];
            let single = text(one, &[Kind::IpPool], true, format).unwrap();
            assert_eq!(manifest::load("test", &single).unwrap(), one);
        }
    }

    #[test]
    fn policies_of_both_groups_have_tables_of_their_own() {
        let text_of = |group: &str, spec: &str| {
            format!("apiVersion: {group}/v1\nkind: NetworkPolicy\nmetadata: {{name: web}}\nspec: {spec}\n")
        };
        let file = [
            text_of(
                "manx.network",
                "{order: 10, selector: app == 'web', egress: [{action: Deny}]}",
            ),
            text_of(
                "networking.k8s.io",
                "{podSelector: {matchLabels: {app: web}}, ingress: [{}]}",
            ),
            "apiVersion: manx.network/v1\nkind: Tier\nmetadata: {name: security}\nspec: {order: 0.5}\n"
                .to_owned(),
        ];
        let found = manifest::load_into("test", &file.join("---\n"), Some("shop")).unwrap();
        let kinds: Vec<Kind> = found.iter().map(Resource::kind).collect();
        let shown =
            |format| anstream::adapter::strip_str(&text(&found, &kinds, false, format).unwrap()).to_string();
        insta::assert_snapshot!(shown(Format::Wide), @r#"
        NAME      ORDER  DEFAULTACTION
        security  0.5    Deny

        NAMESPACE  NAME  TIER     ORDER  SELECTOR      GROUP         INGRESS  EGRESS
        shop       web   default  10     app == "web"  manx.network  -        1

        NAMESPACE  NAME  POD-SELECTOR  GROUP              INGRESS  EGRESS
        shop       web   app == "web"  networking.k8s.io  1        -
        "#);
        insta::assert_snapshot!(shown(Format::Name), @r"
        NetworkPolicy/shop/web
        NetworkPolicy.networking.k8s.io/shop/web
        Tier/security
        ");
    }

    #[test]
    fn what_others_refer_to_is_deleted_last() {
        let keys = vec![
            Key::cluster(Kind::IpPool, "p"),
            Key::cluster(Kind::Tier, "t"),
            Key::cluster(Kind::GlobalNetworkPolicy, "b"),
            Key::cluster(Kind::GlobalNetworkPolicy, "a"),
        ];
        let names: Vec<String> = backwards(keys).into_iter().map(|key| key.name).collect();
        assert_eq!(names, ["b", "a", "t", "p"]);
    }

    #[test]
    fn a_folder_is_read_by_name_and_strangers_in_it_are_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b.yaml"), POOL).unwrap();
        std::fs::write(folder.path().join("a.yml"), PEER).unwrap();
        std::fs::write(folder.path().join("README"), "no manifest").unwrap();
        let names: Vec<String> = read(&[folder.path().to_owned()], "default")
            .unwrap()
            .iter()
            .map(|r| r.key().to_string())
            .collect();
        assert_eq!(names, ["BGPPeer/r", "IPPool/p"]);
    }

    #[test]
    fn every_error_of_every_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), POOL.replace("cidr", "cidrr")).unwrap();
        std::fs::write(folder.path().join("b.yaml"), POOL.replace("/16", "/8")).unwrap();
        let error = read(&[folder.path().to_owned()], "default")
            .unwrap_err()
            .to_string();
        assert!(error.contains("a.yaml") && error.contains("cidrr"), "{error}");
        assert!(
            error.contains("b.yaml") && error.contains("10.1.0.0/8"),
            "{error}"
        );
    }

    #[test]
    fn a_file_without_a_resource_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = read(&[file.path().to_owned()], "default").unwrap_err();
        assert!(matches!(error, CtlError::Empty { .. }), "{error}");
    }
}
