//! Our speaker against BIRD, FRR and GoBGP, in network namespaces.
//!
//! Each test has two namespaces joined by a veth pair: our speaker in one, the other program with its own
//! configuration, sockets and folder in the other. Both sides are asked what they hold, ours through its
//! handle, theirs through their own command line. Needs root. A program that is not installed skips its tests,
//! loudly, unless `CI` is set.

mod bfd;
mod binary;
mod bird;
mod cases;
mod frr;
mod gobgp;
mod net;
mod ours;
mod router;
