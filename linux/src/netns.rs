//! Network namespaces: made, named, entered, removed.
//!
//! A namespace lives as long as something refers to it; a name is a file that the namespace is mounted on,
//! as `ip netns add` does it, so `ip netns exec` finds what is made in [`DIRECTORY`]. That needs root, or
//! `unshare -Urnm` with a directory of one's own.
//!
//! A thread is in one namespace; threads of an async runtime must stay where they are. So nothing here moves
//! the calling thread: work elsewhere is done in a thread made for it.

#![expect(unsafe_code, reason = "the hook between fork and exec is unsafe to install")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use crate::error::{Error, Result};
use crate::link::LinkSocket;

/// Where `ip netns` keeps its names.
pub const DIRECTORY: &str = "/run/netns";

/// The file system that namespaces live in (`NSFS_MAGIC`).
const NSFS: FsType = FsType(0x6e73_6673);

/// An open network namespace; a clone is the same one. It lives at least as long as this.
#[derive(Clone, Debug)]
pub struct Netns(Arc<File>);

impl Netns {
    /// Opens the namespace with this name (`/run/netns/red`) or of this process (`/proc/42/ns/net`).
    ///
    /// # Errors
    /// [`Error::NoNetns`] if there is no file or it is no namespace; [`Error::Os`] if it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoNetns(path.to_owned()));
            }
            other => other.map_err(Error::file("open", path))?,
        };
        // A name whose namespace is not mounted any more is a plain empty file.
        let system = fstatfs(&file)
            .map_err(io::Error::from)
            .map_err(Error::file("stat", path))?;
        if system.filesystem_type() != NSFS {
            return Err(Error::NoNetns(path.to_owned()));
        }
        Ok(Self(Arc::new(file)))
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Os`] if `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Makes a namespace with its loopback interface up, and names it `path`, whose directory is made too.
    ///
    /// # Errors
    /// [`Error::Os`] if the name is taken or the process may not make namespaces or mount them.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        fs::create_dir_all(directory).map_err(Error::file("make", directory))?;
        if directory == Path::new(DIRECTORY) {
            share(directory)?;
        }
        File::create_new(path).map_err(Error::file("make", path))?;
        let created = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .map_err(Error::os("make a network namespace"))?;
            bind(Path::new("/proc/thread-self/ns/net"), path)?;
            LinkSocket::open()?.set_up(LOOPBACK)?;
            Self::current()
        });
        if created.is_err() {
            Self::delete(path)?;
        }
        created
    }

    /// Removes a name; the namespace goes with the last process and open file in it. A name that does not
    /// exist is no error.
    ///
    /// # Errors
    /// [`Error::Os`] if the process may not unmount or unlink it.
    pub fn delete(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match umount2(path, MntFlags::MNT_DETACH) {
            // Not mounted (any more), or no such file.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(Error::file("unmount", path)(error.into())),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Runs `work` in a thread of its own inside the namespace, and waits for it. Sockets that it returns
    /// stay in the namespace; a panic goes on in the caller. Work in the calling thread's own namespace needs no
    /// right to enter any.
    ///
    /// # Errors
    /// [`Error::Os`] if the process may not enter the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_thread(|| {
            if Self::current()?.inode()? != self.inode()? {
                setns(&*self.0, CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .map_err(Error::os("enter a network namespace"))?;
            }
            Ok(work())
        })
    }

    /// A command that will run inside the namespace; nothing else about it is changed.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = Arc::clone(&self.0);
        let enter = move || setns(&*namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: the hook runs in the forked child of a threaded process, where only async-signal-safe
        // work is allowed: it makes one system call on a file that it keeps open, and allocates nothing,
        // as an `io::Error` from an error number holds no more than the number.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// The namespace's inode: the same for every file that refers to it, and to no other while it lives.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel cannot tell.
    pub fn inode(&self) -> Result<u64> {
        self.0
            .metadata()
            .map(|metadata| metadata.ino())
            .map_err(Error::os("stat a network namespace"))
    }

    /// The open file's number, for messages that name a namespace by it.
    pub(crate) fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The loopback interface's index, in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// Runs `work` in a thread of its own.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work);
        thread
            .map_err(Error::os("start a thread"))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes the directory a mount whose mounts reach every mount namespace, as `ip netns` does: otherwise
/// a daemon with mounts of its own would keep deleted namespaces alive, and miss new ones.
fn share(directory: &Path) -> Result<()> {
    let file = File::open(directory).map_err(Error::file("open", directory))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| Error::file("lock", directory)(error.into()))?;
    let shared = || {
        mount(
            None::<&str>,
            directory,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    match shared() {
        // Not a mount yet.
        Err(nix::Error::EINVAL) => {
            bind(directory, directory)?;
            shared()
        }
        other => other,
    }
    .map_err(|error| Error::file("share", directory)(error.into()))
}

fn bind(what: &Path, on: &Path) -> Result<()> {
    mount(
        Some(what),
        on,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(|error| Error::file("mount", on)(error.into()))
}
