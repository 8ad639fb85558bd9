//! Where a lab's files are. Paths only; nothing here touches a file.

use std::path::{Path, PathBuf};

use crate::options::Name;

/// The folder of all labs.
pub const BASE: &str = "/run/manx-lab";
/// Where named network namespaces are.
pub const NETNS: &str = "/run/netns";

/// Where one lab's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The files of lab `name` under `base`, usually [`BASE`].
    #[must_use]
    pub fn new(base: &Path, name: &Name) -> Self {
        Self {
            root: base.join(name.as_str()),
        }
    }

    /// The lab's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the lab remembers of itself.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// The datastore that the lab's nodes share.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store.db")
    }

    /// A host's folder.
    #[must_use]
    pub fn host(&self, host: &str) -> PathBuf {
        self.root.join(host)
    }

    /// The control socket of a node's `manxd`.
    #[must_use]
    pub fn socket(&self, node: &str) -> PathBuf {
        self.host(node).join("manxd.sock")
    }

    /// What must outlive a node's `manxd`.
    #[must_use]
    pub fn state_dir(&self, node: &str) -> PathBuf {
        self.host(node).join("state")
    }

    /// The log of one of a host's processes.
    #[must_use]
    pub fn log(&self, host: &str, process: &str) -> PathBuf {
        self.host(host).join(format!("{process}.log"))
    }

    /// Where a container runtime finds a node's network configuration.
    #[must_use]
    pub fn cni_conf_dir(&self, node: &str) -> PathBuf {
        self.host(node).join("cni/net.d")
    }

    /// Where a container runtime finds a node's CNI plugins.
    #[must_use]
    pub fn cni_bin_dir(&self, node: &str) -> PathBuf {
        self.host(node).join("cni/bin")
    }
}

/// Where the named namespace is bound.
#[must_use]
pub fn netns_path(netns: &str) -> PathBuf {
    Path::new(NETNS).join(netns)
}
