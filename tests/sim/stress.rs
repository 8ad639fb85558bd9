//! Peers that do not behave: slow ones, resetting ones, and ones that say anything at any time.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use manx_bgp::speaker::SEND_BUDGET;
use manx_bgp::wire::{
    AsPath, Attributes, Capability, GracefulRestart, LongLivedRestart, Message, NextHop, Nlri, Notification,
    Open, Reach, RouteRefresh, Segment, Update,
};
use manx_bgp::{Config, ConnId, Family, Input, Output, PeerConfig, Policy, Prefix, Speaker, State};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::network::{ASN, Network, address, block, config, key, peer, seeds};

/// nasty case 41
#[test]
fn a_slow_peer_holds_up_nobody_and_costs_little() {
    for seed in seeds(1) {
        let mut network = Network::mesh(3, seed);
        network.run(Duration::from_secs(15));
        network.hosts[1].slow = true;
        let prefixes: Vec<Prefix> = (0..80_000_u32)
            .map(|n| Prefix::v4(Ipv4Addr::from(0x1400_0000 + (n << 8)), 24).unwrap())
            .collect();
        for &prefix in &prefixes {
            network.hosts[0]
                .speaker
                .as_mut()
                .unwrap()
                .handle(network.now, Input::Originate(prefix));
        }
        network.input(0, Input::Tick);
        network.run(Duration::from_secs(1));
        network.check(
            network.hosts[2].selected.len() == prefixes.len() + 2,
            "the other peer has all",
        );
        let queued = network.queued_for(1);
        network.check(queued <= 2 * SEND_BUDGET, "little waits for the slow one");
        // The last word on every prefix is what it hears once it reads again.
        for &prefix in &prefixes[..40_000] {
            network.hosts[0]
                .speaker
                .as_mut()
                .unwrap()
                .handle(network.now, Input::Unoriginate(prefix));
        }
        network.input(0, Input::Tick);
        network.catch_up(1);
        network.run(Duration::from_secs(2));
        network.check(network.hosts[1].selected.len() == 40_000 + 2, "it catches up");
        network.check(network.sessions(1) == 2, "on the same session");
    }
}

/// RFC 9687 §3.1: 8/0, and the connection is closed.
/// nasty case 41
/// RFC 9687 §3.2: after 8 minutes.
#[test]
fn a_peer_that_takes_too_long_is_given_up() {
    for seed in seeds(3) {
        let mut network = Network::mesh_with(2, seed, |peer| peer.graceful_restart = None);
        network.run(Duration::from_secs(15));
        network.hosts[1].slow = true;
        network.run(Duration::from_secs(470));
        network.check(
            network.state(0, 1) == State::Established,
            "for nearly eight minutes nothing happens",
        );
        network.run_until(
            Duration::from_secs(60),
            "the send hold timer ends it",
            |network| network.state(0, 1) != State::Established,
        );
        network.check(
            !network.hosts[0].selected.contains_key(&block(1)),
            "and its routes go",
        );
    }
}

/// A speaker that anything happens to.
struct Victim {
    speaker: Speaker,
    now: Instant,
    rng: StdRng,
    open: BTreeSet<ConnId>,
    dialled: Vec<ConnId>,
    accepted: u64,
}

impl Victim {
    fn new(seed: u64) -> Self {
        Self {
            speaker: Speaker::new(Config {
                restarted: seed.is_multiple_of(2),
                ..config(0, seed)
            }),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            open: BTreeSet::new(),
            dialled: Vec::new(),
            accepted: 0,
        }
    }

