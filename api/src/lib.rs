//! The vocabulary of Manx: resource kinds, names, defaults, validation, status types.
//!
//! Everything a user writes and everything the parts say to each other about users' resources is a type
//! here. *Parse, don't validate*: `manifest` turns text into checked values, and nothing below meets an
//! unchecked one. No async and no I/O: [`rpc`] frames messages over any `Read` or `Write` it is handed.

pub mod announcement;
pub mod bgp;
pub mod cluster_policy;
pub mod condition;
pub mod denied;
pub mod explanation;
pub mod filter;
mod formats;
pub mod host_endpoint;
pub mod ipam;
pub mod kubernetes;
#[cfg(feature = "manifest")]
pub mod manifest;
pub mod meta;
mod names;
pub mod namespace;
pub mod network_policy;
pub mod network_set;
pub mod node;
pub mod operation;
pub mod policy;
pub mod report;
pub mod resource;
pub mod rpc;
pub mod rule;
#[cfg(feature = "schema")]
pub mod schema;
pub mod selector;
pub mod service;
pub mod status;
pub mod validate;
pub mod what_if;
pub mod workload;

pub use meta::{Key, Kind, Metadata, Revision};
pub use resource::Resource;
pub use selector::{Requirement, Selector};
pub use validate::{
    Problem, validate, validate_among_pools, validate_delete, validate_delete_tier, validate_update,
};

/// The API group and version of every Manx resource.
pub const API_VERSION: &str = "manx.network/v1";
