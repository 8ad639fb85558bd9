//! The calculation graph of policies: what is told of the cluster goes in, rules and sets follow.
//!
//! ```text
//! labels, endpoints, network sets ─► things ──┬─► by_subject ─► locals: selected policies ─► lists ─┐
//! policies, tiers ────────────────────────────┘                    │ those that any selects         ├─► chains
//!                                                                  ▼                               │
//!                    things, services ──────────────────────────► peers: sets' members ─► sets ◄────┘
//! ```
//!
//! News change what is known at once, and mark what may follow; [`Graph::flush`] then calculates that, so that many
//! news cost little more than one. A thing that changes is taken out of the sets that it is in, as it was, and put
//! into those that it is in now: both are found by [`SubjectIndex`], and a member that goes and comes is no change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manx_api::policy::{
    DefaultAction, Direction, Endpoint, Family, Hook, NamespacedName, NetworkSet, Order, Origin, Policy, Tier,
};

use crate::chains::{self, PODS, THEMSELVES};
use crate::compile::{self, rules_of};
use crate::engine::Update;
use crate::hosts::{Point, table_of};
use crate::input::{Failsafes, Local, ServiceEndpoint, Settings};
use crate::lists::{DIRECTIONS, List, Stage, policy_chain};
use crate::nets::canonical;
use crate::peers::Peers;
use crate::plan::Delta;
use crate::ruleset::{CHAIN_PREFIX, ChainId, Full, Member, Sense, SetKind, Table};
use crate::sets::{Definition, Sets};
use crate::subjects::SubjectIndex;
use crate::things::{Id, Number, Thing, Things};
use crate::trial::Trial;
use crate::wanted::Chains;

mod hosts;

pub(crate) use hosts::CLOSED;

/// A policy that selects endpoints of this node.
#[derive(Clone, Debug, Default)]
struct Active {
    endpoints: usize,
    needs: BTreeSet<Arc<Definition>>,
}

/// A pod of this node.
#[derive(Clone, Debug)]
struct Pod {
    local: Local,
    selected: BTreeSet<Arc<Origin>>,
    /// What it may send from, each behind its interface, and whether it is an address of its own.
    members: BTreeMap<Member, bool>,
    /// The lists that they are in.
    lists: Vec<String>,
}

/// A list that an endpoint of this node has.
#[derive(Clone, Debug)]
struct Listed {
    list: List,
    endpoints: usize,
    /// In which families its chain is there.
    shown: BTreeSet<Family>,
}

/// Policies of a tier, in order.
type Ordered = BTreeSet<(Order, Arc<Origin>)>;

/// A policy's chain.
type PolicyChain = (Family, Direction, Arc<Origin>);

/// What is known of the cluster, and what follows for this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) settings: Option<Settings>,
    pub(crate) failsafes: Failsafes,
    tiers: BTreeMap<String, Tier>,
    pub(crate) policies: BTreeMap<Arc<Origin>, Policy>,
    pub(crate) things: Things,
    pub(crate) peers: Peers,
    by_subject: SubjectIndex<Arc<Origin>>,
    pods: BTreeMap<Arc<str>, Pod>,
    hosts: BTreeMap<Arc<str>, hosts::Host>,
    shown_hosts: hosts::Shown,
    active: BTreeMap<Arc<Origin>, Active>,
    lists: BTreeMap<String, Listed>,
    /// How many lists' chains lead into a policy's.
    led_into: BTreeMap<PolicyChain, usize>,
    sets: Sets,
    chains: Chains,
    touched: Touched,
}

/// What may have to follow what was told.
#[derive(Clone, Debug, Default)]
struct Touched {
    settings: bool,
    hosts: bool,
    pods: BTreeSet<Arc<str>>,
    gone: Vec<Pod>,
    policies: BTreeSet<Arc<Origin>>,
    lists: BTreeSet<String>,
    dispatch: BTreeSet<(Family, Direction)>,
    policy_chains: BTreeSet<PolicyChain>,
}

