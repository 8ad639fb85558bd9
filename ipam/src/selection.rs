//! Which pools a pod gets its addresses from.
//!
//! The pod's annotation decides, else its namespace's, else what the pools themselves say: `nodeSelector`,
//! `namespaceSelector` and `assignmentMode`. Pools that an annotation names need not select the pod. A
//! disabled pool gives nothing to anybody. Each family is decided for itself.

use std::collections::BTreeMap;
use std::fmt;

use ipnetwork::IpNetwork;
use manx_api::ipam::IpPool;
use manx_api::{Metadata, Selector};

use crate::Family;

/// What annotations of ours begin with, and what Calico's do: ours wins.
const PREFIXES: [&str; 2] = ["manx.network/", "cni.projectcalico.org/"];

/// The labels that say what a namespace is called: Kubernetes', and Calico's.
const NAME_LABELS: [&str; 2] = ["kubernetes.io/metadata.name", "projectcalico.org/name"];

/// A pod before it has an address.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    /// The node it is on.
    pub node: &'a str,
    /// The node's labels.
    pub node_labels: &'a BTreeMap<String, String>,
    /// The namespace it is in.
    pub namespace: &'a str,
    /// What is known of the namespace; one that is unknown has no labels but those of its name.
    pub namespace_metadata: Option<&'a Metadata>,
    /// The pod's annotations.
    pub annotations: &'a BTreeMap<String, String>,
}

/// The pools of one family that a pod may get an address from, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection<'a> {
    /// The family.
    pub family: Family,
    /// Who chose.
    pub by: Chooser,
    /// The pools, the preferred first.
    pub pools: Vec<&'a IpPool>,
    /// The others of the family, each with what is against it.
    pub passed_over: Vec<(&'a IpPool, Objection)>,
}

/// Who chose a pod's pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chooser {
    /// This annotation of the pod.
    Pod(String),
    /// This annotation of its namespace.
    Namespace(String),
    /// The pools' own settings.
    Pools,
}

/// Why a pod gets no address from a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// The pool is disabled.
    Disabled,
    /// An annotation names other pools.
    NotNamed,
    /// The pool serves only pods that name it.
    Manual,
    /// The pool is for other nodes.
    Node(Selector),
    /// The pool is for other namespaces.
    Namespace(Selector),
}

/// An annotation that cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// It is no JSON list of strings.
    #[error("{by} is '{value}', which is no JSON list of strings: write {example}")]
    Json {
        /// Whose it is, and its name.
        by: Chooser,
        /// What it says.
        value: String,
        /// What would be right.
        example: &'static str,
    },
    /// It names a pool that there is not.
    #[error("{by} names '{entry}', which is neither name nor CIDR of an IPPool: the {family} ones are [{}]", .known.join(", "))]
    Unknown {
        /// Whose it is, and its name.
        by: Chooser,
        /// What it names.
        entry: String,
        /// The family it is for.
        family: Family,
        /// The pools that there are.
        known: Vec<String>,
    },
    /// It names a pool of the other family.
    #[error("{by} names IPPool {pool} ({cidr}), which has no {family} addresses")]
    WrongFamily {
        /// Whose it is, and its name.
        by: Chooser,
        /// The pool.
        pool: String,
        /// The pool's addresses.
        cidr: IpNetwork,
        /// The family it is for.
        family: Family,
    },
    /// It names disabled pools only.
    #[error("{by} names disabled IPPools only: enable one of [{}], or name another", .pools.join(", "))]
    Disabled {
        /// Whose it is, and its name.
        by: Chooser,
        /// The pools.
        pools: Vec<String>,
    },
}

/// The pools that a pod may get addresses from, of each family that has any.
///
/// # Errors
/// An annotation cannot be obeyed.
pub fn select<'a>(
    pod: &Pod<'_>,
    pools: impl IntoIterator<Item = &'a IpPool>,
) -> Result<Vec<Selection<'a>>, AnnotationError> {
    let mut families: BTreeMap<Family, Vec<&IpPool>> = BTreeMap::new();
    let mut all: Vec<&IpPool> = pools.into_iter().collect();
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for pool in &all {
        families
            .entry(Family::of_network(pool.spec.cidr))
            .or_default()
            .push(pool);
    }
    let mut selections = Vec::new();
    for family in [Family::V4, Family::V6] {
        let of_family = families.remove(&family).unwrap_or_default();
        match named(pod, family)? {
            Some((by, entries)) => selections.push(chosen(family, by, &entries, &of_family, &all)?),
            None if of_family.is_empty() => {}
            None => selections.push(selected(pod, family, of_family)),
        }
    }
    Ok(selections)
}

/// An annotation of that name, and what it says.
pub(crate) fn annotation<'a>(
    annotations: &'a BTreeMap<String, String>,
    name: &str,
) -> Option<(String, &'a str)> {
    PREFIXES.iter().find_map(|prefix| {
        let key = format!("{prefix}{name}");
        let value = annotations.get(&key)?;
        Some((key, value.as_str()))
    })
}

/// The strings of a JSON list.
pub(crate) fn strings(
    by: &Chooser,
    value: &str,
    example: &'static str,
) -> Result<Vec<String>, AnnotationError> {
    serde_json::from_str(value).map_err(|_| AnnotationError::Json {
        by: by.clone(),
        value: value.to_owned(),
        example,
    })
}

