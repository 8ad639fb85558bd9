//! `manx-bgpd` as a process, with BIRD as its peer: what only a process and a kernel can show.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use manx_tests::binaries::program;

use crate::bird::{self, Bird};
use crate::net::{Cable, Ends, FIRST, SOON, always, becomes, eventually, ip};
use crate::router::{Extras, INTERNAL, Process, Router as _, Session, prefixes};

pub(crate) const SESSION: Session = Session {
    graceful_restart: Some(30),
    ..INTERNAL
};

pub(crate) const OURS: [&str; 2] = ["10.1.0.0/24", "2001:db8:1::/64"];
pub(crate) const THEIRS: [&str; 2] = ["10.2.0.0/24", "2001:db8:2::/64"];

/// A folder with `manx-bgpd`'s configuration and log.
pub(crate) struct Daemon(tempfile::TempDir);

impl Daemon {
    pub(crate) fn new(graceful_restart: bool) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("manx-interop-")
            .tempdir()
            .expect("a folder can be made");
        let Ends {
            ours,
            theirs,
            ours_v6,
            ..
        } = FIRST;
        let text = format!(
            "asn: 65001
routerId: {ours}
fib: true
routes: [10.1.0.0/24, \"2001:db8:1::/64\"]
neighbors:
- address: {theirs}
  asn: 65001
  localAddress: {ours}
  nextHopV6: {ours_v6}
  holdTime: 9
  gracefulRestart: {graceful_restart}
"
        );
        fs::write(folder.path().join("speaker.yaml"), text).expect("the configuration can be written");
        Self(folder)
    }

    pub(crate) fn start(&self, cable: &Cable) -> Process {
        let mut command = cable.ours.command(program("manx-bgpd"));
        command.arg("--config").arg(self.0.path().join("speaker.yaml"));
        Process::spawn(&mut command, &self.0.path().join("log"))
    }
}

/// Prefixes as the programs show them.
pub(crate) fn set(prefixes: [&str; 2]) -> BTreeSet<String> {
    prefixes.map(str::to_owned).into()
}

/// What `manx-bgpd` has put into our namespace's kernel.
fn kernel(cable: &Cable) -> BTreeSet<String> {
    let routes = |family| ip(&cable.ours, &format!("{family} route show proto 179"));
    prefixes(&[routes("-4"), routes("-6")].concat())
}

/// Both sides in session, and everything learned by both and in the kernel.
fn meet(cable: &Cable, daemon: &Daemon) -> (Process, Bird) {
    let mut bird = Bird::start(&cable.theirs, SESSION, &[cable.ends]);
    THEIRS
        .iter()
        .for_each(|prefix| bird.announce(prefix, Extras::default()));
    let process = daemon.start(cable);
    becomes("BIRD holds our prefixes", &set(OURS), || bird.learned());
    becomes("its prefixes are in the kernel", &set(THEIRS), || kernel(cable));
    (process, bird)
}

pub(crate) fn kill_nine_and_a_new_start_change_no_route_anywhere() {
    if !bird::PROGRAM.installed() {
        return;
    }
    let (cable, daemon) = (Cable::new(), Daemon::new(true));
    let (mut process, bird) = meet(&cable, &daemon);
    let nothing_changed = || bird.learned() == set(OURS) && kernel(&cable) == set(THEIRS);
    process.kill();
    always("routes stay without us", Duration::from_secs(1), nothing_changed);
    let _process = daemon.start(&cable);
    eventually("the session returns", SOON, || {
        assert!(nothing_changed(), "a route was lost on the way");
        bird.established() == 1
    });
    always(
        "nothing flaps afterwards",
        Duration::from_secs(2),
        nothing_changed,
    );
}

pub(crate) fn a_polite_end_tells_the_peer_and_leaves_the_kernel_alone() {
    if !bird::PROGRAM.installed() {
        return;
    }
    let (cable, daemon) = (Cable::new(), Daemon::new(false));
    let (mut process, bird) = meet(&cable, &daemon);
    process.signal("TERM");
    assert!(process.wait().success());
    eventually("administrative shutdown", SOON, || bird.was_told("6/2"));
    eventually("BIRD drops our prefixes", SOON, || bird.learned().is_empty());
    assert_eq!(kernel(&cable), set(THEIRS));
}
