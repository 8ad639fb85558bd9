//! BFD: the codec beside captures, and pairs of machines under virtual time.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::disallowed_methods,
    reason = "there is no other way to make an Instant"
)]

mod codec;
mod guards;
mod pair;
mod sessions;
