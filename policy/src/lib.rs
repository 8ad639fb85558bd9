//! The calculation graph of policy: resources in, rule and set deltas out, rendered as text.
//!
//! A resource's life: the [`Engine`] takes it in ([`Update`]), says which [`Change`]s the node's rules and sets
//! need, and [`Transaction`] writes those down: what sets gain, rules as text for `iptables-restore --noflush`, and
//! what sets lose. What the kernel has is read back, rules from `iptables-save` ([`Held`]), and [`plan`] says what is
//! between that and what is wanted. So the changes of an update and the repair of a drift are the same words.
//!
//! The engine knows two things: NAT outgoing ([`nat`]), which hides pods of some pools behind their node's address
//! when they talk to the world outside all pools; and policies, in their one form (`manx_api::policy`), of which it
//! enforces those that select pods of this node. Staged policies have chains that count and decide nothing
//! ([`Trial`]). [`explain`] says why a packet is let through or not, [`told`] what a rule's log says, and [`what_if`]
//! which packets other resources would have treated otherwise.
//!
//! Invariants:
//! - What is wanted depends on the last state of each resource, never on the order of the updates, and the
//!   changes folded are what is wanted.
//! - Nothing is touched that is not ours: chains named `manx-…`, sets named `mx4-…` and `mx6-…`, and rules
//!   elsewhere that lead into such a chain or carry our mark.
//! - What nobody uses is not there: no pool with NAT outgoing in a family, no chain, rule or set of it.
//! - At every step of a transaction, packets meet either the old rules or the new ones: what sets gain comes
//!   first, then the rules of a table at once, then what sets lose. A pod that comes is known last, and one that goes
//!   is not known first: until then, and from then on, its packets are dropped.
//!
//! Nothing here knows a kernel or runs a program; `manx_linux::rules` does.

mod chains;
mod compile;
mod engine;
mod explain;
mod graph;
mod held;
mod hosts;
mod input;
mod lists;
mod logs;
pub mod nat;
mod nets;
mod peers;
mod plan;
mod ruleset;
mod sets;
mod subjects;
#[cfg(test)]
mod tests;
mod things;
mod transaction;
mod trial;
mod wanted;
mod what_if;

pub use engine::{Engine, Update};
pub use explain::{
    Decided, Explanation, Outcome, Party, PolicyWalk, TierWalk, Traffic, Unexplained, Walk, explain,
};
pub use held::{Held, Jump, Unreadable};
pub use input::{
    Failsafe, Failsafes, HostAction, HostInterface, Local, Marks, Needs, Pool, ServiceEndpoint, Settings,
};
pub use logs::{Logged, Reason, Told, Whose, told};
pub use manx_api::policy::{Direction, Family, Protocol};
pub use plan::{Change, Delta, plan};
pub use ruleset::{
    CHAIN_PREFIX, ChainId, Connection, End, Full, Hook, Match, Member, Rule, Sense, Set, SetKind, Table,
    Target, family_of_set,
};
pub use transaction::{MAX_MEMBERS, SetChange, Transaction};
pub use trial::{Trial, packets};
pub use what_if::{Change as WhatIfChange, Message, Packets, Place, Verdict, WhatIf, what_if};
