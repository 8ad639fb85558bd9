//! The contract of a [`Store`] as tests: every backend passes the same ones.
//!
//! Each clause is an async function over a store; [`conformance_tests!`](crate::conformance_tests) makes a
//! `#[tokio::test]` of each, and with [`each_clause!`](crate::each_clause) another harness makes of them what it needs.
//! A clause names its resources by a prefix of its own, looks at no others and deletes what it made, so clauses may
//! share a store that others use too.

#![expect(missing_docs, reason = "a clause's name is its documentation")]
#![expect(clippy::unwrap_used, reason = "test code, though other crates' tests call it")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use futures_util::{StreamExt as _, future};
use manx_api::network_set::{NetworkSet, NetworkSetSpec};
use manx_api::node::{Node, NodeSpec};
use manx_api::{Key, Kind, Metadata, Resource, Revision};

use crate::{Error, Event, Events, Store};

/// Calls a macro with an expression of its own and the names of all clauses.
#[macro_export]
macro_rules! each_clause {
    ([$($then:tt)+], $given:expr) => {
        $($then)+! { $given;
            a_created_resource_gets_uid_revision_and_time
            what_is_created_twice_or_wrongly_is_refused
            an_update_replaces_only_the_revision_it_names
            an_update_that_changes_nothing_keeps_the_revision
            a_delete_obeys_the_revision_it_names
            a_name_used_again_has_another_uid
            namespaces_keep_equal_names_apart
            listings_are_in_order_and_of_one_moment
            of_racing_creates_one_wins
            racing_updates_lose_no_change
            a_watch_resumes_at_every_revision
            a_watch_sees_only_the_kinds_it_asked_for
            listing_then_watching_misses_nothing
            many_watches_see_the_same
        }
    };
}

/// Makes a test of every clause. The argument is an async expression of `(store, guard)`; the guard (a
/// temporary folder, a server) lives as long as the test.
#[macro_export]
macro_rules! conformance_tests {
    ($open:expr) => {
        $crate::each_clause!([$crate::conformance_tests], $open);
    };
    ($open:expr; $($clause:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $clause() {
                let (store, _guard) = $open.await;
                $crate::conformance::$clause(&store).await;
            }
        )*
    };
}

/// Longer than any healthy store takes for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

/// One clause's resources in a store.
struct Scope<'a, S> {
    store: &'a S,
    prefix: String,
}

impl<'a, S: Store> Scope<'a, S> {
    fn new(store: &'a S) -> Self {
        let prefix = format!("c{}-", uuid::Uuid::new_v4().simple());
        Self { store, prefix }
    }

    fn node(&self, name: &str) -> Resource {
        Resource::Node(Node {
            metadata: Metadata {
                name: format!("{}{name}", self.prefix),
                ..Metadata::default()
            },
            spec: NodeSpec::default(),
        })
    }

    fn set(&self, namespace: &str, name: &str) -> Resource {
        Resource::NetworkSet(NetworkSet {
            metadata: Metadata {
                name: format!("{}{name}", self.prefix),
                namespace: Some(namespace.to_owned()),
                ..Metadata::default()
            },
            spec: NetworkSetSpec::default(),
        })
    }

    async fn create(&self, resource: Resource) -> Resource {
        self.store.create(resource).await.unwrap()
    }

    /// Sets a label and stores that.
    async fn label(&self, resource: &Resource, value: &str) -> Resource {
        self.store.update(labelled(resource, value)).await.unwrap()
    }

    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Resource> {
        let listing = self.store.list(kind, namespace).await.unwrap();
        let mine = |item: &Resource| item.metadata().name.starts_with(&self.prefix);
        listing.items.into_iter().filter(mine).collect()
    }

    async fn now(&self, kind: Kind) -> Revision {
        self.store.list(kind, None).await.unwrap().revision
    }

    /// This clause's events, as a stream that is fit to be read by [`take`].
    fn watch(&self, kinds: &[Kind], from: Revision) -> Events {
        let prefix = self.prefix.clone();
        let mine = move |event: &Result<Event, Error>| {
            let event = event.as_ref();
            future::ready(event.map_or(true, |event| {
                let resource = event.resource();
                resource.is_none_or(|it| it.metadata().name.starts_with(&prefix))
            }))
        };
        self.store.watch(kinds, from).filter(mine).boxed()
    }

