//! What goes wrong at the command line, with what to do next.

use std::io;
use std::path::PathBuf;

use manx_api::manifest::ManifestError;

/// A result of a command.
pub(crate) type Result<T> = std::result::Result<T, CtlError>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    /// The lab, or an agent.
    #[error(transparent)]
    Lab(#[from] manx_lab::LabError),
    /// The datastore.
    #[error(transparent)]
    Store(#[from] manx_store::Error),
    /// Manifests with errors in them.
    #[error("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Manifest {
        /// All of them.
        errors: Vec<ManifestError>,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A word that names no kind.
    #[error(transparent)]
    Kind(#[from] manx_api::meta::UnknownKind),
    /// A change that cannot be made.
    #[error(transparent)]
    Edit(Box<crate::edit::EditError>),
    /// There is no such pod.
    #[error("no pod {pod} is known: 'manxctl get workloadendpoints -A' lists them")]
    NoPod {
        /// What was asked for.
        pod: String,
    },
    /// The pod has no such interface.
    #[error("pod {pod} has no interface '{interface}': write {pod}@ and one of {}", .known.join(", "))]
    NoInterface {
        /// The pod.
        pod: String,
        /// What was asked for.
        interface: String,
        /// What it has.
        known: Vec<String>,
    },
    /// Nobody knows a node's address.
    #[error("node '{node}' has told of no address yet: is its agent running? write the address itself")]
    NoAddress {
        /// The node.
        node: String,
    },
    /// A service is no sender.
    #[error("service {service} sends nothing: name a pod behind it, as NAMESPACE/POD")]
    NoSender {
        /// What was asked for.
        service: String,
    },
    /// The service has no such port.
    #[error("service {service} has no such port: it has {}", .known.join(", "))]
    NoServicePort {
        /// The service.
        service: String,
        /// What it has.
        known: Vec<String>,
    },
    /// There is no such service.
    #[error("there is no service {namespace}/{name}: 'manxctl get services -A' lists them")]
    NoService {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// There is nobody to ask.
    #[error("there is no agent to ask: the lab has no nodes")]
    Nobody,
    /// There is no such node.
    #[error("there is no node '{name}' here: there is {}", .known.join(", "))]
    NoNode {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// What one speaker is asked for was asked of several.
    #[error("there are several speakers here: say whose with --node, one of {}", .known.join(", "))]
    OneNode {
        /// What there is.
        known: Vec<String>,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No datastore at the default place.
    #[error("there is no datastore at {}: {hint}", path.display())]
    NoStore {
        /// The place.
        path: PathBuf,
        /// What to do.
        hint: String,
    },
    /// No agent at the default place.
    #[error("no agent answers at {}: {hint}", path.display())]
    NoAgent {
        /// The place.
        path: PathBuf,
        /// What to do.
        hint: String,
    },
    /// A file without a resource.
    #[error("{} holds no resource: write at least apiVersion, kind and metadata.name", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// `bgp explain` of a prefix that nobody announces.
    #[error("there is no path to {0}: 'manxctl bgp routes' lists the prefixes that there are")]
    NoPath(ipnetwork::IpNetwork),
    /// A file is no report of a check.
    #[error("{} is no report of `manxctl ipam check`: {source}", path.display())]
    NoReport {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A pool cannot be split as asked.
    #[error(transparent)]
    Split(#[from] crate::ipam::split::SplitError),
    /// There is no such pool.
    #[error("there is no IPPool '{name}': there is {}", .known.join(", "))]
    NoPool {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Some of several things went wrong, and were told of as they did.
    #[error("{failed} of {all} failed")]
    Partly {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
    },
    /// The proof failed.
    #[error("the lab does not do what it should: see above, and the agents' logs in {}", logs.display())]
    NotProved {
        /// The lab's folder.
        logs: PathBuf,
    },
    /// A command in the lab cannot be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Which.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// Nothing can be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The async runtime.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

impl From<crate::edit::EditError> for CtlError {
    fn from(error: crate::edit::EditError) -> Self {
        Self::Edit(Box::new(error))
    }
}

impl CtlError {
    /// For `map_err`: a value that JSON cannot hold.
    pub(crate) fn json(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}