impl Graph {
    /// Takes in some news; those of pools are not its.
    pub(crate) fn tell(&mut self, update: Update) {
        match update {
            Update::SetPool { .. } | Update::RemovePool { .. } => {}
            Update::Enforce(settings) => self.enforce(settings),
            Update::Failsafes(failsafes) => self.set_failsafes(failsafes),
            Update::Tier(name, tier) => self.set_tier(name, tier),
            Update::Policy(origin, policy) => self.set_policy(origin, policy.map(|policy| *policy)),
            Update::Namespace(name, labels) => self.set_namespace(&name, labels.as_ref()),
            Update::ServiceAccount(name, labels) => self.set_account(&name, labels.as_ref()),
            Update::Endpoint(name, endpoint) => self.set_endpoint(&name, endpoint.as_deref()),
            Update::Local(name, local) => self.set_local(&name, local),
            Update::Host(name, interface) => self.set_host(&name, interface),
            Update::NetworkSet(name, set) => self.set_network_set(&name, set.as_deref()),
            Update::Service(name, endpoints) => self.set_service(name, endpoints),
        }
    }

    fn enforce(&mut self, settings: Option<Settings>) {
        self.touched.settings |= self.settings != settings;
        self.settings = settings;
    }

    fn set_failsafes(&mut self, failsafes: Failsafes) {
        self.touched.hosts |= self.failsafes != failsafes;
        self.failsafes = failsafes;
    }

    fn set_tier(&mut self, name: String, tier: Option<Tier>) {
        if self.tiers.get(&name) != tier.as_ref() {
            let policies = self.policies.iter().filter(|(_, policy)| policy.tier == name);
            let of_tier: BTreeSet<Arc<Origin>> = policies.map(|(origin, _)| origin.clone()).collect();
            self.touch_pods(|pod| !pod.selected.is_disjoint(&of_tier));
            self.touched.hosts = true;
        }
        match tier {
            Some(tier) => drop(self.tiers.insert(name, tier)),
            None => drop(self.tiers.remove(&name)),
        }
    }

    fn set_policy(&mut self, origin: Origin, policy: Option<Policy>) {
        let origin = Arc::new(origin);
        if self.policies.get(&origin) == policy.as_ref() {
            return;
        }
        if let Some(before) = self.policies.remove(&origin) {
            self.by_subject.remove(&before.subject, &origin);
        }
        self.touch_pods(|pod| pod.selected.contains(&origin));
        if let Some(policy) = policy {
            self.by_subject.insert(&policy.subject, origin.clone());
            for id in self.pods.keys() {
                let thing = self.things.endpoint(id);
                if thing.is_some_and(|(_, thing)| self.things.selects(&policy.subject, thing)) {
                    self.touched.pods.insert(id.clone());
                }
            }
            self.policies.insert(origin.clone(), policy);
        }
        self.touched.hosts = true;
        self.touched.policies.insert(origin);
    }

    fn set_namespace(&mut self, name: &str, labels: Option<&BTreeMap<String, String>>) {
        let numbers = self.things.of_namespace(name, None);
        self.withdraw(&numbers);
        self.things.set_namespace(name, labels);
        self.attach(&numbers);
        self.touch_pods_in(name);
    }

    fn set_account(&mut self, name: &NamespacedName, labels: Option<&BTreeMap<String, String>>) {
        let NamespacedName { namespace, name } = name;
        let numbers = self.things.of_namespace(namespace, Some(name));
        self.withdraw(&numbers);
        self.things.set_account(namespace, name, labels);
        self.attach(&numbers);
        self.touch_pods_in(namespace);
    }

    fn set_endpoint(&mut self, name: &str, endpoint: Option<&Endpoint>) {
        let id: Arc<str> = name.into();
        let thing = endpoint.map(|endpoint| {
            let mut thing = self.things.endpoint_of(endpoint);
            thing.local = self.pods.contains_key(&id) || self.hosts.contains_key(&id);
            thing
        });
        if self.set_thing(Id::Endpoint(id.clone()), thing) {
            self.touched.hosts |= self.hosts.contains_key(&id);
            if self.pods.contains_key(&id) {
                self.touched.pods.insert(id);
            }
        }
    }

    fn set_network_set(&mut self, name: &Origin, set: Option<&NetworkSet>) {
        let thing = set.map(|set| self.things.network_set_of(set));
        self.set_thing(Id::NetworkSet(name.to_string().into()), thing);
    }

    /// Takes in a thing; returns whether it is another than before.
    fn set_thing(&mut self, id: Id, thing: Option<Thing>) -> bool {
        let number = self.things.number(&id);
        if number.and_then(|number| self.things.get(number)) == thing.as_ref() {
            return false;
        }
        self.withdraw(number.as_slice());
        match thing {
            Some(thing) => {
                let number = self.things.put(id, thing);
                self.attach(&[number]);
            }
            None => self.things.remove(&id),
        }
        true
    }

