//! What the kernel and the system calls may answer.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;

/// What went wrong in the kernel's hands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("cannot {doing}: {refusal}")]
    Refused {
        /// What was asked: "add link mx0123456789a".
        doing: String,
        /// Its answer.
        refusal: Refusal,
    },
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Os {
        /// What was tried: "open /run/netns/red".
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The namespace's file does not exist or is no namespace: the sandbox has gone.
    #[error("no network namespace at {}", .0.display())]
    NoNetns(PathBuf),
    /// The kernel had more to tell than the socket could hold, and dropped some: read everything anew.
    #[error("the kernel dropped netlink messages: what is known of its tables is out of date")]
    Overrun,
    /// The table changed during each of several attempts to read it.
    #[error("the kernel's table kept changing while it was read")]
    Interrupted,
    /// The kernel's answer does not follow the netlink protocol.
    #[error("netlink answer not understood: {0}")]
    Malformed(String),
    /// The pod's interface name is taken by an interface that is not ours.
    #[error(
        "the pod has an interface {ifname} already and Manx did not make it: delete it or choose another name"
    )]
    Taken {
        /// The name.
        ifname: String,
    },
    /// A program that the kernel's rules are written with is not installed.
    #[error("there is no program {0}: install the package iptables")]
    NoProgram(&'static str),
    /// A program refused what it was to do.
    #[error("{program} failed ({status}): {said}{}", offending(.line.as_deref()))]
    Program {
        /// Which.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it complained of, in one line.
        said: String,
        /// The line of its input that it named.
        line: Option<String>,
    },
    /// A program took too long, and was ended.
    #[error("{program} was ended: it took longer than {limit:?}")]
    Late {
        /// Which.
        program: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// A link is not as it was made.
    #[error("the link is not as it should be: {0}")]
    Broken(String),
}

/// The result of everything that enters the kernel.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The error number behind it, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.errno),
            Self::Os { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Overrun => Some(Errno::ENOBUFS),
            Self::NoNetns(_)
            | Self::Interrupted
            | Self::Malformed(_)
            | Self::Taken { .. }
            | Self::NoProgram(_)
            | Self::Program { .. }
            | Self::Late { .. }
            | Self::Broken(_) => None,
        }
    }

    /// Wraps a failed system call; `doing` completes "cannot …".
    pub(crate) fn os(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Os { doing, source }
    }

    /// Wraps a failed system call on a file.
    pub(crate) fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::os(format!("{verb} {}", path.display()))
    }
}

/// The line of a program's input that it named, behind what it said of it.
fn offending(line: Option<&str>) -> String {
    line.map(|line| format!(": '{line}'")).unwrap_or_default()
}

/// The kernel's "no" to one netlink message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words, where it has any.
    pub message: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.errno, &self.message) {
            // No error number of the system's.
            (Errno::UnknownErrno, Some(message)) => f.write_str(message),
            (errno, Some(message)) => write!(f, "{} ({errno:?}): {message}", errno.desc()),
            (errno, None) => write!(f, "{} ({errno:?})", errno.desc()),
        }
    }
}

impl std::error::Error for Refusal {}
