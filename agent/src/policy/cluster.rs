//! What the engine is told of the cluster: the store's resources and this node's pods, put together.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "resources of other kinds are no news"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use manx_api::condition::ACCEPTED;
use manx_api::host_endpoint::HostEndpoint;
use manx_api::policy::{
    Endpoint, NamespacedName, NetworkSet, Origin, Policy, Tier, built_in_tiers, namespace_labels,
};
use manx_api::workload::WorkloadEndpoint;
use manx_api::{Key, Kind, Resource, validate};
use manx_policy::{Local, Update};

use super::hosts::Hosts;
use super::services::Services;
use crate::verdicts::Verdict;

/// The kinds that policies are made of, and what they speak of.
pub const KINDS: [Kind; 15] = [
    Kind::Namespace,
    Kind::Tier,
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
    Kind::KubernetesNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::ServiceAccount,
    Kind::EndpointSlice,
    Kind::NetworkSet,
    Kind::GlobalNetworkSet,
    Kind::HostEndpoint,
    Kind::WorkloadEndpoint,
];

/// Those of them that are policies.
const POLICIES: [Kind; 7] = [
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
    Kind::KubernetesNetworkPolicy,
    Kind::ClusterNetworkPolicy,
];

/// News from the store, of [`KINDS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Of these kinds this is all there is.
    Listed(Vec<Kind>, Vec<Resource>),
    /// A resource is there, and like this.
    Put(Box<Resource>),
    /// A resource is gone.
    Gone(Key),
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its attachment, as whoever attached it describes it: all that is known of its addresses, and of the rest what
    /// was known then.
    pub endpoint: Box<WorkloadEndpoint>,
}

/// A pod of this node that somebody wants to know of: namespace, name, and which of those of that name if that matters.
pub(super) type Sought = (String, String, Option<String>);

/// The state that updates are made from.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    node: String,
    /// What the store told of and has not taken back.
    known: BTreeSet<Key>,
    /// This node's attachments as the store has them, by their names: on Kubernetes one of each pod.
    stored: BTreeMap<String, WorkloadEndpoint>,
    /// This node's pods, by the same names.
    pods: BTreeMap<String, Pod>,
    /// The pods of attachments, by the names of those.
    named: BTreeMap<String, String>,
    /// The namespaces that the engine was told of.
    namespaces: BTreeSet<String>,
    hosts: Hosts,
    services: Services,
    verdicts: Vec<Verdict>,
    policies: usize,
}

impl Cluster {
    /// A cluster of which nothing is known, seen from one of its nodes.
    pub(super) fn seen_from(node: String) -> Self {
        Self {
            node,
            known: BTreeSet::new(),
            stored: BTreeMap::new(),
            pods: BTreeMap::new(),
            named: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            hosts: Hosts::default(),
            services: Services::default(),
            verdicts: Vec::new(),
            policies: 0,
        }
    }

    /// The tiers that nobody has to make.
    pub(super) fn beginning() -> impl Iterator<Item = Update> {
        let tiers = built_in_tiers().into_iter();
        tiers.map(|(name, tier)| Update::Tier(name.to_owned(), Some(tier)))
    }

    /// Whether anything may be denied: by a policy, or because a host endpoint of this node is closed.
    pub(super) fn denies(&self) -> bool {
        self.policies > 0 || self.hosts.any_closed()
    }

    /// The addresses that interfaces of this node are sought by.
    pub(super) fn sought(&self) -> BTreeSet<IpAddr> {
        self.hosts.sought()
    }

    /// These interfaces have addresses that are sought, and no others.
    pub(super) fn place(&mut self, interfaces: BTreeMap<IpAddr, String>) -> Vec<Update> {
        self.hosts.place(interfaces)
    }

    /// The pod whose attachment is called so.
    pub(super) fn pod(&self, endpoint: &str) -> Option<String> {
        self.named.get(endpoint).cloned()
    }

