//! What is measured.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;

use clap::ValueEnum;

use crate::programs::{Kind, Speaker};

/// The AS of the speaker that is measured.
pub(crate) const SPEAKER_AS: u32 = 64_512;

/// The names of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Letter {
    /// Propagation: 500,000 prefixes from one eBGP peer to another.
    A,
    /// Kernel: 200,000 prefixes from one peer into its table, and out again when the peer dies.
    B,
    /// Mesh: 500 iBGP peers announce 4 prefixes each, into the kernel.
    C,
    /// Best paths: 20 eBGP peers announce the same 50,000 prefixes; one more listens.
    D,
    /// Reflector: of 200 clients, 100 announce 100 prefixes each, and all listen.
    E,
    /// Large reflector: 1,000 clients announce 100 prefixes each, and all listen. Ours only.
    F,
    /// Rest: 500 iBGP peers announce 50 prefixes each, into the kernel, and then nothing happens for a minute.
    G,
    /// A node of many: two reflectors announce the same 20,000 blocks of 5,000 nodes, into the kernel.
    H,
    /// Their reflector: 5,000 clients announce 4 blocks each, and all listen. Ours only.
    I,
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What happens to a speaker in a round.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) letter: Letter,
    pub(crate) peers: Vec<Peer>,
    /// The length of all prefixes.
    pub(crate) prefix_length: u8,
    /// What the speaker learns, its kernel routes by.
    pub(crate) fib: bool,
    /// The speaker reflects: all peers are its clients.
    pub(crate) reflects: bool,
    /// Several peers announce the prefixes below this number: that of a group's number modulo theirs is best.
    pub(crate) contested: u32,
    /// How many prefixes share their attributes.
    pub(crate) group: u32,
    /// Each group comes from a node of its own, by way of the peers, which reflect.
    pub(crate) reflected: bool,
}

/// A peer of the speaker, whom the generator plays.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
    /// The numbers of the prefixes that it announces.
    pub(crate) announces: Vec<Range<u32>>,
    /// How many prefixes it has to hear of from the speaker in the end.
    pub(crate) hears: u32,
}

impl Peer {
    fn new(number: usize, asn: u32) -> Self {
        Self {
            address: node(u32::try_from(number).expect("a few peers")),
            asn,
            announces: Vec::new(),
            hears: 0,
        }
    }

    /// Announces these, too.
    fn announcing(mut self, numbers: Range<u32>) -> Self {
        self.announces.push(numbers);
        self
    }
}

impl Letter {
    /// The line at a part of its full size.
    pub(crate) fn line(self, scale: f64) -> Line {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "sizes are small and positive"
        )]
        let scaled = |size: u32| ((f64::from(size) * scale) as u32).max(2);
        let line = Line {
            letter: self,
            peers: Vec::new(),
            prefix_length: 24,
            fib: false,
            reflects: false,
            contested: 0,
            group: GROUP,
            reflected: false,
        };
        match self {
            Self::A => {
                let all = scaled(500_000);
                let [from, mut to] = [external(0), external(1)];
                to.hears = all;
                let peers = vec![from.announcing(0..all), to];
                Line { peers, ..line }
            }
            Self::B => Line {
                peers: vec![external(0).announcing(0..scaled(200_000))],
                fib: true,
                ..line
            },
            Self::C => Line {
                peers: (0..scaled(500)).map(|n| internal(n, 4)).collect(),
                prefix_length: 26,
                fib: true,
                ..line
            },
            Self::D => best_paths(scaled(50_000), line),
            Self::E => reflector(scaled(100), scaled(100), 100, line),
            Self::F => reflector(scaled(1000), 0, 100, line),
            Self::G => Line {
                peers: (0..scaled(500)).map(|n| internal(n, 50)).collect(),
                prefix_length: 26,
                fib: true,
                ..line
            },
            Self::H => node_of_many(scaled(5000) * BLOCKS, line),
            Self::I => reflector(scaled(5000), 0, BLOCKS, blocks(line)),
        }
    }
}