    async fn clean_up(self) {
        for kind in [Kind::Node, Kind::NetworkSet] {
            for resource in self.list(kind, None).await {
                self.store.delete(&resource.key(), None).await.unwrap();
            }
        }
    }
}

fn labelled(resource: &Resource, value: &str) -> Resource {
    let mut resource = resource.clone();
    let labels = &mut resource.metadata_mut().labels;
    labels.insert("value".to_owned(), value.to_owned());
    resource
}

fn revision(resource: &Resource) -> Revision {
    resource.metadata().resource_version.clone().unwrap()
}

/// The deleted resource at another's revision: only watches need tell the deletion's own.
fn at(deleted: &Resource, other: &Resource) -> Resource {
    let mut deleted = deleted.clone();
    deleted.metadata_mut().resource_version = Some(revision(other));
    deleted
}

/// The next `count` events, in time.
async fn take(events: &mut Events, count: usize) -> Vec<Event> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(PATIENCE, events.next()).await;
        let event = next.unwrap_or_else(|_| panic!("event {} of {count} did not come", taken.len() + 1));
        taken.push(event.unwrap().unwrap());
    }
    taken
}

pub async fn a_created_resource_gets_uid_revision_and_time<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let given = scope.node("a");
    let created = scope.create(given.clone()).await;
    let metadata = created.metadata();
    assert!(metadata.uid.as_ref().is_some_and(|uid| !uid.is_empty()));
    let time = metadata.creation_timestamp.as_ref().unwrap();
    time.parse::<jiff::Timestamp>().unwrap();
    assert_ne!(revision(&created), Revision::start());
    assert_eq!(store.get(&created.key()).await.unwrap(), created);
    let mut stripped = created;
    *stripped.metadata_mut() = given.metadata().clone();
    assert_eq!(stripped, given, "nothing else was changed");
    scope.clean_up().await;
}

pub async fn what_is_created_twice_or_wrongly_is_refused<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let created = scope.create(scope.node("a")).await;
    let error = store.create(scope.node("a")).await.unwrap_err();
    assert!(
        matches!(&error, Error::AlreadyExists(key) if *key == created.key()),
        "{error}"
    );

    let error = store
        .create(labelled(&scope.node("b"), "not a label!"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let mut with_revision = scope.node("b");
    with_revision.metadata_mut().resource_version = Some(revision(&created));
    let error = store.create(with_revision).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");

    assert_eq!(
        scope.list(Kind::Node, None).await,
        [created],
        "nothing was changed"
    );
    scope.clean_up().await;
}

pub async fn an_update_replaces_only_the_revision_it_names<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let first = scope.create(scope.node("a")).await;
    let second = scope.label(&first, "2").await;
    assert_ne!(revision(&second), revision(&first));
    assert_eq!(second.metadata().uid, first.metadata().uid);
    assert_eq!(store.get(&first.key()).await.unwrap(), second);

    let error = store.update(labelled(&first, "3")).await.unwrap_err();
    let Error::Conflict {
        key,
        expected,
        actual,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (key, expected, actual),
        (first.key(), revision(&first), revision(&second))
    );

    let error = store.update(scope.node("a")).await.unwrap_err();
    assert!(
        matches!(error, Error::Invalid { .. }),
        "without a revision: {error}"
    );
    let error = store.update(labelled(&second, "not a label!")).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let mut absent = scope.node("b");
    absent.metadata_mut().resource_version = Some(revision(&second));
    let error = store.update(absent).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");

    assert_eq!(
        store.get(&first.key()).await.unwrap(),
        second,
        "nothing was changed"
    );
    scope.clean_up().await;
}

pub async fn an_update_that_changes_nothing_keeps_the_revision<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let created = scope.create(scope.node("a")).await;
    let mut events = scope.watch(&[Kind::Node], revision(&created));
    assert_eq!(store.update(created.clone()).await.unwrap(), created);
    let changed = scope.label(&created, "1").await;
    assert_eq!(
        take(&mut events, 1).await,
        [Event::Applied(changed)],
        "no event in between"
    );
    scope.clean_up().await;
}

