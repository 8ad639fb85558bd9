//! Installing the plugin on a node: `manx install PLUGINS LIST LISTS`, for a container that runs once before the agent.
//!
//! A runtime may start the plugin, or read its lists, at any moment: each file is there whole, or as it was before. The
//! list comes last, since with it the runtime takes the network to be there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::Document;
use crate::{Code, Error, NetConf};

/// What the plugin is called, in lists and among plugins.
const PLUGIN: &str = "manx";

/// What is to be installed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The plugin's program.
    pub program: PathBuf,
    /// The runtime's directory of plugins: `/opt/cni/bin`.
    pub plugins: PathBuf,
    /// The list of plugins that makes the network. It keeps its file name.
    pub list: PathBuf,
    /// The runtime's directory of lists: `/etc/cni/net.d`.
    pub lists: PathBuf,
}

impl Installation {
    /// Installs both. A list that could not be used changes nothing.
    ///
    /// # Errors
    /// [`Code::Io`] with the file; those of [`check_list`].
    pub fn carry_out(&self) -> Result<(), Error> {
        let list = read(&self.list)?;
        check_list(&list)?;
        let name = self.list.file_name().unwrap_or_default();
        put(&self.plugins, OsStr::new(PLUGIN), &read(&self.program)?, 0o755)?;
        put(&self.lists, name, &list, 0o644)
    }
}

/// Refuses a list by which no pod could be added to our network.
///
/// # Errors
/// [`Code::Decode`] where it is none, [`Code::InvalidConfig`] where [`PLUGIN`] is not in it, and what ADD would answer.
pub fn check_list(text: &[u8]) -> Result<(), Error> {
    let list: Map<String, Value> = serde_json::from_slice(text)
        .map_err(|error| Error::new(Code::Decode, "the list is no JSON object").with_details(error))?;
    let plugins = list.get("plugins").and_then(Value::as_array);
    let ours = plugins.into_iter().flatten().find(|it| it["type"] == PLUGIN);
    let Some(Value::Object(ours)) = ours else {
        let message = format!("the list has no plugin of the type '{PLUGIN}'");
        return Err(Error::new(Code::InvalidConfig, message));
    };
    let mut config = ours.clone();
    for field in ["cniVersion", "name"] {
        config.insert(field.to_owned(), list.get(field).cloned().unwrap_or_default());
    }
    let document = Document::parse(Value::Object(config).to_string().as_bytes())?;
    NetConf::from_document(&document)?;
    document.refuse_unsupported()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| failed("read", path, &error))
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Code::Io, format!("cannot {verb} {}", path.display())).with_details(error)
}

/// Puts a file in the place of what has its name, if anything has: written beside it, on the disk, renamed.
fn put(directory: &Path, name: &OsStr, content: &[u8], mode: u32) -> Result<(), Error> {
    let mut beside = OsStr::new(".").to_owned();
    beside.push(name);
    // Runtimes read files by their extensions, and this is none of theirs.
    beside.push(".new");
    let beside = directory.join(beside);
    let written = || -> io::Result<()> {
        let options = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&beside);
        let mut file = options?;
        file.write_all(content)?;
        // Whatever the umask is, and whatever an attempt before this one left.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    };
    written().map_err(|error| failed("write", &beside, &error))?;
    let path = directory.join(name);
    let renamed = fs::rename(&beside, &path).and_then(|()| File::open(directory)?.sync_all());
    renamed.map_err(|error| failed("replace", &path, &error))
}
