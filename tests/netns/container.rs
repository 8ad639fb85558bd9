//! An agent as the DaemonSet of `deploy/` runs it: with its capabilities and no others, an image that may only be read,
//! settings of the kernel that may only be read but in one place, and of the node what is mounted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use manx_linux::Netns;
use manx_tests::binaries::program;
use manx_tests::manifests::rendered;
use serde_json::Value;

/// Mounts what a runtime would, and goes on as the agent. The first argument is the node's folder.
const ENTER: &str = "set -e
mkdir -p $0/net
mount --bind $0 $0
mount --bind /proc/sys/net $0/net
touch /run/xtables.lock
mount --bind /run/xtables.lock /run/xtables.lock
mount -o remount,bind,ro /
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec \"$@\"";

/// What `deploy/` has.
pub(crate) static DEPLOYED: LazyLock<Vec<Value>> = LazyLock::new(|| rendered(""));

/// Where such an agent finds the kernel's settings.
pub(crate) fn sysctl_dir(folder: &Path) -> PathBuf {
    folder.join("net")
}

/// A command that runs the agent of this folder so.
pub(crate) fn command(netns: &Netns, folder: &Path) -> Command {
    let set = DEPLOYED.iter().find(|it| it["kind"] == "DaemonSet").unwrap();
    let context = &set["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    let added = context["capabilities"]["add"].as_array().unwrap().iter();
    let kept: String = added
        .map(|name| format!(",+{}", name.as_str().unwrap().to_lowercase()))
        .collect();
    let mut command = netns.command("unshare");
    command
        .args(["--mount", "--propagation", "slave", "sh", "-c", ENTER])
        .arg(folder)
        .arg("setpriv")
        .arg("--no-new-privs")
        .arg(format!("--bounding-set=-all{kept}"))
        .arg(program("manxd"));
    command
}
