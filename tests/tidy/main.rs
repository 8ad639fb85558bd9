//! What the documents claim of the tree, held to it.
