//! The catalogue of a peer's errors: which octets make which error, and what the peer is told.
