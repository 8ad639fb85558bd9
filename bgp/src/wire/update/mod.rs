//! UPDATE (RFC 4271 §4.3; the multiprotocol attributes RFC 4760; revised error handling RFC 7606).

mod pack;

use nom::Parser;
use nom::combinator::rest;
use nom::multi::length_data;
use nom::number::complete::be_u16;

use super::attr::{self, Attributes, Collected, code};
use super::nlri::{self, NextHop, Nlri};
use super::{Action, Context, Error, Problem, Step};
use crate::Family;
pub(super) use pack::encode;
pub(crate) use pack::{LONGEST, Shared, put_withdrawn};
pub use pack::{Unsendable, end_of_rib, pack, pack_withdrawn};

/// UPDATE (RFC 4271 §4.3) with the multiprotocol attributes (RFC 4760) already folded in, and with errors
/// already dealt with as RFC 7606 says: what had to be treated as withdrawn stands among `withdrawn`.
///
/// A prefix in both lists is announced: `withdrawn` comes first (RFC 4271 §4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// No longer reachable through the sender.
    pub withdrawn: Vec<Nlri>,
    /// Newly reachable; one entry per next hop in the message.
    pub reach: Vec<Reach>,
    /// What all of `reach` shares.
    pub attributes: Attributes,
    /// The message marks the end of the initial routes of this family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
}

/// Prefixes that share a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Through whom.
    pub next_hop: NextHop,
    /// What.
    pub nlri: Vec<Nlri>,
}

/// Withdrawn Routes, Path Attributes, Network Layer Reachability Information.
fn fields(body: &[u8]) -> Step<'_, (&[u8], &[u8], &[u8])> {
    (length_data(be_u16), length_data(be_u16), rest).parse(body)
}

/// The meaning of an UPDATE's body, and what was wrong with it.
pub(super) fn decode(body: &[u8], context: &Context) -> Result<(Update, Vec<(Problem, Action)>), Error> {
    let (_, (withdrawn_field, attributes_field, nlri_field)) =
        fields(body).map_err(|_| Problem::FieldLength)?;
    let withdrawn = classic(withdrawn_field, context)?;
    let announced = classic(nlri_field, context)?;
    let mut collected = attr::decode(attributes_field, context)?;
    let announced = collected.without_strays(announced);
    let bare = withdrawn_field.is_empty() && nlri_field.is_empty();
    let end_of_rib = end_of_rib_of(bare, attributes_field, &collected, context);
    note_shortcomings(&mut collected, &announced, context);
    // RFC 4760 §4: such a message has no other attribute.
    let only_withdraws = collected.has_only(code::MP_UNREACH_NLRI);
    if nlri_field.is_empty() && !collected.announces && !only_withdraws {
        refuse_errors_without_routes(&collected)?;
    }
    let problems = std::mem::take(&mut collected.problems);
    let withdraw = problems.iter().any(|(_, action)| *action == Action::Withdraw);
    let update = fold(withdrawn, announced, collected, withdraw);
    Ok((Update { end_of_rib, ..update }, problems))
}

/// The prefixes in one of the message's own fields, which are IPv4 unicast's.
fn classic(field: &[u8], context: &Context) -> Result<Vec<Nlri>, Problem> {
    let family = Family::Ipv4Unicast;
    if !context.families.contains(&family) {
        return Ok(Vec::new());
    }
    nlri::decode(family, field, context).ok_or(Problem::InvalidNetwork)
}

/// The family whose end this is: no prefix at all, and no attribute but an empty MP_UNREACH_NLRI.
fn end_of_rib_of(bare: bool, field: &[u8], collected: &Collected, context: &Context) -> Option<Family> {
    if !bare {
        return None;
    }
    match &collected.unreach {
        Some((family, nlri)) if nlri.is_empty() && collected.has_only(code::MP_UNREACH_NLRI) => Some(*family),
        None if field.is_empty() => {
            Some(Family::Ipv4Unicast).filter(|family| context.families.contains(family))
        }
        Some(_) | None => None,
    }
}

/// Notes what an announcement lacks (RFC 4271 §5.1, RFC 7606 §3 d) or cannot use.
///
/// LOCAL_PREF is none of these: RFC 4271 §5 has it "required" within an AS but not "mandatory", and where a
/// speaker leaves it out, the default degree of preference stands in (as in BIRD and GoBGP; FRR withdraws).
fn note_shortcomings(collected: &mut Collected, announced: &[Nlri], context: &Context) {
    if announced.is_empty() && collected.reach.is_none() {
        return;
    }
    let mut mandatory = &[code::ORIGIN, code::AS_PATH][..];
    if !announced.is_empty() {
        mandatory = &[code::ORIGIN, code::AS_PATH, code::NEXT_HOP];
        let unusable = collected.bad_next_hop.take();
        let unusable = unusable.map(|problem| (problem, Action::Withdraw));
        collected.problems.extend(unusable);
    }
    for &code in mandatory {
        if !collected.has(code) {
            let missing = Problem::MissingWellKnown { code };
            collected.problems.push((missing, Action::Withdraw));
        }
    }
    let empty_path = collected.attributes.as_path.segments.is_empty();
    if context.external && collected.has(code::AS_PATH) && empty_path {
        // An external peer has put its own AS in front (RFC 4271 §5.1.2).
        collected
            .problems
            .push((Problem::MalformedAsPath, Action::Withdraw));
    }
}

/// Without reachable prefixes, an error that would cost them may have hidden them (RFC 7606 §5.2).
fn refuse_errors_without_routes(collected: &Collected) -> Result<(), Error> {
    collected
        .problems
        .iter()
        .find(|(_, action)| *action == Action::Withdraw)
        .map_or(Ok(()), |(problem, _)| Err(problem.clone().into()))
}

/// Puts fields and attributes together; with `withdraw`, what was announced is withdrawn.
fn fold(mut withdrawn: Vec<Nlri>, announced: Vec<Nlri>, collected: Collected, withdraw: bool) -> Update {
    let Collected {
        attributes,
        next_hop,
        reach,
        unreach,
        ..
    } = collected;
    withdrawn.extend(unreach.into_iter().flat_map(|(_, nlri)| nlri));
    if withdraw {
        withdrawn.extend(announced);
        withdrawn.extend(reach.into_iter().flat_map(|reach| reach.nlri));
        return Update {
            withdrawn,
            ..Update::default()
        };
    }
    let classic = next_hop.filter(|_| !announced.is_empty()).map(|next_hop| Reach {
        next_hop,
        nlri: announced,
    });
    let reach = classic.into_iter().chain(reach).collect::<Vec<_>>();
    let attributes = if reach.is_empty() {
        Attributes::default()
    } else {
        attributes
    };
    Update {
        withdrawn,
        reach,
        attributes,
        end_of_rib: None,
    }
}
