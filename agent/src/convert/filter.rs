//! BGPFilters become the speaker's policies, and what BGPPeers say of routes its handling of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manx_api::bgp::{self, BgpPeerSpec, MaxPrefixes};
use manx_api::filter::{
    BgpFilter, Community, FilterAction, FilterOperation, FilterRule, MatchOperator, PeerType,
};
use manx_bgp::filter::{self, Action, Chain, Filter, Match, Operation, Operator, Range, Rule};
use manx_bgp::{Family, Handling, LimitAction, PathLimit, Policy, Prefix};

/// What passes on a session, in and out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// What comes in.
    pub import: Policy,
    /// What goes out.
    pub export: Policy,
}

/// Compiles the policies of sessions, once for all sessions with the same filters.
#[derive(Debug)]
pub struct Compiler<'a> {
    filters: &'a BTreeMap<String, BgpFilter>,
    within: Policy,
    compiled: BTreeMap<Vec<String>, Policies>,
}

/// A rule that no validated BGPFilter has.
#[derive(Debug, thiserror::Error)]
enum Misfit {
    #[error(transparent)]
    Range(#[from] filter::RangeError),
    #[error(transparent)]
    Interface(#[from] filter::NotAnInterface),
    #[error(transparent)]
    Community(#[from] filter::CommunityError),
    #[error("an operation of none or several kinds")]
    Operation,
}

impl<'a> Compiler<'a> {
    /// Where no rule matches, what lies within these prefixes passes.
    #[must_use]
    pub fn new(filters: &'a BTreeMap<String, BgpFilter>, within: Arc<[Prefix]>) -> Self {
        Self {
            filters,
            within: Policy::Within(within),
            compiled: BTreeMap::new(),
        }
    }

    /// The policies of a session with these filters. A filter that there is not has no rules, so the default
    /// holds until it comes; one that cannot be understood lets nothing through.
    pub fn policies(&mut self, names: &[String]) -> Policies {
        if let Some(known) = self.compiled.get(names) {
            return known.clone();
        }
        let missing = names.iter().filter(|name| !self.filters.contains_key(*name));
        missing
            .for_each(|name| tracing::warn!(filter = %name, "a session names a BGPFilter that there is not"));
        let found: Vec<&BgpFilter> = names.iter().filter_map(|name| self.filters.get(name)).collect();
        let policies = Policies {
            import: self.policy(&found, import),
            export: self.policy(&found, export),
        };
        self.compiled.insert(names.to_vec(), policies.clone());
        policies
    }

    fn policy(&self, filters: &[&BgpFilter], of: fn(&BgpFilter) -> Result<Filter, Misfit>) -> Policy {
        if filters.is_empty() {
            return self.within.clone();
        }
        match filters.iter().map(|it| of(it)).collect::<Result<Vec<_>, _>>() {
            Ok(filters) => Policy::Filtered(Arc::new(Chain::new(&filters, self.within.clone()))),
            Err(error) => {
                tracing::error!(%error, "a BGPFilter cannot be understood: its sessions carry no routes");
                Policy::Reject
            }
        }
    }
}

/// How a peer's routes are handled beside its filters.
#[must_use]
pub fn handling(spec: &BgpPeerSpec) -> Handling {
    let limits = |max: MaxPrefixes| {
        let action = match max.action {
            bgp::LimitAction::Warn => LimitAction::Warn,
            bgp::LimitAction::Restart => LimitAction::Restart(Duration::from_secs(max.restart_after.into())),
            bgp::LimitAction::Down => LimitAction::Down,
        };
        let of = |family, count: Option<u32>| {
            count.map(|count| PathLimit {
                family,
                max: count,
                warn_percent: max.warn_percent,
                action,
            })
        };
        let both = [
            of(Family::Ipv4Unicast, max.ipv4),
            of(Family::Ipv6Unicast, max.ipv6),
        ];
        both.into_iter().flatten().collect()
    };
    Handling {
        local_as: spec.local_as_number,
        allowed_own_as: spec.allowed_local_as_numbers,
        enforce_first_as: spec.enforce_first_as,
        as_override: spec.as_override,
        remove_private_as: spec.remove_private_as,
        limits: spec.max_prefixes.map(limits).unwrap_or_default(),
        ..Handling::default()
    }
}

fn import(filter: &BgpFilter) -> Result<Filter, Misfit> {
    compiled(filter, &filter.spec.import_v4, &filter.spec.import_v6)
}

fn export(filter: &BgpFilter) -> Result<Filter, Misfit> {
    compiled(filter, &filter.spec.export_v4, &filter.spec.export_v6)
}

fn compiled(filter: &BgpFilter, v4: &[FilterRule], v6: &[FilterRule]) -> Result<Filter, Misfit> {
    Ok(Filter {
        name: filter.metadata.name.as_str().into(),
        v4: v4.iter().map(rule).collect::<Result<_, _>>()?,
        v6: v6.iter().map(rule).collect::<Result<_, _>>()?,
    })
}

fn rule(rule: &FilterRule) -> Result<Rule, Misfit> {
    let range = rule.cidr.zip(rule.match_operator).map(|(cidr, operator)| {
        let operator = match operator {
            MatchOperator::Equal => Operator::Equal,
            MatchOperator::NotEqual => Operator::NotEqual,
            MatchOperator::In => Operator::In,
            MatchOperator::NotIn => Operator::NotIn,
        };
        let lengths = rule.prefix_length.unwrap_or_default();
        Range::new(operator, Prefix::new(cidr), lengths.min, lengths.max)
    });
    let when = Match {
        range: range.transpose()?,
        learned: rule.source.is_some(),
        peer: rule.peer_type.map(|kind| match kind {
            PeerType::External => filter::PeerType::External,
            PeerType::Internal => filter::PeerType::Internal,
        }),
        communities: communities(rule.communities.iter().flat_map(|it| &it.values))?,
        as_path_prefix: rule.as_path_prefix.clone(),
        interface: rule.interface.as_deref().map(str::parse).transpose()?,
        priority: rule.priority,
    };
    let then = match rule.action {
        FilterAction::Accept => {
            Action::Accept(rule.operations.iter().map(operation).collect::<Result<_, _>>()?)
        }
        FilterAction::Reject => Action::Reject,
    };
    Ok(Rule { when, then })
}

fn operation(written: &FilterOperation) -> Result<Operation, Misfit> {
    Ok(match written {
        FilterOperation {
            add_community: Some(it),
            ..
        } => Operation::AddCommunity(community(&it.value)?),
        FilterOperation {
            set_communities: Some(it),
            ..
        } => Operation::SetCommunities(communities(&it.values)?),
        FilterOperation {
            prepend_as_path: Some(it),
            ..
        } => Operation::PrependAsPath(it.prefix.clone()),
        FilterOperation {
            set_local_preference: Some(it),
            ..
        } => Operation::SetLocalPreference(it.value),
        FilterOperation {
            set_med: Some(it), ..
        } => Operation::SetMed(it.value),
        FilterOperation {
            set_priority: Some(it),
            ..
        } => Operation::SetPriority(it.value),
        FilterOperation { .. } => return Err(Misfit::Operation),
    })
}

fn communities<'a>(
    written: impl IntoIterator<Item = &'a Community>,
) -> Result<Vec<filter::Community>, Misfit> {
    written.into_iter().map(community).collect()
}

fn community(written: &Community) -> Result<filter::Community, Misfit> {
    Ok(written.as_str().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(spec: &str) -> BTreeMap<String, BgpFilter> {
        let text = format!(r#"{{"metadata": {{"name": "f"}}, "spec": {spec}}}"#);
        BTreeMap::from([("f".to_owned(), serde_json::from_str(&text).unwrap())])
    }

    fn within() -> Arc<[Prefix]> {
        [Prefix::new("10.244.0.0/16".parse().unwrap())].into()
    }

    #[test]
    fn a_session_without_filters_or_with_none_that_exists_keeps_the_safe_default() {
        let filters = filters("{}");
        let mut compiler = Compiler::new(&filters, within());
        let default = Policies {
            import: Policy::Within(within()),
            export: Policy::Within(within()),
        };
        assert_eq!(compiler.policies(&[]), default);
        assert_eq!(compiler.policies(&["missing".to_owned()]), default);
    }

    #[test]
    fn every_field_of_a_rule_reaches_the_speaker() {
        let filters = filters(
            r#"{"importV4": [{"cidr": "10.0.0.0/8", "matchOperator": "NotIn", "prefixLength": {"min": 8, "max": 24},
                "source": "RemotePeers", "peerType": "iBGP", "communities": {"values": ["1:2", "rt:1:2", "1:2:3"]},
                "asPathPrefix": [1, 2], "interface": "eth*", "action": "Accept", "operations": [
                    {"addCommunity": {"value": "no-export"}}, {"setCommunities": {"values": ["soo:192.0.2.1:1"]}},
                    {"prependASPath": {"prefix": [7, 8]}}, {"setLocalPreference": {"value": 9}}, {"setMED": {"value": 5}},
                    {"setPriority": {"value": 512}}]}],
                "exportV6": [{"priority": 512, "action": "Reject"}]}"#,
        );
        let Policies { import, export } = Compiler::new(&filters, within()).policies(&["f".to_owned()]);
        let parse = |text: &str| text.parse::<filter::Community>().unwrap();
        let cidr = Prefix::new("10.0.0.0/8".parse().unwrap());
        let expected = Rule {
            when: Match {
                range: Range::new(Operator::NotIn, cidr, Some(8), Some(24)).ok(),
                learned: true,
                peer: Some(filter::PeerType::Internal),
                communities: ["1:2", "rt:1:2", "1:2:3"].map(parse).to_vec(),
                as_path_prefix: vec![1, 2],
                interface: "eth*".parse().ok(),
                priority: None,
            },
            then: Action::Accept(vec![
                Operation::AddCommunity(parse("no-export")),
                Operation::SetCommunities(vec![parse("soo:192.0.2.1:1")]),
                Operation::PrependAsPath(vec![7, 8]),
                Operation::SetLocalPreference(9),
                Operation::SetMed(5),
                Operation::SetPriority(512),
            ]),
        };
        let reject = Rule {
            when: Match {
                priority: Some(512),
                ..Match::default()
            },
            then: Action::Reject,
        };
        let chain = |v4, v6| {
            let filter = Filter {
                name: "f".into(),
                v4,
                v6,
            };
            Policy::Filtered(Arc::new(Chain::new(&[filter], Policy::Within(within()))))
        };
        assert_eq!(import, chain(vec![expected], vec![]));
        assert_eq!(export, chain(vec![], vec![reject]));
    }

    #[test]
    fn what_a_peer_says_of_routes_reaches_the_speaker() {
        let text = r#"{"peerIP": "192.0.2.1", "asNumber": 65001, "localASNumber": "0.64999",
            "numAllowedLocalASNumbers": 2, "enforceFirstAS": true, "asOverride": true, "removePrivateAS": true,
            "maxPrefixes": {"ipv6": 7, "action": "Restart", "restartAfter": 5}}"#;
        let expected = Handling {
            local_as: Some(64_999),
            allowed_own_as: 2,
            enforce_first_as: true,
            as_override: true,
            remove_private_as: true,
            limits: vec![PathLimit {
                family: Family::Ipv6Unicast,
                max: 7,
                warn_percent: 75,
                action: LimitAction::Restart(Duration::from_secs(5)),
            }],
            ..Handling::default()
        };
        assert_eq!(handling(&serde_json::from_str(text).unwrap()), expected);
    }

    #[test]
    fn communities_that_resources_may_hold_are_the_ones_that_the_speaker_knows() {
        for text in [
            "0:0",
            "65535:65535",
            "65536:1",
            "1:65536",
            "1:2:4294967295",
            "1:2:4294967296",
            "rt:65535:4294967295",
            "rt:65536:65535",
            "rt:65536:65536",
            "soo:192.0.2.1:65535",
            "soo:192.0.2.1:65536",
            "soo:192.0.2:1",
            "no-export",
            "no-peer",
            "+1:2",
            ":1",
            "1:2:",
            "a:b",
            "",
        ] {
            let (resource, speaker) = (text.parse::<Community>(), text.parse::<filter::Community>());
            assert_eq!(resource.is_ok(), speaker.is_ok(), "{text}");
            if let (Err(resource), Err(speaker)) = (resource, speaker) {
                assert_eq!(resource.to_string(), speaker.to_string());
            }
        }
    }
}
