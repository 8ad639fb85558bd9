//! Policies on trial: the kernel counts what they would do, and packets go on as if they were not there.

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::lab_policies::{SOON, Shop};

const TRIAL: &str = "
apiVersion: manx.network/v1
kind: StagedNetworkPolicy
metadata: {name: trial, namespace: shop}
spec:
  selector: app == 'web'
  ingress:
  - {action: Deny, source: {selector: app == 'till'}}
  - {action: Allow, source: {selector: app == 'db'}}
---
apiVersion: manx.network/v1
kind: StagedKubernetesNetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
";

/// What the nodes counted: policy, rule, action and packets, where there were any.
fn counted(shop: &Shop) -> Vec<Value> {
    let counts = shop.name.json("policy staged");
    let counts = counts.as_array().unwrap().iter();
    let counts = counts.filter(|it| it["packets"] != json!(0));
    counts
        .map(|it| json!([it["name"], it["rule"], it["action"], it["packets"]]))
        .collect()
}

#[test]
fn a_staged_policy_counts_what_it_would_do_and_does_nothing() {
    let shop = Shop::open();
    shop.apply(TRIAL);
    let counts = || shop.name.json("policy staged").as_array().unwrap().len() == 4;
    assert!(eventually(SOON, counts), "{}", shop.name.ctl("policy staged"));
    assert_eq!(counted(&shop), [json!(null); 0]);
    for (from, to) in [("till", "web"), ("db", "web"), ("db", "web"), ("till", "db")] {
        assert!(shop.passes(from, to), "{from} to {to}");
    }
    // One packet of each family began each of them.
    let expected = [
        json!(["closed", null, null, 2]),
        json!(["trial", 0, "Deny", 2]),
        json!(["trial", 1, "Allow", 4]),
    ];
    assert_eq!(counted(&shop), expected, "{}", shop.state());

    shop.name.ctl("delete snp trial -n shop");
    shop.name.ctl("delete sknp closed -n shop");
    let clean = || !shop.state().contains("manx-");
    assert!(eventually(SOON, clean), "{}", shop.state());
    assert_eq!(shop.name.json("policy staged"), json!([]));
}
