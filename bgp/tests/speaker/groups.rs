//! Peers that are told together are told what each of them would be told by itself.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use manx_bgp::wire::{
    AddPath, Attributes, Capability, Message, NextHop, RouteRefresh, UnknownAttribute, Update,
};
use manx_bgp::{AddPathConfig, ConnId, Family, Features, Input, PeerConfig, Policy, Prefix};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::rig::{ASN, Rig, announcement, config, external, internal, key, open, path, prefix, withdrawal};

const V4: Family = Family::Ipv4Unicast;

/// The numbers of the peers: of two other ASes, of our own, and our clients, the last of which takes several paths.
const PEERS: std::ops::RangeInclusive<u8> = 2..=11;
const SEVERAL: u8 = 11;

/// What a peer knows from us.
type Table = BTreeMap<(Prefix, Option<u32>), (NextHop, Attributes)>;

/// A speaker with its peers.
struct World {
    rig: Rig,
    /// Every peer has something of its own in its settings, which bears on nothing, so that it is told alone.
    alone: bool,
    settings: BTreeMap<u8, PeerConfig>,
    conns: BTreeMap<u8, ConnId>,
    tables: BTreeMap<u8, Table>,
    /// How many end marks each has been told in this session.
    ends: BTreeMap<u8, usize>,
}

fn settings(id: u8, alone: bool) -> PeerConfig {
    let several = AddPathConfig {
        family: V4,
        receive: false,
        send: 2,
    };
    let mut settings = match id {
        2 | 3 => external(id),
        4 | 5 => PeerConfig {
            asn: 65_100,
            ..internal(id)
        },
        _ => internal(id),
    };
    settings.hold_time = Duration::ZERO;
    settings.route_reflector_client = id >= 8;
    settings.next_hop_v6 = alone.then(|| Ipv6Addr::from(u128::from(id)));
    if id == SEVERAL {
        settings.features = Features {
            add_path: vec![several],
            ..Features::default()
        };
    }
    settings
}

impl World {
    fn new(alone: bool) -> Self {
        let mut world = Self {
            rig: Rig::new(config()),
            alone,
            settings: PEERS.map(|id| (id, settings(id, alone))).collect(),
            conns: BTreeMap::new(),
            tables: BTreeMap::new(),
            ends: BTreeMap::new(),
        };
        for id in PEERS {
            world.connect(id);
        }
        world
    }

    fn connect(&mut self, id: u8) {
        let settings = self.settings[&id].clone();
        let mut open = open(id, settings.asn);
        open.hold_time = 0;
        if id == SEVERAL {
            open.capabilities.push(Capability::AddPath(vec![AddPath {
                family: V4,
                receive: true,
                send: false,
            }]));
        }
        let conn = self.rig.establish_with(settings, id, open);
        self.conns.insert(id, conn);
        self.tables.remove(&id);
        self.ends.remove(&id);
    }

    /// Changes a peer's settings on the session as it stands.
    fn change(&mut self, id: u8, change: impl FnOnce(&mut PeerConfig)) {
        let settings = self.settings.get_mut(&id).unwrap();
        change(settings);
        let settings = Box::new(settings.clone());
        self.rig.speaker.handle(self.rig.now, Input::SetPeer(settings));
    }