    /// The pods of all attachments, by the names of those.
    pub(super) const fn pods(&self) -> &BTreeMap<String, String> {
        &self.named
    }

    /// Takes in news from the store.
    pub(super) fn hear(&mut self, news: News) -> Vec<Update> {
        match news {
            News::Put(resource) => self.put(*resource),
            News::Gone(key) => self.gone(key),
            News::Listed(kinds, resources) => {
                let listed: BTreeSet<Key> = resources.iter().map(Resource::key).collect();
                let gone = self.known.difference(&listed);
                let gone: Vec<Key> = gone.filter(|key| kinds.contains(&key.kind)).cloned().collect();
                let gone = gone
                    .into_iter()
                    .flat_map(|key| self.gone(key))
                    .collect::<Vec<_>>();
                let put = resources.into_iter().flat_map(|resource| self.put(resource));
                gone.into_iter().chain(put.collect::<Vec<_>>()).collect()
            }
        }
    }

    /// A pod of this node is there, or is about to be.
    pub(super) fn join(&mut self, pod: Pod) -> Vec<Update> {
        let name = name_of(&pod.endpoint);
        let mut updates = self.meet(pod.endpoint.metadata.namespace.as_deref());
        self.named.insert(name.clone(), pod.endpoint.spec.pod.clone());
        self.pods.insert(name.clone(), pod);
        updates.extend(self.tell(name));
        updates
    }

    /// A container's attachment to this node is gone.
    pub(super) fn leave(&mut self, container_id: &str, ifname: &str) -> Vec<Update> {
        let is_it = |endpoint: &WorkloadEndpoint| {
            endpoint.spec.container_id == container_id && endpoint.spec.endpoint == ifname
        };
        let gone = self.pods.iter().find(|(_, pod)| is_it(&pod.endpoint));
        let Some(name) = gone.map(|(name, _)| name.clone()) else {
            return Vec::new();
        };
        self.pods.remove(&name);
        self.named.remove(&name);
        vec![Update::Local(name.clone(), None), Update::Endpoint(name, None)]
    }

    /// What the store says of a pod of this node that is sought.
    pub(super) fn find(&self, (namespace, pod, uid): &Sought) -> Option<&WorkloadEndpoint> {
        let stored = self.stored.get(&endpoint_name(Some(namespace), pod))?;
        (uid.is_none() || stored.metadata.uid == *uid).then_some(stored)
    }

    /// What the engine is to know of a pod of this node: what the store has of the very attachment or the very pod, for
    /// somebody may have changed its labels since, or else what was said of it. Its addresses are those that it was given.
    fn tell(&self, name: String) -> Vec<Update> {
        let Some(Pod { endpoint: said }) = self.pods.get(&name) else {
            return Vec::new();
        };
        let same = |stored: &&WorkloadEndpoint| is_of(stored, said);
        let pod = || endpoint_name(said.metadata.namespace.as_deref(), &said.spec.pod);
        let stored = self.stored.get(&name).or_else(|| self.stored.get(&pod()));
        let mut endpoint = stored.filter(same).unwrap_or(said).clone();
        endpoint.spec.addresses.clone_from(&said.spec.addresses);
        let local = Local {
            interface: said.spec.interface_name.clone(),
            sources: endpoint.spec.allowed_source_prefixes.clone(),
        };
        vec![
            Update::Endpoint(name.clone(), Some(Box::new(Endpoint::from(&endpoint)))),
            Update::Local(name, Some(local)),
        ]
    }

