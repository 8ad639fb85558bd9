//! The speaker by itself, from octets to octets, without a socket: instructions, time and memory a path.
//!
//! Two of the lines of `tests/bench/speakers`: *A*, one peer announces and another is told; *D*, twenty peers announce
//! the same prefixes and one more is told. Ten prefixes share their attributes. Instructions are counted by callgrind
//! (Debian: `valgrind`) at a reduced size; whatever else the machine does, they are the same.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::unwrap_used, reason = "a bench's messages are what they are")]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bytes::Bytes;
use manx_bgp::wire::{
    self, AsPath, Attributes, Capability, Context, Message, NextHop, Nlri, Open, Reach, Segment, Update,
};
use manx_bgp::{Config, ConnId, Family, Input, Output, PeerConfig, PeerKey, Policy, Prefix, Speaker};

const ASN: u32 = 64_512;

/// How many prefixes share their attributes.
const GROUP: u32 = 10;

/// Messages between two looks at what the speaker has to say, as its driver does it.
const BATCH: usize = 64;

/// A line: its name, how many peers announce, how many prefixes each in full and under callgrind, and what is promised:
/// instructions and octets of memory for each path.
struct Line {
    name: &'static str,
    senders: u8,
    prefixes: u32,
    counted: u32,
    instructions: u64,
    octets: u64,
}

const LINES: [Line; 2] = [
    Line {
        name: "A",
        senders: 1,
        prefixes: 500_000,
        counted: 20_000,
        instructions: 4_300,
        octets: 165,
    },
    Line {
        name: "D",
        senders: 20,
        prefixes: 50_000,
        counted: 2_000,
        instructions: 3_100,
        octets: 110,
    },
];

/// The sessions of a line with what its peers announce, encoded.
struct Stage {
    speaker: Speaker,
    now: Instant,
    context: Context,
    /// In the order in which they come.
    messages: Vec<(ConnId, Bytes)>,
}

fn address(peer: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, peer)
}

fn config() -> Config {
    Config {
        asn: ASN,
        router_id: address(1),
        cluster_id: None,
        restarted: false,
        deferral: Duration::from_secs(10),
        farewell: String::new(),
        interfaces: [].into(),
        seed: 1,
        max_paths: 1,
    }
}

impl Stage {
    /// All sessions are up: those of the senders, and the one that listens.
    fn new(line: &Line, prefixes: u32) -> Self {
        let mut stage = Self {
            speaker: Speaker::new(config()),
            now: Instant::now(),
            context: Context::default(),
            messages: Vec::new(),
        };
        stage.speaker.select(false);
        for number in 0..=line.senders {
            stage.establish(number);
        }
        for group in 0..prefixes / GROUP {
            for sender in 0..line.senders {
                let update = Message::Update(announcement(sender, group));
                let frame = wire::encode(&update, &stage.context);
                stage.messages.push((conn(sender), frame));
            }
        }
        stage
    }

    fn establish(&mut self, number: u8) {
        let key = PeerKey::of(address(number + 2).into(), 0);
        let config = PeerConfig {
            passive: true,
            import: Policy::Accept,
            export: Policy::Accept,
            families: vec![Family::Ipv4Unicast],
            ..PeerConfig::new(key, asn(number))
        };
        let (conn, local) = (conn(number), SocketAddr::from((address(1), 179)));
        self.input(Input::SetPeer(Box::new(config)));
        self.input(Input::Accepted {
            conn,
            local,
            remote: (address(number + 2), 1024).into(),
            scope: 0,
        });
        let open = Message::Open(Open {
            asn: asn(number),
            hold_time: 90,
            router_id: address(number + 2),
            capabilities: vec![
                Capability::Multiprotocol(Family::Ipv4Unicast),
                Capability::FourOctetAs(asn(number)),
            ],
        });
        for message in [open, Message::Keepalive] {
            let message = Ok(message);
            self.input(Input::Received { conn, message });
        }
    }

    fn input(&mut self, input: Input) {
        self.speaker.handle(self.now, input);
        self.perform();
    }