    fn hear(&mut self, id: u8, message: Message) {
        let input = Input::Received {
            conn: self.conns[&id],
            message: Ok(message),
        };
        self.rig.speaker.handle(self.rig.now, input);
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Announce(id, number, variant) => {
                self.hear(id, Message::Update(announced(id, number, variant, 0)));
            }
            Step::Withdraw(id, number) => self.hear(id, Message::Update(withdrawal(numbered(number)))),
            Step::Flood(id, variant) => {
                for number in 1_000..1_080 {
                    self.hear(id, Message::Update(announced(id, number, variant, 3_500)));
                }
            }
            Step::Stall(id) => drop(self.rig.stalled.insert(self.conns[&id], 0)),
            Step::Resume(id) => self.rig.resume(self.conns[&id]),
            Step::Refresh(id) => {
                self.hear(
                    id,
                    Message::RouteRefresh(RouteRefresh {
                        family: Some(V4),
                        subtype: RouteRefresh::REQUEST,
                    }),
                );
            }
            Step::Restart(id) => {
                let conn = self.conns[&id];
                self.rig.stalled.remove(&conn);
                self.rig.waiting.remove(&conn);
                // Who is drained stays away.
                self.rig.input(Input::Undrain(Some(key(id))));
                self.rig.input(Input::Closed { conn });
                self.rig.sent(conn);
                self.connect(id);
            }
            Step::Export(id, choice) => {
                self.change(id, |settings| settings.export = policy(choice));
            }
            Step::Reflect(id, client) => {
                self.change(id, |settings| settings.route_reflector_client = client);
            }
            Step::Drain(id) => self.rig.speaker.handle(
                self.rig.now,
                Input::Drain {
                    peer: Some(key(id)),
                    time: Duration::from_secs(3_600),
                    words: String::new(),
                },
            ),
            Step::Undrain(id) => self
                .rig
                .speaker
                .handle(self.rig.now, Input::Undrain(Some(key(id)))),
            Step::Originate(number) => self.rig.input(Input::Originate(numbered(number))),
            Step::Unoriginate(number) => self.rig.input(Input::Unoriginate(numbered(number))),
            Step::Look => self.rig.perform(),
        }
        self.listen();
    }

    /// Peers take in what they have been told: nothing is withdrawn that they do not have.
    fn listen(&mut self) {
        for (id, conn) in &self.conns {
            let table = self.tables.entry(*id).or_default();
            for update in self.rig.updates(*conn) {
                for nlri in update.withdrawn {
                    let had = table.remove(&(nlri.prefix, nlri.path_id));
                    assert!(had.is_some(), "{id} had no {nlri}, alone: {}", self.alone);
                }
                for reach in update.reach {
                    let places = reach.nlri.iter().map(|nlri| (nlri.prefix, nlri.path_id));
                    let what = (reach.next_hop, update.attributes.clone());
                    table.extend(places.map(|place| (place, what.clone())));
                }
                *self.ends.entry(*id).or_default() += usize::from(update.end_of_rib.is_some());
            }
        }
    }

    /// What every peer knows once all take what there is.
    fn end(mut self) -> BTreeMap<u8, Table> {
        self.rig.perform();
        for conn in self.conns.values().copied() {
            self.rig.resume(conn);
        }
        self.listen();
        for id in PEERS {
            let known = self.tables[&id].len() as u64;
            assert_eq!(self.rig.peer(id).advertised, known, "{id}, alone: {}", self.alone);
            assert_eq!(self.ends[&id], 1, "{id}, alone: {}", self.alone);
        }
        self.tables
    }
}

fn policy(choice: u8) -> Policy {
    match choice {
        0 => Policy::Accept,
        1 => Policy::Reject,
        _ => Policy::Within([prefix("20.0.0.0/13")].into()),
    }
}

fn numbered(number: u32) -> Prefix {
    Prefix::v4((0x1400_0000 + (number << 12)).into(), 24).unwrap()
}

