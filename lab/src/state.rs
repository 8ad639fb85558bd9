//! What a lab remembers of itself, so that a later process can take it up or down.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};
use crate::layout::Layout;
use crate::options::{Name, Options};

/// What a lab remembers of itself. It is written *before* what it tells of is made, so that whatever a crash
/// leaves behind is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct State {
    /// What was asked for; the plan follows from it.
    pub(crate) options: Options,
    /// How far it came.
    pub(crate) phase: Phase,
    /// Every namespace, by name: also those that a newer version would plan otherwise.
    pub(crate) namespaces: Vec<String>,
    /// Every process that was started and not stopped.
    pub(crate) processes: Vec<Started>,
    /// The pods.
    pub(crate) pods: Vec<Pod>,
}

/// How far `up` came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    /// Not to its end: it runs now, or was killed.
    Starting,
    /// To its end.
    Up,
}

/// A process of the lab. Its number alone would name a stranger after it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Started {
    /// On which host.
    pub host: String,
    /// Its name there.
    pub name: String,
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did.
    pub start_time: u64,
}

/// A pod of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub node: String,
    /// Its network namespace.
    pub netns: String,
    /// What CNI calls it.
    pub container_id: String,
    /// Its addresses; none until CNI ADD has answered.
    pub addresses: Vec<IpAddr>,
    /// Its annotations, which the plugin is told of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its labels, which the plugin is told of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl State {
    /// A lab that is about to be made.
    pub(crate) fn new(options: &Options, namespaces: Vec<String>) -> Self {
        Self {
            options: options.clone(),
            phase: Phase::Starting,
            namespaces,
            processes: Vec::new(),
            pods: Vec::new(),
        }
    }

    /// What the lab remembers; none when there is no such lab.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(LabError::file("read", &path))?,
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| LabError::State { path, source })
    }

    /// Remembers; whoever reads meanwhile sees the old or the new, never half of it.
    pub(crate) fn save(&self, layout: &Layout) -> Result<()> {
        let path = layout.state();
        let fresh = path.with_extension("new");
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| LabError::file("write", &path)(error.into()))?;
        fs::write(&fresh, text).map_err(LabError::file("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(LabError::file("write", &path))
    }
}

/// The right to change a lab; held by one process at a time.
#[derive(Debug)]
pub(crate) struct Lock {
    _directory: Flock<File>,
}

impl Lock {
    /// Takes it, making the lab's folder if need be.
    pub(crate) fn take(layout: &Layout, name: &Name) -> Result<Self> {
        const ATTEMPTS: u32 = 10;
        let root = layout.root();
        for _ in 0..ATTEMPTS {
            fs::create_dir_all(root).map_err(LabError::file("make", root))?;
            let directory = File::open(root).map_err(LabError::file("open", root))?;
            let inode = directory
                .metadata()
                .map_err(LabError::file("look at", root))?
                .ino();
            let directory = Flock::lock(directory, FlockArg::LockExclusiveNonblock)
                .map_err(|_| LabError::Busy(name.clone()))?;
            // Whoever held the lock before may have removed the folder: then the lock is on nothing.
            if is_inode(root, inode) {
                return Ok(Self {
                    _directory: directory,
                });
            }
        }
        Err(LabError::Busy(name.clone()))
    }
}

fn is_inode(path: &Path, inode: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.ino() == inode)
}
