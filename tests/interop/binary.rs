//! `manx-bgpd` as a process, with BIRD as its peer: what only a process and a kernel can show.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::bird::{self, Bird};
use crate::net::{Cable, OUR_V4, OUR_V6, SOON, THEIR_V4, always, becomes, eventually, run};
use crate::router::{Process, Router as _, Session, installed, prefixes};

const SESSION: Session = Session {
    our_asn: 65001,
    their_asn: 65001,
    we_wait: false,
    they_wait: false,
    hold_time: 9,
    graceful_restart: Some(30),
    bfd: None,
};

const OURS: [&str; 2] = ["10.1.0.0/24", "2001:db8:1::/64"];
const THEIRS: [&str; 2] = ["10.2.0.0/24", "2001:db8:2::/64"];

/// The binary beside the tests' own.
fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("a process knows its file");
    let program = tests
        .ancestors()
        .nth(2)
        .expect("tests lie in target/PROFILE/deps")
        .join("manx-bgpd");
    assert!(
        program.exists(),
        "{} is missing: cargo build -p manx-bgpd",
        program.display()
    );
    program
}

/// A folder with `manx-bgpd`'s configuration and log.
struct Daemon(tempfile::TempDir);

impl Daemon {
    fn new(graceful_restart: bool) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("manx-interop-")
            .tempdir()
            .expect("a folder can be made");
        let text = format!(
            "asn: 65001
routerId: {OUR_V4}
fib: true
routes: [10.1.0.0/24, \"2001:db8:1::/64\"]
neighbors:
- address: {THEIR_V4}
  asn: 65001
  localAddress: {OUR_V4}
  nextHopV6: {OUR_V6}
  holdTime: 9
  gracefulRestart: {graceful_restart}
"
        );
        fs::write(folder.path().join("speaker.yaml"), text).expect("the configuration can be written");
        Self(folder)
    }

    fn start(&self, cable: &Cable) -> Process {
        let mut command = cable.ours.command(program());
        command.arg("--config").arg(self.0.path().join("speaker.yaml"));
        Process::spawn(&mut command, &self.0.path().join("log"))
    }
}

fn set(prefixes: [&str; 2]) -> BTreeSet<String> {
    prefixes.map(str::to_owned).into()
}

/// What `manx-bgpd` has put into our namespace's kernel.
fn kernel(cable: &Cable) -> BTreeSet<String> {
    let routes = |family| {
        run(cable
            .ours
            .command("ip")
            .args([family, "route", "show", "proto", "179"]))
    };
    prefixes(&[routes("-4"), routes("-6")].concat())
}

/// Both sides in session, and everything learned by both and in the kernel.
fn meet(cable: &Cable, daemon: &Daemon) -> (Process, Bird) {
    let mut bird = Bird::start(&cable.theirs, SESSION);
    THEIRS.iter().for_each(|prefix| bird.announce(prefix));
    let process = daemon.start(cable);
    becomes("BIRD holds our prefixes", &set(OURS), || bird.learned());
    becomes("its prefixes are in the kernel", &set(THEIRS), || kernel(cable));
    (process, bird)
}

#[test]
fn kill_nine_and_a_new_start_change_no_route_anywhere() {
    if !installed(bird::PROGRAM, "bird2") {
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
        bird.established()
    });
    always(
        "nothing flaps afterwards",
        Duration::from_secs(2),
        nothing_changed,
    );
}

#[test]
fn a_polite_end_tells_the_peer_and_leaves_the_kernel_alone() {
    if !installed(bird::PROGRAM, "bird2") {
        return;
    }
    let (cable, daemon) = (Cable::new(), Daemon::new(false));
    let (mut process, bird) = meet(&cable, &daemon);
    process.signal("TERM");
    assert!(process.wait().success());
    becomes("administrative shutdown", &Some("6/2".to_owned()), || {
        bird.last_notification()
    });
    eventually("BIRD drops our prefixes", SOON, || bird.learned().is_empty());
    assert_eq!(kernel(&cable), set(THEIRS));
}
