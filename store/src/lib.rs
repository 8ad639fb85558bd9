//! The only crate that talks to a datastore: embedded SQLite, and Kubernetes custom resources.
