//! The other program, whichever it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use manx_linux::Netns;

use crate::net::{SOON, eventually};

/// The session, as the other side is to be configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) our_asn: u32,
    pub(crate) their_asn: u32,
    /// We wait for them to dial.
    pub(crate) we_wait: bool,
    /// They wait for us to dial.
    pub(crate) they_wait: bool,
    /// In seconds.
    pub(crate) hold_time: u16,
    /// They offer graceful restart with this time in seconds, and help with ours.
    pub(crate) graceful_restart: Option<u16>,
    /// Both sides watch the path by BFD.
    pub(crate) bfd: Option<Hops>,
}

/// How far BFD takes the peer to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hops {
    One,
    Several,
}

/// A BGP program in its namespace.
pub(crate) trait Router {
    /// Its name, for messages.
    fn name(&self) -> &'static str;
    /// Whether the session with us is up.
    fn established(&self) -> bool;
    /// What it has learned from us, both families.
    fn learned(&self) -> BTreeSet<String>;
    /// Originates a prefix.
    fn announce(&mut self, prefix: &str);
    /// No longer originates it.
    fn withdraw(&mut self, prefix: &str);
    /// Code and subcode of the last NOTIFICATION that we sent it, as it shows them.
    fn last_notification(&self) -> Option<String>;
    /// Stops it as kill -9 does.
    fn kill(&mut self);
    /// Starts it again after `kill`, with graceful restart where configured; it originates only `kept`.
    fn restart(&mut self, kept: &[&str]);
    /// Freezes it: its connections stay, nothing is read or written any more.
    fn freeze(&self);
}

/// Where Debian puts a program; none, loudly, where its package is missing outside CI.
pub(crate) fn installed(program: &str, package: &str) -> bool {
    if Path::new(program).exists() {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{program} is missing: apt-get install {package}"
    );
    eprintln!("\n*** SKIPPED: {program} is missing; apt-get install {package} ***\n");
    false
}

/// A program that runs in a namespace with its output in a file; killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `command` with its output at the end of `log`.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> Self {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log opens");
        let errors = log.try_clone().expect("a file can be shared");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Waits for its end, which must be near.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", SOON, || {
            status = self.0.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.0.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        self.0
            .kill()
            .and_then(|()| self.0.wait())
            .map_or_else(|error| eprintln!("{error}"), drop);
    }
}

/// The first word of each line that is a prefix.
pub(crate) fn prefixes(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.contains('/') && word.parse::<ipnetwork::IpNetwork>().is_ok())
        .map(str::to_owned)
        .collect()
}

/// What every router of ours has: its namespace, its folder, its settings and what it originates.
pub(crate) struct Base {
    pub(crate) namespace: Netns,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) session: Session,
    pub(crate) announced: BTreeSet<String>,
}

impl Base {
    pub(crate) fn new(namespace: &Netns, session: Session) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("manx-interop-")
            .tempdir()
            .expect("a folder can be made");
        Self {
            namespace: namespace.clone(),
            folder,
            session,
            announced: BTreeSet::new(),
        }
    }

    /// What is originated from now on.
    pub(crate) fn set_announced(&mut self, prefixes: &[&str]) {
        self.announced = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
    }

    /// A file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a socket or file that a program makes when it is ready.
    pub(crate) fn wait_for(&self, name: &str) {
        let path = self.path(name);
        eventually(&format!("{} is there", path.display()), SOON, || path.exists());
    }

    /// What was logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

/// A failed test shows what the program had to say.
impl Drop for Base {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- the other side's log ends with:\n{}",
                lines[lines.len().saturating_sub(100)..].join("\n")
            );
        }
    }
}