    fn put(&mut self, resource: Resource) -> Vec<Update> {
        let key = resource.key();
        let is_new = self.known.insert(key.clone());
        if let Some(policy) = Policy::of(&resource) {
            self.policies += usize::from(is_new);
            let policy = self.judged(&resource, policy);
            return vec![Update::Policy(Origin::from(key), Some(Box::new(policy)))];
        }
        let name = key.name.clone();
        match resource {
            Resource::Namespace(namespace) => {
                self.namespaces.insert(name.clone());
                let labels = namespace_labels(&name, Some(&namespace.metadata));
                vec![Update::Namespace(name, Some(labels))]
            }
            Resource::Tier(tier) => vec![Update::Tier(name, Some(Tier::from(&tier.spec)))],
            Resource::NetworkSet(set) => {
                let mut updates = self.meet(key.namespace.as_deref());
                let set = Box::new(NetworkSet::from(&set));
                updates.push(Update::NetworkSet(key.into(), Some(set)));
                updates
            }
            Resource::GlobalNetworkSet(set) => {
                vec![Update::NetworkSet(
                    key.into(),
                    Some(Box::new(NetworkSet::from(&set))),
                )]
            }
            Resource::ServiceAccount(account) => {
                let labels = account.metadata.labels;
                vec![Update::ServiceAccount(namespaced(key), Some(labels))]
            }
            Resource::EndpointSlice(slice) => self.services.put(key, &slice),
            Resource::HostEndpoint(endpoint) => self.host(name, endpoint),
            Resource::WorkloadEndpoint(endpoint) => self.workload(endpoint),
            _ => Vec::new(),
        }
    }

    /// The policy, or what stands for it where it cannot be carried out: only a store that does not check has such.
    fn judged(&mut self, resource: &Resource, policy: Policy) -> Policy {
        let problems = validate(resource);
        let is_said = resource
            .status()
            .is_some_and(|status| status.condition(ACCEPTED).is_some());
        if problems.is_empty() && !is_said {
            return policy;
        }
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let verdict = Verdict {
            key: resource.key(),
            revision: resource.metadata().resource_version.clone(),
            problems: told.join("; "),
        };
        if problems.is_empty() {
            self.verdicts.push(verdict);
            return policy;
        }
        tracing::warn!(policy = %verdict.key, problems = verdict.problems, "a policy cannot be carried out: it opens nothing");
        self.verdicts.push(verdict);
        policy.closed()
    }

    /// What policies that were heard of since the last time are to be told of themselves.
    pub(super) fn verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    /// A host endpoint, whose name no pod's attachment has: it is without a namespace.
    fn host(&mut self, name: String, endpoint: HostEndpoint) -> Vec<Update> {
        let told = Update::Endpoint(name.clone(), Some(Box::new(Endpoint::from(&endpoint))));
        let place = if endpoint.spec.node == self.node {
            Some(self.hosts.put(name, endpoint.spec))
        } else {
            self.hosts.remove(&name)
        };
        std::iter::once(told).chain(place).collect()
    }

    fn workload(&mut self, endpoint: WorkloadEndpoint) -> Vec<Update> {
        let name = name_of(&endpoint);
        let mut updates = self.meet(endpoint.metadata.namespace.as_deref());
        self.named.insert(name.clone(), endpoint.spec.pod.clone());
        if endpoint.spec.node == self.node {
            let attachments = self.attachments(&name, &endpoint);
            self.stored.insert(name, endpoint);
            updates.extend(attachments.into_iter().flat_map(|name| self.tell(name)));
        } else {
            updates.push(Update::Endpoint(name, Some(Box::new(Endpoint::from(&endpoint)))));
        }
        updates
    }

    /// The pods of this node that a stored endpoint is about: the one of its name, and all interfaces of a cluster's pod.
    fn attachments(&self, name: &str, stored: &WorkloadEndpoint) -> Vec<String> {
        let about = |(of, pod): &(&String, &Pod)| of.as_str() == name || is_of(stored, &pod.endpoint);
        let pods = self.pods.iter().filter(about);
        pods.map(|(name, _)| name.clone()).collect()
    }

    /// A namespace that nobody has described has its name alone to be selected by.
    fn meet(&mut self, namespace: Option<&str>) -> Vec<Update> {
        let unheard = namespace.filter(|name| !self.namespaces.contains(*name));
        let Some(name) = unheard else {
            return Vec::new();
        };
        self.namespaces.insert(name.to_owned());
        vec![undescribed(name.to_owned())]
    }