    fn set_local(&mut self, name: &str, local: Option<Local>) {
        let id: Arc<str> = name.into();
        let before = self.pods.get_mut(&id);
        if before.as_ref().map(|pod| &pod.local) == local.as_ref() {
            return;
        }
        let is_local = local.is_some();
        match (before, local) {
            (Some(pod), Some(local)) => pod.local = local,
            (None, Some(local)) => {
                let pod = Pod {
                    local,
                    selected: BTreeSet::new(),
                    members: BTreeMap::new(),
                    lists: Vec::new(),
                };
                self.pods.insert(id.clone(), pod);
            }
            (Some(_) | None, None) => self.touched.gone.extend(self.pods.remove(&id)),
        }
        self.set_local_thing(&id, is_local);
        self.touched.pods.insert(id);
    }

    /// An endpoint is one of this node, or no longer.
    fn set_local_thing(&mut self, id: &Arc<str>, local: bool) {
        if let Some((number, _)) = self.things.endpoint(id) {
            self.withdraw(&[number]);
            self.things.set_local(number, local);
            self.attach(&[number]);
        }
    }

    fn set_service(&mut self, name: NamespacedName, endpoints: BTreeSet<ServiceEndpoint>) {
        self.peers.set_service(name, endpoints, &mut self.sets);
    }

    /// Takes things out of the sets that they are in, as long as they are what they were.
    fn withdraw(&mut self, numbers: &[Number]) {
        for thing in numbers.iter().filter_map(|number| self.things.get(*number)) {
            self.peers.withdraw(&self.things, thing, &mut self.sets);
        }
    }

    /// Puts things into the sets that they are in now.
    fn attach(&mut self, numbers: &[Number]) {
        for thing in numbers.iter().filter_map(|number| self.things.get(*number)) {
            self.peers.attach(&self.things, thing, &mut self.sets);
        }
    }

    /// The pods of this node in a namespace may be selected by others.
    fn touch_pods_in(&mut self, namespace: &str) {
        let is_in = |id: &&Arc<str>| {
            let thing = self.things.endpoint(id);
            thing.is_some_and(|(_, thing)| thing.namespace.as_deref() == Some(namespace))
        };
        self.touched.pods.extend(self.pods.keys().filter(is_in).cloned());
    }

    fn touch_pods(&mut self, which: impl Fn(&Pod) -> bool) {
        let pods = self.pods.iter().filter(|(_, pod)| which(pod));
        self.touched.pods.extend(pods.map(|(id, _)| id.clone()));
    }
}

/// What follows.
impl Graph {
    /// Calculates what follows from what was told since the last time, and adds the changes.
    pub(crate) fn flush(&mut self, delta: &mut Delta) {
        if self.touched.settings {
            self.restart();
        }
        for pod in std::mem::take(&mut self.touched.gone) {
            self.displace(&pod);
        }
        for id in std::mem::take(&mut self.touched.pods) {
            if let Some(pod) = self.pods.remove(&id) {
                let pod = self.place(&id, pod);
                self.pods.insert(id, pod);
            }
        }
        self.follow_hosts();
        for origin in std::mem::take(&mut self.touched.policies) {
            self.follow_policy(&origin);
        }
        for name in std::mem::take(&mut self.touched.lists) {
            self.show_list(&name);
        }
        self.render();
        self.peers.tidy(&mut self.sets);
        self.touched = Touched::default();
        self.chains.flush(delta);
        self.sets.flush(delta);
    }

    /// All chains are written anew; those that come out as they were are no change.
    fn restart(&mut self) {
        self.chains.clear(&mut self.sets);
        self.led_into.clear();
        self.shown_hosts = hosts::Shown::default();
        self.touched.hosts = true;
        for (name, listed) in &mut self.lists {
            listed.shown.clear();
            self.touched.lists.insert(name.clone());
        }
        let Some(settings) = &self.settings else {
            return;
        };
        for family in Family::ALL {
            for set in [PODS, THEMSELVES] {
                self.sets
                    .define(family.set_name(set), family, SetKind::NetsBehind);
            }
            for (chain, rules) in chains::always(family, settings) {
                self.chains.put(chain, rules, &mut self.sets);
            }
            self.touched
                .dispatch
                .extend(DIRECTIONS.map(|direction| (family, direction)));
        }
    }

