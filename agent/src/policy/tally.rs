//! What staged policies would have done, added up over the kernel's counts.

use std::collections::BTreeMap;

use manx_api::explanation::StagedCount;
use manx_api::policy::{Direction, Origin};
use manx_api::rule::Action;
use manx_policy::{ChainId, Trial};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::convert;
use crate::metrics::StagedLabels;

/// A rule of a staged policy and what it would do; none: no rule was for the packet.
type Line = (Origin, Direction, Option<(usize, Action)>);

/// Packets by what would have become of them. The kernel counts each chain anew when it is written anew.
#[derive(Debug, Default)]
pub(super) struct Tally {
    totals: BTreeMap<Line, u64>,
    /// What was read last, by chain and place in it.
    read: BTreeMap<(ChainId, usize), u64>,
}

impl Tally {
    /// Takes in what the kernel counts at present; what policies that are gone would have done is forgotten.
    pub(super) fn take(&mut self, trials: &[(Trial, Vec<u64>)], metric: &Family<StagedLabels, Counter>) {
        let mut read = BTreeMap::new();
        let mut totals: BTreeMap<Line, u64> = BTreeMap::new();
        for (trial, packets) in trials {
            for (place, rule) in trial.rules.iter().enumerate() {
                let line = (trial.policy.clone(), trial.direction, *rule);
                let before = self.totals.get(&line).copied().unwrap_or_default();
                let total = totals.entry(line).or_insert(before);
                let Some(now) = packets.get(place).copied() else {
                    continue;
                };
                let last = self.read.get(&(trial.chain.clone(), place));
                *total += last.map_or(now, |last| now.checked_sub(*last).unwrap_or(now));
                read.insert((trial.chain.clone(), place), now);
            }
        }
        for (line, total) in &totals {
            let before = self.totals.get(line).copied().unwrap_or_default();
            metric.get_or_create(&labels(line)).inc_by(total - before);
        }
        for line in self.totals.keys().filter(|line| !totals.contains_key(*line)) {
            metric.remove(&labels(line));
        }
        *self = Self { totals, read };
    }

    /// The sums, in the order of policies and their rules, each policy's last one of what no rule is for.
    pub(super) fn counts(&self, node: &str) -> Vec<StagedCount> {
        let counts = self.totals.iter();
        let mut counts: Vec<StagedCount> = counts
            .map(|((policy, direction, rule), packets)| StagedCount {
                node: node.to_owned(),
                policy: convert::policy_name(policy),
                direction: *direction,
                rule: rule.map(|(number, _)| number),
                action: rule.map(|(_, action)| action),
                packets: *packets,
            })
            .collect();
        let place = |it: &StagedCount| (it.policy.clone(), it.direction, it.rule.is_none(), it.rule);
        counts.sort_by_key(place);
        counts
    }
}

fn labels((policy, direction, rule): &Line) -> StagedLabels {
    StagedLabels {
        policy: policy.to_string(),
        direction: direction.to_string(),
        rule: rule.map_or_else(|| "none".to_owned(), |(number, _)| number.to_string()),
        action: rule.map_or_else(|| "none".to_owned(), |(_, action)| action.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use manx_api::Kind;
    use manx_api::policy::Family as IpFamily;
    use manx_policy::Table;

    use super::*;

    fn trial(family: IpFamily) -> Trial {
        Trial {
            policy: Origin {
                name: "try".to_owned(),
                namespace: Some("shop".to_owned()),
                kind: Kind::StagedNetworkPolicy,
            },
            direction: Direction::Ingress,
            chain: ChainId {
                family,
                table: Table::Filter,
                name: "manx-pi-x".to_owned(),
            },
            rules: vec![
                Some((0, Action::Deny)),
                Some((0, Action::Deny)),
                Some((2, Action::Allow)),
                None,
            ],
        }
    }

    #[test]
    fn packets_add_up_over_families_alternatives_and_chains_that_are_written_anew() {
        let (mut tally, metric) = (Tally::default(), Family::default());
        let both = |v4: [u64; 4], v6: [u64; 4]| {
            [
                (trial(IpFamily::V4), v4.to_vec()),
                (trial(IpFamily::V6), v6.to_vec()),
            ]
        };
        let told = |tally: &Tally| {
            let counts = tally.counts("n1").into_iter();
            counts
                .map(|it| (it.rule, it.action, it.packets))
                .collect::<Vec<_>>()
        };
        let expected = |deny, allow, none| {
            vec![
                (Some(0), Some(Action::Deny), deny),
                (Some(2), Some(Action::Allow), allow),
                (None, None, none),
            ]
        };
        tally.take(&both([1, 2, 3, 4], [10, 20, 30, 40]), &metric);
        assert_eq!(told(&tally), expected(33, 33, 44));
        tally.take(&both([1, 2, 3, 4], [11, 20, 30, 40]), &metric);
        assert_eq!(told(&tally), expected(34, 33, 44));
        tally.take(&both([1, 0, 0, 1], [11, 20, 30, 40]), &metric);
        assert_eq!(
            told(&tally),
            expected(34, 33, 45),
            "the first chain was written anew"
        );
        let deny = labels(&(
            trial(IpFamily::V4).policy,
            Direction::Ingress,
            Some((0, Action::Deny)),
        ));
        assert_eq!(metric.get_or_create(&deny).get(), 34);
        tally.take(&[], &metric);
        assert_eq!(told(&tally), []);
        assert_eq!(metric.get_or_create(&deny).get(), 0, "it was taken away");
    }
}
