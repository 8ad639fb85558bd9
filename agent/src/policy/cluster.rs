//! What the engine is told of the cluster: the store's resources and this node's pods, put together.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "resources of other kinds are no news"
)]

use std::collections::{BTreeMap, BTreeSet};

use manx_api::policy::{Endpoint, NetworkSet, Origin, Policy, Tier, built_in_tiers, namespace_labels};
use manx_api::workload::WorkloadEndpoint;
use manx_api::{Key, Kind, Resource};
use manx_policy::{Local, Update};

/// The kinds that policies are made of, and what they speak of.
pub const KINDS: [Kind; 11] = [
    Kind::Namespace,
    Kind::Tier,
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::KubernetesNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::NetworkSet,
    Kind::GlobalNetworkSet,
    Kind::WorkloadEndpoint,
];

/// Those of them that are policies.
const POLICIES: [Kind; 6] = [
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::KubernetesNetworkPolicy,
    Kind::ClusterNetworkPolicy,
];

/// News from the store, of [`KINDS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// This is all there is.
    Listed(Vec<Resource>),
    /// A resource is there, and like this.
    Put(Box<Resource>),
    /// A resource is gone.
    Gone(Key),
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its attachment, as whoever attached it describes it.
    pub endpoint: Box<WorkloadEndpoint>,
    /// Whether that says all of the pod. If not, it is of an earlier life, and the store knows the rest.
    pub whole: bool,
}

/// The state that updates are made from.
#[derive(Debug)]
pub(super) struct Cluster {
    node: String,
    /// What the store told of and has not taken back.
    known: BTreeSet<Key>,
    /// This node's attachments as the store has them, by their names.
    stored: BTreeMap<String, WorkloadEndpoint>,
    /// This node's pods, by the same names.
    pods: BTreeMap<String, Pod>,
    /// The pods of attachments, by the names of those.
    named: BTreeMap<String, String>,
    /// The namespaces that the engine was told of.
    namespaces: BTreeSet<String>,
    policies: usize,
}

impl Cluster {
    /// A cluster of which nothing is known, seen from one of its nodes.
    pub(super) const fn seen_from(node: String) -> Self {
        Self {
            node,
            known: BTreeSet::new(),
            stored: BTreeMap::new(),
            pods: BTreeMap::new(),
            named: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            policies: 0,
        }
    }

    /// The tiers that nobody has to make.
    pub(super) fn beginning() -> impl Iterator<Item = Update> {
        let tiers = built_in_tiers().into_iter();
        tiers.map(|(name, tier)| Update::Tier(name.to_owned(), Some(tier)))
    }

    /// Whether there is any policy.
    pub(super) const fn has_policies(&self) -> bool {
        self.policies > 0
    }

    /// The pod whose attachment is called so.
    pub(super) fn pod(&self, endpoint: &str) -> Option<String> {
        self.named.get(endpoint).cloned()
    }

    /// Takes in news from the store.
    pub(super) fn hear(&mut self, news: News) -> Vec<Update> {
        match news {
            News::Put(resource) => self.put(*resource),
            News::Gone(key) => self.gone(key),
            News::Listed(resources) => {
                let listed: BTreeSet<Key> = resources.iter().map(Resource::key).collect();
                let gone: Vec<Key> = self.known.difference(&listed).cloned().collect();
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

    /// What the engine is to know of a pod of this node: what the store has of the very attachment, for somebody may
    /// have changed its labels since, or else what was said of it.
    fn tell(&self, name: String) -> Vec<Update> {
        let Some(Pod {
            endpoint: said,
            whole,
        }) = self.pods.get(&name)
        else {
            return Vec::new();
        };
        let same = |stored: &&WorkloadEndpoint| stored.spec.container_id == said.spec.container_id;
        let mut endpoint = self.stored.get(&name).filter(same).unwrap_or(said).clone();
        if !whole {
            endpoint.spec.addresses.clone_from(&said.spec.addresses);
        }
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
            Resource::WorkloadEndpoint(endpoint) => self.workload(endpoint),
            _ => Vec::new(),
        }
    }

    fn workload(&mut self, endpoint: WorkloadEndpoint) -> Vec<Update> {
        let name = name_of(&endpoint);
        let mut updates = self.meet(endpoint.metadata.namespace.as_deref());
        self.named.insert(name.clone(), endpoint.spec.pod.clone());
        if endpoint.spec.node == self.node {
            self.stored.insert(name.clone(), endpoint);
            updates.extend(self.tell(name));
        } else {
            updates.push(Update::Endpoint(name, Some(Box::new(Endpoint::from(&endpoint)))));
        }
        updates
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
            Kind::WorkloadEndpoint => {
                let name = endpoint_name(key.namespace.as_deref(), &key.name);
                self.stored.remove(&name);
                if self.pods.contains_key(&name) {
                    self.tell(name)
                } else {
                    self.named.remove(&name);
                    vec![Update::Endpoint(name, None)]
                }
            }
            kind if POLICIES.contains(&kind) => {
                self.policies -= 1;
                vec![Update::Policy(key.into(), None)]
            }
            _ => Vec::new(),
        }
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
fn name_of(endpoint: &WorkloadEndpoint) -> String {
    endpoint_name(endpoint.metadata.namespace.as_deref(), &endpoint.metadata.name)
}

fn endpoint_name(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

#[cfg(test)]
mod tests {
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

    fn pod(endpoint: WorkloadEndpoint, whole: bool) -> Pod {
        Pod {
            endpoint: Box::new(endpoint),
            whole,
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
        let mut updates = cluster.join(pod(attachment("n1", "c1", "web"), true));
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
        let adopted = || pod(attachment("n1", "c1", "unknown"), false);
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
        let told = cluster.hear(News::Listed(all));
        assert!(cluster.has_policies());
        assert_eq!(folded(told).len(), 1);
        let gone = cluster.hear(News::Listed(Vec::new()));
        assert!(!cluster.has_policies());
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
}
