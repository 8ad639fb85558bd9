//! What is known of each attribute, in one table: flags, length, where it belongs, what an error costs.

use std::borrow::Cow;

use super::{code, flag};
use crate::wire::{Action, Context};

/// The facts of an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) code: u8,
    pub(super) name: &'static str,
    class: Class,
    length: Length,
    scope: Scope,
    /// What wrong flags cost (RFC 7606 §3 c).
    pub(super) on_flags: Action,
    /// What a wrong length or value costs (RFC 7606 §7, or the attribute's own RFC).
    pub(super) on_value: Action,
}

/// The category, which decides about the flags (RFC 4271 §5).
#[derive(Clone, Copy, Debug)]
enum Class {
    WellKnown,
    /// Optional and transitive.
    Transitive,
    /// Optional and non-transitive.
    NonTransitive,
}

/// How long a value may be, in octets.
#[derive(Clone, Copy, Debug)]
enum Length {
    /// The value's own parser knows.
    Any,
    Exactly(usize),
    /// At least one, and nothing but whole ones, of this size.
    Multiple(usize),
    /// An AS number as wide as the session's, and an address.
    AsAndAddress,
}

/// On which sessions an attribute means something; elsewhere it is dropped.
#[derive(Clone, Copy, Debug)]
enum Scope {
    Any,
    /// Within an AS.
    Internal,
    /// With a peer that has two-octet AS numbers (RFC 6793 §4.1).
    TwoOctetAs,
}

impl Facts {
    const fn new(
        code: u8,
        name: &'static str,
        class: Class,
        length: Length,
        scope: Scope,
        actions: (Action, Action),
    ) -> Self {
        let (on_flags, on_value) = actions;
        Self {
            code,
            name,
            class,
            length,
            scope,
            on_flags,
            on_value,
        }
    }

    /// Whether Optional and Transitive are what they must be (RFC 7606 §3 c), and Partial is not set where
    /// RFC 4271 §4.3 forbids it.
    pub(super) fn flags_fit(&self, flags: u8) -> bool {
        let checked = match self.class {
            Class::WellKnown | Class::NonTransitive => flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL,
            Class::Transitive => flag::OPTIONAL | flag::TRANSITIVE,
        };
        flags & checked == self.flags()
    }

    /// The flags to send, without Extended Length.
    pub(super) fn flags(&self) -> u8 {
        match self.class {
            Class::WellKnown => flag::TRANSITIVE,
            Class::Transitive => flag::OPTIONAL | flag::TRANSITIVE,
            Class::NonTransitive => flag::OPTIONAL,
        }
    }

    /// Whether a path keeps the attribute under its own name, and Partial may come with it.
    pub(super) fn is_kept(&self) -> bool {
        matches!(
            self.code,
            code::AGGREGATOR
                | code::COMMUNITIES
                | code::EXTENDED_COMMUNITIES
                | code::LARGE_COMMUNITY
                | code::ONLY_TO_CUSTOMER
        )
    }

    pub(super) fn length_fits(&self, length: usize, context: &Context) -> bool {
        match self.length {
            Length::Any => true,
            Length::Exactly(octets) => length == octets,
            Length::Multiple(octets) => length != 0 && length.is_multiple_of(octets),
            Length::AsAndAddress => length == if context.four_octet_as { 8 } else { 6 },
        }
    }

    pub(super) fn belongs(&self, context: &Context) -> bool {
        match self.scope {
            Scope::Any => true,
            Scope::Internal => !context.external,
            Scope::TwoOctetAs => !context.four_octet_as,
        }
    }
}

/// What wrong flags and a wrong value cost.
const WITHDRAW: (Action, Action) = (Action::Withdraw, Action::Withdraw);
const DISCARD: (Action, Action) = (Action::Discard, Action::Discard);
/// The value carries no decision, so only it is lost (RFC 7606 §3 f, RFC 6793 §6); of its flags these RFCs say
/// nothing else than RFC 7606 §3 c.
const DISCARD_VALUE: (Action, Action) = (Action::Withdraw, Action::Discard);
/// It holds prefixes: unless it is correct, flags included, the message cannot even be withdrawn
/// (RFC 7606 §3 j, §5.3).
const RESET: (Action, Action) = (Action::Reset, Action::Reset);

