//! Agents that crash: three nodes' own address and CNI tasks under a virtual clock, over a kernel, a disk and a
//! datastore that fail and outlive them.
//!
//! Every sync, write and rename of the journal, every change of the kernel and every call of the datastore can fail,
//! take effect and be reported to fail, or be the last that the agent does; nodes lose power and disks, leave the cluster
//! and join it anew, the datastore goes away, pods vanish, operators release addresses, and the runtime forgets, repeats
//! and gives up. After each step the laws of [`laws`] have to
//! hold, and more of them whenever the cluster has come to rest.
//!
//! A failure names its seed: `MANX_CRASH_SEED=7 cargo test -p manx-tests --test crash storm` tells the same story
//! again; `MANX_CRASH_STEPS` makes it longer.

#![expect(
    clippy::unwrap_used,
    reason = "in a test and its harness, an unwrap is an assertion"
)]

mod bgp;
mod blocks;
mod chance;
mod disk;
mod kernel;
mod laws;
mod memory;
mod node;
mod outage;
mod races;
mod runtime;
mod storm;
mod world;
