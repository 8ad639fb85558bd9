//! The binary by itself: speakers on loopback, asked over their control sockets, reconfigured, and put under stress.

mod bounds;
#[path = "../played/mod.rs"]
mod played;

use std::fs;
use std::io::{BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bgpkit_parser::BgpkitParser;
use manx_api::operation::Operated;
use manx_api::rpc::{self, Method, Request, Response, RpcError};
use manx_api::status::{BgpRoute, PeerStatus, Reload, TableDump};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// For anything that should be quick.
const SOON: Duration = Duration::from_secs(60);

/// The port that the speakers of one test listen at.
#[derive(Clone, Copy)]
struct Port(u16);

/// An address of loopback that other processes' tests do not use.
fn address(host: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, host)
}

/// A running manx-bgpd; it dies with this.
struct Bgpd {
    port: Port,
    folder: tempfile::TempDir,
    process: Child,
}

impl Port {
    /// What all files say of one speaker: it is number `host`.
    fn file(self, host: u8, folder: &tempfile::TempDir, rest: &str) -> String {
        let (address, port) = (address(host), self.0);
        let socket = folder.path().join("control.sock");
        format!(
            "asn: 64512\nrouterId: {address}\nlisten: [\"{address}:{port}\"]\nsocket: {}\n{rest}",
            socket.display()
        )
    }

    /// A neighbour with the settings that loopback needs.
    fn neighbor(self, ours: u8, theirs: u8, more: &str) -> String {
        format!(
            "- {{address: \"{}:{}\", asn: 64512, localAddress: {}, nextHopV4: 198.18.0.{ours}{more}}}\n",
            address(theirs),
            self.0,
            address(ours),
        )
    }

    /// The neighbours of speaker 1, which reflects.
    fn clients(self, second: &str, third: &str) -> String {
        let client = |host, more| self.neighbor(1, host, &format!(", routeReflectorClient: true{more}"));
        client(2, second) + &client(3, third)
    }

    /// Speaker 1 with neighbours 2 and 3, all up.
    fn three(self) -> [Bgpd; 3] {
        let hub = Bgpd::start(self, 1, &format!("{ROUTES}neighbors:\n{}", self.clients("", "")));
        let [second, third] = [2, 3].map(|host| {
            let neighbor = self.neighbor(host, 1, "");
            Bgpd::start(
                self,
                host,
                &format!("routes: [10.{host}.0.0/24]\nneighbors:\n{neighbor}"),
            )
        });
        eventually("both sessions are up", &hub, || hub.established() == 2);
        let all = ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"];
        eventually("routes are reflected", &third, || third.routes() == all);
        [hub, second, third]
    }
}

impl Bgpd {
    fn start(port: Port, host: u8, rest: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("speaker.yaml"), port.file(host, &folder, rest)).expect("writable");
        let notify = folder.path().join("notify");
        let ready = UnixDatagram::bind(&notify).expect("a socket");
        ready.set_read_timeout(Some(SOON)).expect("settable");
        let process = Command::new(env!("CARGO_BIN_EXE_manx-bgpd"))
            .arg("--config")
            .arg(folder.path().join("speaker.yaml"))
            .env("NOTIFY_SOCKET", &notify)
            .env("NO_COLOR", "1")
            .stderr(fs::File::create(folder.path().join("log")).expect("writable"))
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        let started = Self {
            port,
            folder,
            process,
        };
        let mut said = [0; 64];
        let length = ready
            .recv(&mut said)
            .unwrap_or_else(|error| panic!("{error}: {}", started.log()));
        assert_eq!(&said[..length], b"READY=1");
        started
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn write(&self, host: u8, rest: &str) {
        fs::write(
            self.path("speaker.yaml"),
            self.port.file(host, &self.folder, rest),
        )
        .expect("writable");
    }

    fn ask<T: DeserializeOwned>(&self, method: Method) -> Result<T, RpcError> {
        self.exchange(method).outcome().map(typed)
    }

    fn exchange(&self, method: Method) -> Response {
        self.exchange_with(method, Value::Null)
    }

    fn exchange_with(&self, method: Method, params: Value) -> Response {
        let mut stream = UnixStream::connect(self.path("control.sock")).expect("it serves");
        rpc::write(&mut stream, &Request::new(1, method, params)).expect("it reads");
        rpc::read(&mut BufReader::new(stream), rpc::MAX_LINE).expect("it answers")
    }

    /// What an operator asks for: whom it concerned.
    fn operate(&self, method: Method, params: Value) -> Result<Vec<IpAddr>, RpcError> {
        let outcome = self.exchange_with(method, params).outcome();
        outcome.map(|value| typed::<Operated>(value).peers)
    }

