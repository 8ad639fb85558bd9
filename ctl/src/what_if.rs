//! `manxctl policy explain --what-if`: what policies would change, before they are applied.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::explanation::{Deciding, Verdict};
use manx_api::rpc::Method;
use manx_api::rule::Family;
use manx_api::what_if::{WhatIf, WhatIfCall, WhatIfChange, WhatIfGroup, WhatIfPackets, WhatIfVerdict};
use manx_api::{Key, Kind, Resource};
use manx_store::{AnyStore, rehearse};
use serde_json::json;

use crate::cli::WhatIfArgs;
use crate::error::Result;
use crate::output::{self, Format};
use crate::policy::{called, word};
use crate::resources::{self, partly};
use crate::target::Target;

/// How long an agent may think.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lines of a table, and names in each cell of it, at most; a wide one has all.
const LINES: usize = 100;
const NAMES: usize = 3;

/// The columns of a table, and how many of them a narrow one has.
const COLUMNS: (&[&str], usize) = (
    &["FROM", "TO", "PACKETS", "NOW", "THEN", "BY", "BY NOW", "FLOWS"],
    6,
);

/// What would not be there, as the user writes it: `KIND/NAME`, or `KIND/NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Without {
    kind: Kind,
    namespace: Option<String>,
    name: String,
}

impl FromStr for Without {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let refused = || {
            "it is no resource: write KIND/NAME or KIND/NAMESPACE/NAME, as in networkpolicy/shop/web"
                .to_owned()
        };
        let (kind, rest) = text.split_once('/').ok_or_else(refused)?;
        let kind: Kind = kind
            .parse()
            .map_err(|error: manx_api::meta::UnknownKind| error.to_string())?;
        let (namespace, name) = match rest.split_once('/') {
            Some((namespace, name)) if kind.is_namespaced() => (Some(namespace.to_owned()), name),
            Some(_) => return Err(format!("{kind} has no namespace: write {kind}/NAME")),
            None => (None, rest),
        };
        if name.is_empty() || name.contains('/') {
            return Err(refused());
        }
        Ok(Self {
            kind,
            namespace,
            name: name.to_owned(),
        })
    }
}

impl Without {
    fn key(&self, namespace: &str) -> Key {
        let namespace = self.namespace.as_deref().unwrap_or(namespace);
        resources::key(self.kind, namespace, &self.name)
    }
}

/// `policy explain --what-if`.
pub(crate) async fn run(target: &Target, args: &WhatIfArgs, format: Format) -> Result<()> {
    let (namespace, supposed) = (&args.namespace, &args.supposed);
    let put = resources::read(&supposed.file, namespace)?;
    let without: Vec<Key> = supposed
        .without
        .iter()
        .map(|without| without.key(namespace))
        .collect();
    refuse(&target.store().await?, &put, &without).await?;
    let call = json!(WhatIfCall { put, without });
    let found: WhatIf = target.ask_any_within(PATIENCE, Method::PolicyWhatIf, &call)?;
    for ignored in &found.ignored {
        anstream::eprintln!("manxctl: no policy depends on {ignored}: it is left out");
    }
    match format {
        Format::Json => output::emit(&output::json(&found)?),
        Format::Yaml => output::emit(&output::yaml(&found)?),
        Format::Name => output::emit(&format!("{}\n", found.changed)),
        Format::Table | Format::Wide => output::emit(&text(&found, format == Format::Wide)),
    }
}

/// Says what `apply` and `delete` would refuse, in their words.
async fn refuse(store: &AnyStore, put: &[Resource], without: &[Key]) -> Result<()> {
    let errors = rehearse(store, put, without).await;
    let (failed, all) = (errors.len(), put.len() + without.len());
    for error in errors {
        if all == 1 {
            return Err(error.into());
        }
        anstream::eprintln!("manxctl: {error}");
    }
    partly(failed, all)
}

/// The answer for people: a line for each change, what is denied then before what is let through.
fn text(found: &WhatIf, wide: bool) -> String {
    let mut changes: Vec<&WhatIfChange> = found.changes.iter().collect();
    changes.sort_by_key(|change| (change.after.verdict == Verdict::Allow, Reverse(change.flows)));
    let lines = if wide {
        changes.len()
    } else {
        LINES.min(changes.len())
    };
    let shown = Shown::of(found, wide);
    let rows = changes[..lines]
        .iter()
        .map(|change| (shown.cells(change), change.after.verdict == Verdict::Allow));
    let columns = if wide { COLUMNS.0 } else { &COLUMNS.0[..COLUMNS.1] };
    let mut text = String::new();
    if !changes.is_empty() {
        text = output::table(columns, rows) + "\n";
    }
    if changes.len() > lines {
        text += &format!(
            "{} more lines are left out: -o wide and -o json have all.\n",
            changes.len() - lines
        );
    }
    let pods: usize = found.pods.values().sum();
    text += &format!(
        "{} of {} change, between {} and {} outside.\n",
        found.changed,
        counted(found.flows, "flow"),
        counted(pods as u64, "pod"),
        counted(found.networks.len() as u64, "network")
    );
    if found.left_out > 0 {
        text += &format!(
            "{} of them were not looked at: that would take too long. Ask about fewer resources at once.\n",
            found.left_out
        );
    }
    text
}