    /// Takes what the speaker says; how many octets it is.
    fn perform(&mut self) -> usize {
        let mut octets = 0;
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Decode { context, .. } => self.context = context,
                Output::Send { conn, bytes } => {
                    octets += bytes.len();
                    self.speaker.handle(self.now, Input::Drained { conn });
                }
                Output::Dial { .. }
                | Output::Close { .. }
                | Output::Selected { .. }
                | Output::Converged
                | Output::Drained
                | Output::RangeFull(_)
                | Output::Session { .. } => {}
            }
        }
        octets
    }

    /// Everything that is announced comes in; how many octets go out.
    fn run(&mut self) -> usize {
        let messages = std::mem::take(&mut self.messages);
        let mut octets = 0;
        for batch in messages.chunks(BATCH) {
            for (conn, frame) in batch {
                let message = wire::decode(frame, &self.context).map_err(Into::into);
                self.speaker
                    .handle(self.now, Input::Received { conn: *conn, message });
            }
            octets += self.perform();
        }
        self.messages = messages;
        octets
    }
}

/// An accepted connection of a peer's.
fn conn(number: u8) -> ConnId {
    ConnId(1 << 63 | u64::from(number))
}

fn asn(number: u8) -> u32 {
    65_000 + u32::from(number)
}

fn announcement(sender: u8, group: u32) -> Update {
    let prefix = |number: u32| {
        let address = Ipv4Addr::from_bits((16 << 24) + (number << 8));
        Nlri {
            path_id: None,
            prefix: Prefix::v4(address, 24).unwrap(),
        }
    };
    let mut path = vec![asn(sender), 4_200_000_000 + group, 64_700 + group % 100];
    // Each sender has the best path of some prefixes.
    if group % 20 != u32::from(sender) {
        path.push(64_800);
    }
    Update {
        attributes: Attributes {
            as_path: AsPath {
                segments: [Segment::Sequence(path)].into(),
            },
            communities: [64_700 << 16 | 1, 64_700 << 16 | group & 0xff].into(),
            ..Attributes::default()
        },
        reach: vec![Reach {
            next_hop: NextHop::V4(address(sender + 2)),
            nlri: (group * GROUP..(group + 1) * GROUP).map(prefix).collect(),
        }],
        ..Update::default()
    }
}

/// The process's resident memory, in octets.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kibibytes = line.split_whitespace().next().unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// How many instructions this program takes with these arguments; none without valgrind.
fn instructions(arguments: [&str; 2]) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let counted = text.lines().find_map(|line| line.split_once("Collected : "));
    counted?.1.trim().parse().ok()
}

/// Measures a line; whether it keeps what is promised.
fn measure(line: &Line) -> bool {
    let paths = u64::from(line.prefixes) * u64::from(line.senders);
    let mut stage = Stage::new(line, line.prefixes);
    let (before, begun) = (resident(), Instant::now());
    let octets = stage.run();
    let took = begun.elapsed();
    let memory = (resident() - before) / paths;
    let counted = instructions([line.name, "run"]).zip(instructions([line.name, "prepare"]));
    let counted =
        counted.map(|(run, prepare)| (run - prepare) / (u64::from(line.counted) * u64::from(line.senders)));
    println!(
        "{}: {paths} paths: {} ns and {memory} octets each, {octets} octets sent",
        line.name,
        took.as_nanos() / u128::from(paths),
    );
    match counted {
        Some(counted) => println!("   {counted} instructions each (promised: {})", line.instructions),
        None => println!("   no instructions counted: apt-get install valgrind"),
    }
    memory <= line.octets && counted.is_none_or(|counted| counted <= line.instructions)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |name: &String| LINES.iter().find(|line| line.name == name);
    if let Some(line) = arguments.first().and_then(named) {
        // Under callgrind.
        let mut stage = Stage::new(line, line.counted);
        if arguments[1] == "run" {
            stage.run();
        }
        return ExitCode::SUCCESS;
    }
    let kept = LINES.iter().map(measure).fold(true, |all, kept| all & kept);
    if kept {
        ExitCode::SUCCESS
    } else {
        println!("more than promised");
        ExitCode::FAILURE
    }
}
