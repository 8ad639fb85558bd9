//! The speakers that are measured, each with the configuration that a line asks for.

use std::fmt::Write as _;
use std::path::PathBuf;

use manx_tests::binaries::program;
use manx_tests::foreign::{self, Place, Process};

use crate::lines::{Line, Peer, SPEAKER_AS};
use crate::world::{SPEAKER, World};

/// How a speaker is configured and started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Manx,
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
}

/// A speaker.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    binary: PathBuf,
}

impl Speaker {
    /// One that the command line names.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let (kind, binary) = match name {
            "manx" => (Kind::Manx, program("manx-bgpd")),
            "bird" => (Kind::Bird, foreign::BIRD.into()),
            "frr" => (Kind::Frr, foreign::FRR.into()),
            "gobgp" => (Kind::Gobgp, foreign::GOBGP.into()),
            "openbgpd" => (Kind::Openbgpd, foreign::OPENBGPD.into()),
            _ => {
                return Err(format!("'{name}' is none of manx, bird, frr, gobgp and openbgpd"));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
            binary,
        })
    }

    /// Another build of ours.
    pub(crate) fn build(name: &str, binary: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Manx,
            binary,
        }
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.binary.exists()
    }
}

/// A speaker at work.
#[derive(Debug)]
pub(crate) struct Running {
    processes: Vec<Process>,
    _place: Place,
}

impl Running {
    /// Starts it, and waits until it answers to its operator.
    pub(crate) fn start(speaker: &Speaker, line: &Line, world: &World) -> Self {
        let place = Place::new(&world.speaker);
        let processes = match speaker.kind {
            Kind::Manx => vec![manx(speaker, line, &place)],
            Kind::Bird => {
                place.write("bird.conf", bird(line));
                vec![foreign::bird(&place, false)]
            }
            Kind::Frr => {
                place.write("bgpd.conf", frr(line));
                vec![foreign::zebra(&place), foreign::bgpd(&place, line.fib)]
            }
            Kind::Gobgp => {
                place.write("gobgp.toml", gobgp(line));
                vec![foreign::gobgp(&place, "error", false)]
            }
            Kind::Openbgpd => {
                place.write("bgpd.conf", openbgpd(line, &place));
                vec![foreign::openbgpd(&place)]
            }
        };
        Self {
            processes,
            _place: place,
        }
    }

    /// The numbers of its process groups.
    pub(crate) fn groups(&self) -> Vec<u32> {
        self.processes.iter().map(Process::group).collect()
    }
}

fn manx(speaker: &Speaker, line: &Line, place: &Place) -> Process {
    let socket = place.path("manx.sock");
    let mut text = format!(
        "asn: {SPEAKER_AS}\nrouterId: {SPEAKER}\nlisten: [\"{SPEAKER}:179\"]\nsocket: {}\nfib: {}\nneighbors:\n",
        socket.display(),
        line.fib
    );
    let client = if line.reflects {
        ", routeReflectorClient: true"
    } else {
        ""
    };
    for_each(&mut text, line, |Peer { address, asn, .. }| {
        format!(
            "- {{address: {address}, asn: {asn}, passive: true, families: [ipv4], import: accept, export: accept{client}}}"
        )
    });
    place.write("speaker.yaml", text);
    let mut command = place.namespace.command(&speaker.binary);
    command.arg("--config").arg(place.path("speaker.yaml"));
    command.env("RUST_LOG", "error");
    let process = Process::spawn(&mut command, &place.path("log"));
    place.wait_for("manx.sock");
    process
}

/// Appends a piece of text for each peer.
fn for_each(text: &mut String, line: &Line, piece: impl Fn(&Peer) -> String) {
    for peer in &line.peers {
        writeln!(text, "{}", piece(peer)).expect("a string takes all");
    }
}

fn bird(line: &Line) -> String {
    let kernel = if line.fib {
        "protocol kernel { ipv4 { export all; }; }\n"
    } else {
        ""
    };
    let client = if line.reflects { "rr client;" } else { "" };
    let mut text = format!("router id {SPEAKER};\nprotocol device {{ }}\n{kernel}");
    for_each(&mut text, line, |Peer { address, asn, .. }| {
        format!(
            "protocol bgp {{ local {SPEAKER} as {SPEAKER_AS}; neighbor {address} as {asn}; direct; passive on; {client}
  ipv4 {{ import all; export all; }}; }}"
        )
    });
    text
}

fn frr(line: &Line) -> String {
    let mut text = format!(
        "router bgp {SPEAKER_AS}\n bgp router-id {SPEAKER}\n no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast\n"
    );
    for_each(&mut text, line, |Peer { address, asn, .. }| {
        format!(
            " neighbor {address} remote-as {asn}\n neighbor {address} passive\n neighbor {address} advertisement-interval 0"
        )
    });
    text.push_str(" address-family ipv4 unicast\n");
    for_each(&mut text, line, |Peer { address, .. }| {
        let client = if line.reflects {
            format!("\n  neighbor {address} route-reflector-client")
        } else {
            String::new()
        };
        format!("  neighbor {address} activate{client}")
    });
    text.push_str(" exit-address-family\n");
    text
}

fn gobgp(line: &Line) -> String {
    let mut text = format!("[global.config]\nas = {SPEAKER_AS}\nrouter-id = \"{SPEAKER}\"\n");
    let client = if line.reflects {
        format!(
            "[neighbors.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = \"{SPEAKER}\"\n"
        )
    } else {
        String::new()
    };
    for_each(&mut text, line, |Peer { address, asn, .. }| {
        format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n[neighbors.transport.config]\npassive-mode = true\n{client}[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\""
        )
    });
    text
}

fn openbgpd(line: &Line, place: &Place) -> String {
    let client = if line.reflects { "  route-reflector\n" } else { "" };
    let mut text = format!(
        "AS {SPEAKER_AS}\nrouter-id {SPEAKER}\nlisten on {SPEAKER}\nsocket \"{}\"\nfib-update no\nnexthop qualify via default\n",
        place.path("control").display()
    );
    for_each(&mut text, line, |Peer { address, asn, .. }| {
        format!("neighbor {address} {{\n  remote-as {asn}\n  passive\n  announce IPv4 unicast\n{client}}}")
    });
    text.push_str("allow from any\nallow to any\n");
    text
}
