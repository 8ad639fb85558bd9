//! Two namespaces joined by a cable, and waiting.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use manx_linux::Netns;

pub(crate) const OUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const THEIR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const OUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const THEIR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// How long anything may take that should be quick: generous, for busy machines.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Two namespaces joined by a veth pair; removed when dropped.
pub(crate) struct Cable {
    pub(crate) ours: Netns,
    pub(crate) theirs: Netns,
    paths: [PathBuf; 2],
}

impl Cable {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|end| format!("mxi-{}-{number}{end}", std::process::id()));
        let paths = names.clone().map(|name| PathBuf::from("/run/netns").join(name));
        let create =
            |path| Netns::create(path).expect("these tests make network namespaces, so they need root");
        let cable = Self {
            ours: create(&paths[0]),
            theirs: create(&paths[1]),
            paths,
        };
        run(cable.ours.command("ip").args([
            "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &names[1],
        ]));
        for (end, v4, v6) in [(&cable.ours, OUR_V4, OUR_V6), (&cable.theirs, THEIR_V4, THEIR_V6)] {
            run(end
                .command("ip")
                .args(["address", "add", &format!("{v4}/24"), "dev", "eth0"]));
            run(end
                .command("ip")
                .args(["address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]));
            run(end.command("ip").args(["link", "set", "eth0", "up"]));
        }
        cable
    }

    /// How many TCP connections to port 179 or from it our namespace has in state `ESTABLISHED`.
    pub(crate) fn connections(&self) -> usize {
        let sockets = run(self.ours.command("ss").args(["-Htn", "state", "established"]));
        sockets
            .lines()
            .filter(|line| line.contains(":179 ") || line.trim_end().ends_with(":179"))
            .count()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = Netns::delete(path) {
                eprintln!("{error}");
            }
        }
    }
}

/// Runs a command that must succeed; gives what it writes.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{text}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Waits until `holds`, at most `within`.
pub(crate) fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until what `shown` gives is `expected`.
pub(crate) fn becomes<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    mut shown: impl FnMut() -> T,
) {
    let start = Instant::now();
    loop {
        let last = shown();
        if last == *expected {
            return;
        }
        assert!(
            start.elapsed() < SOON,
            "{what}: {expected:?} expected, {last:?} after {SOON:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Checks that `holds` does so for as long as `during`.
pub(crate) fn always(what: &str, during: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < during {
        assert!(holds(), "no longer after {:?}: {what}", start.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}
