//! Where the workspace's own programs are.

use std::path::PathBuf;
use std::process::Command;

use manx_linux::Netns;

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

/// A command that runs a program of ours in a namespace with the capabilities that its unit in `deploy/systemd`
/// leaves it.
///
/// # Panics
/// Where it has no unit, or the unit leaves it all capabilities.
#[must_use]
pub fn as_unit(netns: &Netns, name: &str) -> Command {
    let unit = match name {
        "manxd" => include_str!("../../deploy/systemd/manxd.service"),
        "manx-bgpd" => include_str!("../../deploy/systemd/manx-bgpd.service"),
        other => panic!("{other} has no unit"),
    };
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let kept = line.expect("a bounding set").split_whitespace();
    let kept: String = kept
        .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let mut command = netns.command("setpriv");
    command
        .arg(format!("--bounding-set=-all{kept}"))
        .arg(program(name));
    command
}