/// How an answer is shown.
struct Shown<'a> {
    found: &'a WhatIf,
    /// Whether some changes are of one family and others of the other.
    families: bool,
    /// Names in a cell, at most.
    names: usize,
}

impl<'a> Shown<'a> {
    fn of(found: &'a WhatIf, wide: bool) -> Self {
        let families: BTreeSet<Family> = found
            .changes
            .iter()
            .flat_map(|change| change.families.iter().copied())
            .collect();
        Self {
            found,
            families: families.len() > 1,
            names: if wide { usize::MAX } else { NAMES },
        }
    }

    fn cells(&self, change: &WhatIfChange) -> Vec<String> {
        let group = |number: usize| {
            let group = self.found.groups.get(number);
            group.map_or_else(String::new, |group| self.group(group))
        };
        vec![
            group(change.from),
            group(change.to),
            self.packets(change),
            word(change.before.verdict).to_owned(),
            word(change.after.verdict).to_owned(),
            by(&change.after),
            by(&change.before),
            change.flows.to_string(),
        ]
    }

    /// A few names, and how many more there are.
    fn few(&self, names: &[String]) -> String {
        let (shown, rest) = names.split_at(names.len().min(self.names));
        match rest.len() {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }

    /// A group in few words: whole namespaces by their names, a few pods of others, and what else there is.
    fn group(&self, group: &WhatIfGroup) -> String {
        let mut parts = self.pods(&group.pods);
        parts.extend(
            group
                .host_endpoints
                .iter()
                .map(|host| format!("host endpoint {host}")),
        );
        parts.extend(self.outside(&group.networks));
        parts.join("; ")
    }

    fn pods(&self, pods: &[String]) -> Vec<String> {
        let all = &self.found.pods;
        if pods.len() > 1 && pods.len() == all.values().sum::<usize>() {
            return vec![format!("all {} pods", pods.len())];
        }
        let mut by_namespace: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for pod in pods {
            let namespace = pod.split('/').next().unwrap_or_default();
            by_namespace.entry(namespace).or_default().push(pod);
        }
        let (mut whole, mut others) = (Vec::new(), Vec::new());
        for (namespace, pods) in by_namespace {
            if pods.len() > 1 && all.get(namespace) == Some(&pods.len()) {
                whole.push(format!("{namespace}/*"));
            } else {
                others.extend(pods.into_iter().cloned());
            }
        }
        let parts = [whole, others].into_iter().filter(|names| !names.is_empty());
        parts.map(|names| self.few(&names)).collect()
    }

    /// Networks outside; those that everything else is in, by no number.
    fn outside(&self, networks: &[IpNetwork]) -> Option<String> {
        let count = |networks: &[IpNetwork], v4| networks.iter().filter(|net| net.is_ipv4() == v4).count();
        let whole = [true, false].into_iter().all(|v4| {
            let own = count(networks, v4);
            own == 0 || own == count(&self.found.networks, v4)
        });
        let (rest, named): (Vec<&IpNetwork>, Vec<&IpNetwork>) =
            networks.iter().partition(|net| net.prefix() == 0);
        let names: Vec<String> = named.into_iter().map(ToString::to_string).collect();
        match (networks.is_empty(), whole, rest.is_empty()) {
            (true, ..) => None,
            (false, true, false) => Some("all outside".to_owned()),
            (false, _, true) => Some(self.few(&names)),
            (false, false, false) if names.is_empty() => Some("others outside".to_owned()),
            (false, false, false) => Some(format!("{}; others outside", self.few(&names))),
        }
    }

    fn packets(&self, change: &WhatIfChange) -> String {
        let family = match change.families[..] {
            [family] if self.families => format!(" ({family})"),
            _ => String::new(),
        };
        if change.packets.is_empty() {
            return format!("all{family}");
        }
        let one = |packets: &WhatIfPackets| match packets.protocol {
            None if packets.other_than.is_empty() => "all".to_owned(),
            None => {
                let names: Vec<String> = packets.other_than.iter().map(ToString::to_string).collect();
                format!("all but {}", names.join(", "))
            }
            Some(protocol) if packets.ports.is_empty() && packets.messages.is_empty() => protocol.to_string(),
            Some(protocol) => {
                let what = [&packets.ports[..], &packets.messages].concat();
                format!("{protocol} {}", what.join(", "))
            }
        };
        let all: Vec<String> = change.packets.iter().map(one).collect();
        all.join("; ") + &family
    }
}

/// `1 pod`, `2 pods`.
fn counted(count: u64, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    }
}

