//! The embedded store keeps the contract of [`manx_store::Store`].

use manx_store::SqliteStore;
use tempfile::TempDir;

async fn open() -> (SqliteStore, TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    let store = SqliteStore::open(&folder.path().join("store.db")).await;
    (store.expect("a new store"), folder)
}

manx_store::conformance_tests!(open());
