//! Labelled things: endpoints and network sets, where they are, and which of them a subject selects.
//!
//! Strings are shared: a hundred thousand pods have few different labels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use manx_api::policy::{Endpoint, Family, NetworkSet, Protocol, Scope, Subject};
use manx_api::{Requirement, Selector};

use crate::nets::canonical;

/// A thing's place in [`Things`].
pub(crate) type Number = u32;

/// What a thing is, and what it is called among its like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Id {
    Endpoint(Arc<str>),
    NetworkSet(Arc<str>),
}

/// Labels in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    fn get(&self, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.0[place].1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.0.iter()
    }

    fn match_with(&self, selector: &Selector) -> bool {
        selector.matches_by(|key| self.get(key))
    }
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// A labelled thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thing {
    pub(crate) namespace: Option<Arc<str>>,
    service_account: Option<Arc<str>>,
    labels: Labels,
    pub(crate) ports: Box<[Port]>,
    /// Addresses of an endpoint are networks of one.
    pub(crate) nets: Box<[IpNetwork]>,
    /// Whether it is an endpoint of this node.
    pub(crate) local: bool,
    /// Whether what no policy decides is dropped.
    pub(crate) closed: bool,
}

impl Thing {
    pub(crate) const fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// All labelled things of the cluster, and the labels of where they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Things {
    strings: Strings,
    namespaces: BTreeMap<Arc<str>, Labels>,
    accounts: BTreeMap<(Arc<str>, Arc<str>), Labels>,
    numbers: BTreeMap<Id, Number>,
    things: Vec<Option<(Id, Thing)>>,
    free: Vec<Number>,
    by_net: ByNet,
    by_namespace: BTreeMap<Arc<str>, BTreeSet<Number>>,
    by_label: BTreeMap<Arc<str>, BTreeMap<Arc<str>, BTreeSet<Number>>>,
}

impl Things {
    pub(crate) fn number(&self, id: &Id) -> Option<Number> {
        self.numbers.get(id).copied()
    }

    pub(crate) fn get(&self, number: Number) -> Option<&Thing> {
        self.named(number).map(|(_, thing)| thing)
    }

    /// A thing, and what it is called.
    pub(crate) fn named(&self, number: Number) -> Option<&(Id, Thing)> {
        self.things.get(number as usize)?.as_ref()
    }

    pub(crate) fn endpoint(&self, id: &Arc<str>) -> Option<(Number, &Thing)> {
        let number = self.number(&Id::Endpoint(id.clone()))?;
        Some((number, self.get(number)?))
    }

    /// The things that have the address, in the order of their names: endpoints first.
    pub(crate) fn at(&self, address: IpAddr) -> Vec<&(Id, Thing)> {
        let numbers = self.by_net.containing(address);
        let mut found: Vec<_> = numbers.filter_map(|number| self.named(number)).collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        // Networks of one thing may contain one another.
        found.dedup_by(|(one, _), (other, _)| one == other);
        found
    }

