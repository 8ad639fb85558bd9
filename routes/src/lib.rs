//! The wanted route table, merged by source, and the plan that makes the kernel's table equal to it.
//!
//! A route's life: somebody wants it ([`Update::Set`]), [`Table`] ranks it against the other sources of the
//! same prefix, [`plan`] compares what won with what the kernel holds and says which [`Change`]s are due.
//! [`Reconciler`] does both for one owner of a kernel table, change by change: it remembers what the kernel
//! took, refused or lost, so that a single update costs one lookup and not a comparison of two tables.
//!
//! Learned routes lead through *groups* of nexthops, where the kernel has such: a thousand routes through one group move
//! by one replacement of it. [`Reconciler::lose`] does so as soon as a router is known to be lost, before anybody has
//! said what each prefix does now.
//!
//! Invariants:
//! - A change never touches a route whose protocol is not ours ([`Source::protocol`]): routes are added
//!   exclusively, deleted by protocol, and replaced only where the kernel's route is known to be ours.
//! - The table depends on the last word of each source, never on the order of the words.
//! - What an earlier life left in the kernel is adopted as stale and keeps forwarding until its source has
//!   said all it wants ([`Table::settle`]): nothing flaps at a restart, and nothing stale survives it.
//!
//! Nothing here knows netlink, BGP or Kubernetes.

mod by_prefix;
mod groups;
mod nexthop;
mod plan;
mod reconciler;
mod route;
mod table;
#[cfg(test)]
mod testing;

pub use nexthop::{Found, Nexthop, Object};
pub use plan::{Change, plan};
pub use reconciler::{Observed, Reconciler, State};
pub use route::{Actual, Hop, METRIC, PROTOCOL_BGP, PROTOCOL_OWN, Route, Source, Target};
pub use table::{Delta, Full, Table, Update};
