//! Whole meshes of speakers under a virtual clock.