/// Who decides.
fn by(verdict: &WhatIfVerdict) -> String {
    match &verdict.deciding {
        None => "no policy".to_owned(),
        Some(Deciding {
            policy,
            rule: Some(rule),
            ..
        }) => format!("{} rule {rule}", called(policy)),
        Some(Deciding { policy, tier, .. }) => format!("{}, by the end of tier {tier}", called(policy)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, rule: Option<usize>) -> serde_json::Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "namespace": "shop", "name": name,
            "rule": rule, "tier": "default", "direction": "Ingress",
        })
    }

    fn found() -> WhatIf {
        let back: Vec<String> = (0..8).map(|number| format!("back/api-{number}")).collect();
        let nothing = json!({"verdict": "allow"});
        let found = json!({
            "flows": 1240, "changed": 300, "leftOut": 0, "pods": {"shop": 2, "back": 9, "ops": 1},
            "networks": ["0.0.0.0/0", "192.0.2.0/24", "::/0"],
            "groups": [
                {"pods": ["shop/till", "shop/web"]},
                {"pods": back, "networks": ["0.0.0.0/0", "192.0.2.0/24", "::/0"]},
                {"pods": ["ops/probe", "shop/till"], "networks": ["0.0.0.0/0"], "hostEndpoints": ["uplink"]},
                {"networks": ["192.0.2.0/24"]},
            ],
            "changes": [
                {
                    "from": 3, "to": 0, "families": [4], "flows": 10, "packets": [{"protocol": "TCP", "ports": ["8080"]}],
                    "before": {"verdict": "deny", "deciding": policy("deny-all", None)},
                    "after": {"verdict": "allow", "deciding": policy("web", Some(0))},
                },
                {
                    "from": 2, "to": 0, "families": [4], "flows": 40, "before": nothing,
                    "packets": [
                        {"protocol": "TCP", "ports": ["1:79", "443"]}, {"protocol": "UDP"},
                        {"protocol": "ICMP", "messages": ["8/0", "8/other", "other"]}, {"otherThan": ["TCP", "ICMP"]},
                    ],
                    "after": {"verdict": "deny", "deciding": policy("web", Some(2))},
                },
                {
                    "from": 1, "to": 0, "families": [4, 6], "packets": [], "flows": 250, "before": nothing,
                    "after": {"verdict": "deny", "deciding": policy("deny-all", None)},
                },
            ],
        });
        serde_json::from_value(found).unwrap()
    }

    fn plain(found: &WhatIf, wide: bool) -> String {
        anstream::adapter::strip_str(&text(found, wide)).to_string()
    }

    #[test]
    fn changes_are_lines_of_groups_with_a_few_names_and_wide_ones_with_all() {
        insta::assert_snapshot!(plain(&found(), false), @r"
        FROM                                                        TO      PACKETS                                                                 NOW    THEN   BY
        back/api-0, back/api-1, back/api-2 and 5 more; all outside  shop/*  all                                                                     allow  deny   NetworkPolicy.networking.k8s.io shop/deny-all, by the end of tier default
        ops/probe, shop/till; host endpoint uplink; others outside  shop/*  TCP 1:79, 443; UDP; ICMP 8/0, 8/other, other; all but TCP, ICMP (IPv4)  allow  deny   NetworkPolicy.networking.k8s.io shop/web rule 2
        192.0.2.0/24                                                shop/*  TCP 8080 (IPv4)                                                         deny   allow  NetworkPolicy.networking.k8s.io shop/web rule 0

        300 of 1240 flows change, between 12 pods and 3 networks outside.
        ");
        let wide = plain(&found(), true);
        assert!(
            wide.contains("back/api-7") && !wide.contains("more") && wide.contains("BY NOW"),
            "{wide}"
        );
        let coloured = text(&found(), false);
        let red = coloured.matches("\u{1b}[31m").count();
        assert_eq!(red, 2, "what is denied then stands out: {coloured}");
    }

    #[test]
    fn what_is_left_out_is_told_of() {
        let none = WhatIf {
            groups: Vec::new(),
            changes: Vec::new(),
            changed: 0,
            ..found()
        };
        let nothing = "0 of 1240 flows change, between 12 pods and 3 networks outside.\n";
        assert_eq!(plain(&none, false), nothing);
        let change = found().changes[0].clone();
        let many = WhatIf {
            changes: vec![change; LINES + 1],
            left_out: 7,
            ..found()
        };
        let told = plain(&many, false);
        assert!(
            told.contains("\n1 more lines are left out") && told.contains("\n7 of them were not looked at")
        );
        assert_eq!(plain(&many, true).matches("TCP 8080").count(), LINES + 1);
    }

    #[test]
    fn what_would_not_be_there_is_named_by_kind_and_name() {
        let keys = [
            "netpol/web",
            "networkpolicies.networking.k8s.io/other/web",
            "tier/security",
        ];
        let keys = keys.map(|text| text.parse::<Without>().unwrap().key("shop").to_string());
        let expected = [
            "NetworkPolicy.networking.k8s.io/shop/web",
            "NetworkPolicy.networking.k8s.io/other/web",
            "Tier/security",
        ];
        assert_eq!(keys, expected);
        for (text, part) in [
            ("web", "KIND/NAME"),
            ("tier/", "KIND/NAME"),
            ("tier/shop/web", "no namespace"),
            ("netpoll/web", "did you mean"),
            ("np/a/b/c", "KIND/NAME"),
        ] {
            let error = text.parse::<Without>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
