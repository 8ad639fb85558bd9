//! Which pools a pod gets its addresses from: Calico's cases, and ours.

use std::collections::BTreeMap;

use manx_api::Metadata;
use manx_api::ipam::{AssignmentMode, IpPool};
use manx_ipam::{AnnotationError, Family, Objection, Pod, Selection, select};
use proptest::prelude::*;

use crate::{cases, pool};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn with(name: &str, cidr: &str, change: impl FnOnce(&mut IpPool)) -> IpPool {
    let mut pool = pool(name, cidr, None);
    change(&mut pool);
    pool
}

/// The pools of the tables: three of IPv4 that serve everybody, one disabled, one manual, one for a rack, one for
/// a team, and two of IPv6.
fn pools() -> Vec<IpPool> {
    vec![
        pool("one", "10.1.0.0/16", None),
        pool("two", "10.2.0.0/16", None),
        with("off", "10.3.0.0/16", |pool| pool.spec.disabled = true),
        with("manual", "10.4.0.0/16", |pool| {
            pool.spec.assignment_mode = AssignmentMode::Manual;
        }),
        with("rack", "10.5.0.0/16", |pool| {
            pool.spec.node_selector = "rack == 'r2'".parse().unwrap();
        }),
        with("team", "10.6.0.0/16", |pool| {
            pool.spec.namespace_selector = "team == 'red'".parse().unwrap();
        }),
        pool("six", "fd01::/64", None),
        with("six-off", "fd02::/64", |pool| pool.spec.disabled = true),
    ]
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    /// Its annotations.
    pod: Pairs<'a>,
    /// Its labels and annotations, where it is known.
    namespace: Option<(Pairs<'a>, Pairs<'a>)>,
    /// Its labels.
    node: Pairs<'a>,
}

const PLAIN: Case<'_> = Case {
    pod: &[],
    namespace: None,
    node: &[],
};

fn of_pod(annotations: Pairs<'_>) -> Case<'_> {
    Case {
        pod: annotations,
        ..PLAIN
    }
}

fn of_namespace<'a>(labels: Pairs<'a>, annotations: Pairs<'a>) -> Case<'a> {
    Case {
        namespace: Some((labels, annotations)),
        ..PLAIN
    }
}

fn choose<'a>(case: &Case<'_>, pools: &'a [IpPool]) -> Result<Vec<Selection<'a>>, AnnotationError> {
    let metadata = case.namespace.map(|(labels, annotations)| Metadata {
        name: "ns".to_owned(),
        labels: map(labels),
        annotations: map(annotations),
        ..Metadata::default()
    });
    select(
        &Pod {
            node: "n1",
            node_labels: &map(case.node),
            namespace: "ns",
            namespace_metadata: metadata.as_ref(),
            annotations: &map(case.pod),
        },
        pools,
    )
}

/// The names chosen, IPv4 then IPv6.
fn names(case: &Case<'_>, pools: &[IpPool]) -> Vec<Vec<String>> {
    let of = |selection: Selection<'_>| {
        selection
            .pools
            .iter()
            .map(|pool| pool.metadata.name.clone())
            .collect()
    };
    choose(case, pools).unwrap().into_iter().map(of).collect()
}

const OURS4: &str = "manx.network/ipv4pools";
const THEIRS4: &str = "cni.projectcalico.org/ipv4pools";
const OURS6: &str = "manx.network/ipv6pools";