    /// All things, with their places.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Number, &Thing)> {
        (0..)
            .zip(&self.things)
            .filter_map(|(number, known)| Some((number, &known.as_ref()?.1)))
    }

    /// Says whether an endpoint is one of this node.
    pub(crate) fn set_local(&mut self, number: Number, local: bool) {
        if let Some(Some((_, thing))) = self.things.get_mut(number as usize) {
            thing.local = local;
        }
    }

    /// Takes in a thing; it keeps its place if it had one.
    pub(crate) fn put(&mut self, id: Id, thing: Thing) -> Number {
        self.strings.tidy();
        let number = match self.take_out(&id) {
            Some(number) => number,
            None => self.free.pop().unwrap_or_else(|| {
                self.things.push(None);
                Number::try_from(self.things.len() - 1).unwrap_or(Number::MAX)
            }),
        };
        for net in &thing.nets {
            self.by_net.insert(*net, number);
        }
        if let Some(namespace) = &thing.namespace {
            self.by_namespace
                .entry(namespace.clone())
                .or_default()
                .insert(number);
        }
        for (key, value) in thing.labels.iter() {
            let values = self.by_label.entry(key.clone()).or_default();
            values.entry(value.clone()).or_default().insert(number);
        }
        self.numbers.insert(id.clone(), number);
        self.things[number as usize] = Some((id, thing));
        number
    }

    pub(crate) fn remove(&mut self, id: &Id) {
        if let Some(number) = self.take_out(id) {
            self.numbers.remove(id);
            self.free.push(number);
        }
    }

    fn take_out(&mut self, id: &Id) -> Option<Number> {
        let number = self.number(id)?;
        let (_, thing) = self.things[number as usize].take()?;
        for net in &thing.nets {
            self.by_net.remove(*net, number);
        }
        if let Some(namespace) = &thing.namespace {
            forget(&mut self.by_namespace, namespace, number);
        }
        for (key, value) in thing.labels.iter() {
            if let Some(values) = self.by_label.get_mut(key) {
                forget(values, value, number);
                if values.is_empty() {
                    self.by_label.remove(key);
                }
            }
        }
        Some(number)
    }

    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<&BTreeMap<String, String>>) {
        let name = self.strings.share(name);
        match labels {
            Some(labels) => drop(self.namespaces.insert(name, self.strings.labels(labels))),
            None => drop(self.namespaces.remove(&name)),
        }
    }

    pub(crate) fn set_account(
        &mut self,
        namespace: &str,
        name: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) {
        let key = (self.strings.share(namespace), self.strings.share(name));
        match labels {
            Some(labels) => drop(self.accounts.insert(key, self.strings.labels(labels))),
            None => drop(self.accounts.remove(&key)),
        }
    }

    /// The things in a namespace; of one service account only, if one is named.
    pub(crate) fn of_namespace(&self, namespace: &str, account: Option<&str>) -> Vec<Number> {
        let things = self.by_namespace.get(namespace).into_iter().flatten().copied();
        let is_of = |number: &Number| {
            let of = self
                .get(*number)
                .and_then(|thing| thing.service_account.as_deref());
            account.is_none() || account == of
        };
        things.filter(is_of).collect()
    }

    /// The labels of a namespace; it has none as long as nothing was heard of it.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }

    pub(crate) fn endpoint_of(&mut self, endpoint: &Endpoint) -> Thing {
        let strings = &mut self.strings;
        let ports = endpoint.ports.iter().map(|port| Port {
            name: strings.share(&port.name),
            protocol: port.protocol,
            port: port.port,
        });
        Thing {
            ports: ports.collect(),
            namespace: endpoint.namespace.as_deref().map(|name| strings.share(name)),
            service_account: endpoint
                .service_account
                .as_deref()
                .map(|name| strings.share(name)),
            labels: strings.labels(&endpoint.labels),
            local: false,
            closed: endpoint.closed,
            nets: endpoint
                .addresses
                .iter()
                .map(|address| IpNetwork::from(*address))
                .collect(),
        }
    }

    pub(crate) fn network_set_of(&mut self, set: &NetworkSet) -> Thing {
        Thing {
            namespace: set.namespace.as_deref().map(|name| self.strings.share(name)),
            service_account: None,
            labels: self.strings.labels(&set.labels),
            ports: Box::default(),
            local: false,
            closed: false,
            nets: set.nets.iter().map(|net| canonical(*net)).collect(),
        }
    }

    /// Whether the subject selects the thing.
    pub(crate) fn selects(&self, subject: &Subject, thing: &Thing) -> bool {
        // Its own labels are at hand; those of where it is have to be found.
        thing.labels.match_with(&subject.labels)
            && self.is_there(&subject.scope, thing)
            && self.is_of_accounts(subject, thing)
    }

    fn is_there(&self, scope: &Scope, thing: &Thing) -> bool {
        match (scope, &thing.namespace) {
            (Scope::Anywhere, _) | (Scope::Global, None) => true,
            (Scope::Namespace(name), Some(namespace)) => **namespace == **name,
            (Scope::Namespaces(selector), Some(namespace)) => self.namespace_matches(selector, namespace),
            (Scope::Global, Some(_)) | (Scope::Namespace(_) | Scope::Namespaces(_), None) => false,
        }
    }

    fn namespace_matches(&self, selector: &Selector, namespace: &str) -> bool {
        match self.namespaces.get(namespace) {
            Some(labels) => labels.match_with(selector),
            None => Labels::default().match_with(selector),
        }
    }

    fn is_of_accounts(&self, subject: &Subject, thing: &Thing) -> bool {
        let Some(accounts) = &subject.service_accounts else {
            return true;
        };
        let (Some(namespace), Some(name)) = (&thing.namespace, &thing.service_account) else {
            return false;
        };
        let named = accounts.names.is_empty() || accounts.names.contains(&**name);
        named
            && match self.accounts.get(&(namespace.clone(), name.clone())) {
                Some(labels) => labels.match_with(&accounts.labels),
                None => Labels::default().match_with(&accounts.labels),
            }
    }

    /// The things that the subject selects, found by what it requires.
    pub(crate) fn selected(&self, subject: &Subject) -> Vec<Number> {
        let selects = |number: &Number| {
            self.get(*number)
                .is_some_and(|thing| self.selects(subject, thing))
        };
        let labelled = subject.labels.requirements().into_iter().map(|requirement| {
            let (key, value) = match requirement {
                Requirement::Equal(key, value) => (key, Some(value)),
                Requirement::Has(key) => (key, None),
            };
            let values = self.by_label.get(key).into_iter().flatten();
            values
                .filter(move |(found, _)| value.is_none_or(|value| ***found == *value))
                .map(|(_, things)| things)
                .collect::<Vec<_>>()
        });
        let placed = match &subject.scope {
            Scope::Anywhere | Scope::Global => None,
            Scope::Namespace(name) => Some(self.by_namespace.get(name.as_str()).into_iter().collect()),
            Scope::Namespaces(selector) => {
                let namespaces = self.by_namespace.iter();
                let meant = namespaces.filter(|(name, _)| self.namespace_matches(selector, name));
                Some(meant.map(|(_, things)| things).collect())
            }
        };
        let size = |groups: &Vec<&BTreeSet<Number>>| groups.iter().map(|things| things.len()).sum::<usize>();
        match labelled.chain(placed).min_by_key(size) {
            Some(groups) => groups.into_iter().flatten().copied().filter(selects).collect(),
            None => self.all().map(|(number, _)| number).filter(selects).collect(),
        }
    }
}

