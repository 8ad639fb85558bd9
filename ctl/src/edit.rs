//! `label`, `patch`: changes of one resource in the datastore.

use std::collections::BTreeMap;

use clap::ValueEnum;
use manx_api::{Key, Kind, Resource, manifest};
use manx_store::AnyStore;
use serde_json::Value;

use crate::cli::{LabelArgs, PatchArgs};
use crate::error::{CtlError, Result};
use crate::output;
use crate::resources::{key, settle};
use crate::target::Target;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PatchType {
    /// The fields to change, with their new values; null removes one (RFC 7396).
    Merge,
    /// A list of operations (RFC 6902).
    Json,
}

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    /// A word that is neither a label nor its removal.
    #[error("'{0}' is no label: write KEY=VALUE to set one, KEY- to remove it")]
    Word(String),
    /// A label that is there already.
    #[error("{key} has the label {label}={old}: give --overwrite to make it '{new}'")]
    Labelled {
        /// Whose.
        key: Key,
        /// The label.
        label: String,
        /// Its value.
        old: String,
        /// What it should become.
        new: String,
    },
    /// A label to remove that is not there.
    #[error("{key} has no label {label}: 'manxctl get {} {} -o yaml' shows those that it has", key.kind.plural(), key.name)]
    Unlabelled {
        /// Whose.
        key: Key,
        /// The label.
        label: String,
    },
    /// A patch that is no YAML and no JSON.
    #[error("the patch cannot be read: {0}")]
    Unreadable(String),
    /// A list of operations of which one fails.
    #[error("the patch does not fit {key}: {source}")]
    Unfit {
        /// What was to be patched.
        key: Key,
        /// Why not.
        source: json_patch::PatchError,
    },
    /// A patch that would make another resource of it.
    #[error("the patch makes {to} of {key}: kind, namespace and name of a resource cannot change")]
    Renamed {
        /// What was to be patched.
        key: Key,
        /// What would become of it.
        to: Key,
    },
}

/// Changes of labels: a value to have, or none.
type Labels = BTreeMap<String, Option<String>>;

/// `label`.
pub(crate) async fn label(target: &Target, args: &LabelArgs) -> Result<()> {
    let wanted = args
        .labels
        .iter()
        .map(|word| labelling(word, args.remove))
        .collect::<Result<Labels>>()?;
    let key = key(args.kind.parse()?, &args.namespace.namespace, &args.name);
    let store = target.store().await?;
    edit(&store, &key, "labeled", |old| {
        let mut new = old.clone();
        let labels = &mut new.metadata_mut().labels;
        relabel(&key, labels, &wanted, args.overwrite)?;
        // Through a manifest's checks, as if it had been applied.
        checked(&key, serde_json::to_value(&new).map_err(CtlError::json)?)
    })
    .await
}

/// `KEY=VALUE`, `KEY-`, or, with `remove`, `KEY`.
fn labelling(word: &str, remove: bool) -> Result<(String, Option<String>)> {
    let bare = |key: &str| !key.is_empty() && !key.contains('=');
    match (word.split_once('='), word.strip_suffix('-')) {
        (None, _) if remove && bare(word) => Ok((word.to_owned(), None)),
        (Some((key, value)), _) if !remove && !key.is_empty() => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) if bare(key) => Ok((key.to_owned(), None)),
        (Some(_) | None, _) => Err(EditError::Word(word.to_owned()).into()),
    }
}

fn relabel(key: &Key, labels: &mut BTreeMap<String, String>, wanted: &Labels, overwrite: bool) -> Result<()> {
    for (label, value) in wanted {
        match (value, labels.get(label)) {
            (Some(new), Some(old)) if old != new && !overwrite => {
                return Err(EditError::Labelled {
                    key: key.clone(),
                    label: label.clone(),
                    old: old.clone(),
                    new: new.clone(),
                }
                .into());
            }
            (Some(new), _) => drop(labels.insert(label.clone(), new.clone())),
            (None, Some(_)) => drop(labels.remove(label)),
            (None, None) => {
                return Err(EditError::Unlabelled {
                    key: key.clone(),
                    label: label.clone(),
                }
                .into());
            }
        }
    }
    Ok(())
}

/// `patch`.
pub(crate) async fn patch(target: &Target, args: &PatchArgs) -> Result<()> {
    let kind: Kind = args.kind.parse()?;
    let key = key(kind, &args.namespace.namespace, &args.name);
    let change: Value = serde_saphyr::from_str(&args.patch)
        .map_err(|error| EditError::Unreadable(error.without_snippet().to_string()))?;
    let store = target.store().await?;
    edit(&store, &key, "patched", |old| {
        let mut value = serde_json::to_value(old).map_err(CtlError::json)?;
        patched(&key, &mut value, &change, args.patch_type)?;
        checked(&key, value)
    })
    .await
}

