//! A router is lost, and thousands of routes move by one change of the group that they lead through.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use manx_linux::{LinkSocket, RouteSocket, sysctl};
use manx_routes::{Hop, Target};
use manx_tests::binaries::program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::{TestNetns, eventually, exchange};

const SOON: Duration = Duration::from_secs(60);

/// Prefixes of each family.
const PREFIXES: usize = 2000;

/// How a router is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It stands still: BFD.
    Frozen,
    /// Its speaker is killed: the connection.
    Killed,
    /// The link to it.
    Unplugged,
}

/// A namespace with a `manx-bgpd`.
struct Speaker {
    netns: TestNetns,
    folder: TempDir,
    process: Option<Child>,
}

impl Speaker {
    fn new(label: &str) -> Self {
        let netns = TestNetns::new(label);
        netns.ip("link set lo up");
        Self {
            netns,
            folder: TempDir::new().unwrap(),
            process: None,
        }
    }

    fn start(&mut self, configuration: &str) {
        let file = self.folder.path().join("speaker.yaml");
        std::fs::write(&file, configuration).unwrap();
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = self.netns.command(program("manx-bgpd"));
        command.arg("--config").arg(&file).env("RUST_LOG", "debug");
        self.process = Some(command.stderr(Stdio::from(log)).spawn().unwrap());
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap().id();
        kill(Pid::from_raw(process.try_into().unwrap()), signal).unwrap();
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().unwrap_or_default();
            process.wait().map(drop).unwrap_or_default();
        }
    }
}

/// A node with two routers, each at the end of a link of its own, that announce the same.
struct Site {
    node: Speaker,
    routers: [Speaker; 2],
}

impl Site {
    /// The first router is as good as the second, or better.
    fn new(first_is_better: bool) -> Self {
        let node = Speaker::new("node");
        // Nobody is told of each route that moves with its group.
        node.netns
            .run(|| sysctl::set("ipv4/nexthop_compat_mode", "0"))
            .unwrap()
            .unwrap();
        let routers = [1, 2].map(|number| {
            let router = Speaker::new(&format!("router{number}"));
            let addresses = |host: u8| {
                [
                    format!("192.0.{number}.{host}/24"),
                    format!("fd00:{number}::{host}/64"),
                ]
            };
            let [ours, theirs] = [addresses(1), addresses(2)];
            node.netns.connect(
                &router.netns,
                &format!("up{number}"),
                [
                    &ours.each_ref().map(String::as_str),
                    &theirs.each_ref().map(String::as_str),
                ],
            );
            // Both have what they announce.
            for host in ["10.100.0.9/32", "fd10::9/128"] {
                router.netns.ip(&format!("address add {host} dev lo"));
            }
            // Where the node's packets come from, whichever way they take.
            let other = 3 - number;
            router
                .netns
                .ip(&format!("route add 192.0.{other}.0/24 via 192.0.{number}.1"));
            router
                .netns
                .ip(&format!("-6 route add fd00:{other}::/64 via fd00:{number}::1"));
            router
        });
        let mut site = Self { node, routers };
        site.start_routers([1, 2]);
        let preference = if first_is_better {
            ", localPreference: 200"
        } else {
            ""
        };
        let neighbor = |number: u8| {
            let preference = if number == 1 { preference } else { "" };
            format!(
                "- {{address: 192.0.{number}.2, asn: {}{preference}, {SESSION}}}\n",
                65_000 + u32::from(number)
            )
        };
        site.node.start(&format!(
            "asn: 65000\nrouterId: 192.0.2.254\nfib: true\nneighbors:\n{}{}",
            neighbor(1),
            neighbor(2)
        ));
        site
    }

    fn start_routers<const N: usize>(&mut self, numbers: [u8; N]) {
        let mut routes = String::new();
        for (a, b) in (0..PREFIXES).map(|number| (number / 256, number % 256)) {
            write!(routes, "10.{}.{b}.0/24, 'fd10:{a:x}:{b:x}::/48', ", 100 + a).unwrap();
        }
        for number in numbers {
            let configuration = format!(
                "asn: {}\nrouterId: 192.0.2.{number}\nroutes: [{routes}]\nneighbors:\n\
                 - {{address: 192.0.{number}.1, asn: 65000, nextHopV6: 'fd00:{number}::2', {SESSION}}}\n",
                65_000 + u32::from(number)
            );
            self.routers[usize::from(number) - 1].start(&configuration);
        }
    }

    /// Whether all routes of both families lead to these routers.
    fn leads_to(&self, numbers: &[u8]) -> bool {
        let found = RouteSocket::open_in(&self.node.netns).unwrap().dump().unwrap();
        let good = found.iter().filter(|route| {
            // The group may have changed while it was read.
            let Some(Target::Via(hops)) = &route.target else {
                return false;
            };
            let hops = hops.iter().map(|Hop { gateway, .. }| gateway.to_string());
            let hops: BTreeSet<String> = hops.collect();
            let gateway = |number: &u8| match route.prefix.is_ipv4() {
                true => format!("192.0.{number}.2"),
                false => format!("fd00:{number}::2"),
            };
            hops == numbers.iter().map(gateway).collect()
        });
        good.count() == 2 * PREFIXES
    }

    fn await_leading_to(&self, numbers: &[u8]) {
        assert!(
            eventually(SOON, || self.leads_to(numbers)),
            "{numbers:?}: {}",
            self.node.said()
        );
    }

