//! Whole meshes of speakers under a virtual clock.

mod mesh;
mod network;
