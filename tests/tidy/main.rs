//! What the documents claim of the tree, held to it.

mod arrows;
mod documents;
mod licences;
mod purity;
mod sizes;
mod workspace;
