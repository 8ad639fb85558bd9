//! Where the programs are that a lab runs.

use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};
use crate::plan::Program;

/// Where Debian keeps FRR's daemons.
const FRR: &str = "/usr/lib/frr";
/// Looked through after `PATH`: root's folders, which a user's path may lack.
const ROOTS_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The CNI plugin's name.
pub(crate) const PLUGIN: &str = "manx";

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Manxd => "manxd",
            Self::ManxBgpd => "manx-bgpd",
            Self::Bird => "bird",
            Self::Zebra => "zebra",
            Self::FrrBgpd => "bgpd",
            Self::Gobgpd => "gobgpd",
        }
    }

    /// The Debian package that has it; none for our own.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Manxd | Self::ManxBgpd => None,
            Self::Bird => Some("bird2"),
            Self::Zebra | Self::FrrBgpd => Some("frr"),
            Self::Gobgpd => Some("gobgpd"),
        }
    }

    /// The program's file; our own are in `bin_dir`.
    pub(crate) fn find(self, bin_dir: &Path) -> Result<PathBuf> {
        let Some(package) = self.package() else {
            return own(self.name(), bin_dir);
        };
        // OpenBGPD has a `bgpd`, too: FRR's are looked for where FRR keeps them.
        let found = if package == "frr" {
            Some(Path::new(FRR).join(self.name()))
        } else {
            on_path(self.name())
        };
        found
            .filter(|path| path.exists())
            .ok_or_else(|| LabError::NoProgram {
                program: self.name(),
                hint: format!("`apt-get install {package}`, or `make deps`"),
            })
    }
}

/// One of our own programs.
pub(crate) fn own(name: &'static str, bin_dir: &Path) -> Result<PathBuf> {
    let path = bin_dir.join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(LabError::NoProgram {
        program: name,
        hint: format!(
            "it should be beside manxctl in {}; `cargo build --workspace --bins` makes it",
            bin_dir.display()
        ),
    })
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(ROOTS_FOLDERS.map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
