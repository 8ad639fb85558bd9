//! The contract of a [`Store`](crate::Store) as tests.