pub async fn a_delete_obeys_the_revision_it_names<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let first = scope.create(scope.node("a")).await;
    let second = scope.label(&first, "2").await;
    let key = first.key();
    let error = store.delete(&key, Some(&revision(&first))).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    assert_eq!(store.get(&key).await.unwrap(), second, "nothing was changed");

    let deleted = store.delete(&key, Some(&revision(&second))).await.unwrap();
    assert_eq!(at(&deleted, &second), second);
    for error in [
        store.get(&key).await.unwrap_err(),
        store.delete(&key, None).await.unwrap_err(),
        store.update(second).await.unwrap_err(),
    ] {
        assert!(
            matches!(&error, Error::NotFound(missing) if *missing == key),
            "{error}"
        );
    }
    scope.clean_up().await;
}

pub async fn a_name_used_again_has_another_uid<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let first = scope.create(scope.node("a")).await;
    store.delete(&first.key(), None).await.unwrap();
    let second = scope.create(scope.node("a")).await;
    assert_ne!(first.metadata().uid, second.metadata().uid);
    assert_ne!(revision(&first), revision(&second));
    let error = store.update(labelled(&first, "late")).await.unwrap_err();
    assert!(
        matches!(error, Error::Conflict { .. }),
        "a writer of the first: {error}"
    );
    scope.clean_up().await;
}

pub async fn namespaces_keep_equal_names_apart<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let a = scope.create(scope.set("default", "web")).await;
    let b = scope.create(scope.set("kube-system", "web")).await;
    assert_eq!(store.get(&a.key()).await.unwrap(), a);
    assert_eq!(store.get(&b.key()).await.unwrap(), b);
    let kind = Kind::NetworkSet;
    assert_eq!(scope.list(kind, Some("default")).await, std::slice::from_ref(&a));
    assert_eq!(scope.list(kind, Some("absent")).await, []);
    store.delete(&a.key(), None).await.unwrap();
    assert_eq!(scope.list(kind, None).await, [b]);
    scope.clean_up().await;
}

pub async fn listings_are_in_order_and_of_one_moment<S: Store>(store: &S) {
    let scope = Scope::new(store);
    for (namespace, name) in [("default", "b"), ("kube-system", "a"), ("default", "a")] {
        scope.create(scope.set(namespace, name)).await;
    }
    let last = scope.create(scope.node("b")).await;
    scope.create(scope.node("a")).await;
    let keys = |items: Vec<Resource>| items.iter().map(Resource::key).collect::<Vec<Key>>();
    let sets = keys(scope.list(Kind::NetworkSet, None).await);
    let nodes = keys(scope.list(Kind::Node, None).await);
    assert_eq!((sets.len(), nodes.len()), (3, 2));
    assert!(sets.is_sorted() && nodes.is_sorted(), "{sets:?} {nodes:?}");

    let mut events = scope.watch(&[Kind::Node], scope.now(Kind::Node).await);
    let changed = scope.label(&last, "1").await;
    assert_eq!(
        take(&mut events, 1).await,
        [Event::Applied(changed)],
        "what the listing shows is no event"
    );
    scope.clean_up().await;
}

pub async fn of_racing_creates_one_wins<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let creates = (0..8).map(|i| store.create(labelled(&scope.node("a"), &i.to_string())));
    let results = future::join_all(creates).await;
    let winners: Vec<&Resource> = results.iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert_eq!(store.get(&winners[0].key()).await.unwrap(), *winners[0]);
    scope.clean_up().await;
}

pub async fn racing_updates_lose_no_change<S: Store>(store: &S) {
    const TASKS: usize = 6;
    const EACH: usize = 10;
    let scope = Scope::new(store);
    let key = scope.create(labelled(&scope.node("a"), "0")).await.key();
    let tasks = (0..TASKS).map(|_| tokio::spawn(increment(store.clone(), key.clone(), EACH)));
    for task in future::join_all(tasks).await {
        task.unwrap();
    }
    let counter = store.get(&key).await.unwrap();
    assert_eq!(counter.metadata().labels["value"], (TASKS * EACH).to_string());
    scope.clean_up().await;
}

