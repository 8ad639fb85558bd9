//! Work that blocks for a moment, in the middle of a task.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does `work` here and now. Where the runtime has other threads, its other tasks go on meanwhile; where it has
/// one thread, they wait.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    tokio::task::block_in_place(work)
}
