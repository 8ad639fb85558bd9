//! The real kernel, in network namespaces that the tests make.
//!
//! Needs root, or a user namespace: `unshare -Urnm sh -c 'mount -t tmpfs none /run && cargo test --test netns'`.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails the test")]

mod harness;
mod links;
mod namespaces;
mod pods;
mod routes;