    /// Finds a pod's policies and lists, and puts it into the sets of those.
    fn place(&mut self, id: &Arc<str>, before: Pod) -> Pod {
        let thing = self.things.endpoint(id).map(|(_, thing)| thing);
        let selected = thing.map(|thing| self.by_subject.selecting(&self.things, thing));
        let selected: BTreeSet<Arc<Origin>> = selected.into_iter().flatten().collect();
        let interface: Arc<str> = before.local.interface.as_str().into();
        let sources = before.local.sources.iter().filter(|_| thing.is_some());
        let own = thing.iter().flat_map(|thing| &thing.nets);
        let nets = sources.map(|net| (net, false)).chain(own.map(|net| (net, true)));
        let members = nets.map(|(net, own)| (Member::NetBehind(canonical(*net), interface.clone()), own));
        let members: BTreeMap<Member, bool> = members.collect();
        let lists = DIRECTIONS.map(|direction| {
            let stages = self.stages(direction, &selected, |hook| Point::Own(direction).is_of(hook));
            self.list(direction, stages, false)
        });
        self.acquire_policies(&selected);
        let lists: Vec<String> = lists
            .into_iter()
            .flatten()
            .map(|list| self.enlist(list))
            .collect();
        let after = Pod {
            local: before.local.clone(),
            selected,
            members,
            lists,
        };
        for (set, family, member) in memberships(&after) {
            self.sets.define(set.clone(), family, SetKind::NetsBehind);
            self.sets.add(&set, member, Sense::Match);
        }
        self.displace(&before);
        after
    }

    /// Takes a pod out of the sets that it is in.
    fn displace(&mut self, pod: &Pod) {
        for (set, _, member) in memberships(pod) {
            self.sets.remove(&set, &member);
        }
        for name in &pod.lists {
            if let Some(listed) = self.lists.get_mut(name) {
                listed.endpoints -= 1;
            }
            self.touched.lists.insert(name.clone());
        }
        self.release_policies(&pod.selected);
    }

    /// One more endpoint of this node is selected by these policies.
    fn acquire_policies(&mut self, selected: &BTreeSet<Arc<Origin>>) {
        for origin in selected {
            let active = self.active.entry(origin.clone()).or_default();
            active.endpoints += 1;
            if active.endpoints == 1 {
                self.touched.policies.insert(origin.clone());
            }
        }
    }

    /// One less is.
    fn release_policies(&mut self, selected: &BTreeSet<Arc<Origin>>) {
        for origin in selected {
            let Some(active) = self.active.get_mut(origin) else {
                continue;
            };
            active.endpoints -= 1;
            if active.endpoints == 0 {
                self.touched.policies.insert(origin.clone());
            }
        }
    }

    /// One more endpoint has the list; returns its name.
    fn enlist(&mut self, list: List) -> String {
        let name = list.name();
        let listed = self.lists.entry(name.clone()).or_insert_with(|| Listed {
            list,
            endpoints: 0,
            shown: BTreeSet::new(),
        });
        listed.endpoints += 1;
        self.touched.lists.insert(name.clone());
        name
    }

    /// The policies of an endpoint, tier by tier, those on trial among them; none if nothing decides or counts there. `early`: what no policy
    /// decides is left to what comes later.
    fn list(&self, direction: Direction, stages: Vec<(&str, Vec<Arc<Origin>>)>, early: bool) -> Option<List> {
        let stages = stages.into_iter().filter_map(|(tier, policies)| {
            let has_rules = |origin: &Arc<Origin>| {
                let rules = self
                    .policies
                    .get(origin)
                    .and_then(|policy| rules_of(policy, direction));
                rules.is_some_and(|rules| !rules.is_empty())
            };
            let decides = policies.iter().any(|origin| self.is_enforced(origin));
            let end = match early || !decides {
                true => DefaultAction::Pass,
                false => self.tier(tier).default_action,
            };
            // On trial, a policy without rules counts what it would leave to its tier's end.
            let acts = |origin: &Arc<Origin>| !self.is_enforced(origin) || has_rules(origin);
            let policies: Vec<Arc<Origin>> = policies.into_iter().filter(acts).collect();
            let nothing = policies.is_empty() && end == DefaultAction::Pass;
            (!nothing).then(|| Stage {
                tier: tier.to_owned(),
                policies,
                decides,
                end,
            })
        });
        let stages: Vec<Stage> = stages.collect();
        (!stages.is_empty()).then_some(List { direction, stages })
    }

