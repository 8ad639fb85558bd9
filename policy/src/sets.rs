//! Sets as they come to be: what each is made of, who its members are and how often, and what changed.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use manx_api::policy::{Family, NamespacedName, Subject};

use crate::plan::Change;
use crate::ruleset::{Member, Sense, Set, SetKind, short_hash};

/// What a set of a rule is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Definition {
    /// The addresses of what a subject selects.
    Subject(Subject),
    /// What endpoints call so, of those that the subject selects; `local`: of this node's own only.
    NamedPort {
        subject: Subject,
        name: String,
        local: bool,
    },
    /// The endpoints behind a service, with their ports: who is called.
    Service(NamespacedName),
    /// Their addresses alone: who calls, from whatever port.
    ServiceAddresses(NamespacedName),
    /// These networks, each family's for itself.
    Nets(BTreeMap<IpNetwork, Sense>),
}

impl Definition {
    pub(crate) const fn kind(&self) -> SetKind {
        match self {
            Self::Subject(_) | Self::Nets(_) | Self::ServiceAddresses(_) => SetKind::Nets,
            Self::NamedPort { .. } | Self::Service(_) => SetKind::Ports,
        }
    }

    /// The subject that things are members by.
    pub(crate) const fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Subject(subject) | Self::NamedPort { subject, .. } => Some(subject),
            Self::Service(_) | Self::ServiceAddresses(_) | Self::Nets(_) => None,
        }
    }

    /// The name of the family's set.
    pub(crate) fn set_name(&self, family: Family) -> String {
        let (kind, text) = match self {
            Self::Subject(subject) => ("subject", subject.to_string()),
            Self::NamedPort { subject, name, local } => ("port", format!("{name} {local} {subject}")),
            Self::Service(NamespacedName { namespace, name }) => ("service", format!("{namespace}/{name}")),
            Self::ServiceAddresses(NamespacedName { namespace, name }) => {
                ("callers", format!("{namespace}/{name}"))
            }
            Self::Nets(nets) => ("nets", format!("{nets:?}")),
        };
        family.set_name(&format!("{kind}-{}", short_hash(&text)))
    }
}

/// A set with its members, each with how often it is one.
#[derive(Clone, Debug)]
struct State {
    family: Family,
    kind: SetKind,
    members: BTreeMap<Member, (u32, Sense)>,
    /// Members that were touched since the last [`Sets::flush`], as they were then; kept of wanted sets only.
    before: BTreeMap<Member, Option<Sense>>,
    /// How many rules name it.
    uses: usize,
    /// Whether it was wanted at the last [`Sets::flush`].
    wanted: bool,
    /// Whether anything defines it.
    defined: bool,
}

/// All sets, also those that no rule names yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sets {
    sets: BTreeMap<String, State>,
    touched: BTreeSet<String>,
}

impl Sets {
    /// A set comes to be, empty.
    pub(crate) fn define(&mut self, name: String, family: Family, kind: SetKind) {
        let state = self.state(&name, family, kind);
        state.defined = true;
        self.touched.insert(name);
    }

    /// A set goes, with its members, once no rule names it.
    pub(crate) fn undefine(&mut self, name: &str) {
        if let Some(state) = self.sets.get_mut(name) {
            state.defined = false;
            self.touched.insert(name.to_owned());
        }
    }

    /// A thing makes this a member.
    pub(crate) fn add(&mut self, name: &str, member: Member, sense: Sense) {
        let Some(state) = self.sets.get_mut(name) else {
            return;
        };
        match state.members.get_mut(&member) {
            Some((count, _)) => *count += 1,
            None => {
                if state.wanted {
                    state.before.entry(member.clone()).or_insert(None);
                }
                state.members.insert(member, (1, sense));
                self.touch(name);
            }
        }
    }

    /// A thing that made this a member does so no more.
    pub(crate) fn remove(&mut self, name: &str, member: &Member) {
        let Some(state) = self.sets.get_mut(name) else {
            return;
        };
        let Some((count, sense)) = state.members.get_mut(member) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            if state.wanted {
                state.before.entry(member.clone()).or_insert(Some(*sense));
            }
            state.members.remove(member);
            self.touch(name);
        }
    }

    /// Whether the set has members.
    pub(crate) fn has_members(&self, name: &str) -> bool {
        self.sets.get(name).is_some_and(|state| !state.members.is_empty())
    }

    /// A rule names the set.
    pub(crate) fn use_by_rule(&mut self, name: &str) {
        if let Some(state) = self.sets.get_mut(name) {
            state.uses += 1;
            if state.uses == 1 {
                self.touch(name);
            }
        }
    }

    /// A rule that named the set goes.
    pub(crate) fn unuse_by_rule(&mut self, name: &str) {
        if let Some(state) = self.sets.get_mut(name) {
            state.uses -= 1;
            if state.uses == 0 {
                self.touch(name);
            }
        }
    }

    fn touch(&mut self, name: &str) {
        if !self.touched.contains(name) {
            self.touched.insert(name.to_owned());
        }
    }

    fn state(&mut self, name: &str, family: Family, kind: SetKind) -> &mut State {
        self.sets.entry(name.to_owned()).or_insert_with(|| State {
            family,
            kind,
            members: BTreeMap::new(),
            before: BTreeMap::new(),
            uses: 0,
            wanted: false,
            defined: false,
        })
    }

    /// Adds what changed since the last time: gains in the order of names, losses in the opposite one.
    pub(crate) fn flush(&mut self, changes: &mut Vec<Change>) {
        let mut losses = Vec::new();
        for name in std::mem::take(&mut self.touched) {
            let Some(state) = self.sets.get_mut(&name) else {
                continue;
            };
            state.flush(&name, changes, &mut losses);
            if !state.defined && !state.wanted {
                self.sets.remove(&name);
            }
        }
        changes.extend(losses.into_iter().rev());
    }

    /// The sets that rules name.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&String, Set)> {
        let wanted = self.sets.iter().filter(|(_, state)| state.wanted);
        wanted.map(|(name, state)| {
            let members = state.members.iter();
            let set = Set {
                family: state.family,
                kind: state.kind,
                members: members
                    .map(|(member, (_, sense))| (member.clone(), *sense))
                    .collect(),
            };
            (name, set)
        })
    }
}

impl State {
    fn flush(&mut self, name: &str, gains: &mut Vec<Change>, losses: &mut Vec<Change>) {
        let before = std::mem::take(&mut self.before);
        let put = |member: &Member, sense: Sense| Change::PutMember {
            set: name.to_owned(),
            member: member.clone(),
            sense,
        };
        match (self.wanted, self.uses > 0) {
            (false, true) => {
                gains.push(Change::CreateSet {
                    name: name.to_owned(),
                    family: self.family,
                    kind: self.kind,
                    replace: false,
                });
                gains.extend(
                    self.members
                        .iter()
                        .map(|(member, (_, sense))| put(member, *sense)),
                );
            }
            (true, true) => {
                for (member, before) in before {
                    match (before, self.members.get(&member)) {
                        (None, Some((_, sense))) => gains.push(put(&member, *sense)),
                        (Some(before), Some((_, sense))) if before != *sense => {
                            gains.push(put(&member, *sense));
                        }
                        (Some(_), None) => losses.push(Change::RemoveMember {
                            set: name.to_owned(),
                            member,
                        }),
                        (Some(_), Some(_)) | (None, None) => {}
                    }
                }
            }
            (true, false) => losses.push(Change::DestroySet {
                name: name.to_owned(),
            }),
            (false, false) => {}
        }
        self.wanted = self.uses > 0;
    }
}
