//! What goes wrong, in words that say what to do next.

use std::io::{self, Write as _};
use std::path::PathBuf;

use manx_api::manifest::ManifestError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Manifests that cannot be used; nothing was changed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Manifests(Vec<ManifestError>),
    /// Resources that could not be written, or shown, each with its reason; the others were.
    #[error("{}", .0.join("\n"))]
    Resources(Vec<String>),
    /// The datastore.
    #[error("the datastore {}: {source}", path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: manx_store::Error,
    },
    /// There is no datastore where one was looked for.
    #[error(
        "there is no datastore at {}; name another with --store FILE or a lab with --lab NAME, or start manxd, which makes one",
        .0.display()
    )]
    NoStore(PathBuf),
    /// Agents that gave no answer, each with the reason.
    #[error("{}", .0.join("\n"))]
    Agents(Vec<String>),
    /// A node that is not in the cluster.
    #[error("there is no node '{name}'; the nodes are {}", known.join(", "))]
    UnknownNode {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A lab that does not run, or a name that no lab can have.
    #[error("{0}")]
    Lab(String),
    /// A file that cannot be read, or an output that cannot be written.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn runtime(source: io::Error) -> Self {
        Self::Io { doing: "cannot start".to_owned(), source }
    }

    /// Prints it to standard error, a line each, `error:` before it.
    pub(crate) fn report(&self) {
        let red = anstyle::AnsiColor::Red.on_default().bold();
        let mut stderr = anstream::stderr().lock();
        for line in self.to_string().lines() {
            // A closed standard error leaves nobody to tell.
            drop(writeln!(stderr, "{red}error:{red:#} {line}"));
        }
    }
}
