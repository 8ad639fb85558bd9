//! Whether the tests may act for other users.

/// Whether other user ids exist for us: not for whoever is root in a user namespace of one user.
///
/// # Panics
/// Where the kernel does not say.
#[must_use]
pub fn others_exist() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("Linux tells which user ids there are");
    map.split_ascii_whitespace().nth(2) != Some("1")
}