/// How many prefixes share their attributes, as a rule.
pub(crate) const GROUP: u32 = 10;

/// Blocks of a node, on lines of large clusters.
const BLOCKS: u32 = 4;

/// The address of a node, or of whoever announces something.
pub(crate) fn node(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 99, 0, 0)) + number + 256)
}

fn external(number: u32) -> Peer {
    Peer::new(number as usize, 64_601 + number)
}

/// An iBGP peer that announces `count` prefixes of its own.
fn internal(number: u32, count: u32) -> Peer {
    let first = number * count;
    Peer::new(number as usize, SPEAKER_AS).announcing(first..first + count)
}

/// Line H: what all nodes announce, from each of two reflectors.
fn node_of_many(all: u32, line: Line) -> Line {
    let reflector = |number| internal(number, 0).announcing(0..all);
    Line {
        peers: (0..2).map(reflector).collect(),
        fib: true,
        reflected: true,
        ..blocks(line)
    }
}

/// With prefixes as nodes announce them.
fn blocks(line: Line) -> Line {
    Line {
        prefix_length: 26,
        group: BLOCKS,
        ..line
    }
}

/// Line D. Each sender's last prefix is its own: once the receiver has all of these, everything has been read.
fn best_paths(all: u32, line: Line) -> Line {
    const SENDERS: u32 = 20;
    let sender = |n| external(n).announcing(0..all).announcing(all + n..all + n + 1);
    let mut receiver = external(SENDERS);
    receiver.hears = all + SENDERS;
    Line {
        peers: (0..SENDERS).map(sender).chain([receiver]).collect(),
        contested: all,
        ..line
    }
}

/// Lines E, F and I: everybody hears of what the others announce.
fn reflector(announcing: u32, silent: u32, each: u32, line: Line) -> Line {
    let all = announcing * each;
    let peer = |number| {
        let own = if number < announcing { each } else { 0 };
        let mut peer = internal(number, own);
        peer.hears = all - own;
        peer
    };
    Line {
        peers: (0..announcing + silent).map(peer).collect(),
        reflects: true,
        ..line
    }
}

impl Line {
    /// How many different prefixes there are.
    pub(crate) fn prefixes(&self) -> u32 {
        let ends = self.peers.iter().flat_map(|peer| &peer.announces);
        ends.map(|range| range.end).max().unwrap_or_default()
    }

    /// How often all of it is announced to be no less than what is heard.
    pub(crate) fn passes(&self) -> usize {
        let heard: usize = self.peers.iter().map(|peer| peer.hears as usize).sum();
        heard.div_ceil(self.announced()).max(1)
    }

    /// How many announcements that makes.
    pub(crate) fn moved(&self) -> u64 {
        u64::try_from(self.announced() * self.passes()).unwrap_or(u64::MAX)
    }

    fn announced(&self) -> usize {
        let ranges = self.peers.iter().flat_map(|peer| &peer.announces);
        ranges.map(ExactSizeIterator::len).sum()
    }

    /// Of two peers that announce a contested group of prefixes, who has the better path.
    pub(crate) fn best(&self, group: u32) -> u32 {
        let senders = self.peers.iter().filter(|peer| !peer.announces.is_empty());
        let place = group as usize % senders.clone().count().max(1);
        senders
            .skip(place)
            .map(|peer| peer.asn)
            .next()
            .unwrap_or_default()
    }

    /// Whether the line is one for that speaker.
    pub(crate) fn is_for(&self, speaker: &Speaker) -> bool {
        let large = matches!(self.letter, Letter::F | Letter::I);
        match speaker.kind {
            Kind::Manx => true,
            Kind::Bird | Kind::Frr => !large,
            // These put nothing into Linux's table.
            Kind::Gobgp | Kind::Openbgpd => !large && !self.fib,
        }
    }
}
