//! Attributes from octets, tolerantly (RFC 7606): each problem is noted with what it costs.

use std::net::Ipv4Addr;

use bytes::Bytes;
use nom::Parser;
use nom::bytes::complete::take;
use nom::combinator::all_consuming;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::as_path::{self, Width};
use super::{AsPath, Attributes, Origin, UnknownAttribute, code, facts, flag, unique};
use crate::Family;
use crate::wire::nlri::{self, NextHop, Nlri};
use crate::wire::{AS_TRANS, Action, Context, Error, Problem, Reach, Step};

/// What an UPDATE's attributes said.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Those that paths keep.
    pub(crate) attributes: Attributes,
    /// NEXT_HOP, if a host could answer there.
    pub(crate) next_hop: Option<NextHop>,
    /// What is wrong with NEXT_HOP otherwise. It matters only to the prefixes of the message's own field
    /// (RFC 4760 §3), and never costs the session (RFC 4271 §6.3).
    pub(crate) bad_next_hop: Option<Problem>,
    /// MP_REACH_NLRI of a negotiated family, if it holds prefixes.
    pub(crate) reach: Option<Reach>,
    /// MP_UNREACH_NLRI of a negotiated family.
    pub(crate) unreach: Option<(Family, Vec<Nlri>)>,
    /// MP_REACH_NLRI came, with prefixes or of a family that is not looked into.
    pub(crate) announces: bool,
    /// What was wrong, none of it worth a reset.
    pub(crate) problems: Vec<(Problem, Action)>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<(u32, Ipv4Addr)>,
    seen: Seen,
}

/// The type codes that came so far.
#[derive(Debug, Default)]
struct Seen([u64; 4]);

impl Seen {
    fn word(code: u8) -> (usize, u64) {
        (usize::from(code / 64), 1 << (code % 64))
    }

    fn contains(&self, code: u8) -> bool {
        let (word, bit) = Self::word(code);
        self.0[word] & bit != 0
    }

    /// Whether it is the first of its code.
    fn insert(&mut self, code: u8) -> bool {
        let first = !self.contains(code);
        let (word, bit) = Self::word(code);
        self.0[word] |= bit;
        first
    }
}

impl Collected {
    /// Whether an attribute of this type came, sound or not.
    pub(crate) fn has(&self, code: u8) -> bool {
        self.seen.contains(code)
    }

    /// Whether nothing came but this type.
    pub(crate) fn has_only(&self, code: u8) -> bool {
        let mut only = Seen::default();
        only.insert(code);
        self.seen.0 == only.0
    }
}

/// One attribute as it stands in the message.
#[derive(Clone, Copy, Debug)]
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// Header and value.
    whole: &'a [u8],
}

impl<'a> Raw<'a> {
    fn whole(&self) -> Bytes {
        Bytes::copy_from_slice(self.whole)
    }

    fn wrong_value(&self) -> Problem {
        let attribute = self.whole();
        Problem::OptionalAttribute {
            code: self.code,
            attribute,
        }
    }

    fn invalid_next_hop(&self) -> Problem {
        let attribute = self.whole();
        Problem::InvalidNextHop { attribute }
    }

    fn origin(&self) -> Result<Origin, Problem> {
        match self.value {
            [0] => Ok(Origin::Igp),
            [1] => Ok(Origin::Egp),
            [2] => Ok(Origin::Incomplete),
            _ => {
                let attribute = self.whole();
                Err(Problem::InvalidOrigin { attribute })
            }
        }
    }

    fn number(&self) -> Result<u32, Problem> {
        self.value(all_consuming(be_u32).parse(self.value))
    }