/// One row per known attribute, in order of type code. PMSI_TUNNEL, TUNNEL_ENCAPSULATION and ATTR_SET are
/// passed on unread; it is their flags that are known (RFC 7606 §3 c). Values of AIGP, LINK_STATE and PREFIX_SID mean nothing
/// to unicast routes of one domain; they are known so that nobody else gets them from us.
#[rustfmt::skip]
const TABLE: [Facts; 24] = [
    Facts::new(code::ORIGIN, "ORIGIN", Class::WellKnown, Length::Exactly(1), Scope::Any, WITHDRAW), // RFC 7606 §7.1
    Facts::new(code::AS_PATH, "AS_PATH", Class::WellKnown, Length::Any, Scope::Any, WITHDRAW), // RFC 7606 §7.2
    Facts::new(code::NEXT_HOP, "NEXT_HOP", Class::WellKnown, Length::Exactly(4), Scope::Any, WITHDRAW), // RFC 7606 §7.3
    Facts::new(code::MULTI_EXIT_DISC, "MULTI_EXIT_DISC", Class::NonTransitive, Length::Exactly(4), Scope::Any, WITHDRAW), // RFC 7606 §7.4
    Facts::new(code::LOCAL_PREF, "LOCAL_PREF", Class::WellKnown, Length::Exactly(4), Scope::Internal, WITHDRAW), // RFC 7606 §7.5
    Facts::new(code::ATOMIC_AGGREGATE, "ATOMIC_AGGREGATE", Class::WellKnown, Length::Exactly(0), Scope::Any, DISCARD_VALUE), // RFC 7606 §7.6
    Facts::new(code::AGGREGATOR, "AGGREGATOR", Class::Transitive, Length::AsAndAddress, Scope::Any, DISCARD_VALUE), // RFC 7606 §7.7
    Facts::new(code::COMMUNITIES, "COMMUNITIES", Class::Transitive, Length::Multiple(4), Scope::Any, WITHDRAW), // RFC 7606 §7.8
    Facts::new(code::ORIGINATOR_ID, "ORIGINATOR_ID", Class::NonTransitive, Length::Exactly(4), Scope::Internal, WITHDRAW), // RFC 7606 §7.9
    Facts::new(code::CLUSTER_LIST, "CLUSTER_LIST", Class::NonTransitive, Length::Multiple(4), Scope::Internal, WITHDRAW), // RFC 7606 §7.10
    Facts::new(code::MP_REACH_NLRI, "MP_REACH_NLRI", Class::NonTransitive, Length::Any, Scope::Any, RESET), // RFC 7606 §7.11
    Facts::new(code::MP_UNREACH_NLRI, "MP_UNREACH_NLRI", Class::NonTransitive, Length::Any, Scope::Any, RESET), // RFC 7606 §7.12
    Facts::new(code::EXTENDED_COMMUNITIES, "EXTENDED_COMMUNITIES", Class::Transitive, Length::Multiple(8), Scope::Any, WITHDRAW), // RFC 7606 §7.14, RFC 4360 §2
    Facts::new(code::AS4_PATH, "AS4_PATH", Class::Transitive, Length::Any, Scope::TwoOctetAs, DISCARD_VALUE), // RFC 6793 §6
    Facts::new(code::AS4_AGGREGATOR, "AS4_AGGREGATOR", Class::Transitive, Length::Exactly(8), Scope::TwoOctetAs, DISCARD_VALUE), // RFC 6793 §6
    Facts::new(code::PMSI_TUNNEL, "PMSI_TUNNEL", Class::Transitive, Length::Any, Scope::Any, WITHDRAW),
    Facts::new(code::TUNNEL_ENCAPSULATION, "TUNNEL_ENCAPSULATION", Class::Transitive, Length::Any, Scope::Any, WITHDRAW),
    Facts::new(code::IPV6_EXTENDED_COMMUNITIES, "IPV6_EXTENDED_COMMUNITIES", Class::Transitive, Length::Multiple(20), Scope::Any, WITHDRAW), // RFC 7606 §7.15
    Facts::new(code::AIGP, "AIGP", Class::NonTransitive, Length::Any, Scope::Any, DISCARD),
    Facts::new(code::LINK_STATE, "LINK_STATE", Class::NonTransitive, Length::Any, Scope::Any, DISCARD),
    Facts::new(code::LARGE_COMMUNITY, "LARGE_COMMUNITY", Class::Transitive, Length::Multiple(12), Scope::Any, WITHDRAW), // RFC 8092 §6
    Facts::new(code::ONLY_TO_CUSTOMER, "ONLY_TO_CUSTOMER", Class::Transitive, Length::Exactly(4), Scope::Any, WITHDRAW), // RFC 9234 §5
    Facts::new(code::PREFIX_SID, "PREFIX_SID", Class::Transitive, Length::Any, Scope::Any, DISCARD), // RFC 8669 §6
    Facts::new(code::ATTR_SET, "ATTR_SET", Class::Transitive, Length::Any, Scope::Any, WITHDRAW),
];

/// The facts of the attribute with this type code, if it is known.
pub(super) fn of(code: u8) -> Option<&'static Facts> {
    TABLE.iter().find(|facts| facts.code == code)
}

/// The attribute's name, or its number.
pub(crate) fn name(code: u8) -> Cow<'static, str> {
    of(code).map_or_else(|| Cow::Owned(code.to_string()), |facts| Cow::Borrowed(facts.name))
}
