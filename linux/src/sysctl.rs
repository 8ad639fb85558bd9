//! The kernel's settings under `/proc/sys/net`, of the calling thread's network namespace.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Where the settings are, unless [`use_directory`] said otherwise.
pub const DIRECTORY: &str = "/proc/sys/net";

/// Where they are in this process.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Has the whole process find the settings in another place where the same directory is mounted: in a container,
/// [`DIRECTORY`] itself may only be read. Before any setting is read or written; the first call counts.
pub fn use_directory(directory: PathBuf) {
    CHOSEN.get_or_init(|| directory);
}

/// The path of a setting.
fn path(name: &str) -> PathBuf {
    CHOSEN.get_or_init(|| DIRECTORY.into()).join(name)
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new(DIRECTORY).join("ipv6").exists()
}

/// Sets a setting unless it has the value already: some writes make the kernel walk its tables.
///
/// `name` is the path below `/proc/sys/net`, such as `ipv4/conf/eth0/rp_filter`.
///
/// # Errors
/// [`Error::Os`] if there is no such setting or it may not be written.
pub fn set(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(Error::file("open", &path))?;
    let mut found = [0; 64];
    let length = file.read_at(&mut found, 0).map_err(Error::file("read", &path))?;
    if found[..length].trim_ascii() == value.as_bytes() {
        return Ok(());
    }
    // At offset 0: the kernel ignores what is written elsewhere.
    file.write_all_at(value.as_bytes(), 0)
        .map_err(Error::file("write", &path))
}

/// Reads a setting.
///
/// # Errors
/// [`Error::Os`] if there is no such setting.
pub fn get(name: &str) -> Result<String> {
    let path = path(name);
    let value = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    Ok(value.trim_ascii().to_owned())
}

/// Lets the namespace forward packets between its interfaces: what makes a node of a machine.
///
/// # Errors
/// [`Error::Os`] if a setting may not be written. A kernel without IPv6 forwards IPv4 alone.
pub fn enable_forwarding() -> Result<()> {
    set("ipv4/ip_forward", "1")?;
    if has_ipv6() {
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Whether the kernel tells of every route that moves with its group of nexthops, and of the gateways of routes through
/// groups, as if there were no groups. Without, moving many routes takes it a fraction of the time, and who watches
/// routes has to understand groups.
///
/// # Errors
/// [`Error::Os`] if the kernel has no nexthop objects, or the setting may not be written.
pub fn set_nexthop_compat_mode(tells: bool) -> Result<()> {
    set("ipv4/nexthop_compat_mode", if tells { "1" } else { "0" })
}