fn patched(key: &Key, value: &mut Value, change: &Value, how: PatchType) -> Result<()> {
    match how {
        PatchType::Merge => json_patch::merge(value, change),
        PatchType::Json => {
            let operations: json_patch::Patch = serde_json::from_value(change.clone())
                .map_err(|error| EditError::Unreadable(error.to_string()))?;
            json_patch::patch(value, &operations).map_err(|source| EditError::Unfit {
                key: key.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

/// What a changed resource is, if it is still that resource and right.
fn checked(key: &Key, value: Value) -> Result<Resource> {
    let text = value.to_string();
    let loaded = manifest::load_into(&key.to_string(), &text, key.namespace.as_deref());
    let mut resources = loaded.map_err(|mut errors| {
        // The line is that of our own text.
        errors.iter_mut().for_each(|error| error.line = None);
        CtlError::Manifest { errors }
    })?;
    match resources.pop() {
        Some(resource) if resource.key() == *key => Ok(resource),
        Some(other) => Err(EditError::Renamed {
            key: key.clone(),
            to: other.key(),
        }
        .into()),
        None => Err(EditError::Unreadable("nothing is left of the resource".to_owned()).into()),
    }
}

/// Replaces a resource by what `change` makes of it, and says so.
async fn edit(
    store: &AnyStore,
    key: &Key,
    done: &str,
    change: impl Fn(&Resource) -> Result<Resource>,
) -> Result<()> {
    let changed = settle(store, key, None, change).await?;
    let done = if changed { done } else { "unchanged" };
    output::emit(&format!("{key} {done}\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool_key() -> Key {
        Key::cluster(Kind::IpPool, "p")
    }

    fn pool() -> Value {
        json!({
            "apiVersion": "manx.network/v1", "kind": "IPPool",
            "metadata": {"name": "p", "labels": {"rack": "a"}},
            "spec": {"cidr": "10.1.0.0/16"},
        })
    }

    #[test]
    fn labels_are_set_and_removed_by_words() {
        for (word, remove, wanted) in [
            ("rack=a", false, Some(("rack", Some("a")))),
            ("rack=", false, Some(("rack", Some("")))),
            ("rack=a=b", false, Some(("rack", Some("a=b")))),
            ("rack-", false, Some(("rack", None))),
            ("my-rack-", false, Some(("my-rack", None))),
            ("rack", true, Some(("rack", None))),
            ("rack-", true, Some(("rack-", None))),
            ("rack", false, None),
            ("rack=a", true, None),
            ("=a", false, None),
            ("-", false, None),
            ("", true, None),
        ] {
            let wanted = wanted.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
            assert_eq!(labelling(word, remove).ok(), wanted, "{word}");
        }
    }

    #[test]
    fn a_label_is_overwritten_only_when_asked_for() {
        let labels = || BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
        let wanted = |value: Option<&str>| Labels::from([("rack".to_owned(), value.map(str::to_owned))]);
        let changed = |value, overwrite| {
            let mut labels = labels();
            relabel(&pool_key(), &mut labels, &wanted(value), overwrite).map(|()| labels.remove("rack"))
        };
        assert_eq!(changed(Some("a"), false).unwrap().as_deref(), Some("a"));
        assert_eq!(changed(Some("b"), true).unwrap().as_deref(), Some("b"));
        assert_eq!(changed(None, false).unwrap(), None);
        assert_eq!(
            changed(Some("b"), false).unwrap_err().to_string(),
            "IPPool/p has the label rack=a: give --overwrite to make it 'b'"
        );
        let absent = relabel(&pool_key(), &mut BTreeMap::new(), &wanted(None), false).unwrap_err();
        assert_eq!(
            absent.to_string(),
            "IPPool/p has no label rack: 'manxctl get ippools p -o yaml' shows those that it has"
        );
    }

    #[test]
    fn patches_of_both_types_make_the_same_change() {
        let merge = json!({"spec": {"natOutgoing": true}, "metadata": {"labels": {"rack": null}}});
        let json = json!([
            {"op": "add", "path": "/spec/natOutgoing", "value": true},
            {"op": "remove", "path": "/metadata/labels/rack"},
        ]);
        let by = |change: &Value, how| {
            let mut value = pool();
            patched(&pool_key(), &mut value, change, how).unwrap();
            checked(&pool_key(), value).unwrap()
        };
        let patched = by(&merge, PatchType::Merge);
        assert_eq!(patched, by(&json, PatchType::Json));
        let Resource::IpPool(pool) = patched else {
            panic!("still a pool");
        };
        assert!(pool.spec.nat_outgoing);
        assert!(pool.metadata.labels.is_empty());
    }

    #[test]
    fn a_patch_that_would_make_a_wrong_resource_is_refused_with_the_field() {
        let refused = |change: Value, how| {
            let mut value = pool();
            let patched = patched(&pool_key(), &mut value, &change, how);
            let checked = patched.and_then(|()| checked(&pool_key(), value));
            checked.unwrap_err().to_string()
        };
        let merge = PatchType::Merge;
        let told = refused(json!({"spec": {"natOutgoin": true}}), merge);
        assert!(told.starts_with("IPPool/p: spec.natOutgoin: "), "{told}");
        assert!(told.contains("natOutgoing"), "a suggestion: {told}");
        let told = refused(json!({"metadata": {"name": "q"}}), merge);
        assert_eq!(
            told,
            "the patch makes IPPool/q of IPPool/p: kind, namespace and name of a resource cannot change"
        );
        let told = refused(
            json!([{"op": "remove", "path": "/spec/disabled/x"}]),
            PatchType::Json,
        );
        assert!(told.starts_with("the patch does not fit IPPool/p: "), "{told}");
        let told = refused(json!({"spec": {}}), PatchType::Json);
        assert!(told.starts_with("the patch cannot be read: "), "{told}");
    }
}
