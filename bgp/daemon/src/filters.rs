//! Filters, as the configuration file writes them: with the field names of Calico's BGPFilter.

use ipnetwork::IpNetwork;
use manx_bgp::Family;
use manx_bgp::filter::{
    Action, Community, Filter, InterfacePattern, Match, Operation, Operator, PeerType, Range, Rule,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::config::no_host_bits;

/// AS numbers that one rule puts in front of a path, at most.
const MAX_PREPENDED: usize = 10;

/// The greatest priority, as in Calico.
const MAX_PRIORITY: u32 = 2_147_483_646;

/// A named list of rules per direction and family.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterSettings {
    /// What neighbours' `import` and `export` call it.
    pub name: String,
    /// For IPv4 routes on the way in. The first rule that matches decides.
    #[serde(default, rename = "importV4", deserialize_with = "import_v4")]
    pub import_v4: Vec<Rule>,
    /// For IPv6 routes on the way in.
    #[serde(default, rename = "importV6", deserialize_with = "import_v6")]
    pub import_v6: Vec<Rule>,
    /// For IPv4 routes on the way out.
    #[serde(default, rename = "exportV4", deserialize_with = "export_v4")]
    pub export_v4: Vec<Rule>,
    /// For IPv6 routes on the way out.
    #[serde(default, rename = "exportV6", deserialize_with = "export_v6")]
    pub export_v6: Vec<Rule>,
}

impl FilterSettings {
    /// What it does on the way in.
    pub(crate) fn import(&self) -> Filter {
        Filter {
            name: self.name.as_str().into(),
            v4: self.import_v4.clone(),
            v6: self.import_v6.clone(),
        }
    }

    /// What it does on the way out.
    pub(crate) fn export(&self) -> Filter {
        Filter {
            name: self.name.as_str().into(),
            v4: self.export_v4.clone(),
            v6: self.export_v6.clone(),
        }
    }
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    cidr: Option<IpNetwork>,
    match_operator: Option<OperatorName>,
    prefix_length: Option<Lengths>,
    source: Option<Source>,
    peer_type: Option<PeerTypeName>,
    communities: Option<Values>,
    #[serde(default)]
    as_path_prefix: Vec<u32>,
    #[serde(default, deserialize_with = "interface")]
    interface: Option<InterfacePattern>,
    priority: Option<u32>,
    action: ActionName,
    #[serde(default)]
    operations: Vec<WrittenOperation>,
}

#[derive(Clone, Copy, Deserialize)]
enum OperatorName {
    Equal,
    NotEqual,
    In,
    NotIn,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lengths {
    min: Option<u8>,
    max: Option<u8>,
}

#[derive(Deserialize)]
enum Source {
    RemotePeers,
}

#[derive(Deserialize)]
enum PeerTypeName {
    #[serde(rename = "eBGP")]
    External,
    #[serde(rename = "iBGP")]
    Internal,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    #[serde(deserialize_with = "communities")]
    values: Vec<Community>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    #[serde(deserialize_with = "community")]
    value: Community,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Number {
    value: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Path {
    prefix: Vec<u32>,
}

#[derive(Deserialize)]
enum ActionName {
    Accept,
    Reject,
}

/// Exactly one of these.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum WrittenOperation {
    AddCommunity(Value),
    SetCommunities(Values),
    #[serde(rename = "prependASPath")]
    PrependAsPath(Path),
    SetLocalPreference(Number),
    #[serde(rename = "setMED")]
    SetMed(Number),
    SetPriority(Number),
}

/// Which way routes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

fn import_v4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    rules(Family::Ipv4Unicast, Way::In, deserializer)
}

fn import_v6<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    rules(Family::Ipv6Unicast, Way::In, deserializer)
}

fn export_v4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    rules(Family::Ipv4Unicast, Way::Out, deserializer)
}

fn export_v6<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    rules(Family::Ipv6Unicast, Way::Out, deserializer)
}

fn rules<'de, D: Deserializer<'de>>(
    family: Family,
    way: Way,
    deserializer: D,
) -> Result<Vec<Rule>, D::Error> {
    let written = Vec::<Written>::deserialize(deserializer)?;
    let rule = |(index, written)| {
        rule(family, way, written).map_err(|problem| D::Error::custom(format!("rule {index}: {problem}")))
    };
    written.into_iter().enumerate().map(rule).collect()
}