    fn peer(&self, host: u8) -> PeerStatus {
        let mut peers = self.peers().into_iter();
        peers
            .find(|peer| peer.address == address(host))
            .expect("it is configured")
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.ask(Method::BgpPeers).expect("peers")
    }

    /// The prefixes known, and from whom.
    fn routes(&self) -> Vec<String> {
        let routes: Vec<BgpRoute> = self.ask(Method::BgpRoutes).expect("routes");
        routes.iter().map(|route| route.prefix.to_string()).collect()
    }

    /// How many sessions are up.
    fn established(&self) -> usize {
        self.peers()
            .iter()
            .filter(|peer| peer.state == "Established")
            .count()
    }

    /// Of which sessions it is true that they are up and were never down.
    fn unbroken(&self) -> Vec<bool> {
        let log = self.log();
        let broken = |peer: &PeerStatus| log.contains(&format!("session down peer={} ", peer.address));
        let peers = self.peers();
        peers
            .iter()
            .map(|peer| peer.state == "Established" && !broken(peer))
            .collect()
    }

    fn reload(&self) -> Result<Reload, RpcError> {
        self.ask(Method::BgpReload)
    }

    fn hangup(&self) {
        self.signal(Signal::SIGHUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    }
}

/// What the method gives.
fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the method's type")
}

