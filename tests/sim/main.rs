//! Whole meshes of speakers under a virtual clock.

mod collision;
mod mesh;
mod network;
mod restart;
mod stress;