fn rule(family: Family, way: Way, written: Written) -> Result<Rule, String> {
    let operations: Vec<Operation> = written
        .operations
        .into_iter()
        .map(|it| operation(way, it))
        .collect::<Result<_, _>>()?;
    let then = match written.action {
        ActionName::Accept => Action::Accept(operations),
        ActionName::Reject if operations.is_empty() => Action::Reject,
        ActionName::Reject => {
            return Err("operations change what is accepted: leave them out, or write action Accept".into());
        }
    };
    Ok(Rule {
        when: Match {
            range: range(
                family,
                written.cidr,
                written.match_operator,
                written.prefix_length,
            )?,
            learned: written.source.is_some(),
            peer: written.peer_type.map(|name| match name {
                PeerTypeName::External => PeerType::External,
                PeerTypeName::Internal => PeerType::Internal,
            }),
            communities: written.communities.map(|it| it.values).unwrap_or_default(),
            as_path_prefix: written.as_path_prefix,
            interface: written.interface,
            priority: written.priority.map(|it| found_priority(way, it)).transpose()?,
        },
        then,
    })
}

fn range(
    family: Family,
    cidr: Option<IpNetwork>,
    operator: Option<OperatorName>,
    lengths: Option<Lengths>,
) -> Result<Option<Range>, String> {
    let (cidr, operator) = match (cidr, operator) {
        (Some(cidr), Some(operator)) => (no_host_bits(cidr)?, operator),
        (None, None) if lengths.is_none() => return Ok(None),
        (None, None) => return Err("prefixLength needs a cidr beside it".into()),
        (Some(_), None) => {
            return Err("cidr needs a matchOperator beside it: Equal, NotEqual, In or NotIn".into());
        }
        (None, Some(_)) => return Err("matchOperator needs a cidr beside it".into()),
    };
    if cidr.family() != family {
        return Err(format!("the cidr {cidr} is not {family}'s"));
    }
    let operator = match operator {
        OperatorName::Equal => Operator::Equal,
        OperatorName::NotEqual => Operator::NotEqual,
        OperatorName::In => Operator::In,
        OperatorName::NotIn => Operator::NotIn,
    };
    let (min, max) = lengths.map_or((None, None), |it| (it.min, it.max));
    let range = Range::new(operator, cidr, min, max).map_err(|error| error.to_string())?;
    Ok(Some(range))
}

/// Import sets priorities, export finds them.
fn found_priority(way: Way, priority: u32) -> Result<u32, String> {
    if way == Way::In {
        return Err(
            "priority is what import rules set (setPriority), and export rules find: match communities here"
                .into(),
        );
    }
    in_range(priority)
}

fn in_range(priority: u32) -> Result<u32, String> {
    if (1..=MAX_PRIORITY).contains(&priority) {
        Ok(priority)
    } else {
        Err(format!(
            "{priority} is no metric of a route: write 1 to {MAX_PRIORITY}"
        ))
    }
}

fn operation(way: Way, written: WrittenOperation) -> Result<Operation, String> {
    Ok(match written {
        WrittenOperation::AddCommunity(Value { value }) => Operation::AddCommunity(value),
        WrittenOperation::SetCommunities(Values { values }) => Operation::SetCommunities(values),
        WrittenOperation::PrependAsPath(Path { prefix }) => {
            if prefix.is_empty() || prefix.len() > MAX_PREPENDED || prefix.contains(&0) {
                return Err(format!(
                    "prependASPath puts 1 to {MAX_PREPENDED} AS numbers from 1 in front of the path"
                ));
            }
            Operation::PrependAsPath(prefix)
        }
        WrittenOperation::SetLocalPreference(Number { value }) => Operation::SetLocalPreference(value),
        WrittenOperation::SetMed(Number { value }) => Operation::SetMed(value),
        WrittenOperation::SetPriority(_) if way == Way::Out => {
            return Err("no peer hears of a priority: write setPriority in an import rule, or setLocalPreference here".into());
        }
        WrittenOperation::SetPriority(Number { value }) => Operation::SetPriority(in_range(value)?),
    })
}

fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<InterfacePattern>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

fn community<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Community, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

fn communities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Community>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: String| text.parse().map_err(D::Error::custom);
    texts.into_iter().map(parse).collect()
}
