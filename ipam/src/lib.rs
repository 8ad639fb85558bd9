//! Pools, blocks, affinities, allocations and the journal's format, as pure functions.
