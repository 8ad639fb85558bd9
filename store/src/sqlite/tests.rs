//! What is the embedded store's own: forgetting, pages, pools beside each other, missed wake-ups.

use manx_api::Metadata;
use manx_api::ipam::{IpPool, IpPoolSpec};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

fn pool(name: &str, cidr: &str) -> Resource {
    Resource::IpPool(IpPool {
        metadata: Metadata {
            name: name.to_owned(),
            ..Metadata::default()
        },
        spec: IpPoolSpec::new(cidr.parse().unwrap()),
    })
}

fn relabelled(resource: &Resource, value: &str) -> Resource {
    let mut resource = resource.clone();
    let labels = &mut resource.metadata_mut().labels;
    labels.insert("value".to_owned(), value.to_owned());
    resource
}

async fn open() -> (SqliteStore, TempDir) {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&folder.path().join("store.db")).await.unwrap();
    (store, folder)
}

/// Repeats the last event until there are `count`, all of them long ago.
fn make_history(folder: &TempDir, count: i64) {
    let connection = Connection::open(folder.path().join("store.db")).unwrap();
    connection
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT MAX(revision) + 1 FROM event UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO event SELECT i, 0, kind, deleted, body FROM n, (SELECT kind, deleted, body FROM event LIMIT 1)",
            [count],
        )
        .unwrap();
    connection.execute("UPDATE event SET time = 0", []).unwrap();
}

async fn next(events: &mut Events) -> Result<Event, Error> {
    let next = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    next.unwrap().unwrap()
}

#[tokio::test]
async fn old_events_are_forgotten_and_a_watch_from_before_expires() {
    let (store, folder) = open().await;
    let mut pool = store.create(pool("main", "10.0.0.0/16")).await.unwrap();
    make_history(&folder, 10_100);
    for i in 0..64 {
        pool = store.update(relabelled(&pool, &i.to_string())).await.unwrap();
    }
    let kinds = [Kind::IpPool];
    let head: i64 = pool
        .metadata()
        .resource_version
        .clone()
        .unwrap()
        .0
        .parse()
        .unwrap();
    assert_eq!(head, 10_164, "revisions go on");
    for forgotten in ["0", "100", "-1", "10165", "9223372036854775807", "yesterday"] {
        let mut events = store.watch(&kinds, Revision(forgotten.to_owned()));
        let error = next(&mut events).await.unwrap_err();
        assert!(matches!(error, Error::Expired(_)), "{forgotten}: {error}");
        assert!(events.next().await.is_none(), "an error ends the stream");
    }
    // Revision 10,112 is the multiple of 64 at which the old were looked for.
    let mut events = store.watch(&kinds, Revision("112".to_owned()));
    next(&mut events).await.unwrap();
}

#[tokio::test]
async fn recent_events_are_kept_however_many() {
    let (store, folder) = open().await;
    let mut pool = store.create(pool("main", "10.0.0.0/16")).await.unwrap();
    make_history(&folder, 10_100);
    let connection = Connection::open(folder.path().join("store.db")).unwrap();
    let now = "UPDATE event SET time = unixepoch() WHERE revision >= 50";
    connection.execute(now, []).unwrap();
    for i in 0..64 {
        pool = store.update(relabelled(&pool, &i.to_string())).await.unwrap();
    }
    let oldest: i64 = connection
        .query_row("SELECT MIN(revision) FROM event", [], |row| row.get(0))
        .unwrap();
    assert_eq!(oldest, 50);
}

#[tokio::test]
async fn a_long_history_is_read_in_pages_and_other_kinds_are_passed_over() {
    let (store, folder) = open().await;
    store.create(pool("main", "10.0.0.0/16")).await.unwrap();
    make_history(&folder, 1_000);
    let mut pools = store.watch(&[Kind::IpPool], Revision::start());
    for _ in 0..1_000 {
        next(&mut pools).await.unwrap();
    }
    let mut nodes = store.watch(&[Kind::Node], Revision::start());
    let pending = tokio::time::timeout(Duration::from_millis(50), nodes.next()).await;
    assert!(pending.is_err(), "no event of a node: {pending:?}");
}

