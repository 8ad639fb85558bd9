//! Policies on trial: which of the kernel's rules count what, and how the counts are read.
//!
//! A staged policy has a chain like any other, at its place in its tier, but each rule of it only returns. So the
//! kernel counts the packets that came that far, by the first rule that is for them; the last rule of the chain
//! counts those that no rule is for.

use std::collections::BTreeMap;

use manx_api::policy::{Action, Direction, Origin};

use crate::ruleset::{CHAIN_PREFIX, ChainId, Table};

/// A chain that counts what a staged policy would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The policy.
    pub policy: Origin,
    /// Which of its directions.
    pub direction: Direction,
    /// The chain.
    pub chain: ChainId,
    /// For each of the chain's rules, the policy's rule, counted from 0, and what it would do; none: no rule is for
    /// the packet.
    pub rules: Vec<Option<(usize, Action)>>,
}

/// How many packets met each rule of our chains in a table, as `iptables-save -c` printed it, rules in order.
#[must_use]
pub fn packets(table: Table, text: &str) -> BTreeMap<String, Vec<u64>> {
    let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let begin = format!("*{}", table.name());
    let lines = text.lines().skip_while(|line| *line != begin);
    for line in lines.skip(1).take_while(|line| !line.starts_with('*')) {
        let counted = line.strip_prefix('[').and_then(|rest| {
            let (packets, rest) = rest.split_once(':')?;
            let (_, rule) = rest.split_once("] -A ")?;
            let chain = rule.split(' ').next()?;
            Some((packets.parse().ok()?, chain))
        });
        if let Some((packets, chain)) = counted.filter(|(_, chain)| chain.starts_with(CHAIN_PREFIX)) {
            counts.entry(chain.to_owned()).or_default().push(packets);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_our_chains_in_the_table_in_order() {
        let text = "# Generated\n*raw\n:manx-a - [0:0]\n[9:9] -A manx-a -j RETURN\nCOMMIT\n\
                    *filter\n:INPUT ACCEPT [5:300]\n:manx-a - [0:0]\n[7:70] -A INPUT -j manx-a\n\
                    [3:180] -A manx-a -p tcp -j RETURN\n[0:0] -A manx-b -j RETURN\n[1:60] -A manx-a -j RETURN\nCOMMIT\n";
        let expected = [("manx-a".to_owned(), vec![3, 1]), ("manx-b".to_owned(), vec![0])];
        assert_eq!(packets(Table::Filter, text), expected.into());
        assert_eq!(packets(Table::Raw, text), [("manx-a".to_owned(), vec![9])].into());
        assert_eq!(packets(Table::Mangle, text), BTreeMap::new());
    }
}