    /// The numbers that the value is; its length is right.
    fn numbers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let numbers = self.value.as_chunks().0.iter();
        numbers.map(|octets| u32::from_be_bytes(*octets))
    }

    /// AS and identifier.
    fn aggregator(&self, width: Width) -> Result<(u32, Ipv4Addr), Problem> {
        let (asn, identifier) = self.value(match width {
            Width::Two => all_consuming((be_u16.map(u32::from), be_u32)).parse(self.value),
            Width::Four => all_consuming((be_u32, be_u32)).parse(self.value),
        })?;
        Ok((self.sound(asn)?, identifier.into()))
    }

    /// An AS number, which is not 0 (RFC 7607 §2).
    fn sound(&self, asn: u32) -> Result<u32, Problem> {
        if asn == 0 {
            return Err(self.wrong_value());
        }
        Ok(asn)
    }

    fn value<T>(&self, parsed: Step<'_, T>) -> Result<T, Problem> {
        parsed.map(|(_, value)| value).map_err(|_| self.wrong_value())
    }
}

/// AFI, SAFI, next hop length and reserved octet (RFC 7606 §5.3).
const SHORTEST_REACH: usize = 5;

/// All attributes of an UPDATE. One that runs past their end is the last one read; the prefixes behind are where the
/// lengths of the message say (RFC 7606 §4).
///
/// # Errors
/// A problem that costs the session.
pub(crate) fn decode(mut field: &[u8], context: &Context) -> Result<Collected, Error> {
    let mut collected = Collected::default();
    while !field.is_empty() {
        let Ok((rest, raw)) = raw(field) else {
            let code = field.get(1).copied().unwrap_or(0);
            collected.seen.insert(code);
            let action = if is_multiprotocol(code) {
                Action::Reset
            } else {
                Action::Withdraw
            };
            collected.note(Problem::AttributeOverrun { code }, action)?;
            break;
        };
        field = rest;
        if let Err((problem, action)) = collected.take(raw, context) {
            collected.note(problem, action)?;
        }
    }
    collected.merge_as4();
    Ok(collected)
}

/// Whether the attribute holds prefixes: damaged, it may hide some (RFC 7606 §3 g, j).
fn is_multiprotocol(code: u8) -> bool {
    matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI)
}

fn raw(field: &[u8]) -> Step<'_, Raw<'_>> {
    let (rest, (flags, code)) = (be_u8, be_u8).parse(field)?;
    let (rest, value) = if flags & flag::EXTENDED == 0 {
        length_data(be_u8).parse(rest)?
    } else {
        length_data(be_u16).parse(rest)?
    };
    let (_, whole) = take(field.len() - rest.len())(field)?;
    Ok((
        rest,
        Raw {
            flags,
            code,
            value,
            whole,
        },
    ))
}

impl Collected {
    /// Keeps a problem, or fails with it where it costs the session.
    fn note(&mut self, problem: Problem, action: Action) -> Result<(), Error> {
        match action {
            Action::Reset => Err(problem.into()),
            Action::Withdraw | Action::Discard => {
                self.problems.push((problem, action));
                Ok(())
            }
        }
    }

    /// Takes one attribute in; what is wrong with it and what that costs otherwise.
    ///
    /// Flags come first, also of attributes that do not belong here: RFC 7606 §3 c excepts none of those that
    /// §7.5, §7.9 and §7.10 discard for their sender.
    fn take(&mut self, raw: Raw<'_>, context: &Context) -> Result<(), (Problem, Action)> {
        let Raw { flags, code, .. } = raw;
        if !self.seen.insert(code) {
            let action = if is_multiprotocol(code) {
                Action::Reset
            } else {
                Action::Discard
            };
            return Err((Problem::Duplicate { code }, action));
        }
        let Some(facts) = facts::of(code) else {
            return self.take_unknown(raw);
        };
        if !facts.flags_fit(flags) {
            let attribute = raw.whole();
            return Err((Problem::AttributeFlags { code, attribute }, facts.on_flags));
        }
        if !facts.belongs(context) {
            return Err((Problem::Misplaced { code }, Action::Discard));
        }
        if !facts.length_fits(raw.value.len(), context) {
            let attribute = raw.whole();
            return Err((Problem::AttributeLength { code, attribute }, facts.on_value));
        }
        self.take_value(raw, context)
            .map_err(|problem| (problem, facts.on_value))?;
        if flags & flag::PARTIAL != 0 && facts.is_kept() {
            self.attributes.partial |= 1 << code;
        }
        Ok(())
    }

