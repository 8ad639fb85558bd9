//! What rules' sets are made of: definitions, each with those who need it, and the members that things are of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use manx_api::policy::{Family, NamespacedName};

use crate::input::ServiceEndpoint;
use crate::nets::{self, halves};
use crate::ruleset::{Member, Sense, SetKind};
use crate::sets::{Definition, Sets};
use crate::subjects::SubjectIndex;
use crate::things::{Thing, Things};

/// A definition's sets, by family.
#[derive(Clone, Debug)]
struct Needed {
    by: usize,
    names: [String; 2],
}

/// The definitions that rules need.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    needed: BTreeMap<Arc<Definition>, Needed>,
    /// Those that nobody needs any more.
    idle: BTreeSet<Arc<Definition>>,
    by_subject: SubjectIndex<Arc<Definition>>,
    services: BTreeMap<NamespacedName, BTreeSet<ServiceEndpoint>>,
}

impl Peers {
    /// Somebody needs the definition.
    pub(crate) fn acquire(&mut self, definition: &Arc<Definition>, things: &Things, sets: &mut Sets) {
        if let Some(needed) = self.needed.get_mut(definition) {
            needed.by += 1;
            self.idle.remove(definition);
            return;
        }
        let names = Family::ALL.map(|family| definition.set_name(family));
        for (family, name) in Family::ALL.into_iter().zip(&names) {
            sets.define(name.clone(), family, definition.kind());
        }
        self.needed.insert(definition.clone(), Needed { by: 1, names });
        match &**definition {
            Definition::Subject(subject) | Definition::NamedPort { subject, .. } => {
                self.by_subject.insert(subject, definition.clone());
                for number in things.selected(subject) {
                    if let Some(thing) = things.get(number) {
                        self.change(definition, thing, sets, Step::In);
                    }
                }
            }
            Definition::Service(service) | Definition::ServiceAddresses(service) => {
                let endpoints = self.services.get(service).cloned().unwrap_or_default();
                self.change_behind(definition, &endpoints, sets, Step::In);
            }
            Definition::Nets(all) => {
                for family in Family::ALL {
                    let own = all.iter().filter(|(net, _)| Family::of(**net) == family);
                    for (member, sense) in nets::members(family, own.map(|(net, sense)| (*net, *sense))) {
                        sets.add(self.name(definition, family), member, sense);
                    }
                }
            }
        }
    }

    /// Somebody who needed the definition does so no more.
    pub(crate) fn release(&mut self, definition: &Arc<Definition>) {
        if let Some(needed) = self.needed.get_mut(definition) {
            needed.by = needed.by.saturating_sub(1);
            if needed.by == 0 {
                self.idle.insert(definition.clone());
            }
        }
    }

    /// Drops what nobody needs.
    pub(crate) fn tidy(&mut self, sets: &mut Sets) {
        for definition in std::mem::take(&mut self.idle) {
            if let Some(subject) = definition.subject() {
                self.by_subject.remove(subject, &definition);
            }
            let needed = self.needed.remove(&definition);
            for name in needed.iter().flat_map(|needed| &needed.names) {
                sets.undefine(name);
            }
        }
    }

    /// A thing is there, as it is.
    pub(crate) fn attach(&self, things: &Things, thing: &Thing, sets: &mut Sets) {
        for definition in self.by_subject.selecting(things, thing) {
            self.change(&definition, thing, sets, Step::In);
        }
    }

    /// A thing goes, or is about to change.
    pub(crate) fn withdraw(&self, things: &Things, thing: &Thing, sets: &mut Sets) {
        for definition in self.by_subject.selecting(things, thing) {
            self.change(&definition, thing, sets, Step::Out);
        }
    }

    /// The endpoints behind a service are these.
    pub(crate) fn set_service(
        &mut self,
        service: NamespacedName,
        endpoints: BTreeSet<ServiceEndpoint>,
        sets: &mut Sets,
    ) {
        let before = self.services.remove(&service).unwrap_or_default();
        self.change_service(&service, &endpoints, sets, Step::In);
        self.change_service(&service, &before, sets, Step::Out);
        if !endpoints.is_empty() {
            self.services.insert(service, endpoints);
        }
    }

    /// The endpoints behind a service.
    pub(crate) fn service(&self, service: &NamespacedName) -> Option<&BTreeSet<ServiceEndpoint>> {
        self.services.get(service)
    }

    fn name(&self, definition: &Arc<Definition>, family: Family) -> &str {
        let names = self.needed.get(definition).map(|needed| &needed.names);
        names.map_or("", |[v4, v6]| match family {
            Family::V4 => v4,
            Family::V6 => v6,
        })
    }

    fn change(&self, definition: &Arc<Definition>, thing: &Thing, sets: &mut Sets, step: Step) {
        for (family, member) in members(definition, thing) {
            step.take(sets, self.name(definition, family), member);
        }
    }

    fn change_service(
        &self,
        service: &NamespacedName,
        endpoints: &BTreeSet<ServiceEndpoint>,
        sets: &mut Sets,
        step: Step,
    ) {
        let named = [Definition::Service, Definition::ServiceAddresses].map(|named| named(service.clone()));
        for definition in named.map(Arc::new) {
            if self.needed.contains_key(&definition) {
                self.change_behind(&definition, endpoints, sets, step);
            }
        }
    }

    fn change_behind(
        &self,
        definition: &Arc<Definition>,
        endpoints: &BTreeSet<ServiceEndpoint>,
        sets: &mut Sets,
        step: Step,
    ) {
        for endpoint in endpoints {
            let family = Family::of(endpoint.address.into());
            let member = match definition.kind() {
                SetKind::Ports => Member::Port(endpoint.address, endpoint.protocol, endpoint.port),
                SetKind::Nets | SetKind::NetsBehind => Member::Net(endpoint.address.into()),
            };
            step.take(sets, self.name(definition, family), member);
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    In,
    Out,
}

impl Step {
    fn take(self, sets: &mut Sets, name: &str, member: Member) {
        match self {
            Self::In => sets.add(name, member, Sense::Match),
            Self::Out => sets.remove(name, &member),
        }
    }
}

/// What members a thing is, if it is selected.
fn members(definition: &Definition, thing: &Thing) -> Vec<(Family, Member)> {
    let nets = thing.nets.iter().copied();
    match definition {
        Definition::Subject(_) => {
            let members = nets
                .flat_map(whole)
                .map(|net| (Family::of(net), Member::Net(net)));
            members.collect()
        }
        Definition::NamedPort { local: true, .. } if !thing.local => Vec::new(),
        Definition::NamedPort { name, .. } => {
            let ports = thing.ports.iter().filter(|port| *port.name == **name);
            let member = |net: IpNetwork| {
                let of = move |port: &crate::things::Port| Member::Port(net.ip(), port.protocol, port.port);
                ports.clone().map(move |port| (Family::of(net), of(port)))
            };
            nets.flat_map(member).collect()
        }
        Definition::Service(_) | Definition::ServiceAddresses(_) | Definition::Nets(_) => Vec::new(),
    }
}

/// A network, or the halves of the whole address space.
fn whole(net: IpNetwork) -> impl Iterator<Item = IpNetwork> {
    let halves = (net.prefix() == 0).then(|| halves(Family::of(net)));
    let own = halves.is_none().then_some(net);
    halves.into_iter().flatten().chain(own)
}