/// Adds one to the resource's label, `times` times, against whoever else does.
pub async fn increment<S: Store>(store: S, key: Key, times: usize) {
    let mut done = 0;
    while done < times {
        let old = store.get(&key).await.unwrap();
        let value: usize = old.metadata().labels["value"].parse().unwrap();
        match store.update(labelled(&old, &(value + 1).to_string())).await {
            Ok(_) => done += 1,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn a_watch_resumes_at_every_revision<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let start = scope.now(Kind::Node).await;
    let mut expected = Vec::new();
    for name in ["a", "b", "c"] {
        let created = scope.create(scope.node(name)).await;
        let updated = scope.label(&created, "1").await;
        expected.extend([Event::Applied(created), Event::Applied(updated)]);
    }
    let key = expected[2].resource().unwrap().key();
    expected.push(Event::Deleted(store.delete(&key, None).await.unwrap()));
    expected.push(Event::Applied(scope.create(scope.node("b")).await));

    let seen = take(&mut scope.watch(&[Kind::Node], start), expected.len()).await;
    for (seen, expected) in seen.iter().zip(&expected) {
        match (seen, expected) {
            (Event::Deleted(seen), Event::Deleted(expected)) => assert_eq!(at(seen, expected), *expected),
            _ => assert_eq!(seen, expected),
        }
    }
    let revisions: HashSet<Revision> = seen.iter().map(Event::revision).collect();
    assert_eq!(revisions.len(), seen.len(), "every write has its own revision");
    for (i, event) in seen.iter().enumerate() {
        let behind = &seen[i + 1..];
        let mut events = scope.watch(&[Kind::Node], event.revision());
        let rest = take(&mut events, behind.len()).await;
        assert_eq!(rest, behind, "resumed behind {} events", i + 1);
    }
    scope.clean_up().await;
}

pub async fn a_watch_sees_only_the_kinds_it_asked_for<S: Store>(store: &S) {
    let scope = Scope::new(store);
    let start = scope.now(Kind::Node).await;
    let mut nodes = scope.watch(&[Kind::Node], start.clone());
    let mut both = scope.watch(&[Kind::Node, Kind::NetworkSet], start);
    let set = scope.create(scope.set("default", "web")).await;
    let node = scope.create(scope.node("a")).await;
    assert_eq!(take(&mut nodes, 1).await, [Event::Applied(node.clone())]);
    // Kinds may overtake each other.
    let keys: BTreeSet<Key> = take(&mut both, 2)
        .await
        .iter()
        .filter_map(|event| event.resource().map(Resource::key))
        .collect();
    assert_eq!(keys, BTreeSet::from([set.key(), node.key()]));
    scope.clean_up().await;
}

pub async fn listing_then_watching_misses_nothing<S: Store>(store: &S) {
    const WRITES: usize = 40;
    let scope = Scope::new(store);
    let key = scope.create(labelled(&scope.node("counter"), "0")).await.key();
    let writer = tokio::spawn(increment(store.clone(), key.clone(), WRITES));
    let mut watches = Vec::new();
    while !writer.is_finished() {
        let listing = store.list(Kind::Node, None).await.unwrap();
        let counter = listing.items.iter().find(|item| item.key() == key).unwrap();
        let value: usize = counter.metadata().labels["value"].parse().unwrap();
        watches.push((value, scope.watch(&[Kind::Node], listing.revision)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writer.await.unwrap();
    for (value, mut events) in watches {
        let values = take(&mut events, WRITES - value).await;
        let values: Vec<String> = values
            .iter()
            .map(|event| event.resource().unwrap().metadata().labels["value"].clone())
            .collect();
        let expected: Vec<String> = (value + 1..=WRITES).map(|value| value.to_string()).collect();
        assert_eq!(values, expected, "behind a listing that showed {value}");
    }
    scope.clean_up().await;
}

pub async fn many_watches_see_the_same<S: Store>(store: &S) {
    const WATCHES: usize = 20;
    const WRITES: usize = 10;
    let scope = Scope::new(store);
    let start = scope.now(Kind::Node).await;
    let mut watches: Vec<Events> = (0..WATCHES)
        .map(|_| scope.watch(&[Kind::Node], start.clone()))
        .collect();
    let mut expected = BTreeMap::new();
    for i in 0..WRITES {
        let created = scope.create(scope.node(&format!("n{i}"))).await;
        expected.insert(created.key(), created);
    }
    for events in &mut watches {
        let seen = take(events, WRITES).await;
        let seen: BTreeMap<Key, Resource> = seen
            .iter()
            .filter_map(Event::resource)
            .map(|resource| (resource.key(), resource.clone()))
            .collect();
        assert_eq!(seen, expected);
    }
    scope.clean_up().await;
}