impl Drop for Bgpd {
    fn drop(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

fn eventually(what: &str, speaker: &Bgpd, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < SOON,
            "not within {SOON:?}: {what}\n{}",
            speaker.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

const ROUTES: &str = "routes: [10.1.0.0/24]\n";

#[test]
fn a_change_of_one_neighbor_touches_that_neighbor_only() {
    let port = Port(1791);
    let [hub, second, third] = port.three();
    assert_eq!(hub.unbroken(), [true, true]);

    hub.write(
        1,
        &format!("{ROUTES}neighbors:\n{}", port.clients(", export: reject", "")),
    );
    let done = hub.reload().expect("a right file");
    assert_eq!(done.peers_changed, [address(2).to_string()]);
    assert_eq!((done.peers_added.len(), done.peers_removed.len()), (0, 0));
    eventually("what was announced is withdrawn", &second, || {
        second.routes() == ["10.2.0.0/24"]
    });
    assert_eq!(hub.unbroken(), [true, true], "no session has to go for a policy");

    hub.write(
        1,
        &format!("{ROUTES}neighbors:\n{}", port.clients(", holdTime: 30", "")),
    );
    hub.reload().expect("a right file");
    eventually("the session has gone", &hub, || hub.unbroken() == [false, true]);
    eventually("the session is back", &hub, || hub.established() == 2);
    assert_eq!(
        hub.unbroken(),
        [false, true],
        "the hold time is agreed on in OPENs"
    );
    assert_eq!(third.unbroken(), [true]);
}

#[test]
fn routes_and_neighbors_come_and_go_with_the_file() {
    let port = Port(1792);
    let [hub, second, third] = port.three();
    let rest = format!(
        "routes: [10.4.0.0/24]\nneighbors:\n{}",
        port.neighbor(1, 3, ", routeReflectorClient: true")
    );
    hub.write(1, &rest);
    hub.hangup();
    eventually("SIGHUP has the file read", &third, || {
        third.routes() == ["10.3.0.0/24", "10.4.0.0/24"]
    });
    assert_eq!(hub.unbroken(), [true]);
    eventually("the second has lost its session", &second, || {
        second.established() == 0
    });

    // Back before the neighbour dials the next time: it is let in at its first attempt.
    hub.write(1, &format!("{ROUTES}neighbors:\n{}", port.clients("", "")));
    let done = hub.reload().expect("a right file");
    assert_eq!(done.peers_added, [address(2).to_string()]);
    assert_eq!(done.routes_removed.len() + done.routes_added.len(), 2);
    eventually("the neighbor is back", &hub, || hub.established() == 2);
    eventually("and has its routes", &second, || {
        second.routes() == ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"]
    });
    assert_eq!(third.unbroken(), [true]);
}

#[test]
fn a_wrong_file_changes_nothing_and_is_told_by_line_and_field() {
    let port = Port(1793);
    let [hub, _second, _third] = port.three();
    let before = (hub.unbroken(), hub.routes());
    let right = port.clients("", "");
    for (text, complaints) in [
        (
            format!("neighbors:\n{}", port.neighbor(1, 2, ", holdTime: 2")),
            [":6:", "hold time"],
        ),
        (
            format!("neighbours:\n{right}"),
            [":5:", "did you mean 'neighbors'?"],
        ),
        (
            format!("neighbors:\n{right}{}", port.neighbor(1, 2, "")),
            ["listed twice", "keep one"],
        ),
        (
            format!("neighbors:\n{right}fib: true\n"),
            [":8:", "'fib' cannot change while"],
        ),
    ] {
        hub.write(1, &text);
        let error = hub.reload().expect_err(&text).message;
        for complaint in complaints {
            assert!(error.contains(complaint), "{error}");
        }
        assert_eq!((hub.unbroken(), hub.routes()), before, "{error}");
    }
    hub.hangup();
    eventually("the log says it, too", &hub, || {
        hub.log().matches("'fib' cannot change").count() == 2
    });
    assert_eq!((hub.unbroken(), hub.routes()), before);
}

/// RFC 6396 §4.3: an independent reader finds every path in a dump.
#[test]
fn a_dump_holds_the_table() {
    let [hub, _second, _third] = Port(1794).three();
    let TableDump { mrt } = hub.ask(Method::BgpDump).expect("a dump");
    let octets = base64::prelude::BASE64_STANDARD.decode(mrt).expect("base64");
    let paths = BgpkitParser::from_reader(&octets[..]).into_elem_iter();
    let found: Vec<String> = paths
        .map(|path| format!("{} {}", path.prefix, path.peer_ip))
        .collect();
    let expected = [1, 2, 3].map(|host| format!("10.{host}.0.0/24 {}", address(host)));
    assert_eq!(found, expected);
}

/// The first message of a monitoring station's next connection: its type, and its octets.
fn begins(station: &TcpListener) -> (u8, Vec<u8>) {
    let (mut stream, _) = station.accept().expect("it dials");
    stream.set_read_timeout(Some(SOON)).expect("settable");
    let mut header = [0; 6];
    stream.read_exact(&mut header).expect("it speaks");
    let [_, length @ .., kind] = header;
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - header.len()];
    stream.read_exact(&mut rest).expect("it speaks");
    (kind, rest)
}

#[test]
fn monitoring_stations_come_and_go_with_the_file() {
    let port = Port(1798);
    let [hub, _second, _third] = port.three();
    let station = TcpListener::bind((address(1), 0)).expect("a free port");
    let at = station.local_addr().expect("it listens");
    let clients = port.clients("", "");
    let collector = format!("bmp: [{{address: \"{at}\", name: hub}}]\n");
    hub.write(1, &format!("{ROUTES}neighbors:\n{clients}{collector}"));
    let done = hub.reload().expect("a right file");
    let added = Reload {
        collectors_added: vec![at.to_string()],
        ..Reload::default()
    };
    assert_eq!(done, added);
    let (kind, initiation) = begins(&station);
    assert_eq!(
        (kind, initiation.ends_with(b"\0\x02\0\x03hub")),
        (4, true),
        "{initiation:?}"
    );
    assert_eq!(hub.unbroken(), [true, true]);
    hub.write(1, &format!("{ROUTES}neighbors:\n{clients}"));
    assert_eq!(
        hub.reload().expect("a right file").collectors_removed,
        [at.to_string()]
    );
    assert_eq!(hub.unbroken(), [true, true]);
}

/// A range's limit is there to be seen: who has come, and who was turned away.
#[test]
fn a_dynamic_neighbor_shows_how_full_its_range_is() {
    let port = Port(1799);
    let range = format!("{}/24", address(0));
    let template = format!("{{range: {range}, asn: 64512, limit: 1, nextHopV4: 198.18.0.1}}");
    let hub = Bgpd::start(port, 1, &format!("dynamicNeighbors: [{template}]\n"));
    let _both = [2, 3].map(|host| {
        let neighbor = port.neighbor(host, 1, "");
        Bgpd::start(port, host, &format!("neighbors:\n{neighbor}"))
    });
    let range = || hub.peers().pop().and_then(|peer| peer.range);
    eventually("one is in, the other out", &hub, || {
        range().is_some_and(|range| (range.peers, range.limit) == (1, 1) && range.refused > 0)
    });
    let shown = range().expect("as before").prefix;
    assert_eq!(shown.to_string(), format!("{}/24", address(0)));
}

/// RFC 8326 §4.3: over the control socket.
#[test]
fn operators_drain_a_session_and_have_it_back() {
    let [hub, second, third] = Port(1795).three();
    let call = json!({"peer": address(2), "seconds": 1, "message": "moving racks"});
    assert_eq!(hub.operate(Method::BgpDrain, call), Ok(vec![address(2).into()]));
    assert_eq!(hub.peer(2).drain.map(|it| it.phase).as_deref(), Some("marked"));
    let marked = |speaker: &Bgpd| {
        let routes: Vec<BgpRoute> = speaker.ask(Method::BgpRoutes).expect("routes");
        let ours = routes.into_iter().filter(|route| route.peer.is_some());
        ours.map(|route| route.communities.contains(&"65535:0".to_owned()))
            .collect::<Vec<_>>()
    };
    eventually("routes are marked", &second, || marked(&second) == [true, true]);
    eventually("also those that others have from there", &third, || {
        marked(&third) == [false, true]
    });
    eventually("the session has ended", &hub, || {
        hub.peer(2).drain.map(|it| it.phase).as_deref() == Some("down")
    });
    eventually("with the operator's words", &second, || {
        let error = second.peer(1).last_error.unwrap_or_default();
        error.contains("moving racks") || error.contains("6/5")
    });
    eventually("which its log has, too", &second, || {
        second.log().contains("moving racks")
    });
    hub.reload().expect("a right file");
    let reset = hub.operate(Method::BgpReset, json!({"peer": address(2)}));
    assert!(reset.expect_err("it stays away").message.contains("bgp undrain"));
    assert_eq!(hub.established(), 1);
    assert_eq!(
        hub.operate(Method::BgpUndrain, json!({"peer": address(2)})),
        Ok(vec![address(2).into()])
    );
    eventually("the session is back", &hub, || hub.established() == 2);
    eventually("and so are its routes", &second, || {
        marked(&second) == [false, false]
    });
    assert_eq!(third.unbroken(), [true]);
}

/// RFC 4486 §4 (4): over the control socket.
#[test]
fn operators_reset_a_session_hard_and_soft() {
    let [hub, second, _third] = Port(1796).three();
    let call = json!({"peer": address(2), "soft": true});
    assert_eq!(hub.operate(Method::BgpReset, call), Ok(vec![address(2).into()]));
    assert_eq!(hub.unbroken(), [true, true], "a soft reset ends nothing");
    let call = json!({"peer": address(2), "message": "once more"});
    assert_eq!(hub.operate(Method::BgpReset, call), Ok(vec![address(2).into()]));
    eventually("the session has gone", &second, || {
        second.log().contains("once more")
    });
    eventually("the session is back", &hub, || hub.established() == 2);
    for (call, complaint) in [
        (json!({"peer": address(9)}), "there is no peer"),
        (
            json!({"peer": address(2), "message": "a".repeat(256)}),
            "256 octets are more than the 255",
        ),
        (json!({"peer": "leaf1"}), "params"),
        (json!({"peer": address(2), "hard": true}), "unknown field `hard`"),
    ] {
        let error = hub.operate(Method::BgpReset, call).expect_err(complaint).message;
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn a_speaker_with_a_drain_time_drains_before_it_ends() {
    let port = Port(1797);
    let leaving = format!(
        "drainTime: 1\nshutdownCommunication: gone for good\n{ROUTES}neighbors:\n{}",
        port.neighbor(1, 2, "")
    );
    let mut leaving = Bgpd::start(port, 1, &leaving);
    let staying = Bgpd::start(port, 2, &format!("neighbors:\n{}", port.neighbor(2, 1, "")));
    eventually("a route", &staying, || staying.routes() == ["10.1.0.0/24"]);
    leaving.signal(Signal::SIGTERM);
    eventually("it is marked", &staying, || {
        let routes: Vec<BgpRoute> = staying.ask(Method::BgpRoutes).expect("routes");
        routes
            .iter()
            .any(|route| route.communities.contains(&"65535:0".to_owned()))
    });
    eventually(
        "it is gone, and graceful restart does not keep it",
        &staying,
        || staying.routes().is_empty(),
    );
    // Routes are withdrawn before the session ends.
    eventually("it says why", &staying, || {
        staying.log().contains("gone for good")
    });
    let status = leaving.process.wait().expect("it ends");
    assert!(status.success(), "{}", leaving.log());
}

#[test]
fn what_is_no_matter_of_bgp_is_refused_with_a_hint() {
    let speaker = Bgpd::start(Port(1790), 9, "");
    let error = speaker
        .ask::<Value>(Method::IpamShow)
        .expect_err("it has no addresses");
    assert!(
        error.message.contains("manx-bgpd, which does BGP only"),
        "{error}"
    );
}
