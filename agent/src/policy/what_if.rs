//! What would change if some resources were written and others deleted.

use std::collections::BTreeMap;

use manx_api::what_if::{WhatIf, WhatIfCall};
use manx_api::{Key, Resource};
use manx_policy::{Engine, Update, what_if};

use super::cluster::{Cluster, KINDS, News};
use crate::convert;

/// Packets that are walked for an answer, at most: some twenty seconds of one processor.
const WALKS: u64 = 4_000_000;

/// What is known, and what would be news. The policy task only copies it: others compare.
#[derive(Clone, Debug)]
pub struct Supposition {
    engine: Engine,
    /// Told, and not in the engine yet.
    pending: Vec<Update>,
    news: Vec<Update>,
    /// The pods of endpoints, by the names of those.
    pods: BTreeMap<String, String>,
    /// What policies do not depend on.
    ignored: Vec<Key>,
}

impl Supposition {
    pub(super) fn of(
        (engine, pending): (&Engine, &[Update]),
        cluster: &Cluster,
        WhatIfCall { put, without }: WhatIfCall,
    ) -> Self {
        let keys = put.iter().map(Resource::key).chain(without.iter().cloned());
        let ignored = keys.filter(|key| !KINDS.contains(&key.kind)).collect();
        let gone = without.into_iter().map(News::Gone);
        let news = gone.chain(put.into_iter().map(|resource| News::Put(Box::new(resource))));
        let mut supposed = cluster.clone();
        Self {
            engine: engine.clone(),
            pending: pending.to_vec(),
            news: news.flat_map(|news| supposed.hear(news)).collect(),
            pods: cluster.pods().clone(),
            ignored,
        }
    }

    /// What would be treated otherwise.
    #[must_use]
    pub fn compare(self) -> WhatIf {
        let mut before = self.engine;
        drop(before.apply(self.pending));
        let mut after = before.clone();
        drop(after.apply(self.news));
        WhatIf {
            ignored: self.ignored.iter().map(ToString::to_string).collect(),
            ..convert::what_if(what_if(&before, &after, WALKS), &self.pods)
        }
    }
}

#[cfg(test)]
mod tests {
    use manx_api::explanation::Verdict;
    use serde_json::{Value, json};

    use super::*;

    fn resource(document: Value) -> Resource {
        serde_json::from_value(document).unwrap()
    }

    fn pod(node: &str, name: &str) -> Resource {
        resource(json!({
            "apiVersion": "manx.network/v1", "kind": "WorkloadEndpoint",
            "metadata": {"name": format!("{node}-{name}-eth0"), "namespace": "shop", "labels": {"app": name}},
            "spec": {
                "node": node, "pod": name, "containerID": name, "endpoint": "eth0", "interfaceName": "mx0123456789a",
                "addresses": [format!("10.0.0.{}", name.len())],
            },
        }))
    }

    fn policy(name: &str, ingress: &Value) -> Resource {
        resource(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": ingress},
        }))
    }

    #[test]
    fn news_are_supposed_and_nobody_hears_of_them() {
        let mut cluster = Cluster::seen_from("n1".to_owned());
        let mut engine = Engine::new();
        drop(engine.apply(Cluster::beginning()));
        let closed = policy("closed", &json!([]));
        let key = closed.key();
        let mut told = cluster.hear(News::Listed(
            KINDS.to_vec(),
            vec![pod("n2", "web"), pod("n3", "till"), closed],
        ));
        // What the engine is yet to be told counts as known.
        let pending = told.split_off(2);
        drop(engine.apply(told));
        let pool = json!({
            "apiVersion": "manx.network/v1", "kind": "IPPool", "metadata": {"name": "p"}, "spec": {"cidr": "10.9.0.0/16"},
        });
        let from_till =
            json!([{"from": [{"podSelector": {"matchLabels": {"app": "till"}}}], "ports": [{"port": 80}]}]);
        let suppose = |put, without| {
            let call = WhatIfCall { put, without };
            Supposition::of((&engine, &pending), &cluster, call).compare()
        };
        let found = suppose(vec![policy("open", &from_till), resource(pool)], Vec::new());
        assert_eq!(found.ignored, ["IPPool/p"]);
        assert_eq!(found.pods, [("shop".to_owned(), 2)].into());
        let [change] = &found.changes[..] else {
            panic!("{found:?}")
        };
        let [from, to] = [change.from, change.to].map(|group| found.groups[group].pods.clone());
        assert_eq!(
            (from, to),
            (vec!["shop/till".to_owned()], vec!["shop/web".to_owned()])
        );
        assert_eq!(
            (change.flows, found.changed, &change.packets[0].ports[..]),
            (1, 1, &["80".to_owned()][..])
        );
        assert_eq!(
            [change.before.verdict, change.after.verdict],
            [Verdict::Deny, Verdict::Allow]
        );
        assert_eq!(
            change.after.deciding.as_ref().map(|it| it.policy.name.as_str()),
            Some("open")
        );

        let found = suppose(Vec::new(), vec![key]);
        assert!(
            found.changes.iter().all(|change| change.after.deciding.is_none()),
            "{found:?}"
        );
        assert_eq!(
            suppose(Vec::new(), Vec::new()).changed,
            0,
            "the cluster is as it was"
        );
    }
}