#[test]
fn the_pod_chooses_before_its_namespace_and_that_before_the_pools() {
    let pools = pools();
    let two = [(OURS4, r#"["two"]"#)];
    let namespaces_two = of_namespace(&[], &two);
    let theirs = [(THEIRS4, r#"["one"]"#)];
    for (case, v4) in [
        (PLAIN, &["one", "two"][..]),
        (of_pod(&two), &["two"]),
        (of_pod(&[(OURS4, r#"["two", "one", "two"]"#)]), &["two", "one"]),
        (of_pod(&theirs), &["one"]),
        (of_pod(&[theirs[0], two[0]]), &["two"]),
        (of_pod(&[(OURS4, r#"["10.2.0.0/16"]"#)]), &["two"]),
        (of_pod(&[(OURS4, "[]")]), &["one", "two"]),
        (namespaces_two, &["two"]),
        (
            Case {
                pod: &theirs,
                ..namespaces_two
            },
            &["one"],
        ),
        (of_namespace(&[], &theirs), &["one"]),
        (
            Case {
                node: &[("rack", "r2")],
                ..PLAIN
            },
            &["one", "rack", "two"],
        ),
        (of_namespace(&[("team", "red")], &[]), &["one", "team", "two"]),
        (of_namespace(&[("team", "blue")], &[]), &["one", "two"]),
    ] {
        assert_eq!(names(&case, &pools), [v4, &["six"]], "{case:?}");
    }
}

#[test]
fn pools_that_are_named_need_not_select_the_pod_but_a_disabled_one_gives_nothing() {
    let pools = pools();
    let named = [(OURS4, r#"["rack", "team", "off", "manual"]"#)];
    let case = of_pod(&named);
    assert_eq!(names(&case, &pools)[0], ["rack", "team", "manual"]);
    let only = [(OURS4, r#"["off", "10.3.0.0/16"]"#)];
    assert_eq!(
        choose(&of_pod(&only), &pools).unwrap_err().to_string(),
        "the pod's annotation manx.network/ipv4pools names disabled IPPools only: enable one of [off, off], or \
         name another"
    );
}

#[test]
fn each_family_is_decided_for_itself() {
    let pools = pools();
    let six = [(OURS6, r#"["six"]"#)];
    let chosen = names(&of_pod(&six), &pools);
    assert_eq!(chosen, [&["one", "two"][..], &["six"]]);
    let v4_only = &pools[..6];
    assert_eq!(names(&PLAIN, v4_only), [["one", "two"]]);
}

#[test]
fn what_an_annotation_says_wrongly_is_said_with_what_would_be_right() {
    let pools = pools();
    let of_namespace: Option<(Pairs<'_>, Pairs<'_>)> = Some((&[], &[(THEIRS4, "two")]));
    for (case, message) in [
        (
            of_pod(&[(OURS4, "two")]),
            "the pod's annotation manx.network/ipv4pools is 'two', which is no JSON list of strings: write \
             [\"10.244.0.0/16\"] or [\"a-pool\"]",
        ),
        (
            of_pod(&[(OURS4, r#"["two", 3]"#)]),
            "the pod's annotation manx.network/ipv4pools is '[\"two\", 3]', which is no JSON list of strings: \
             write [\"10.244.0.0/16\"] or [\"a-pool\"]",
        ),
        (
            Case {
                namespace: of_namespace,
                ..PLAIN
            },
            "the namespace's annotation cni.projectcalico.org/ipv4pools is 'two', which is no JSON list of \
             strings: write [\"10.244.0.0/16\"] or [\"a-pool\"]",
        ),
        (
            of_pod(&[(OURS6, r#"["seven"]"#)]),
            "the pod's annotation manx.network/ipv6pools names 'seven', which is neither name nor CIDR of an \
             IPPool: the IPv6 ones are [six, six-off]",
        ),
        (
            of_pod(&[(OURS4, r#"["10.2.0.0/17"]"#)]),
            "the pod's annotation manx.network/ipv4pools names '10.2.0.0/17', which is neither name nor CIDR of \
             an IPPool: the IPv4 ones are [manual, off, one, rack, team, two]",
        ),
        (
            of_pod(&[(OURS4, r#"["six"]"#)]),
            "the pod's annotation manx.network/ipv4pools names IPPool six (fd01::/64), which has no IPv4 addresses",
        ),
    ] {
        assert_eq!(choose(&case, &pools).unwrap_err().to_string(), message);
    }
}

/// Calico's thirteen cases of namespace selectors, as far as selectors differ for us.
#[test]
fn namespaces_are_selected_by_their_labels_and_their_name() {
    let labels: &[(&str, &str)] = &[("environment", "production"), ("tier", "backend")];
    for (selector, known, unknown) in [
        ("all()", true, true),
        ("", true, true),
        ("environment == 'production'", true, false),
        ("environment == 'staging'", false, false),
        ("environment != 'staging'", true, true),
        ("has(tier)", true, false),
        ("!has(tier)", false, true),
        ("environment in {'production', 'staging'}", true, false),
        ("environment not in {'production'}", false, true),
        ("environment == 'production' && tier == 'backend'", true, false),
        ("environment == 'production' && tier == 'frontend'", false, false),
        ("environment == 'x' || tier starts with 'back'", true, false),
        ("kubernetes.io/metadata.name == 'ns'", true, true),
        ("projectcalico.org/name == 'ns'", true, true),
        ("kubernetes.io/metadata.name == 'other'", false, false),
    ] {
        let pools = [with("p", "10.0.0.0/16", |pool| {
            pool.spec.namespace_selector = selector.parse().unwrap();
        })];
        for (namespace, chosen) in [(Some((labels, &[][..])), known), (None, unknown)] {
            let found = names(&Case { namespace, ..PLAIN }, &pools);
            assert_eq!(!found[0].is_empty(), chosen, "{selector} {namespace:?}");
        }
    }
}

#[test]
fn a_choice_says_who_made_it_and_what_is_against_the_others() {
    let pools = pools();
    let by_selectors = choose(&PLAIN, &pools).unwrap();
    assert_eq!(
        by_selectors[0].to_string(),
        "IPv4 from [one, two], by the pools' selectors; manual is only for pods that name it (assignmentMode \
         Manual); off is disabled; rack is for other nodes (nodeSelector rack == \"r2\"); team is for other \
         namespaces (namespaceSelector team == \"red\")"
    );
    let named = [(OURS4, r#"["two"]"#)];
    let by_pod = choose(&of_pod(&named), &pools).unwrap();
    let against: Vec<_> = by_pod[0]
        .passed_over
        .iter()
        .map(|(pool, objection)| (pool.metadata.name.as_str(), objection.clone()))
        .collect();
    assert_eq!(against[0], ("manual", Objection::NotNamed));
    assert_eq!(against[1], ("off", Objection::Disabled));
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn the_order_of_the_pools_does_not_matter_and_each_is_chosen_or_passed_over(
        pools in Just(pools()).prop_shuffle(),
        named in prop::sample::subsequence(vec!["one", "two", "manual", "rack"], 0..4),
    ) {
        let list = serde_json::to_string(&named).unwrap();
        let annotations = [(OURS4, list.as_str())];
        let case = of_pod(&annotations);
        let chosen = choose(&case, &pools).unwrap();
        let original = self::pools();
        prop_assert_eq!(&chosen, &choose(&case, &original).unwrap());
        for selection in chosen {
            let family = |pool: &&IpPool| Family::of_network(pool.spec.cidr) == selection.family;
            let count = pools.iter().filter(family).count();
            prop_assert_eq!(selection.pools.len() + selection.passed_over.len(), count);
        }
    }
}
