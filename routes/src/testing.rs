//! A kernel's route table, as far as these tests need one, and routes to fill it with.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use crate::nexthop::{Found, Nexthop, Object};
use crate::{Actual, Change, Hop, METRIC, Observed, Route, Source, Target, Update};

/// A prefix from text.
pub(crate) fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// A hop without a device.
pub(crate) fn hop(gateway: &str) -> Hop {
    Hop {
        gateway: gateway.parse().unwrap(),
        device: None,
    }
}

/// The kernel's main table: routes of one prefix and metric exclude each other, as by `NLM_F_EXCL`; and its nexthop
/// objects, which take along whatever leads through them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kernel(BTreeMap<(IpNetwork, u32), Actual>, BTreeMap<u32, Object>);

impl Kernel {
    /// Holds these; of several with one key, the last.
    pub(crate) fn holding(routes: impl IntoIterator<Item = Actual>) -> Self {
        Self(
            routes
                .into_iter()
                .map(|route| ((route.prefix, route.metric), route))
                .collect(),
            BTreeMap::new(),
        )
    }

    /// Makes a change, or says why not.
    pub(crate) fn make(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Add(route) | Change::Replace(route) => {
                let key = (route.prefix, route.metric);
                if matches!(change, Change::Add(_)) && self.0.contains_key(&key) {
                    return Err("file exists".into());
                }
                if let Target::Group(id) = route.target
                    && !self.1.contains_key(&id)
                {
                    return Err("nexthop id does not exist".into());
                }
                self.0.insert(key, as_actual(route));
                Ok(())
            }
            Change::Delete {
                prefix,
                protocol,
                metric,
            } => {
                let found = self
                    .0
                    .get(&(*prefix, *metric))
                    .is_some_and(|route| route.protocol == *protocol);
                if found {
                    self.0.remove(&(*prefix, *metric));
                }
                Ok(())
            }
            Change::Put(Nexthop { id, object }) => {
                if let Object::Group(ids) = object {
                    assert!(!ids.is_empty() && ids.iter().all(|id| self.1.contains_key(id)));
                }
                self.1.insert(*id, object.clone());
                Ok(())
            }
            Change::Drop(id) => {
                let through = |it: &&Actual| it.target == Some(Target::Group(*id));
                assert_eq!(self.0.values().find(through), None, "a route goes with its group");
                let member = |it: &&Object| matches!(it, Object::Group(ids) if ids.contains(id));
                assert_eq!(self.1.values().find(member), None, "a group loses a member");
                self.1.remove(id).map(drop).ok_or_else(|| "no such id".into())
            }
        }
    }

    /// Somebody else adds, changes or deletes a route.
    pub(crate) fn tampered(&mut self, route: &Actual) -> Observed {
        match self.0.remove(&(route.prefix, route.metric)) {
            Some(gone) => Observed::Absent(gone),
            None => {
                self.0.insert((route.prefix, route.metric), route.clone());
                Observed::Present(route.clone())
            }
        }
    }

    /// A router's link goes down: its object goes, and its place in groups that have others.
    pub(crate) fn unplug(&mut self, hop: &Hop) {
        let is_it = |object: &Object| *object == Object::Hop(*hop);
        let gone: Vec<u32> = self
            .1
            .extract_if(.., |_, it| is_it(it))
            .map(|(id, _)| id)
            .collect();
        for object in self.1.values_mut() {
            if let Object::Group(ids) = object {
                ids.retain(|id| !gone.contains(id));
            }
        }
    }

    /// Everything, as it is read.
    pub(crate) fn read(&self) -> Found {
        let nexthop = |(id, object): (&u32, &Object)| Nexthop {
            id: *id,
            object: object.clone(),
        };
        Found {
            routes: self.0.values().cloned().collect(),
            nexthops: self.1.iter().map(nexthop).collect(),
        }
    }

    /// Every route, and the routers that it leads to.
    pub(crate) fn dump(&self) -> Vec<Actual> {
        self.read().expanded()
    }

    /// What is not ours.
    pub(crate) fn foreign(&self) -> Vec<Actual> {
        self.dump().into_iter().filter(|route| !route.is_ours()).collect()
    }

    /// What is ours.
    pub(crate) fn ours(&self) -> Vec<Actual> {
        self.dump().into_iter().filter(Actual::is_ours).collect()
    }
}

/// The route as the kernel shows it.
pub(crate) fn as_actual(route: &Route) -> Actual {
    Actual {
        prefix: route.prefix,
        target: Some(route.target.clone()),
        protocol: route.source.protocol(),
        metric: route.metric,
    }
}

/// One of a dozen prefixes, so that they meet.
fn prefix() -> impl Strategy<Value = IpNetwork> {
    (0..6_u8, any::<bool>()).prop_map(|(i, v6)| {
        net(&if v6 {
            format!("fd00:{i}::/64")
        } else {
            format!("10.{i}.0.0/16")
        })
    })
}

fn source() -> impl Strategy<Value = Source> {
    prop::sample::select(&Source::ALL[..])
}

fn target() -> impl Strategy<Value = Target> {
    let hops = prop::sample::subsequence(vec![hop("192.0.2.1"), hop("192.0.2.2"), hop("fe80::3")], 1..=3);
    prop_oneof![
        hops.prop_map(Target::Via),
        (1..4_u32).prop_map(Target::Device),
        Just(Target::Unreachable),
    ]
}

fn backup() -> impl Strategy<Value = Option<Hop>> {
    prop::option::of(prop::sample::select(vec![hop("192.0.2.2"), hop("192.0.2.9")]))
}

fn metric() -> impl Strategy<Value = u32> {
    prop::sample::select(&[METRIC, 512][..])
}

/// A source's word.
pub(crate) fn update() -> impl Strategy<Value = Update> {
    prop_oneof![
        3 => (prefix(), target(), backup(), source(), metric()).prop_map(
            |(prefix, target, backup, source, metric)| Update::Set(Route { prefix, target, backup, source, metric })
        ),
        1 => (prefix(), source()).prop_map(|(prefix, source)| Update::Remove { prefix, source }),
    ]
}

/// A route in the kernel, of ours or not.
pub(crate) fn actual() -> impl Strategy<Value = Actual> {
    let protocol = prop::sample::select(&[crate::PROTOCOL_BGP, crate::PROTOCOL_OWN, 4][..]);
    (
        prefix(),
        prop::option::weighted(0.9, target()),
        protocol,
        metric(),
    )
        .prop_map(|(prefix, target, protocol, metric)| Actual {
            prefix,
            target,
            protocol,
            metric,
        })
}

/// Modest counts and a fixed seed: the whole suite stays quick, and a failure comes again.
pub(crate) fn proptest_config() -> ProptestConfig {
    ProptestConfig {
        cases: 256,
        rng_seed: prop::test_runner::RngSeed::Fixed(179),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
