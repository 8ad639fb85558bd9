//! Where the workspace's own programs are.

use std::path::PathBuf;

/// The path of a program of the workspace, built with the profile of the running test or bench.
///
/// Cargo names programs only to the tests of their own package, so this one looks where cargo puts them:
/// beside the `deps` folder of the running executable. `MANX_BIN` names another folder.
///
/// # Panics
/// Where the program has not been built, with the command that builds it.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("MANX_BIN")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let running = std::env::current_exe().expect("a running program has a path");
            running
                .ancestors()
                .nth(2)
                .expect("target/<profile>/deps/<name>")
                .to_owned()
        });
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}
