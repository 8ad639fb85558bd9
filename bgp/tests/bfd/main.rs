//! BFD: the codec beside captures, and pairs of machines under virtual time.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::disallowed_methods,
    reason = "there is no other way to make an Instant"
)]

mod codec;
/// The body of the fuzz target.
#[path = "../../../tests/fuzz/src/bfd.rs"]
#[expect(unreachable_pub, reason = "the fuzz package publishes it")]
mod fuzz;
mod guards;
mod pair;
mod sessions;