    fn gone(&mut self, key: Key) -> Vec<Update> {
        if !self.known.remove(&key) {
            return Vec::new();
        }
        let name = key.name.clone();
        match key.kind {
            Kind::Namespace => vec![undescribed(name)],
            Kind::Tier => vec![Update::Tier(name.clone(), built_in(&name))],
            Kind::NetworkSet | Kind::GlobalNetworkSet => vec![Update::NetworkSet(key.into(), None)],
            Kind::ServiceAccount => vec![Update::ServiceAccount(namespaced(key), None)],
            Kind::EndpointSlice => self.services.remove(&key).into_iter().collect(),
            Kind::HostEndpoint => {
                let place = self.hosts.remove(&name);
                place.into_iter().chain([Update::Endpoint(name, None)]).collect()
            }
            Kind::WorkloadEndpoint => {
                let name = endpoint_name(key.namespace.as_deref(), &key.name);
                let stored = self.stored.remove(&name);
                let attachments = stored.map_or_else(Vec::new, |stored| self.attachments(&name, &stored));
                let is_there = self.pods.contains_key(&name);
                let mut updates: Vec<_> = attachments.into_iter().flat_map(|name| self.tell(name)).collect();
                if !is_there {
                    self.named.remove(&name);
                    updates.push(Update::Endpoint(name, None));
                }
                updates
            }
            kind if POLICIES.contains(&kind) => {
                self.policies -= 1;
                vec![Update::Policy(key.into(), None)]
            }
            _ => Vec::new(),
        }
    }
}

/// Whether what the store has is about the attachment that was described: the same container, or the same pod of a cluster. Of
/// one that another network made nobody has kept which pod it was: it is the one that has its address.
fn is_of(stored: &WorkloadEndpoint, said: &WorkloadEndpoint) -> bool {
    if !stored.spec.container_id.is_empty() {
        return stored.spec.container_id == said.spec.container_id;
    }
    match &said.metadata.uid {
        Some(uid) => stored.metadata.uid.as_ref() == Some(uid),
        None => {
            let mut addresses = said.spec.addresses.iter();
            addresses.any(|address| stored.spec.addresses.contains(address))
        }
    }
}

fn namespaced(Key { namespace, name, .. }: Key) -> NamespacedName {
    NamespacedName {
        namespace: namespace.unwrap_or_default(),
        name,
    }
}

fn undescribed(namespace: String) -> Update {
    let labels = namespace_labels(&namespace, None);
    Update::Namespace(namespace, Some(labels))
}

fn built_in(name: &str) -> Option<Tier> {
    let mut tiers = built_in_tiers().into_iter();
    tiers.find_map(|(built_in, tier)| (built_in == name).then_some(tier))
}

/// What the engine calls an attachment.
pub(super) fn name_of(endpoint: &WorkloadEndpoint) -> String {
    endpoint_name(endpoint.metadata.namespace.as_deref(), &endpoint.metadata.name)
}