    /// The policies among these that act somewhere and speak of a direction, tier by tier, in order; staged ones too.
    pub(crate) fn stages<'a>(
        &'a self,
        direction: Direction,
        selected: &BTreeSet<Arc<Origin>>,
        acts: impl Fn(Hook) -> bool,
    ) -> Vec<(&'a str, Vec<Arc<Origin>>)> {
        let mut tiers: BTreeMap<(Order, &str), Ordered> = BTreeMap::new();
        for origin in selected {
            let Some(policy) = self.policies.get(origin) else {
                continue;
            };
            if acts(policy.hook) && rules_of(policy, direction).is_some() {
                let tier = (self.tier(&policy.tier).order, policy.tier.as_str());
                tiers
                    .entry(tier)
                    .or_default()
                    .insert((policy.order, origin.clone()));
            }
        }
        let stage = |((_, tier), policies): ((Order, &'a str), Ordered)| {
            (tier, policies.into_iter().map(|(_, origin)| origin).collect())
        };
        tiers.into_iter().map(stage).collect()
    }

    pub(crate) fn is_enforced(&self, origin: &Arc<Origin>) -> bool {
        self.policies.get(origin).is_some_and(|policy| !policy.staged)
    }

    /// A tier as it is known; nothing opens because a tier is not.
    pub(crate) fn tier(&self, name: &str) -> Tier {
        self.tiers.get(name).cloned().unwrap_or(Tier {
            order: Order::LAST,
            default_action: DefaultAction::Deny,
        })
    }

    /// The policies that select an endpoint; known already of this node's.
    pub(crate) fn selecting(&self, id: &Arc<str>, thing: &Thing) -> BTreeSet<Arc<Origin>> {
        match self.pods.get(id) {
            Some(pod) => pod.selected.clone(),
            None => self
                .by_subject
                .selecting(&self.things, thing)
                .into_iter()
                .collect(),
        }
    }

    /// The pod of this node that is behind an interface.
    pub(crate) fn behind(&self, interface: Option<&str>) -> Option<&Arc<str>> {
        let mut pods = self.pods.iter();
        let found = pods.find(|(_, pod)| Some(pod.local.interface.as_str()) == interface);
        found.map(|(id, _)| id)
    }

    /// What a policy needs is there, and what it needed goes.
    fn follow_policy(&mut self, origin: &Arc<Origin>) {
        let Some(mut active) = self.active.remove(origin) else {
            return;
        };
        let policy = self.policies.get(origin);
        let needs = policy.filter(|_| active.endpoints > 0).map(compile::definitions);
        let needs: BTreeSet<Arc<Definition>> = needs.into_iter().flatten().map(Arc::new).collect();
        for definition in needs.difference(&active.needs) {
            self.peers.acquire(definition, &self.things, &mut self.sets);
        }
        for definition in active.needs.difference(&needs) {
            self.peers.release(definition);
        }
        active.needs = needs;
        for family in Family::ALL {
            for direction in DIRECTIONS {
                self.touched
                    .policy_chains
                    .insert((family, direction, origin.clone()));
            }
        }
        if active.endpoints > 0 {
            self.active.insert(origin.clone(), active);
        }
    }

    /// A list's chain is there in the families in which an endpoint of this node has it.
    fn show_list(&mut self, name: &str) {
        let Some(mut listed) = self.lists.remove(name) else {
            return;
        };
        for family in Family::ALL {
            let wanted = self.settings.is_some() && self.sets.has_members(&family.set_name(name));
            if wanted == listed.shown.contains(&family) {
                continue;
            }
            let direction = listed.list.direction;
            self.touched.dispatch.insert((family, direction));
            for origin in listed.list.stages.iter().flat_map(|stage| &stage.policies) {
                let chain = (family, direction, origin.clone());
                let led_into = self.led_into.entry(chain.clone()).or_default();
                *led_into = if wanted {
                    *led_into + 1
                } else {
                    led_into.saturating_sub(1)
                };
                self.touched.policy_chains.insert(chain);
            }
            if let Some(settings) = self.settings.as_ref().filter(|_| wanted) {
                let (chain, rules) = chains::list(family, &listed.list, settings);
                self.chains.put(chain, rules, &mut self.sets);
                listed.shown.insert(family);
            } else {
                let chain = chains::filter(family, &format!("{CHAIN_PREFIX}{name}"));
                self.chains.remove(&chain, &mut self.sets);
                listed.shown.remove(&family);
            }
        }
        if listed.endpoints > 0 {
            self.lists.insert(name.to_owned(), listed);
        } else {
            for family in Family::ALL {
                self.sets.undefine(&family.set_name(name));
            }
        }
    }

    /// Writes the chains of policies, and those that lead to lists.
    fn render(&mut self) {
        for (family, direction, origin) in std::mem::take(&mut self.touched.policy_chains) {
            let key = (family, direction, origin.clone());
            let led_into = self.led_into.get(&key).is_some_and(|count| *count > 0);
            let name = policy_chain(&origin, direction);
            let policy = self.policies.get(&origin).filter(|_| led_into);
            let wanted = policy.zip(self.settings.as_ref()).map(|(policy, settings)| {
                let rules = compile::chain(&origin, policy, (direction, family), settings);
                (table_of(policy.hook), rules)
            });
            if wanted.is_none() {
                self.led_into.remove(&key);
            }
            // A policy that acts somewhere else now has its chain in another table.
            for table in [Table::Raw, Table::Mangle, Table::Filter] {
                let chain = ChainId {
                    family,
                    table,
                    name: name.clone(),
                };
                match &wanted {
                    Some((where_to, rules)) if *where_to == table => {
                        self.chains.put(chain, rules.clone(), &mut self.sets);
                    }
                    Some(_) | None => self.chains.remove(&chain, &mut self.sets),
                }
            }
        }
        let Some(settings) = &self.settings else {
            return;
        };
        for (family, direction) in std::mem::take(&mut self.touched.dispatch) {
            let of = |listed: &Listed| listed.list.direction == direction && listed.shown.contains(&family);
            let lists = self
                .lists
                .iter()
                .filter(|(_, listed)| of(listed))
                .map(|(name, _)| name);
            let (chain, rules) = chains::dispatch(direction, family, lists, settings);
            self.chains.put(chain, rules, &mut self.sets);
        }
    }

    /// The chains that count what policies on trial would do.
    pub(crate) fn trials(&self) -> impl Iterator<Item = Trial> + '_ {
        let shown = self.led_into.iter().filter(|(_, count)| **count > 0);
        shown.filter_map(|((family, direction, origin), _)| {
            let policy = self.policies.get(origin).filter(|policy| policy.staged)?;
            Some(Trial {
                policy: (**origin).clone(),
                direction: *direction,
                chain: ChainId {
                    family: *family,
                    table: table_of(policy.hook),
                    name: policy_chain(origin, *direction),
                },
                rules: compile::counted(policy, (*direction, *family)),
            })
        })
    }

    pub(crate) fn add_wanted(&self, full: &mut Full) {
        full.sets
            .extend(self.sets.wanted().map(|(name, set)| (name.clone(), set)));
        let chains = self.chains.all().iter();
        full.chains
            .extend(chains.map(|(chain, rules)| (chain.clone(), rules.clone())));
        full.hooks.extend(self.chains.hooks().iter().cloned());
    }

    /// Whether policies are enforced.
    pub(crate) const fn enforces(&self) -> bool {
        self.settings.is_some()
    }

    /// Whether an endpoint is a pod of this node.
    pub(crate) fn is_pod(&self, name: &str) -> bool {
        self.pods.contains_key(name)
    }

    /// Whether a pod of this node has a list of policies.
    pub(crate) fn has_list(&self, id: &Arc<str>) -> bool {
        self.pods.get(id).is_some_and(|pod| !pod.lists.is_empty())
    }

    pub(crate) fn wants_nothing(&self) -> bool {
        self.chains.all().is_empty()
    }
}

/// The sets that a pod is in, as its addresses.
fn memberships(pod: &Pod) -> impl Iterator<Item = (String, Family, Member)> {
    pod.members.iter().flat_map(|(member, own)| {
        let family = match member {
            Member::Net(net) | Member::NetBehind(net, _) => Family::of(*net),
            Member::Port(address, ..) => Family::of((*address).into()),
        };
        let itself = (*own && !pod.lists.is_empty()).then_some(THEMSELVES);
        let names = pod.lists.iter().map(String::as_str).chain(itself).chain([PODS]);
        names.map(move |name| (family.set_name(name), family, member.clone()))
    })
}
