//! Networks to which anything happens: once nothing does any more, every table is what the model says.
//!
//! Connections are reset, links are cut, speakers are killed, lose power and come back with and without graceful
//! restart, prefixes move between speakers, settings change. Some of it is still so at the end: what cannot be
//! reached any more must be gone, everywhere.

use std::time::Duration;

use manx_bgp::{Input, Policy, Prefix};
use rand::RngExt;
use rand::seq::{IndexedRandom, IteratorRandom, SliceRandom};

use crate::model;
use crate::network::{Network, Node, block, key, seeds};
use crate::plan::{Plan, block_v6};

/// When everything that is under way is over: a hold time (30 s), a restart time (15 s), the longest wait between
/// two attempts (30 s) and a dial (10 s), or a connection that hangs before the OPEN came on it (240 s).
const QUIET: Duration = Duration::from_secs(320);

/// A network that suffers.
struct Ordeal {
    plan: Plan,
    network: Network,
    /// Peers that one side does not know for now.
    strangers: Vec<(Node, Node, manx_bgp::PeerConfig)>,
}

impl Ordeal {
    /// A network that follows the plan, with sessions of different kinds, started in random order.
    fn new(mut plan: Plan, seed: u64) -> Self {
        let count = plan.speakers.len();
        let mut network = Network::new(count, seed);
        for (a, b) in plan.links() {
            let hold_time = Duration::from_secs([9, 30].choose(&mut network.rng).copied().unwrap());
            let restart = network.rng.random_bool(0.7).then_some(Duration::from_secs(15));
            let passive = network.rng.random_range(0..4);
            for (node, with, waits) in [(a, b, passive == 0), (b, a, passive == 1)] {
                plan.treats(node, with, |peer| {
                    peer.hold_time = hold_time;
                    peer.graceful_restart = restart;
                    peer.passive = waits;
                });
            }
        }
        let mut ordeal = Self {
            plan,
            network,
            strangers: Vec::new(),
        };
        ordeal.network.latency = Duration::from_micros(ordeal.network.rng.random_range(20..100_000));
        let mut order: Vec<Node> = (0..count).collect();
        order.shuffle(&mut ordeal.network.rng);
        for node in order {
            ordeal.plan.boot(&mut ordeal.network, node, false);
            ordeal.pause(300);
        }
        ordeal
    }

    /// Lets some milliseconds pass.
    fn pause(&mut self, limit: u64) {
        let pause = Duration::from_millis(self.network.rng.random_range(0..limit));
        self.network.run(pause);
    }

    /// Something happens.
    fn strike(&mut self) {
        let node = self.network.rng.random_range(0..self.network.hosts.len());
        let links = self.plan.links();
        let (a, b) = links.choose(&mut self.network.rng).copied().expect("a link");
        match self.network.rng.random_range(0..16) {
            0..=2 => self.network.reset(a, b),
            3 => self.network.kill(node),
            4 => self.network.lose_power(node),
            5..=7 => self.revive(),
            8 => self.network.cut(a, b),
            9 | 10 => self.network.mend(a, b),
            11 | 12 => self.move_prefix(node),
            13 => self.change_policy(a, b),
            14 => self.estrange(a, b),
            _ => self.reconcile(),
        }
    }

    /// Somebody who is down comes back.
    fn revive(&mut self) {
        let hosts = self.network.hosts.iter().enumerate();
        let down = hosts
            .filter(|(_, host)| host.speaker.is_none())
            .map(|(node, _)| node);
        let chosen = down.choose(&mut self.network.rng);
        if let Some(node) = chosen {
            let restarted = self.network.rng.random();
            self.plan.boot(&mut self.network, node, restarted);
        }
    }

    /// A prefix that several may have appears at a speaker, or goes.
    fn move_prefix(&mut self, node: Node) {
        let prefix = self.any_prefix();
        if self.plan.origins[node].remove(&prefix) {
            self.network.input(node, Input::Unoriginate(prefix));
        } else {
            self.plan.origins[node].insert(prefix);
            self.network.input(node, Input::Originate(prefix));
        }
    }

    fn any_prefix(&mut self) -> Prefix {
        let number = 900 + self.network.rng.random_range(0..3);
        if self.network.rng.random() {
            block(number)
        } else {
            block_v6(number)
        }
    }

    fn change_policy(&mut self, node: Node, with: Node) {
        let policies = [
            Policy::Accept,
            Policy::Accept,
            Policy::Reject,
            Policy::Within([self.any_prefix(), block(node), block_v6(with)].into()),
        ];
        let policy = policies.choose(&mut self.network.rng).cloned().expect("a policy");
        let incoming = self.network.rng.random();
        let Some(settings) = self.plan.peers[node].get_mut(&with) else {
            return;
        };
        *(if incoming {
            &mut settings.import
        } else {
            &mut settings.export
        }) = policy;
        let settings = settings.clone();
        self.network.input(node, Input::SetPeer(Box::new(settings)));
    }

    /// One side forgets the other.
    fn estrange(&mut self, node: Node, with: Node) {
        if let Some(settings) = self.plan.peers[node].remove(&with) {
            self.strangers.push((node, with, settings));
            self.network.input(node, Input::RemovePeer(key(with)));
        }
    }

    /// It remembers.
    fn reconcile(&mut self) {
        if let Some((node, with, settings)) = self.strangers.pop() {
            self.plan.peers[node].insert(with, settings.clone());
            self.network.input(node, Input::SetPeer(Box::new(settings)));
        }
    }

    /// Nothing happens for long, and the tables are the model's; nor does anything happen after that.
    fn judge(mut self) {
        self.network.run(QUIET);
        self.compare();
        let (flaps, changes) = (self.network.flaps(), self.network.changes());
        self.network.run(Duration::from_secs(60));
        self.network.check(
            (flaps, changes) == (self.network.flaps(), self.network.changes()),
            "what is quiet stays quiet",
        );
        self.compare();
    }

    fn compare(&self) {
        let difference = model::difference(&self.plan, &self.network);
        self.network
            .check(difference.is_none(), difference.as_deref().unwrap_or_default());
    }
}

/// A network of this plan comes up, suffers, and ends as the model says.
pub(crate) fn endure(plan: Plan, seed: u64, strokes: usize) {
    let mut ordeal = Ordeal::new(plan, seed);
    for _ in 0..strokes {
        ordeal.strike();
        ordeal.pause(4_000);
    }
    ordeal.judge();
}

#[test]
fn meshes_end_as_the_model_says() {
    for seed in seeds(12) {
        endure(Plan::mesh(6, seed), seed, 40);
    }
}

#[test]
fn reflector_hierarchies_end_as_the_model_says() {
    for seed in seeds(12) {
        endure(Plan::reflectors(2, 3, seed), seed, 60);
    }
}

#[test]
fn fabrics_end_as_the_model_says() {
    for seed in seeds(12) {
        endure(Plan::fabric(2, 3, 2, seed), seed, 60);
    }
}

#[test]
fn racks_with_routers_end_as_the_model_says() {
    for seed in seeds(12) {
        endure(Plan::racks(2, 3, seed), seed, 60);
    }
}
