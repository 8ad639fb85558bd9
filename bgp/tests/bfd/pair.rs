//! Two machines, a wire between them, and a clock that stands still unless told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use manx_bgp::PeerKey;
use manx_bgp::bfd::{Bfd, Input, Key, Output, Packet, SessionConfig, SessionSnapshot, State, TTL};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn multiplier(value: u8) -> NonZeroU8 {
    NonZeroU8::new(value).unwrap()
}

pub(crate) fn address(end: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(end).unwrap() + 1).into()
}

/// The session that `end` has with the other.
pub(crate) fn key(end: usize, multihop: bool) -> Key {
    Key {
        peer: PeerKey::of(address(1 - end), 0),
        multihop,
    }
}

/// 300 ms × 3, over one hop.
pub(crate) fn settings(end: usize) -> SessionConfig {
    SessionConfig {
        key: key(end, false),
        local: None,
        min_tx: ms(300),
        min_rx: ms(300),
        multiplier: multiplier(3),
    }
}

/// A packet on its way.
#[derive(Clone, Debug)]
struct Datagram {
    to: usize,
    multihop: bool,
    bytes: Bytes,
}

/// Two machines and the wire.
pub(crate) struct Pair {
    start: Instant,
    pub(crate) now: Instant,
    pub(crate) ends: [Bfd; 2],
    wire: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    rng: StdRng,
    /// How long a packet travels.
    pub(crate) delay: Duration,
    /// How much later it may come than that, at random.
    pub(crate) spread: Duration,
    /// The share of packets that is lost.
    pub(crate) loss: f64,
    /// Nothing that an end sends arrives.
    pub(crate) cut: [bool; 2],
    /// What each end reported, and when; sends do not appear.
    pub(crate) reports: Vec<(Duration, usize, Output)>,
    /// What each end sent, and when.
    pub(crate) packets: Vec<(Duration, usize, Packet)>,
}

impl Pair {
    /// Two ends without sessions.
    pub(crate) fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            ends: [Bfd::new(seed), Bfd::new(seed + 1)],
            wire: BTreeMap::new(),
            sent: 0,
            rng: StdRng::seed_from_u64(seed),
            delay: ms(1),
            spread: Duration::ZERO,
            loss: 0.0,
            cut: [false; 2],
            reports: Vec::new(),
            packets: Vec::new(),
        }
    }

    /// Two ends in session, with the usual settings.
    pub(crate) fn up(seed: u64) -> Self {
        let mut pair = Self::new(seed);
        for end in 0..2 {
            pair.set(end, settings(end));
        }
        pair.run(ms(5000));
        assert_eq!([pair.state(0), pair.state(1)], [State::Up; 2]);
        pair.forget();
        pair
    }

    pub(crate) fn forget(&mut self) {
        self.reports.clear();
        self.packets.clear();
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn set(&mut self, end: usize, config: SessionConfig) {
        self.input(end, Input::SetSession(config));
    }

    /// The end's process starts anew, without a word.
    pub(crate) fn restart(&mut self, end: usize, seed: u64) {
        self.ends[end] = Bfd::new(seed);
        self.set(end, settings(end));
    }

    pub(crate) fn input(&mut self, end: usize, input: Input) {
        self.ends[end].handle(self.now, input);
        self.carry_out(end);
    }

    pub(crate) fn snapshot(&self, end: usize) -> SessionSnapshot {
        self.ends[end].sessions()[0]
    }

    pub(crate) fn state(&self, end: usize) -> State {
        self.snapshot(end).state
    }

    /// When an end reported that its session went down, if it did.
    pub(crate) fn down(&self, end: usize) -> Option<(Duration, Output)> {
        let down = |(at, who, output): &(Duration, usize, Output)| {
            (*who == end && matches!(output, Output::Down(..))).then(|| (*at, output.clone()))
        };
        self.reports.iter().find_map(down)
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let due = self.ends.iter().filter_map(Bfd::deadline);
            let Some(next) = due.chain(arrival).min().filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            self.deliver();
            for end in 0..2 {
                self.input(end, Input::Tick);
            }
        }
        self.now = until;
    }

    fn deliver(&mut self) {
        while let Some(arrival) = self.wire.first_entry().filter(|it| it.key().0 <= self.now) {
            let Datagram { to, multihop, bytes } = arrival.remove();
            let received = Input::Received {
                from: address(1 - to),
                scope: 0,
                multihop,
                ttl: TTL,
                bytes,
            };
            self.input(to, received);
        }
    }

    fn carry_out(&mut self, end: usize) {
        while let Some(output) = self.ends[end].poll() {
            let Output::Send { key, from: _, bytes } = output else {
                self.reports.push((self.elapsed(), end, output));
                continue;
            };
            assert_eq!(key.remote().ip(), address(1 - end));
            self.packets
                .push((self.elapsed(), end, Packet::decode(&bytes).unwrap()));
            if self.cut[end] || self.rng.random_bool(self.loss) {
                continue;
            }
            let late = self.spread.mul_f64(self.rng.random());
            self.sent += 1;
            self.wire.insert(
                (self.now + self.delay + late, self.sent),
                Datagram {
                    to: 1 - end,
                    multihop: key.multihop,
                    bytes,
                },
            );
        }
    }
}
