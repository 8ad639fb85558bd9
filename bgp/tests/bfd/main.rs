//! BFD: the codec beside captures, and pairs of machines under virtual time.

mod codec;
mod guards;
mod pair;
mod sessions;
