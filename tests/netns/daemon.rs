//! A speaker of ours beside the nodes, as a router's.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Child;

use manx_tests::binaries::program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::TestNetns;

/// A manx-bgpd in a namespace; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start(netns: &TestNetns, router_id: Ipv4Addr, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = netns.command(program("manx-bgpd"));
        daemon.arg("--config").arg(folder.path().join("speaker.yaml"));
        Self::configure(folder.path(), router_id, rest);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        Self {
            child: daemon.stderr(log).spawn().unwrap(),
            folder,
        }
    }

    fn configure(folder: &Path, router_id: Ipv4Addr, rest: &str) {
        let text = format!("asn: 64512\nrouterId: {router_id}\n{rest}");
        fs::write(folder.join("speaker.yaml"), text).unwrap();
    }

    pub(crate) fn reload(&self, router_id: Ipv4Addr, rest: &str) {
        Self::configure(self.folder.path(), router_id, rest);
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGHUP).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("{error}");
        }
    }
}
