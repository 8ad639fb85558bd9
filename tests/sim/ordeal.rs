//! Networks to which anything happens: once nothing does any more, every table is what the model says.
//!
//! Connections are reset, links are cut, speakers are killed, lose power and come back with and without graceful
//! restart, prefixes move between speakers, settings change. Some of it is still so at the end: what cannot be
//! reached any more must be gone, everywhere.

use std::time::Duration;

use manx_bgp::wire::Role;
use manx_bgp::{Input, Policy, Prefix};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::laws::{Code, Freedom, Way};
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
    /// What laws may do, if there are to be any.
    freedom: Option<Freedom>,
}

impl Ordeal {
    /// A network that follows the plan, with sessions of different kinds, started in random order.
    fn new(mut plan: Plan, seed: u64, freedom: Option<Freedom>) -> Self {
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
            freedom,
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
        match self.network.rng.random_range(0..18) {
            0..=2 => self.network.reset(a, b),
            3 => self.network.kill(node),
            4 => self.network.lose_power(node),
            5..=7 => self.revive(),
            8 => self.network.cut(a, b),
            9 | 10 => self.network.mend(a, b),
            11 | 12 => self.move_prefix(node),
            13 if self.freedom.is_some() => self.change_laws(a, b),
            13 => self.change_policy(a, b),
            14 => self.estrange(a, b),
            15 => self.drain(a, b),
            16 => self.undrain(),
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
            self.plan.drained.retain(|(by, _)| *by != node);
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

    /// One side has other laws for the other, and keeps talking.
    fn change_laws(&mut self, node: Node, with: Node) {
        let Some(freedom) = self.freedom else { return };
        let way = if self.network.rng.random() {
            Way::In
        } else {
            Way::Out
        };
        let prefixes = [self.any_prefix(), block(node), block(with), block_v6(with)];
        let asns = [self.plan.speakers[node].asn, self.plan.speakers[with].asn];
        let otherwise = if self.network.rng.random_bool(0.9) {
            Policy::Accept
        } else {
            Policy::Within(prefixes.into())
        };
        let code = Code::any(&mut self.network.rng, way, freedom, &prefixes, &asns, otherwise);
        if let Some(settings) = self.plan.enact(node, with, way, code) {
            self.network.input(node, Input::SetPeer(Box::new(settings)));
        }
    }

    /// One side empties the session and keeps it away (RFC 8326).
    fn drain(&mut self, node: Node, with: Node) {
        let running = self.network.hosts[node].speaker.is_some();
        if running && self.plan.peers[node].contains_key(&with) && self.plan.drained.insert((node, with)) {
            let drain = Input::Drain {
                peer: Some(key(with)),
                time: Duration::from_millis(self.network.rng.random_range(0..5_000)),
                words: String::new(),
            };
            self.network.input(node, drain);
        }
    }

    /// It does so no longer.
    fn undrain(&mut self) {
        let chosen = self.plan.drained.iter().choose(&mut self.network.rng).copied();
        if let Some((node, with)) = chosen.filter(|(node, _)| self.network.hosts[*node].speaker.is_some()) {
            self.plan.drained.remove(&(node, with));
            self.network.input(node, Input::Undrain(Some(key(with))));
        }
    }

    /// One side forgets the other.
    fn estrange(&mut self, node: Node, with: Node) {
        if let Some(settings) = self.plan.peers[node].remove(&with) {
            self.strangers.push((node, with, settings));
            self.plan.drained.remove(&(node, with));
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
    suffer(Ordeal::new(plan, seed, None), strokes);
}

/// The same under laws, which change all the time.
fn endure_laws(plan: Plan, seed: u64, freedom: Freedom) {
    let mut ordeal = Ordeal::new(plan, seed, Some(freedom));
    for (a, b) in ordeal.plan.links() {
        ordeal.change_laws(a, b);
        ordeal.change_laws(b, a);
    }
    suffer(ordeal, 60);
}

fn suffer(mut ordeal: Ordeal, strokes: usize) {
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

#[test]
fn meshes_under_any_laws_end_as_the_model_says() {
    for seed in seeds(12) {
        endure_laws(Plan::mesh(5, seed), seed, Freedom::Full);
    }
}

#[test]
fn reflector_hierarchies_under_laws_end_as_the_model_says() {
    for seed in seeds(8) {
        endure_laws(Plan::reflectors(2, 3, seed), seed, Freedom::Tame);
    }
}

/// RFC 7911 §3: clients hear every path of their reflectors, and lose it when it goes.
#[test]
fn hubs_that_tell_all_paths_under_any_laws_end_as_the_model_says() {
    for seed in seeds(12) {
        endure_laws(Plan::hub(4, seed), seed, Freedom::Full);
    }
}

#[test]
fn racks_under_laws_end_as_the_model_says() {
    for seed in seeds(8) {
        endure_laws(Plan::racks(2, 3, seed), seed, Freedom::Tame);
    }
}

/// RFC 9234 §5: with any roles, under any laws, nobody has what the rules keep from him.
#[test]
fn fabrics_with_roles_under_laws_end_as_the_model_says() {
    const ROLES: [Role; 5] = [
        Role::Provider,
        Role::Customer,
        Role::Peer,
        Role::RouteServer,
        Role::RouteServerClient,
    ];
    for seed in seeds(12) {
        let mut plan = Plan::fabric(2, 3, 2, seed);
        let mut rng = StdRng::seed_from_u64(seed);
        for (a, b) in plan.links() {
            if let Some(role) = ROLES.choose(&mut rng).filter(|_| (a + b) % 3 != 0) {
                plan.relate(a, b, *role);
            }
        }
        endure_laws(plan, seed, Freedom::Tame);
    }
}
