//! Namespaces joined by cables, and waiting.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use manx_linux::Netns;
pub(crate) use manx_tests::shell::{SOON, eventually, ip, run};
use manx_tests::shell::{ip_batch, namespace};

/// The addresses of a session's two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) ours: Ipv4Addr,
    pub(crate) theirs: Ipv4Addr,
    /// The next hops of IPv6 routes; the session runs over IPv4.
    pub(crate) ours_v6: Ipv6Addr,
    pub(crate) theirs_v6: Ipv6Addr,
}

/// Over the first cable.
pub(crate) const FIRST: Ends = Ends {
    ours: Ipv4Addr::new(192, 0, 2, 1),
    theirs: Ipv4Addr::new(192, 0, 2, 2),
    ours_v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    theirs_v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
};

/// Over a second cable from our namespace to another one of theirs.
pub(crate) const SECOND: Ends = Ends {
    ours: Ipv4Addr::new(198, 51, 100, 1),
    theirs: Ipv4Addr::new(198, 51, 100, 2),
    ours_v6: Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1),
    theirs_v6: Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 2),
};

/// Two namespaces joined by a veth pair; removed when dropped, as far as this cable made them.
pub(crate) struct Cable {
    pub(crate) ours: Netns,
    pub(crate) theirs: Netns,
    pub(crate) ends: Ends,
    made: Vec<PathBuf>,
}

impl Cable {
    /// Two new namespaces, joined.
    pub(crate) fn new() -> Self {
        let (path, ours) = namespace("mxi");
        let mut cable = Self::lay(ours, "eth0", FIRST);
        cable.made.push(path);
        cable
    }

    /// A second cable from our namespace, to a new one.
    pub(crate) fn beside(&self) -> Self {
        Self::lay(self.ours.clone(), "eth1", SECOND)
    }

    fn lay(ours: Netns, device: &str, ends: Ends) -> Self {
        let (path, theirs) = namespace("mxi");
        let peer = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("our own name");
        let link = format!("link add {device} type veth peer name eth0 netns {peer}");
        ip(&ours, &link);
        for (end, device, v4, v6) in [
            (&ours, device, ends.ours, ends.ours_v6),
            (&theirs, "eth0", ends.theirs, ends.theirs_v6),
        ] {
            ip(end, &format!("address add {v4}/24 dev {device}"));
            ip(end, &format!("address add {v6}/64 dev {device} nodad"));
            ip(end, &format!("link set {device} up"));
        }
        Self {
            ours,
            theirs,
            ends,
            made: vec![path],
        }
    }

    /// Another address of ours on the first cable, for a second speaker of ours in session with them.
    pub(crate) fn another_of_ours(&self, host: u8) -> Ends {
        let ends = Ends {
            ours: Ipv4Addr::new(192, 0, 2, host),
            ours_v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()),
            ..FIRST
        };
        ip(&self.ours, &format!("address add {}/24 dev eth0", ends.ours));
        ip(
            &self.ours,
            &format!("address add {}/64 dev eth0 nodad", ends.ours_v6),
        );
        ends
    }

    /// Addresses of both sides for that many sessions between the same two speakers.
    pub(crate) fn pairs(&self, count: u8) -> Vec<Ends> {
        let side = |side, host| Ipv4Addr::new(10, 99, side, host);
        for (end, number) in [(&self.ours, 1), (&self.theirs, 2)] {
            let mut batch = String::new();
            for host in 1..=count {
                let line = writeln!(batch, "address add {}/16 dev eth0", side(number, host));
                line.expect("a string takes all");
            }
            ip_batch(end, &batch);
        }
        let pair = |host| Ends {
            ours: side(1, host),
            theirs: side(2, host),
            ..FIRST
        };
        (1..=count).map(pair).collect()
    }

    /// How many dials of both sides wait for an answer.
    pub(crate) fn dials(&self) -> usize {
        let waiting = |end: &Netns| run(end.command("ss").args(["-Htn", "state", "syn-sent"]));
        [&self.ours, &self.theirs].map(waiting).concat().lines().count()
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
        for path in &self.made {
            if let Err(error) = Netns::delete(path) {
                eprintln!("{error}");
            }
        }
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