fn endpoint_name(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use manx_policy::HostInterface;
    use serde_json::{Value, json};

    use super::*;

    fn resource(value: Value) -> Resource {
        serde_json::from_value(value).unwrap()
    }

    fn attachment(node: &str, container: &str, app: &str) -> WorkloadEndpoint {
        let value = json!({
            "apiVersion": "manx.network/v1", "kind": "WorkloadEndpoint",
            "metadata": {"name": format!("{node}-web-eth0"), "namespace": "shop", "labels": {"app": app}},
            "spec": {
                "node": node, "pod": "web", "containerID": container, "endpoint": "eth0",
                "interfaceName": "mx0123456789a", "addresses": ["10.0.0.1"],
            },
        });
        let Resource::WorkloadEndpoint(endpoint) = resource(value) else {
            unreachable!()
        };
        endpoint
    }

    fn put(endpoint: WorkloadEndpoint) -> News {
        News::Put(Box::new(Resource::WorkloadEndpoint(endpoint)))
    }

    fn pod(endpoint: WorkloadEndpoint) -> Pod {
        Pod {
            endpoint: Box::new(endpoint),
        }
    }

    /// What is left of updates: the app of each endpoint, and whether it is local.
    fn folded(updates: Vec<Update>) -> BTreeMap<String, (Option<String>, bool)> {
        let mut folded: BTreeMap<String, (Option<String>, bool)> = BTreeMap::new();
        for update in updates {
            match update {
                Update::Endpoint(name, endpoint) => {
                    folded.entry(name).or_default().0 = endpoint.map(|it| it.labels["app"].clone());
                }
                Update::Local(name, local) => folded.entry(name).or_default().1 = local.is_some(),
                _ => {}
            }
        }
        folded.retain(|_, known| *known != (None, false));
        folded
    }

    fn knows(updates: Vec<Update>, app: &str) {
        let expected = [("shop/n1-web-eth0".to_owned(), (Some(app.to_owned()), true))];
        assert_eq!(folded(updates), expected.into());
    }

    #[test]
    fn a_pod_of_this_node_is_what_its_add_said_until_the_store_knows_better() {
        let mut cluster = Cluster::seen_from("n1".to_owned());
        let mut updates = cluster.join(pod(attachment("n1", "c1", "web")));
        knows(updates.clone(), "web");
        updates.extend(cluster.hear(put(attachment("n1", "c0", "old"))));
        knows(updates.clone(), "web");
        updates.extend(cluster.hear(put(attachment("n1", "c1", "relabelled"))));
        knows(updates.clone(), "relabelled");
        let key = Resource::WorkloadEndpoint(attachment("n1", "c1", "web")).key();
        updates.extend(cluster.hear(News::Gone(key)));
        knows(updates.clone(), "web");
        updates.extend(cluster.leave("c1", "eth0"));
        assert_eq!(folded(updates), BTreeMap::new());
        assert_eq!(cluster.leave("c1", "eth0"), []);
    }

    #[test]
    fn a_pod_of_an_earlier_life_is_what_the_store_says_of_it_in_either_order() {
        let adopted = || pod(attachment("n1", "c1", "unknown"));
        let mut cluster = Cluster::seen_from("n1".to_owned());
        let mut updates = cluster.hear(put(attachment("n1", "c1", "web")));
        assert_eq!(
            folded(updates.clone()),
            BTreeMap::new(),
            "a stored attachment alone is no pod"
        );
        updates.extend(cluster.join(adopted()));
        knows(updates, "web");
        let mut cluster = Cluster::seen_from("n1".to_owned());
        let mut updates = cluster.join(adopted());
        updates.extend(cluster.hear(put(attachment("n1", "c1", "web"))));
        knows(updates, "web");
    }

    /// A pod of a cluster, as the store has it: called as it is, and of no container.
    fn of_cluster(uid: &str, app: &str) -> WorkloadEndpoint {
        let mut endpoint = attachment("n1", "", app);
        endpoint.metadata.name = "web".to_owned();
        endpoint.metadata.uid = Some(uid.to_owned());
        endpoint.spec.addresses.clear();
        endpoint
    }

    #[test]
    fn a_clusters_pod_is_told_apart_from_the_one_before_it_and_known_at_all_its_interfaces() {
        let mut cluster = Cluster::seen_from("n1".to_owned());
        let sought = ("shop".to_owned(), "web".to_owned(), Some("u2".to_owned()));
        cluster.hear(put(of_cluster("u1", "old")));
        assert_eq!(cluster.find(&sought), None, "it is another's name");
        cluster.hear(put(of_cluster("u2", "web")));
        assert_eq!(cluster.find(&sought), Some(&of_cluster("u2", "web")));

        let said = |name: &str| {
            let mut endpoint = attachment("n1", "c1", "web");
            endpoint.metadata.name = name.to_owned();
            endpoint.metadata.uid = Some("u2".to_owned());
            pod(endpoint)
        };
        let mut updates = cluster.join(said("web"));
        updates.extend(cluster.join(said("n1-web-net1")));
        updates.extend(cluster.hear(put(of_cluster("u2", "relabelled"))));
        updates.extend(cluster.hear(put(of_cluster("u3", "next"))));
        let addresses = updates.iter().filter_map(|update| match update {
            Update::Endpoint(_, Some(endpoint)) => Some(endpoint.addresses.len()),
            _ => None,
        });
        assert!(addresses.into_iter().all(|count| count == 1), "{updates:?}");
        let known = |app: &str| (Some(app.to_owned()), true);
        let both = ["shop/web", "shop/n1-web-net1"].map(str::to_owned);
        // Where its name is another's by now, it is what was said at its ADD.
        let last = [
            (both[0].clone(), known("web")),
            (both[1].clone(), known("relabelled")),
        ];
        assert_eq!(folded(updates), last.into());
    }

    #[test]
    fn what_a_new_list_lacks_is_gone_and_a_built_in_tier_comes_back() {
        let tier = resource(json!({
            "apiVersion": "manx.network/v1", "kind": "Tier", "metadata": {"name": "default"},
            "spec": {"order": 1_000_000.0, "defaultAction": "Pass"},
        }));
        let policy = resource(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny", "namespace": "shop"}, "spec": {"podSelector": {}},
        }));
        let mut cluster = Cluster::seen_from("n1".to_owned());
        let all = vec![
            tier,
            policy,
            Resource::WorkloadEndpoint(attachment("n2", "c1", "web")),
        ];
        let told = cluster.hear(News::Listed(KINDS.to_vec(), all));
        assert!(cluster.denies());
        assert_eq!(folded(told).len(), 1);
        let others = cluster.hear(News::Listed(vec![Kind::NetworkSet], Vec::new()));
        assert_eq!(others.len(), 0, "what is of another kind stays");
        let gone = cluster.hear(News::Listed(KINDS.to_vec(), Vec::new()));
        assert!(!cluster.denies());
        let [tier] = gone
            .iter()
            .filter_map(|update| match update {
                Update::Tier(_, tier) => Some(tier.clone()),
                _ => None,
            })
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        assert_eq!(tier, built_in("default"));
        assert_eq!(gone.len(), 3);
    }

    fn host(name: &str, spec: Value) -> News {
        News::Put(Box::new(resource(json!({
            "apiVersion": "manx.network/v1", "kind": "HostEndpoint", "metadata": {"name": name}, "spec": spec,
        }))))
    }

    /// Which interfaces this node's host endpoints are, after updates.
    fn interfaces(updates: Vec<Update>) -> BTreeMap<String, HostInterface> {
        let mut interfaces = BTreeMap::new();
        for update in updates {
            match update {
                Update::Host(name, Some(interface)) => drop(interfaces.insert(name, interface)),
                Update::Host(name, None) => drop(interfaces.remove(&name)),
                _ => {}
            }
        }
        interfaces
    }

    #[test]
    fn a_policy_that_cannot_be_carried_out_opens_nothing_and_is_told_so() {
        let policy = |spec: Value, status: Value| {
            News::Put(Box::new(resource(json!({
                "apiVersion": "manx.network/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"},
                "spec": spec, "status": status,
            }))))
        };
        let rules = |updates: Vec<Update>| match updates.as_slice() {
            [Update::Policy(_, Some(policy))] => {
                let actions = |rules: &Option<Vec<manx_api::policy::Rule>>| {
                    rules.as_ref().map(|rules| {
                        rules
                            .iter()
                            .map(|rule| rule.action.to_string())
                            .collect::<Vec<_>>()
                    })
                };
                (actions(&policy.ingress), actions(&policy.egress))
            }
            other => panic!("{other:?}"),
        };
        // Ports of no protocol.
        let wrong = json!({"action": "Allow", "destination": {"ports": [80]}});
        let some = |actions: &[&str]| Some(actions.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut cluster = Cluster::seen_from("n1".to_owned());
        let told = cluster.hear(policy(json!({"ingress": [wrong]}), json!({})));
        assert_eq!(rules(told), (some(&[]), None), "what it would add is not added");
        let told = cluster.hear(policy(
            json!({"ingress": [{"action": "Deny"}, wrong], "egress": [{"action": "Allow"}]}),
            json!({}),
        ));
        assert_eq!(rules(told), (some(&["Deny"]), some(&[])));
        let told = cluster.hear(policy(json!({"tier": "mine", "ingress": [wrong]}), json!({})));
        assert_eq!(rules(told), (some(&["Deny"]), None), "its tier may end open");
        let verdicts = cluster.verdicts();
        assert_eq!(verdicts.len(), 3);
        let expected = "spec.ingress[0].destination.ports: '80' needs a protocol that has ports";
        assert!(verdicts[0].problems.starts_with(expected), "{verdicts:?}");

        let right = json!({"ingress": [{"action": "Allow"}]});
        let told = cluster.hear(policy(right.clone(), json!({})));
        assert_eq!(rules(told), (some(&["Allow"]), None));
        assert_eq!(
            cluster.verdicts(),
            [],
            "nothing was said of it, and nothing need be"
        );
        let said = json!({"conditions": [{"type": "Accepted", "status": "False", "reason": "Invalid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        cluster.hear(policy(right, said));
        assert_eq!(cluster.verdicts()[0].problems, "", "it is right again");
    }

    #[test]
    fn host_endpoints_of_this_node_are_interfaces_by_name_or_address_and_others_are_peers() {
        let mut cluster = Cluster::seen_from("n1".to_owned());
        let allow = ["projectcalico-default-allow"];
        let named = |name: &str| HostInterface::Named(name.to_owned());
        let mut updates = cluster.hear(host(
            "all",
            json!({"node": "n1", "interfaceName": "*", "profiles": allow}),
        ));
        updates.extend(cluster.hear(host(
            "found",
            json!({"node": "n1", "expectedIPs": ["192.0.2.9", "192.0.2.1"], "profiles": allow}),
        )));
        updates.extend(cluster.hear(host("other", json!({"node": "n2", "interfaceName": "eth0"}))));
        let all = ("all".to_owned(), HostInterface::All);
        assert_eq!(interfaces(updates.clone()), [all.clone()].into());
        assert!(!cluster.denies(), "the closed one is another node's");
        let told = updates
            .iter()
            .filter(|update| matches!(update, Update::Endpoint(_, Some(_))));
        assert_eq!(told.count(), 3, "all are peers");

        let sought = ["192.0.2.1", "192.0.2.9"].map(|address| address.parse().unwrap());
        assert_eq!(cluster.sought(), sought.into());
        updates.extend(cluster.place([(sought[0], "eth1".to_owned())].into()));
        let found = ("found".to_owned(), named("eth1"));
        assert_eq!(interfaces(updates.clone()), [all.clone(), found].into());
        updates.extend(cluster.place(BTreeMap::new()));
        assert_eq!(
            interfaces(updates.clone()),
            [all.clone()].into(),
            "its address went"
        );

        updates.extend(cluster.hear(host("other", json!({"node": "n1", "interfaceName": "eth0"}))));
        assert!(cluster.denies(), "a closed one needs rules without any policy");
        let other = ("other".to_owned(), named("eth0"));
        assert_eq!(interfaces(updates.clone()), [all, other].into());
        updates.extend(cluster.hear(host("other", json!({"node": "n2", "interfaceName": "eth0"}))));
        updates.extend(cluster.hear(News::Gone(Key::cluster(Kind::HostEndpoint, "all"))));
        assert_eq!(interfaces(updates), BTreeMap::new());
    }
}
