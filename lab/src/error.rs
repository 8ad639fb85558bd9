//! What can go wrong with a lab, and what to do about it.

use std::path::{Path, PathBuf};

use manx_api::rpc::{FrameError, RpcError};

use crate::options::{Name, OptionsError};

/// A result of a lab's operation.
pub type Result<T> = std::result::Result<T, LabError>;

/// What went wrong with a lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// There can be no such lab.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Namespaces are made by root.
    #[error("a lab needs root, for network namespaces: try again with sudo, or inside `unshare -Urnm`")]
    NotRoot,
    /// `up` on a lab that is up.
    #[error(
        "lab '{0}' is up already: look at it with `manxctl lab status --name {0}`, or take it down first with `manxctl lab down --name {0}`"
    )]
    Running(Name),
    /// Anything else on a lab that is not up.
    #[error("there is no lab '{name}': {}", hint(.others))]
    NotRunning {
        /// Which.
        name: Name,
        /// The labs that are there.
        others: Vec<Name>,
    },
    /// Another process is at it.
    #[error("another manxctl is working on lab '{0}' now: wait for it to end")]
    Busy(Name),
    /// A program is not installed.
    #[error("{program} is not installed: {hint}")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// How to get it.
        hint: String,
    },
    /// The kernel said no.
    #[error("cannot {doing}: {source}")]
    Kernel {
        /// What was tried.
        doing: String,
        /// Its answer.
        source: manx_linux::Error,
    },
    /// A file could not be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The lab's datastore.
    #[error("the lab's datastore: {0}")]
    Store(#[from] manx_store::Error),
    /// The lab's memory of itself cannot be read.
    #[error("{} is not what this manxctl writes: {source}; remove the lab with the manxctl that made it", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A process of the lab ended by itself.
    #[error("{process} of {host} ended; its log says:\n{log}")]
    Ended {
        /// On which host.
        host: String,
        /// Which.
        process: String,
        /// The end of its log.
        log: String,
    },
    /// Sessions or routes did not come in time.
    #[error("after {seconds} s the lab still lacks {}\nthe log of {host} ends with:\n{log}", lines(.missing))]
    TimedOut {
        /// How long it was waited for.
        seconds: u64,
        /// What is not there.
        missing: Vec<String>,
        /// The first host that lacks something.
        host: String,
        /// The end of its agent's log.
        log: String,
    },
    /// An agent did not answer.
    #[error("{} does not answer: {source}", socket.display())]
    Agent {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        source: FrameError,
    },
    /// An agent answered with an error.
    #[error("{} says: {source}", socket.display())]
    Refused {
        /// Its socket.
        socket: PathBuf,
        /// What it says.
        source: RpcError,
    },
    /// The CNI plugin refused.
    #[error("{verb} of pod {pod} on {node}: {message}")]
    Cni {
        /// `ADD` or `DEL`.
        verb: &'static str,
        /// `namespace/name`.
        pod: String,
        /// Where.
        node: String,
        /// The CNI error code; none when the plugin gave no error object.
        code: Option<u32>,
        /// What it says.
        message: String,
    },
    /// No host of this name.
    #[error("the lab has no '{name}': it has {}", .known.join(", "))]
    NoHost {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No pod of this name.
    #[error("the lab has no pod '{pod}': see `manxctl lab pod list`")]
    NoPod {
        /// What was asked for, `namespace/name`.
        pod: String,
    },
    /// A pod of this name is there.
    #[error(
        "pod '{pod}' exists already: delete it first with `manxctl lab pod delete`, or choose another name"
    )]
    PodExists {
        /// What was asked for, `namespace/name`.
        pod: String,
    },
    /// A name that Kubernetes would not take either.
    #[error(
        "'{0}' is no name for a pod or a namespace: write 1 to 63 lower-case letters, digits and inner hyphens"
    )]
    PodName(String),
    /// A probe could not be made.
    #[error("cannot {what}: {source}")]
    Probe {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The user changed their mind.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// For `map_err`: the kernel refused what `doing` says.
    pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(manx_linux::Error) -> Self {
        move |source| Self::Kernel {
            doing: doing.into(),
            source,
        }
    }

    /// For `map_err`: `path` could not be used.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

fn hint(others: &[Name]) -> String {
    match others {
        [] => "start one with `manxctl lab up`".to_owned(),
        [other] => format!("there is '{other}', say `--name {other}`"),
        others => {
            let names: Vec<&str> = others.iter().map(Name::as_str).collect();
            format!("there are {}, say which with `--name`", names.join(", "))
        }
    }
}

/// One thing a line, a dozen at most.
fn lines(missing: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text: String = missing
        .iter()
        .take(SHOWN)
        .map(|line| format!("\n  {line}"))
        .collect();
    if missing.len() > SHOWN {
        text += &format!("\n  and {} more", missing.len() - SHOWN);
    }
    text
}