/// What an annotation of the pod or of its namespace names; none where there is none, or it names nothing.
fn named(pod: &Pod<'_>, family: Family) -> Result<Option<(Chooser, Vec<String>)>, AnnotationError> {
    let (name, example) = match family {
        Family::V4 => ("ipv4pools", r#"["10.244.0.0/16"] or ["a-pool"]"#),
        Family::V6 => ("ipv6pools", r#"["fd00:244::/48"] or ["a-pool"]"#),
    };
    let of_pod = annotation(pod.annotations, name).map(|(key, value)| (Chooser::Pod(key), value));
    let of_namespace = || {
        let (key, value) = annotation(&pod.namespace_metadata?.annotations, name)?;
        Some((Chooser::Namespace(key), value))
    };
    let Some((by, value)) = of_pod.or_else(of_namespace) else {
        return Ok(None);
    };
    let entries = strings(&by, value, example)?;
    Ok((!entries.is_empty()).then_some((by, entries)))
}

/// The pools that an annotation names, those that are disabled passed over.
fn chosen<'a>(
    family: Family,
    by: Chooser,
    entries: &[String],
    of_family: &[&'a IpPool],
    all: &[&'a IpPool],
) -> Result<Selection<'a>, AnnotationError> {
    let mut pools: Vec<&IpPool> = Vec::new();
    let mut disabled = Vec::new();
    for entry in entries {
        let is_meant = |pool: &&&IpPool| pool.metadata.name == *entry || entry.parse() == Ok(pool.spec.cidr);
        let Some(&pool) = all.iter().find(is_meant) else {
            return Err(AnnotationError::Unknown {
                by,
                entry: entry.clone(),
                family,
                known: of_family.iter().map(|pool| pool.metadata.name.clone()).collect(),
            });
        };
        if Family::of_network(pool.spec.cidr) != family {
            return Err(AnnotationError::WrongFamily {
                by,
                pool: pool.metadata.name.clone(),
                cidr: pool.spec.cidr,
                family,
            });
        }
        if pool.spec.disabled {
            disabled.push(pool.metadata.name.clone());
        } else if !pools.contains(&pool) {
            pools.push(pool);
        }
    }
    if pools.is_empty() {
        return Err(AnnotationError::Disabled { by, pools: disabled });
    }
    let others = of_family.iter().filter(|pool| !pools.contains(pool));
    let passed_over = others
        .map(|pool| match pool.spec.disabled {
            true => (*pool, Objection::Disabled),
            false => (*pool, Objection::NotNamed),
        })
        .collect();
    Ok(Selection {
        family,
        by,
        pools,
        passed_over,
    })
}

/// The pools that select the pod.
fn selected<'a>(pod: &Pod<'_>, family: Family, of_family: Vec<&'a IpPool>) -> Selection<'a> {
    let namespace_labels = namespace_labels(pod.namespace, pod.namespace_metadata);
    let mut pools = Vec::new();
    let mut passed_over = Vec::new();
    for pool in of_family {
        let node = objection(pool, pod.node_labels);
        let namespace = || {
            let selector = &pool.spec.namespace_selector;
            (!selector.matches(&namespace_labels)).then(|| Objection::Namespace(selector.clone()))
        };
        match node.or_else(namespace) {
            Some(objection) => passed_over.push((pool, objection)),
            None => pools.push(pool),
        }
    }
    Selection {
        family,
        by: Chooser::Pools,
        pools,
        passed_over,
    }
}

/// Why a node gives no pod addresses of the pool, unless one names it; none where it gives them to some
/// namespace's pods.
#[must_use]
pub fn objection(pool: &IpPool, node_labels: &BTreeMap<String, String>) -> Option<Objection> {
    let spec = &pool.spec;
    if spec.disabled {
        return Some(Objection::Disabled);
    }
    if !spec.assignment_mode.is_automatic() {
        return Some(Objection::Manual);
    }
    let elsewhere = !spec.node_selector.matches(node_labels);
    elsewhere.then(|| Objection::Node(spec.node_selector.clone()))
}

/// A namespace's labels: those it has, and the name's.
fn namespace_labels(name: &str, metadata: Option<&Metadata>) -> BTreeMap<String, String> {
    let mut labels = metadata.map_or_else(BTreeMap::new, |metadata| metadata.labels.clone());
    for key in NAME_LABELS {
        labels.entry(key.to_owned()).or_insert_with(|| name.to_owned());
    }
    labels
}

impl fmt::Display for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "the pod's annotation {key}"),
            Self::Namespace(key) => write!(f, "the namespace's annotation {key}"),
            Self::Pools => f.write_str("the pools' selectors"),
        }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("is disabled"),
            Self::NotNamed => f.write_str("is not named"),
            Self::Manual => f.write_str("is only for pods that name it (assignmentMode Manual)"),
            Self::Node(selector) => write!(f, "is for other nodes (nodeSelector {selector})"),
            Self::Namespace(selector) => write!(f, "is for other namespaces (namespaceSelector {selector})"),
        }
    }
}

impl fmt::Display for Selection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self
            .pools
            .iter()
            .map(|pool| pool.metadata.name.as_str())
            .collect();
        write!(f, "{} from [{}], by {}", self.family, names.join(", "), self.by)?;
        for (pool, objection) in &self.passed_over {
            write!(f, "; {} {objection}", pool.metadata.name)?;
        }
        Ok(())
    }
}