/// An announcement of a peer's: better or worse than others, and as long as asked for.
fn announced(id: u8, number: u32, variant: u8, octets: usize) -> Update {
    let asn = settings(id, false).asn;
    let first: &[u32] = if asn == ASN { &[] } else { &[asn] };
    let longer = vec![65_200; variant.into()];
    let mut attributes = path(&[first, &longer, &[65_300]].concat());
    if octets > 0 {
        let mut value = number.to_be_bytes().to_vec();
        value.resize(octets, variant);
        attributes.unknown.push(UnknownAttribute {
            flags: 0xc0,
            code: 99,
            value: value.into(),
        });
    }
    announcement(id, numbered(number), attributes)
}

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Announce(u8, u32, u8),
    Withdraw(u8, u32),
    /// More than a peer may have under way.
    Flood(u8, u8),
    Stall(u8),
    Resume(u8),
    Refresh(u8),
    Restart(u8),
    Export(u8, u8),
    Reflect(u8, bool),
    Drain(u8),
    Undrain(u8),
    Originate(u32),
    Unoriginate(u32),
    /// The speaker is asked what it has to say: until then, things happen at once.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let id = PEERS;
    let number = 0..12_u32;
    prop_oneof![
        6 => (id.clone(), number.clone(), 0..3_u8).prop_map(|(id, number, variant)| Step::Announce(id, number, variant)),
        4 => (id.clone(), number.clone()).prop_map(|(id, number)| Step::Withdraw(id, number)),
        2 => (id.clone(), 0..3_u8).prop_map(|(id, variant)| Step::Flood(id, variant)),
        2 => id.clone().prop_map(Step::Stall),
        2 => id.clone().prop_map(Step::Resume),
        1 => id.clone().prop_map(Step::Refresh),
        1 => id.clone().prop_map(Step::Restart),
        2 => (id.clone(), 0..3_u8).prop_map(|(id, choice)| Step::Export(id, choice)),
        1 => (6..=11_u8, any::<bool>()).prop_map(|(id, client)| Step::Reflect(id, client)),
        1 => id.clone().prop_map(Step::Drain),
        1 => id.prop_map(Step::Undrain),
        1 => number.clone().prop_map(Step::Originate),
        1 => number.prop_map(Step::Unoriginate),
        6 => Just(Step::Look),
    ]
}

/// Performs the same with peers told together and each alone: all know the same in the end.
fn compare(steps: &[Step]) {
    let [together, alone] = [false, true].map(|alone| {
        let mut world = World::new(alone);
        for step in steps {
            world.perform(step);
        }
        world.end()
    });
    assert_eq!(together, alone);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever happens, in whatever order, and whoever reads slowly meanwhile.
    #[test]
    fn peers_told_together_know_what_each_would_know_alone(steps in prop::collection::vec(step(), 0..60)) {
        compare(&steps);
    }
}

/// Peer 5 reads nothing for longer than the log of its group is.
#[test]
fn who_is_too_late_hears_the_last_word() {
    let mut steps = vec![Step::Stall(5), Step::Stall(9)];
    for round in 0..12 {
        steps.extend([Step::Flood(2, round), Step::Look]);
        steps.extend([
            Step::Announce(8, round.into(), 0),
            Step::Withdraw(8, u32::from(round) - u32::from(round > 0)),
        ]);
    }
    steps.push(Step::Resume(9));
    compare(&steps);
}

/// The routes that others announced go to peers of one kind as the same octets.
#[test]
fn peers_alike_are_told_once() {
    let mut rig = Rig::new(config());
    let source = rig.establish(external(2));
    let listeners = [3, 4, 5].map(|id| rig.establish(internal(id)));
    for conn in listeners {
        rig.stalled.insert(conn, 0);
    }
    for number in 0..4 {
        rig.update(source, announced(2, number, 0, 0));
    }
    let told = listeners.map(|conn| {
        let sent = rig.waiting[&conn].iter();
        sent.map(|bytes| bytes.as_ptr_range()).collect::<Vec<_>>()
    });
    assert_eq!(told[0].len(), 4);
    assert!(told.iter().all(|of| *of == told[0]), "not the same memory");
}

/// A peer that comes later is told all, and the others nothing.
#[test]
fn who_joins_disturbs_nobody() {
    let mut rig = Rig::new(config());
    let source = rig.establish(external(2));
    let first = rig.establish(internal(3));
    for number in 0..8 {
        rig.update(source, announced(2, number, 0, 0));
    }
    rig.sent(first);
    let second = rig.establish(internal(4));
    assert_eq!(rig.told(second).0.len(), 8);
    assert_eq!(rig.sent(first), []);
}
