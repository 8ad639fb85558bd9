//! Who may do what at the fake server: RBAC, as the objects of a deployment grant it.
//!
//! Whoever a token says he is, he is: a service account's token is its name, and where it is a pod's, the pod's node.

use std::collections::BTreeSet;

use serde_json::Value;

use super::admission::{Admission, Write};
use super::objects::Refusal;

/// What a request asks for, in RBAC's words.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) verb: &'static str,
    pub(super) group: &'a str,
    /// The plural, without what is below it.
    pub(super) resource: &'a str,
    /// What is below it: `status`.
    pub(super) subresource: Option<&'static str>,
    /// Empty for the whole cluster.
    pub(super) namespace: &'a str,
    pub(super) name: Option<&'a str>,
}

impl Asked<'_> {
    /// The resource as rules name it.
    pub(super) fn full(&self) -> String {
        let below = self.subresource.map(|below| format!("/{below}"));
        format!("{}{}", self.resource, below.unwrap_or_default())
    }

    /// The refusal of this, in the real server's words.
    pub(super) fn forbidden(&self, why: &str) -> Refusal {
        let dot = if self.group.is_empty() { "" } else { "." };
        let name = self.name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
        let message = format!("{}{dot}{}{name} is forbidden: {why}", self.resource, self.group);
        Refusal::new(403, "Forbidden", message)
    }
}

/// Whoever asks, as his token says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub(super) user: &'a str,
    /// The node that his pod is on; empty where he is no pod.
    pub(super) node: &'a str,
}

impl<'a> Caller<'a> {
    pub(super) fn of(token: &'a str) -> Self {
        let (user, node) = token.split_once('@').unwrap_or((token, ""));
        Self { user, node }
    }
}

/// One verb on one resource, for one account.
#[derive(Debug)]
struct Grant {
    user: String,
    /// Where it holds; everywhere when it is none.
    namespace: Option<String>,
    group: String,
    resource: String,
    verb: String,
    /// Of which names; of all when there are none.
    names: Vec<String>,
    used: bool,
}

/// All that is granted.
#[derive(Debug)]
pub(super) struct Access {
    grants: Vec<Grant>,
    admission: Admission,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(text).collect()
}

/// How service accounts begin as users. The fake server knows nobody else.
const ACCOUNTS: &str = "system:serviceaccount:";

/// The service account of this name, as a user.
fn account(subject: &Value) -> String {
    let [namespace, name] = ["namespace", "name"].map(|field| text(&subject[field]));
    format!("{ACCOUNTS}{namespace}:{name}")
}

impl Access {
    /// What roles and their bindings among these objects grant to service accounts.
    pub(super) fn of(objects: &[Value]) -> Self {
        let mut grants = Vec::new();
        let bindings = objects
            .iter()
            .filter(|it| text(&it["kind"]).ends_with("RoleBinding"));
        for binding in bindings {
            let namespace = binding["metadata"]["namespace"].as_str();
            let reference = &binding["roleRef"];
            let is_meant = |it: &&Value| {
                let mut home =
                    reference["kind"] == "ClusterRole" || it["metadata"]["namespace"].as_str() == namespace;
                home &= it["kind"] == reference["kind"];
                home && it["metadata"]["name"] == reference["name"]
            };
            let rules = objects
                .iter()
                .filter(is_meant)
                .flat_map(|role| role["rules"].as_array());
            for rule in rules.flatten() {
                for user in binding["subjects"].as_array().into_iter().flatten().map(account) {
                    grants.extend(of_rule(rule, &user, namespace));
                }
            }
        }
        Self {
            grants,
            admission: Admission::of(objects),
        }
    }

    /// Refuses what nobody has granted to the caller, in the real server's words.
    pub(super) fn check(&mut self, caller: Caller<'_>, asked: &Asked<'_>) -> Result<(), Refusal> {
        let user = caller.user;
        if !user.starts_with(ACCOUNTS) {
            return Err(Refusal::new(401, "Unauthorized", "Unauthorized"));
        }
        let full = asked.full();
        let grants = |it: &&mut Grant| {
            let any_or = |granted: &str, asked: &str| granted == "*" || granted == asked;
            it.user == user
                && it
                    .namespace
                    .as_deref()
                    .is_none_or(|namespace| namespace == asked.namespace)
                && any_or(&it.group, asked.group)
                && any_or(&it.resource, &full)
                && any_or(&it.verb, asked.verb)
                && (it.names.is_empty()
                    || asked
                        .name
                        .is_some_and(|name| it.names.iter().any(|it| it == name)))
        };
        if let Some(grant) = self.grants.iter_mut().find(grants) {
            grant.used = true;
            return Ok(());
        }
        let place = match asked.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        let (verb, group) = (asked.verb, asked.group);
        Err(asked.forbidden(&format!(
            "User \"{user}\" cannot {verb} resource \"{full}\" in API group \"{group}\" {place}"
        )))
    }

    /// Refuses a write that a policy denies.
    pub(super) fn admit(&self, caller: Caller<'_>, asked: &Asked<'_>, write: &Write) -> Result<(), Refusal> {
        self.admission.check(caller, asked, write)
    }

    /// What has been granted to the bearer of a token and not been asked for: `verb resource.group`.
    pub(super) fn unused(&self, token: &str) -> BTreeSet<String> {
        let unused = self
            .grants
            .iter()
            .filter(|grant| !grant.used && grant.user == token);
        let title = |it: &Grant| {
            let dot = if it.group.is_empty() { "" } else { "." };
            format!("{} {}{dot}{}", it.verb, it.resource, it.group)
        };
        unused.map(title).collect()
    }
}

fn of_rule(rule: &Value, user: &str, namespace: Option<&str>) -> Vec<Grant> {
    let mut grants = Vec::new();
    for group in texts(&rule["apiGroups"]) {
        for resource in texts(&rule["resources"]) {
            grants.extend(texts(&rule["verbs"]).into_iter().map(|verb| Grant {
                user: user.to_owned(),
                namespace: namespace.map(str::to_owned),
                group: group.clone(),
                resource: resource.clone(),
                verb,
                names: texts(&rule["resourceNames"]),
                used: false,
            }));
        }
    }
    grants
}