    fn lose(&mut self, how: End) {
        match how {
            End::Frozen => self.routers[0].signal(Signal::SIGSTOP),
            End::Killed => self.routers[0].signal(Signal::SIGKILL),
            End::Unplugged => {
                self.routers[0].netns.ip("link set up1 down");
            }
        }
    }
}

/// What both ends of a session say. No graceful restart: a killed speaker's routes would stay.
const SESSION: &str = "import: accept, export: accept, gracefulRestart: false, families: [ipv4, ipv6], \
                       bfd: {minTx: 100, minRx: 100}";

/// What happens to nexthop objects and to routes, as `ip monitor` says it.
struct Told {
    lines: Arc<Mutex<Vec<String>>>,
    process: Child,
}

impl Told {
    fn of(netns: &TestNetns) -> Self {
        let mut command: Command = netns.command("ip");
        let mut process = command
            .args(["monitor", "nexthop", "route"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (told, output) = (lines.clone(), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                told.lock().unwrap().push(line.unwrap());
            }
        });
        let told = Self { lines, process };
        // It listens once it hears.
        assert!(
            eventually(SOON, || {
                netns.ip("nexthop add id 77 blackhole");
                netns.ip("nexthop del id 77");
                !told.lines.lock().unwrap().is_empty()
            }),
            "ip monitor says nothing"
        );
        std::thread::sleep(Duration::from_millis(100));
        told.lines.lock().unwrap().clear();
        told
    }

    fn lines(&self, kind: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.contains(kind)).cloned().collect()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.process.kill().unwrap_or_default();
        self.process.wait().map(drop).unwrap_or_default();
    }
}

/// A router goes: packets of every prefix take the other one by one replacement of a group for each family, and no route is
/// written, neither before that nor when the speaker has worked out prefix by prefix what follows.
fn moves_by_its_group(first_is_better: bool, how: End) {
    let mut site = Site::new(first_is_better);
    let before: &[u8] = if first_is_better { &[1] } else { &[1, 2] };
    site.await_leading_to(before);
    assert!(
        eventually(SOON, || site.node.said().matches("session up").count() == 2),
        "{}",
        site.node.said()
    );
    // The second router's routes are known, and nothing is left to do.
    std::thread::sleep(Duration::from_secs(1));
    let told = Told::of(&site.node.netns);
    site.lose(how);
    site.await_leading_to(&[2]);
    for address in ["10.100.0.9", "fd10::9"] {
        let address = address.parse().unwrap();
        let arrived = exchange(&site.node.netns, &site.routers[1].netns, address);
        assert!(arrived.is_some(), "{address}: {how:?}");
    }
    assert!(
        eventually(SOON, || site.node.said().contains("session down")),
        "{}",
        site.node.said()
    );
    std::thread::sleep(Duration::from_secs(1));
    assert!(site.leads_to(&[2]), "{how:?}");
    let written = [told.lines("/24").len(), told.lines("/48").len()];
    assert_eq!(written, [0, 0], "{how:?}");
    let groups = told.lines(" group ");
    match how {
        End::Frozen | End::Killed => assert_eq!(groups.len(), 2, "{groups:?}"),
        // The kernel has taken the router out by itself.
        End::Unplugged => assert!(groups.len() <= 2, "{groups:?}"),
    }
}

#[test]
fn one_of_two_that_bfd_loses_takes_one_change_a_family() {
    moves_by_its_group(false, End::Frozen);
}

#[test]
fn one_of_two_whose_session_ends_takes_one_change_a_family() {
    moves_by_its_group(false, End::Killed);
}

#[test]
fn one_of_two_whose_link_goes_down_takes_no_route_along() {
    moves_by_its_group(false, End::Unplugged);
}

#[test]
fn the_backup_takes_over_by_one_change_a_family() {
    moves_by_its_group(true, End::Frozen);
}

#[test]
fn the_backup_takes_over_when_the_session_ends() {
    moves_by_its_group(true, End::Killed);
}

/// The kernel deletes a route with the only router that it leads to. It is there again by the backup, and when the first
/// router is back, through that.
#[test]
fn a_lost_router_takes_its_place_again() {
    let mut site = Site::new(true);
    site.await_leading_to(&[1]);
    site.lose(End::Unplugged);
    site.await_leading_to(&[2]);
    let router = &site.routers[0];
    router.netns.ip("link set up1 up");
    let mut links = LinkSocket::open_in(&router.netns).unwrap();
    let index = links.get("up1").unwrap().unwrap().index;
    // The kernel takes IPv6 addresses away with the link.
    links.add_address(index, "fd00:1::2/64".parse().unwrap()).unwrap();
    site.await_leading_to(&[1]);
}

/// A speaker that comes back takes its groups over, and what it makes beside them while its neighbours come back one by one
/// goes.
#[test]
fn a_restart_leaves_no_group_behind() {
    let mut site = Site::new(false);
    site.await_leading_to(&[1, 2]);
    site.node.signal(Signal::SIGKILL);
    site.node.process.take().unwrap().wait().unwrap();
    assert!(site.leads_to(&[1, 2]), "forwarding goes on");
    let configuration = std::fs::read_to_string(site.node.folder.path().join("speaker.yaml")).unwrap();
    site.node.start(&configuration);
    assert!(
        eventually(SOON, || site.node.said().contains("converged")),
        "{}",
        site.node.said()
    );
    site.await_leading_to(&[1, 2]);
    // A group and two routers of each family.
    let objects = || site.node.netns.ip("nexthop show proto 179");
    assert!(
        eventually(SOON, || objects().lines().count() == 6),
        "{}",
        objects()
    );
}