#[tokio::test]
async fn pools_that_overlap_are_refused() {
    let (store, _folder) = open().await;
    let main = store.create(pool("main", "10.0.0.0/16")).await.unwrap();
    let error = store.create(pool("second", "10.0.128.0/20")).await.unwrap_err();
    let Error::Invalid { problems, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(problems[0].field, "spec.cidr");
    assert!(
        problems[0].message.contains("IPPool main (10.0.0.0/16)"),
        "{error}"
    );
    store.update(relabelled(&main, "1")).await.unwrap();
    store.create(pool("second", "10.1.0.0/16")).await.unwrap();
}

#[tokio::test]
async fn a_commit_without_a_wake_up_is_seen_all_the_same() {
    let (store, folder) = open().await;
    let mut events = store.watch(&[Kind::IpPool], Revision::start());
    let mut database = Database::open(&folder.path().join("store.db")).unwrap();
    let created = database.create(pool("main", "10.0.0.0/16")).unwrap();
    assert_eq!(next(&mut events).await.unwrap(), Event::Applied(created));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("absent/store.db");
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");

    let newer = folder.path().join("newer.db");
    let connection = Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    let error = SqliteStore::open(&newer).await.unwrap_err();
    assert!(error.to_string().contains("format is 2"), "{error}");
}

#[tokio::test]
async fn threads_and_waker_end_with_the_last_clone_and_watch() {
    let (store, _folder) = open().await;
    let mut events = store.watch(&[Kind::IpPool], Revision::start());
    let (reader, writer) = (store.reader.clone(), store.writer.clone());
    let created = store.create(pool("main", "10.0.0.0/16")).await.unwrap();
    drop(store);
    assert_eq!(
        next(&mut events).await.unwrap(),
        Event::Applied(created),
        "a watch outlives its store"
    );
    drop(events);
    drop(writer);
    for _ in 0..100 {
        if reader.is_last() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the waker task did not end");
}

#[tokio::test]
async fn a_pool_that_nodes_own_blocks_of_stays() {
    let (store, _folder) = open().await;
    let main = store.create(pool("main", "10.0.0.0/16")).await.unwrap();
    let block = serde_json::json!({
        "apiVersion": "manx.network/v1", "kind": "IPBlock", "metadata": {"name": "10-0-0-0-26"},
        "spec": {"cidr": "10.0.0.0/26", "pool": "main", "node": "n1", "generation": 1},
    });
    let block = store
        .create(serde_json::from_value(block).unwrap())
        .await
        .unwrap();
    let refused = store.delete(&main.key(), None).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    assert!(store.get(&main.key()).await.is_ok());
    store.delete(&block.key(), None).await.unwrap();
    store.delete(&main.key(), None).await.unwrap();
}

#[tokio::test]
async fn kinds_that_are_called_the_same_are_kept_apart() {
    let (store, _folder) = open().await;
    for version in ["manx.network/v1", "networking.k8s.io/v1"] {
        let policy = serde_json::json!({
            "apiVersion": version, "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "shop"},
        });
        store
            .create(serde_json::from_value(policy).unwrap())
            .await
            .unwrap();
    }
    let ours = Key::namespaced(Kind::NetworkPolicy, "shop", "web");
    let theirs = Key::namespaced(Kind::KubernetesNetworkPolicy, "shop", "web");
    let mut events = store.watch(&[Kind::KubernetesNetworkPolicy], Revision::start());
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event.resource().unwrap().key(), theirs);
    store.delete(&ours, None).await.unwrap();
    assert!(matches!(store.get(&ours).await, Err(Error::NotFound(_))));
    assert_eq!(store.get(&theirs).await.unwrap().key(), theirs);
    let listing = store
        .list(Kind::KubernetesNetworkPolicy, Some("shop"))
        .await
        .unwrap();
    assert_eq!(listing.items.len(), 1);
}

#[tokio::test]
async fn a_tier_that_policies_are_in_stays() {
    let (store, _folder) = open().await;
    let document = |kind: &str, name: &str, spec: serde_json::Value| -> Resource {
        let document = serde_json::json!({
            "apiVersion": "manx.network/v1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        serde_json::from_value(document).unwrap()
    };
    let order = serde_json::json!({"order": 1_000_000});
    let default = store.create(document("Tier", "default", order)).await.unwrap();
    let tier = store
        .create(document("Tier", "t", serde_json::json!({})))
        .await
        .unwrap();
    let policy = |name, tier: &str| document("GlobalNetworkPolicy", name, serde_json::json!({"tier": tier}));
    let of_tier = store.create(policy("a", "t")).await.unwrap();
    store.create(policy("b", "default")).await.unwrap();
    let refused = store.delete(&tier.key(), None).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("GlobalNetworkPolicy/a and 0 other policies"),
        "{refused}"
    );
    store.delete(&of_tier.key(), None).await.unwrap();
    store.delete(&tier.key(), None).await.unwrap();
    store.delete(&default.key(), None).await.unwrap();
}

#[tokio::test]
async fn what_is_said_of_a_policy_is_written_apart_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db"))
        .await
        .unwrap();
    let policy = serde_json::json!({
        "apiVersion": "manx.network/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": "all()"},
    });
    let created = store
        .create(serde_json::from_value(policy).unwrap())
        .await
        .unwrap();
    let condition = serde_json::json!({"type": "Accepted", "status": "False", "reason": "Invalid", "message": "no",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut said = created.clone();
    let status = serde_json::json!({"conditions": [condition]});
    *said.status_mut().unwrap() = serde_json::from_value(status).unwrap();
    said.metadata_mut().labels.insert("a".to_owned(), "b".to_owned());
    let written = store.update_status(said.clone()).await.unwrap();
    assert_eq!(written.status(), said.status());
    assert_eq!(
        written.metadata().labels,
        created.metadata().labels,
        "and nothing else"
    );
    let late = store.update_status(said.clone()).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");

    let mut relabelled = written.clone();
    relabelled
        .metadata_mut()
        .labels
        .insert("a".to_owned(), "b".to_owned());
    *relabelled.status_mut().unwrap() = manx_api::condition::Status::default();
    let updated = store.update(relabelled).await.unwrap();
    assert_eq!(updated.status(), said.status(), "an update leaves it");
    assert_eq!(updated.metadata().labels, said.metadata().labels);
}