    fn suffer(&mut self) {
        let input = self.any_input();
        if self.rng.random_bool(0.3) {
            self.now += Duration::from_millis(self.rng.random_range(0..20_000));
        }
        self.speaker.handle(self.now, input);
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Dial { conn, .. } => self.dialled.push(conn),
                Output::Send { conn, .. } => {
                    assert!(self.open.contains(&conn), "sends on a closed connection")
                }
                Output::Close { conn } => {
                    self.open.remove(&conn);
                    self.dialled.retain(|it| *it != conn);
                }
                Output::Decode { .. }
                | Output::Selected { .. }
                | Output::Converged
                | Output::Drained
                | Output::RangeFull(_)
                | Output::Session { .. } => {}
            }
        }
        assert!(
            self.speaker.deadline().is_none_or(|at| at > self.now),
            "the deadline is over when all is done"
        );
        let mut best = BTreeSet::new();
        for path in self.speaker.paths() {
            assert!(
                !path.best || best.insert(path.prefix),
                "two best paths to {}",
                path.prefix
            );
        }
        for peer in self.speaker.peers() {
            assert!(peer.accepted <= peer.received);
        }
    }

    fn any_input(&mut self) -> Input {
        let peer = self.rng.random_range(1..5);
        let local = SocketAddr::new(address(0).into(), 179);
        match self.rng.random_range(0..34) {
            0 | 1 => Input::SetPeer(Box::new(self.any_peer(peer))),
            2 => Input::RemovePeer(key(peer)),
            3 => Input::Originate(self.any_prefix()),
            4 => Input::Unoriginate(self.any_prefix()),
            5 | 6 => match self.dialled.pop() {
                Some(conn) => {
                    self.open.insert(conn);
                    Input::Connected { conn, local }
                }
                None => Input::Connected {
                    conn: ConnId(self.rng.random_range(0..50)),
                    local,
                },
            },
            7 => Input::ConnectFailed {
                conn: self.dialled.pop().unwrap_or(ConnId(9)),
            },
            8..=10 => {
                self.accepted += 1;
                let conn = ConnId(1 << 63 | self.accepted);
                self.open.insert(conn);
                let remote = SocketAddr::new(address(peer).into(), 40_000);
                Input::Accepted {
                    conn,
                    local,
                    remote,
                    scope: self.rng.random_range(0..2),
                }
            }
            11 => {
                let conn = self.any_conn();
                self.open.remove(&conn);
                Input::Closed { conn }
            }
            12 => Input::Drained {
                conn: self.any_conn(),
            },
            13 => Input::Tick,
            14 => Input::PathDown(key(peer)),
            15 => Input::Drain {
                peer: self.rng.random_bool(0.8).then_some(key(peer)),
                time: Duration::from_secs(self.rng.random_range(0..30)),
                words: String::new(),
            },
            16 | 17 => Input::Undrain(self.rng.random_bool(0.5).then_some(key(peer))),
            18 => Input::Reset {
                peer: key(peer),
                words: String::new(),
            },
            19 => Input::Refresh(key(peer)),
            _ => Input::Received {
                conn: self.any_conn(),
                message: self.any_message(),
            },
        }
    }

    fn any_conn(&mut self) -> ConnId {
        let open: Vec<ConnId> = self.open.iter().copied().collect();
        open.choose(&mut self.rng).copied().unwrap_or(ConnId(1))
    }

    fn any_peer(&mut self, node: usize) -> PeerConfig {
        let policies = [
            Policy::Accept,
            Policy::Reject,
            Policy::Within([self.any_prefix()].into()),
        ];
        PeerConfig {
            asn: ASN + self.rng.random_range(0..2),
            passive: self.rng.random(),
            hold_time: Duration::from_secs([0, 3, 90][self.rng.random_range(0..3)]),
            families: Family::ALL[..self.rng.random_range(1..3)].to_vec(),
            route_reflector_client: self.rng.random(),
            graceful_restart: self.rng.random_bool(0.5).then_some(Duration::from_secs(10)),
            long_lived_graceful_restart: self.rng.random_bool(0.5).then_some(Duration::from_secs(60)),
            import: policies.choose(&mut self.rng).unwrap().clone(),
            export: policies.choose(&mut self.rng).unwrap().clone(),
            ..peer(node)
        }
    }

    fn any_prefix(&mut self) -> Prefix {
        let n = self.rng.random_range(0..16_u8);
        if self.rng.random() {
            Prefix::v4(Ipv4Addr::new(10, n, 0, 0), 8 + n).unwrap()
        } else {
            Prefix::v6(Ipv4Addr::new(32, 1, n, 0).to_ipv6_mapped(), 128 - n).unwrap()
        }
    }

    fn any_message(&mut self) -> Result<Message, Notification> {
        let notification = Notification {
            code: self.rng.random_range(1..9),
            subcode: self.rng.random_range(0..12),
            data: Bytes::new(),
        };
        Ok(match self.rng.random_range(0..20) {
            0 => return Err(notification),
            1 => Message::Notification(notification),
            2 => Message::RouteRefresh(RouteRefresh {
                family: Family::ALL.choose(&mut self.rng).copied(),
                subtype: self.rng.random_range(0..3),
            }),
            3..=7 => Message::Open(self.any_open()),
            8..=13 => Message::Keepalive,
            _ => Message::Update(self.any_update()),
        })
    }

    fn any_open(&mut self) -> Open {
        let mut capabilities = vec![Capability::RouteRefresh];
        for family in Family::ALL {
            if self.rng.random_bool(0.8) {
                capabilities.push(Capability::Multiprotocol(family));
            }
        }
        if self.rng.random() {
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarting: self.rng.random(),
                notification: self.rng.random(),
                restart_time: self.rng.random_range(0..20),
                families: vec![
                    (Family::Ipv4Unicast, self.rng.random()),
                    (Family::Ipv6Unicast, self.rng.random()),
                ],
            }));
        }
        if self.rng.random() {
            let long_lived = Family::ALL.map(|family| LongLivedRestart {
                family,
                forwarding: self.rng.random(),
                stale_time: self.rng.random_range(0..60),
            });
            capabilities.push(Capability::LongLivedGracefulRestart(long_lived.to_vec()));
        }
        Open {
            asn: ASN + self.rng.random_range(0..2),
            hold_time: [0, 3, 90][self.rng.random_range(0..3)],
            router_id: address(self.rng.random_range(0..5)),
            capabilities,
        }
    }

    fn any_update(&mut self) -> Update {
        let nlri = |prefix| Nlri {
            path_id: None,
            prefix,
        };
        let next_hop = address(self.rng.random_range(0..5));
        let next_hop = if self.rng.random() {
            NextHop::V4(next_hop)
        } else {
            NextHop::V6 {
                global: next_hop.to_ipv6_mapped(),
                link_local: None,
            }
        };
        Update {
            withdrawn: (0..self.rng.random_range(0..3))
                .map(|_| nlri(self.any_prefix()))
                .collect(),
            reach: vec![Reach {
                next_hop,
                nlri: (0..self.rng.random_range(0..4))
                    .map(|_| nlri(self.any_prefix()))
                    .collect(),
            }],
            attributes: self.any_attributes(),
            end_of_rib: self.rng.random_bool(0.2).then_some(Family::Ipv4Unicast),
        }
    }

    fn any_attributes(&mut self) -> Attributes {
        let asns: Vec<u32> = (0..self.rng.random_range(0..4))
            .map(|_| ASN + self.rng.random_range(0..9))
            .collect();
        Attributes {
            as_path: AsPath {
                segments: [Segment::Sequence(asns)].into(),
            },
            med: self.rng.random_bool(0.5).then(|| self.rng.random_range(0..3)),
            local_pref: self.rng.random_bool(0.5).then(|| self.rng.random_range(99..102)),
            communities: [0xffff_ff00 + self.rng.random_range(0..5)].into(),
            originator_id: self
                .rng
                .random_bool(0.2)
                .then(|| address(self.rng.random_range(0..5))),
            cluster_list: (0..self.rng.random_range(0..2)).map(address).collect(),
            ..Attributes::default()
        }
    }
}

/// nasty cases 34 and 45
#[test]
fn any_inputs_in_any_order_do_no_harm() {
    for seed in seeds(300) {
        let harm = std::panic::catch_unwind(|| {
            let mut victim = Victim::new(seed);
            for _ in 0..400 {
                victim.suffer();
            }
            victim.speaker.handle(victim.now, Input::Shutdown);
            while victim.speaker.poll().is_some() {}
            assert_eq!(victim.speaker.deadline(), None);
        });
        assert!(harm.is_ok(), "seed {seed}; replay with MANX_SIM_SEED={seed}");
    }
}
