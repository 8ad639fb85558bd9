//! Pools, blocks, affinities, allocations and the journal's format, as pure functions.
//!
//! # An address's life
//!
//! A pool is cut into [`Blocks`]. A node picks one among [`candidates`], makes the block resource with
//! [`claim`] and writes it by compare-and-swap; from then on the node alone decides over the block's
//! addresses. Its [`Allocator`] hands them out from memory. Every change of an allocator is a
//! [`journal::Record`], which the agent appends to a file and syncs before it answers; after a restart
//! [`journal::replay`] gives the same allocator back, and [`reconcile`] compares it with the interfaces that
//! exist. Off that path, [`checkpoint`] tells the datastore what the owner holds.
//!
//! # Invariants
//!
//! - A block has one owner. Whoever loses the compare-and-swap does not own it; a writer of an earlier
//!   generation is refused.
//! - Within an allocator an address is either free or held by one attachment, never both.
//! - Sequence numbers of a block grow with every allocation, over all its owners, so a stale release
//!   cannot free a later holder's address.
//! - Folding an allocator's records over an empty allocator gives that allocator, free lists included.
//!
//! # Which addresses of a block pods get
//!
//! All of them: 64 of a /26. A pod's address is a host route (/32, /128), so there is no subnet whose first
//! and last address could mean "network" and "broadcast".

mod address;
mod allocator;
mod block;
mod blocks;
pub mod check;
mod free;
pub mod journal;
mod lease;
mod ownership;
mod reconcile;
mod releases;
mod requested;
mod reserved;
mod selection;
mod surplus;

pub use address::Family;
pub use allocator::{
    Allocator, ApplyError, AssignError, Assignment, HoldError, Release, RemoveError, Request, Want,
};
pub use block::{Block, BlockError, Loan};
pub use blocks::{Blocks, candidates};
pub use free::Rest;
pub use lease::{Duty, Surroundings, duties, lease_request, parts_of, proposals, return_lease};
pub use ownership::{CheckpointError, ClaimError, NotOwner, checkpoint, claim, release_block, renew};
pub use reconcile::{Decision, Live, reconcile};
pub use releases::{Settled, settle_releases};
pub use requested::{Place, PlaceError, place, requested};
pub use reserved::Reserved;
pub use selection::{AnnotationError, Chooser, Objection, Pod, Selection, objection, select};
pub use surplus::{Holding, surplus};