/// Numbers by networks, so that those whose networks an address is in are found without asking all.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByNet {
    nets: BTreeSet<(IpNetwork, Number)>,
    /// How many of those there are of each family and length.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl ByNet {
    pub(crate) fn insert(&mut self, net: IpNetwork, number: Number) {
        let net = canonical(net);
        if self.nets.insert((net, number)) {
            *self.lengths.entry((Family::of(net), net.prefix())).or_default() += 1;
        }
    }

    fn remove(&mut self, net: IpNetwork, number: Number) {
        let net = canonical(net);
        let length = (Family::of(net), net.prefix());
        if self.nets.remove(&(net, number))
            && let Some(count) = self.lengths.get_mut(&length)
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    pub(crate) fn containing(&self, address: IpAddr) -> impl Iterator<Item = Number> {
        let family = Family::of(address.into());
        let lengths = self.lengths.range((family, 0)..=(family, u8::MAX));
        let nets = lengths.filter_map(move |((_, length), _)| IpNetwork::new(address, *length).ok());
        nets.map(canonical).flat_map(|net| {
            let alike = self.nets.range((net, Number::MIN)..=(net, Number::MAX));
            alike.map(|(_, number)| *number)
        })
    }
}

fn forget(index: &mut BTreeMap<Arc<str>, BTreeSet<Number>>, key: &str, number: Number) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            index.remove(key);
        }
    }
}

/// One copy of each string.
#[derive(Clone, Debug, Default)]
struct Strings {
    known: BTreeSet<Arc<str>>,
    /// How many there were when those that nobody uses were last thrown out.
    tidied: usize,
}

impl Strings {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.known.insert(new.clone());
        new
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) -> Labels {
        let pairs = labels
            .iter()
            .map(|(key, value)| (self.share(key), self.share(value)));
        Labels(pairs.collect())
    }

    /// Throws out what nobody uses, each time that their number has doubled.
    fn tidy(&mut self) {
        if self.known.len() > 2 * self.tidied + 1024 {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.tidied = self.known.len();
        }
    }
}
