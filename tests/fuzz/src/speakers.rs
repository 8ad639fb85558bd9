//! Whole speakers: two or three of them, to which anything happens in any order, and octets in their streams that
//! nobody sent. Whatever it is, they do no harm meanwhile, and end as the reference model says.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use manx_bgp::wire::{self, Context, Notification};
use manx_bgp::{ConnId, Family, Input, NextHopMode, Policy, Prefix, Speaker, State};

use crate::model;
use crate::network::{Network, Node, address, key};
use crate::plan::Plan;

/// When everything that is under way is over: hold time (90 s), restart time (15 s), the longest wait between two
/// attempts (30 s) and a dial (10 s), or a connection that hangs before the OPEN came on it (240 s).
const QUIET: Duration = Duration::from_secs(400);

/// Acts at most, so that an input takes milliseconds.
const ACTS: usize = 150;

/// What the fuzzer wants, octet by octet; zeros at the end.
struct Wishes<'a>(&'a [u8]);

impl<'a> Wishes<'a> {
    fn octet(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.octet()) % limit
    }

    fn bit(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    /// As many octets as the next one says.
    fn octets(&mut self) -> &'a [u8] {
        let wanted = usize::from(self.octet());
        let (taken, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The speakers, and what is to become of them.
struct Arena {
    plan: Plan,
    network: Network,
    /// Connections that somebody else made in a peer's name.
    forged: Vec<(Node, ConnId)>,
}

/// The body of the target.
pub fn speakers(data: &[u8]) {
    let mut wishes = Wishes(data);
    let mut arena = Arena::new(&mut wishes);
    for _ in 0..ACTS {
        if wishes.0.is_empty() {
            break;
        }
        arena.act(&mut wishes);
        arena.check();
    }
    arena.calm_down();
    arena.clear_away();
}

impl Arena {
    fn new(wishes: &mut Wishes<'_>) -> Self {
        let seed = u64::from(wishes.octet());
        let mut plan = match wishes.below(4) {
            0 => Plan::mesh(2, seed),
            1 => Plan::mesh(3, seed),
            2 => Plan::fabric(1, 2, 0, seed),
            _ => {
                let mut plan = Plan::new(3, seed);
                plan.client(0, 1);
                plan.client(0, 2);
                plan
            }
        };
        for (a, b) in plan.links() {
            for (node, with) in [(a, b), (b, a)] {
                plan.treats(node, with, |peer| {
                    peer.graceful_restart = Some(Duration::from_secs(15))
                });
            }
        }
        let mut network = Network::new(plan.speakers.len(), seed);
        for node in 0..plan.speakers.len() {
            plan.boot(&mut network, node, false);
        }
        Self {
            plan,
            network,
            forged: Vec::new(),
        }
    }

    /// Something happens.
    fn act(&mut self, wishes: &mut Wishes<'_>) {
        let count = self.network.hosts.len();
        let node = wishes.below(count);
        let links = self.plan.links();
        let (a, b) = links[wishes.below(links.len())];
        let (a, b) = if wishes.bit() { (a, b) } else { (b, a) };
        match wishes.below(20) {
            0 => self.network.run(Duration::from_millis(wishes.octet().into())),
            1 => self.network.run(Duration::from_secs(wishes.octet().into())),
            2 => self.network.sleep(Duration::from_secs(wishes.octet().into())),
            3 => self.network.reset(a, b),
            4 => self.network.kill(node),
            5 => self.network.lose_power(node),
            6 if self.network.hosts[node].speaker.is_none() => {
                self.plan.boot(&mut self.network, node, wishes.bit());
            }
            6 => {}
            7 => self.network.cut(a, b),
            8 => self.network.mend(a, b),
            9 => self.move_prefix(node, wishes),
            10 => self.reconfigure(a, b, wishes),
            11 => self
                .network
                .corrupt(wishes.below(8), wishes.octet().into(), wishes.octet()),
            12 | 13 => self
                .network
                .inject(a, b, &Bytes::copy_from_slice(wishes.octets())),
            14..=16 => {
                let kind = 1 + wishes.octet() % 6;
                self.network.inject(a, b, &framed(kind, wishes.octets()));
            }
            17 => self.forge(a, b),
            18 => self.forged_message(wishes),
            _ => self.stray_input(a, b, wishes),
        }
    }

    /// A prefix appears at a speaker, or goes.
    fn move_prefix(&mut self, node: Node, wishes: &mut Wishes<'_>) {
        let prefix = any_prefix(wishes);
        if self.plan.origins[node].remove(&prefix) {
            self.network.input(node, Input::Unoriginate(prefix));
        } else {
            self.plan.origins[node].insert(prefix);
            self.network.input(node, Input::Originate(prefix));
        }
    }

    /// One side changes its settings for the other.
    fn reconfigure(&mut self, node: Node, with: Node, wishes: &mut Wishes<'_>) {
        let policies = [
            Policy::Accept,
            Policy::Reject,
            Policy::Within([any_prefix(wishes)].into()),
        ];
        let passive = self.plan.peers[with][&node].passive;
        self.plan.treats(node, with, |peer| match wishes.below(8) {
            0 => peer.hold_time = Duration::from_secs(if wishes.bit() { 30 } else { 90 }),
            1 => peer.graceful_restart = wishes.bit().then_some(Duration::from_secs(15)),
            2 => peer.passive = !passive && wishes.bit(),
            3 => peer.families = Family::ALL[wishes.below(2)..].to_vec(),
            4 => peer.import = policies[wishes.below(3)].clone(),
            5 => peer.export = policies[wishes.below(3)].clone(),
            6 => peer.features.extended_messages = wishes.bit(),
            _ => peer.next_hop = [NextHopMode::Auto, NextHopMode::SelfAddress][wishes.below(2)],
        });
        let settings = self.plan.peers[node][&with].clone();
        self.network.input(node, Input::SetPeer(Box::new(settings)));
    }

    /// Somebody connects to `node` in the name of `with`.
    fn forge(&mut self, node: Node, with: Node) {
        let conn = ConnId(1 << 63 | 1 << 32 | self.forged.len() as u64);
        self.forged.push((node, conn));
        self.network.input(
            node,
            Input::Accepted {
                conn,
                local: SocketAddr::new(address(node).into(), 179),
                remote: SocketAddr::new(address(with).into(), 50_000),
                scope: 0,
            },
        );
    }

    /// He says something, or goes.
    fn forged_message(&mut self, wishes: &mut Wishes<'_>) {
        if self.forged.is_empty() {
            return;
        }
        let (node, conn) = self.forged[wishes.below(self.forged.len())];
        let kind = wishes.octet() % 7;
        let frame = framed(kind, wishes.octets());
        let input = if kind == 0 {
            Input::Closed { conn }
        } else {
            let message = wire::decode(&frame, &Context::default()).map_err(Notification::from);
            Input::Received { conn, message }
        };
        self.network.input(node, input);
    }

    /// An input that comes at the wrong time, or about a connection that is none any more.
    fn stray_input(&mut self, node: Node, with: Node, wishes: &mut Wishes<'_>) {
        let conn = ConnId(wishes.octet().into());
        let stale = !self.network.knows(node, conn);
        let local = SocketAddr::new(address(node).into(), 40_000);
        let message = wire::decode(&framed(4, &[]), &Context::default()).map_err(Notification::from);
        let input = match wishes.below(7) {
            0 => Input::Tick,
            1 => Input::PathDown(key(with)),
            2 => Input::Drained { conn },
            3 if stale => Input::Closed { conn },
            4 if stale => Input::ConnectFailed { conn },
            5 if stale => Input::Connected { conn, local },
            6 if stale => Input::Received { conn, message },
            _ => return,
        };
        self.network.input(node, input);
    }

    /// What holds whatever happens.
    fn check(&self) {
        for speaker in self.network.hosts.iter().filter_map(|host| host.speaker.as_ref()) {
            let (peers, paths) = (speaker.peers(), speaker.paths());
            for peer in &peers {
                let of_peer = || paths.iter().filter(|path| path.peer == Some(peer.key));
                assert_eq!(of_peer().count() as u64, peer.received, "every path is booked");
                assert!(peer.accepted <= peer.received);
                let fresh = of_peer().any(|path| !path.stale);
                assert!(
                    !fresh || peer.state == State::Established,
                    "without a session, paths are stale"
                );
            }
            for path in &paths {
                let known = |key| peers.iter().any(|peer| peer.key == key);
                assert!(path.peer.is_none_or(known), "nobody's path");
            }
        }
    }

    /// The fuzzer lets go. All that was said in somebody's name goes with the connections that it was said on; once
    /// it is quiet, every table is what the model says.
    fn calm_down(&mut self) {
        for (node, conn) in std::mem::take(&mut self.forged) {
            self.network.input(node, Input::Closed { conn });
        }
        // An OPEN that was changed on its way may still have to arrive.
        self.network.run(Duration::from_secs(1));
        for (a, b) in self.plan.links() {
            self.network.reset(a, b);
        }
        self.network.run(QUIET);
        self.check();
        let difference = model::difference(&self.plan, &self.network);
        assert_eq!(difference, None);
    }

    /// Speakers without peers and prefixes hold nothing.
    fn clear_away(&mut self) {
        for node in 0..self.network.hosts.len() {
            for &with in self.plan.peers[node].keys() {
                self.network.input(node, Input::RemovePeer(key(with)));
            }
            for &prefix in &self.plan.origins[node] {
                self.network.input(node, Input::Unoriginate(prefix));
            }
            let speaker = self.network.hosts[node].speaker.as_ref();
            let left = |speaker: &Speaker| (speaker.peers().len(), speaker.paths().len());
            assert_eq!(speaker.map_or((0, 0), left), (0, 0), "something is left");
            assert!(self.network.hosts[node].selected.is_empty() || speaker.is_none());
        }
    }
}

fn any_prefix(wishes: &mut Wishes<'_>) -> Prefix {
    let number = wishes.octet();
    let text = if number & 1 == 0 {
        format!("10.{number}.0.0/{}", 8 + number % 25)
    } else {
        format!("2001:db8:{number}::/{}", 32 + number % 97)
    };
    text.parse().expect("a prefix")
}

/// A message with a right header.
fn framed(kind: u8, body: &[u8]) -> Bytes {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body]
        .concat()
        .into()
}