    /// Keeps an unknown attribute for others, if it is one to pass on (RFC 4271 §5); what nobody here reads cannot be
    /// malformed (RFC 7606 §7.13).
    ///
    /// One that claims to be well-known ends the session: RFC 4271 §6.3 has it so, and RFC 7606, which is about
    /// attributes that are recognized, leaves it so (GoBGP and FRR do; BIRD gives up the routes only).
    fn take_unknown(&mut self, raw: Raw<'_>) -> Result<(), (Problem, Action)> {
        let Raw {
            flags, code, value, ..
        } = raw;
        if flags & flag::OPTIONAL == 0 {
            let attribute = raw.whole();
            return Err((Problem::UnrecognizedWellKnown { code, attribute }, Action::Reset));
        }
        if flags & flag::TRANSITIVE != 0 {
            self.keep(flags, code, value);
        }
        Ok(())
    }

    fn keep(&mut self, flags: u8, code: u8, value: &[u8]) {
        let flags = flags & (flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL);
        let place = self.attributes.unknown.partition_point(|other| other.code < code);
        let kept = UnknownAttribute {
            flags,
            code,
            value: Bytes::copy_from_slice(value),
        };
        self.attributes.unknown.insert(place, kept);
    }

    /// Takes in the value of a known attribute, whose length is already right.
    fn take_value(&mut self, raw: Raw<'_>, context: &Context) -> Result<(), Problem> {
        let Raw {
            flags, code, value, ..
        } = raw;
        let own = &mut self.attributes;
        let width = Width::of(context);
        match code {
            code::ORIGIN => own.origin = raw.origin()?,
            code::AS_PATH => own.as_path = as_path::decode(value, width).ok_or(Problem::MalformedAsPath)?,
            code::NEXT_HOP => self.take_next_hop(raw)?,
            code::MULTI_EXIT_DISC => own.med = Some(raw.number()?),
            code::LOCAL_PREF => own.local_pref = Some(raw.number()?),
            code::ATOMIC_AGGREGATE => own.atomic_aggregate = true,
            code::AGGREGATOR => own.aggregator = Some(raw.aggregator(width)?),
            code::COMMUNITIES => own.communities = raw.numbers().collect(),
            code::ORIGINATOR_ID => own.originator_id = Some(raw.number()?.into()),
            code::CLUSTER_LIST => own.cluster_list = raw.numbers().map(Ipv4Addr::from).collect(),
            code::EXTENDED_COMMUNITIES => own.extended_communities = value.as_chunks().0.into(),
            code::LARGE_COMMUNITY => {
                let numbers: Vec<u32> = raw.numbers().collect();
                own.large_communities = unique(numbers.as_chunks().0);
            }
            code::AS4_PATH => {
                self.as4_path = Some(as_path::decode_as4(value).ok_or_else(|| raw.wrong_value())?);
            }
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(raw.aggregator(Width::Four)?),
            code::MP_REACH_NLRI => return self.take_reach(raw, context),
            code::MP_UNREACH_NLRI => return self.take_unreach(raw, context),
            code::ONLY_TO_CUSTOMER => own.only_to_customer = Some(raw.sound(raw.number()?)?),
            code::PMSI_TUNNEL
            | code::TUNNEL_ENCAPSULATION
            | code::IPV6_EXTENDED_COMMUNITIES
            | code::ATTR_SET => self.keep(flags, code, value),
            // Known and of no use here: dropped.
            _ => {}
        }
        Ok(())
    }

