//! A DEL that the agent was not there to hear.
//!
//! A tombstone is an empty file in `<state>/tombstones`; its name says everything:
//! `<container id>:<interface name>` (neither has a colon). So there is no content that a crash could cut.
//!
//! What the agent owes: consume all tombstones before it serves its first call, and again from time to time
//! (an agent that was only slow finds one for a DEL it has carried out: that is no error). Before an ADD it
//! removes the attachment's tombstone: the runtime has put the container's calls in order, and some (podman)
//! attach a container again under the id it had.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Attachment, ContainerId, InterfaceName};

/// The directory of an agent with this state directory.
#[must_use]
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("tombstones")
}

/// The name of an attachment's tombstone.
#[must_use]
pub fn file_name(attachment: &Attachment) -> String {
    format!(
        "{}:{}",
        attachment.container_id.as_str(),
        attachment.ifname.as_str()
    )
}

/// The attachment of a tombstone; none where the file is no tombstone.
#[must_use]
pub fn parse(file_name: &str) -> Option<Attachment> {
    let (container_id, ifname) = file_name.split_once(':')?;
    Some(Attachment {
        container_id: ContainerId::try_from(container_id.to_owned()).ok()?,
        ifname: InterfaceName::try_from(ifname.to_owned()).ok()?,
    })
}

/// Writes a tombstone; once this returns it survives a crash of the node.
///
/// # Errors
/// The directory cannot be made or written.
pub fn write(state_dir: &Path, attachment: &Attachment) -> io::Result<()> {
    let directory = directory(state_dir);
    fs::create_dir_all(&directory)?;
    File::create(directory.join(file_name(attachment)))?.sync_all()?;
    File::open(directory)?.sync_all()
}
