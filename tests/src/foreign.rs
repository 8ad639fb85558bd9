//! Routing programs that we did not write, as a person starts them: each in a network namespace, with its
//! configuration, sockets and log in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use manx_linux::Netns;

use crate::shell::{SOON, eventually};

/// A program that runs in a namespace with its output in a file, leader of a process group; killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `command` with its output at the end of `log`.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log opens");
        let errors = log.try_clone().expect("a file can be shared");
        let command = command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.process_group(0).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// The number of its process group.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// Where nobody can say.
    pub fn has_ended(&mut self) -> bool {
        let status = self.0.try_wait().expect("a child can be waited for");
        status.is_some()
    }

    /// Ends it as kill -9 does.
    ///
    /// # Panics
    /// Where that does not end it.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Waits for its end, which must be near.
    ///
    /// # Panics
    /// Where it is not.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", SOON, || {
            status = self.0.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Sends a signal by its name, to the processes that it has started too.
    ///
    /// # Panics
    /// Where there is no such process any more.
    pub fn signal(&self, name: &str) {
        let sent = self.send(name);
        assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name}");
    }

    fn send(&self, name: &str) -> std::io::Result<ExitStatus> {
        let group = format!("-{}", self.0.id());
        let mut kill = Command::new("kill");
        kill.args([&format!("-{name}"), "--", &group])
            .stderr(Stdio::null())
            .status()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        self.send("KILL")
            .and_then(|_| self.0.wait())
            .map_or_else(|error| eprintln!("{error}"), drop);
    }
}

/// Where a program runs, and where its files are.
#[derive(Debug)]
pub struct Place {
    /// Its network namespace.
    pub namespace: Netns,
    /// Its folder.
    pub folder: tempfile::TempDir,
}

impl Place {
    /// An empty folder for a program in `namespace`.
    ///
    /// # Panics
    /// Where no folder can be made.
    #[must_use]
    pub fn new(namespace: &Netns) -> Self {
        let folder = tempfile::Builder::new().prefix("manx-foreign-").tempdir();
        Self {
            namespace: namespace.clone(),
            folder: folder.expect("a folder can be made"),
        }
    }

    /// A file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder, in one step for whoever reads it meanwhile: BIRD answers before it has read
    /// its configuration.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let (new, path) = (self.path(&format!("{name}.new")), self.path(name));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Waits until a program listens on a socket of its: the file is there a moment earlier, and stays when the
    /// program is killed.
    ///
    /// # Panics
    /// Where it does not come.
    pub fn wait_for(&self, name: &str) {
        let path = self.path(name);
        eventually(&format!("{} answers", path.display()), SOON, || {
            UnixStream::connect(&path).is_ok()
        });
    }

    /// What was logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

/// A failure shows what the program had to say.
impl Drop for Place {
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

/// BIRD's program.
pub const BIRD: &str = "/usr/sbin/bird";

/// Starts BIRD with `bird.conf`; `restart`: as one that comes back.
#[must_use]
pub fn bird(place: &Place, restart: bool) -> Process {
    let mut command = place.namespace.command(BIRD);
    command
        .arg("-f")
        .arg("-c")
        .arg(place.path("bird.conf"))
        .arg("-s")
        .arg(place.path("bird.ctl"))
        .arg("-P")
        .arg(place.path("bird.pid"));
    if restart {
        command.arg("-R");
    }
    let process = Process::spawn(&mut command, &place.path("log"));
    place.wait_for("bird.ctl");
    process
}

/// FRR's program for BGP.
pub const FRR: &str = "/usr/lib/frr/bgpd";

fn frr(place: &Place, name: &str, arguments: &[&str]) -> Process {
    let mut command = place.namespace.command(format!("/usr/lib/frr/{name}"));
    command
        .arg("-f")
        .arg(place.path(&format!("{name}.conf")))
        .arg("-i")
        .arg(place.path(&format!("{name}.pid")));
    command
        .arg("-z")
        .arg(place.path("zserv.api"))
        .arg("--vty_socket")
        .arg(place.folder.path());
    let process = Process::spawn(command.args(arguments), &place.path("log"));
    place.wait_for(&format!("{name}.vty"));
    process
}

/// Starts FRR's zebra, which its other programs need.
///
/// # Panics
/// Where the folder is not ours.
#[must_use]
pub fn zebra(place: &Place) -> Process {
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(place.folder.path(), open).expect("the folder is ours");
    place.write("zebra.conf", "");
    place.write("vtysh.conf", "");
    frr(place, "zebra", &["-A", "127.0.0.1"])
}

/// Starts FRR's bfdd beside zebra.
#[must_use]
pub fn bfdd(place: &Place, configuration: &str) -> Process {
    place.wait_for("zserv.api");
    place.write("bfdd.conf", configuration);
    let control = place.path("bfdd.ctl").display().to_string();
    frr(place, "bfdd", &["-A", "127.0.0.1", "--bfdctl", &control])
}

/// Starts FRR's bgpd beside zebra, with `bgpd.conf`; without `fib`, the kernel gets no routes.
#[must_use]
pub fn bgpd(place: &Place, fib: bool) -> Process {
    place.wait_for("zserv.api");
    let mut arguments = vec!["-A", "127.0.0.1", "--log", "stdout"];
    if !fib {
        arguments.push("-n");
    }
    frr(place, "bgpd", &arguments)
}

/// GoBGP's program.
pub const GOBGP: &str = "/usr/bin/gobgpd";

/// Starts GoBGP with `gobgp.toml`, and with a log of this level; `restart`: as one that comes back.
#[must_use]
pub fn gobgp(place: &Place, level: &str, restart: bool) -> Process {
    let mut command = place.namespace.command(GOBGP);
    command.arg("-f").arg(place.path("gobgp.toml"));
    command.args(["-t", "toml", "-l", level, "--log-plain", "--pprof-disable"]);
    command.args(["--api-hosts", "127.0.0.1:50051"]);
    if restart {
        command.arg("-r");
    }
    let process = Process::spawn(&mut command, &place.path("log"));
    eventually("GoBGP answers", SOON, || {
        place
            .namespace
            .command("/usr/bin/gobgp")
            .args(["-p", "50051", "global"])
            .output()
            .is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"AS"))
    });
    process
}

/// OpenBGPD's program.
pub const OPENBGPD: &str = "/usr/sbin/bgpd";

/// Where OpenBGPD's processes lock themselves in; the package's service makes it.
const JAIL: &str = "/run/openbgpd";

/// Starts OpenBGPD with `bgpd.conf`, which nobody else may read.
///
/// # Panics
/// Where the files are not ours.
#[must_use]
pub fn openbgpd(place: &Place) -> Process {
    fs::create_dir_all(JAIL).expect("root may make folders");
    let private = fs::Permissions::from_mode(0o600);
    let file = place.path("bgpd.conf");
    fs::set_permissions(&file, private).expect("the file is ours");
    let mut command = place.namespace.command(OPENBGPD);
    let process = Process::spawn(command.arg("-d").arg("-f").arg(file), &place.path("log"));
    place.wait_for("control");
    process
}