    fn take_next_hop(&mut self, raw: Raw<'_>) -> Result<(), Problem> {
        let next_hop = NextHop::V4(raw.number()?.into());
        if next_hop.is_usable() {
            self.next_hop = Some(next_hop);
        } else {
            self.bad_next_hop = Some(raw.invalid_next_hop());
        }
        Ok(())
    }

    fn take_reach(&mut self, raw: Raw<'_>, context: &Context) -> Result<(), Problem> {
        let framing = || Problem::MultiprotocolFraming { code: raw.code };
        if raw.value.len() < SHORTEST_REACH {
            return Err(framing());
        }
        let (rest, family) = family(raw.value).map_err(|_| framing())?;
        self.announces = true;
        // RFC 7606 §5.4.
        let Some(family) = family.filter(|family| context.families.contains(family)) else {
            return Ok(());
        };
        let (field, address) = next_hop_and_reserved(rest).map_err(|_| framing())?;
        let next_hop = nlri::decode_next_hop(family, address, context).ok_or_else(framing)?;
        let nlri = nlri::decode(family, field, context).ok_or_else(|| raw.wrong_value())?;
        self.announces = !nlri.is_empty();
        let nlri = self.without_strays(nlri);
        if nlri.is_empty() {
            return Ok(());
        }
        if !next_hop.is_usable() {
            self.problems.push((raw.invalid_next_hop(), Action::Withdraw));
        }
        self.reach = Some(Reach { next_hop, nlri });
        Ok(())
    }

    /// Those of the announced prefixes that can be routed; the first of the others is noted, the session
    /// stays (RFC 4271 §6.3, last paragraph on NLRI).
    pub(crate) fn without_strays(&mut self, mut nlri: Vec<Nlri>) -> Vec<Nlri> {
        let stray = nlri.iter().find(|nlri| nlri::is_stray(nlri.prefix));
        if let Some(Nlri { prefix, .. }) = stray {
            let problem = Problem::StrayPrefix { prefix: *prefix };
            self.problems.push((problem, Action::Discard));
            nlri.retain(|nlri| !nlri::is_stray(nlri.prefix));
        }
        nlri
    }

    fn take_unreach(&mut self, raw: Raw<'_>, context: &Context) -> Result<(), Problem> {
        let framing = |_| Problem::MultiprotocolFraming { code: raw.code };
        let (field, family) = family(raw.value).map_err(framing)?;
        // RFC 7606 §5.4.
        if let Some(family) = family.filter(|family| context.families.contains(family)) {
            let nlri = nlri::decode(family, field, context).ok_or_else(|| raw.wrong_value())?;
            self.unreach = Some((family, nlri));
        }
        Ok(())
    }

    /// Puts together what a two-octet peer had to say in two attributes (RFC 6793 §4.2.3).
    fn merge_as4(&mut self) {
        let attributes = &mut self.attributes;
        if let (Some((asn, _)), Some(true_aggregator)) = (attributes.aggregator, self.as4_aggregator) {
            if asn != AS_TRANS.into() {
                // Somebody on the way aggregated anew and did not know of either.
                return;
            }
            attributes.aggregator = Some(true_aggregator);
        }
        if let Some(as4_path) = self.as4_path.take() {
            attributes.as_path = as_path::merge(std::mem::take(&mut attributes.as_path), as4_path);
        }
    }
}

/// AFI and SAFI.
fn family(value: &[u8]) -> Step<'_, Option<Family>> {
    (be_u16, be_u8)
        .map(|(afi, safi)| Family::from_wire(afi, safi))
        .parse(value)
}

/// The next hop's octets; the reserved octet after them means nothing (RFC 4760 §3).
fn next_hop_and_reserved(value: &[u8]) -> Step<'_, &[u8]> {
    let (rest, (address, _)) = (length_data(be_u8), be_u8).parse(value)?;
    Ok((rest, address))
}
