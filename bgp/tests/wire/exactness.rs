//! Every known attribute with every flag, length, repetition, order and truncation, in every kind of UPDATE,
//! on internal and external sessions of two- and four-octet speakers, against what the RFCs say it costs.
//!
//! The rules here are written from the RFCs, not from the decoder's own table.

use bytes::Bytes;
use manx_bgp::wire::{self, Action, Context, Error, Notification, Update};

use crate::{attribute, context, framed, unhex, update};

/// What is wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Flags,
    Length,
}

/// What the RFCs say of an attribute.
struct Rule {
    code: u8,
    /// The flags it must have.
    flags: u8,
    /// Whether a value of so many octets of 1 is well-formed.
    fits: fn(usize, &Context) -> bool,
    /// What wrong flags cost, and a wrong length; the RFC's clauses.
    costs: (Action, Action),
    /// On which sessions it is dropped whatever its value.
    dropped: fn(&Context) -> bool,
}

/// The rules. A value of ones is an AS_SET of one AS, a family that nobody negotiated, AS 0x01010101.
#[rustfmt::skip]
fn rules() -> Vec<Rule> {
    use Action::{Discard, Reset, Withdraw};
    let everywhere: fn(&Context) -> bool = |_| false;
    let internal: fn(&Context) -> bool = |context| context.external;
    let old_speakers: fn(&Context) -> bool = |context| context.four_octet_as;
    let rule = |code, flags, fits, costs, dropped| Rule { code, flags, fits, costs, dropped };
    vec![
        // RFC 7606 §3 c, §7.1 to §7.5; §7.5: LOCAL_PREF of an external neighbor is discarded.
        rule(1, 0x40, |n, _| n == 1, (Withdraw, Withdraw), everywhere),
        rule(2, 0x40, |n, context| n % if context.four_octet_as { 6 } else { 4 } == 0, (Withdraw, Withdraw), everywhere),
        rule(3, 0x40, |n, _| n == 4, (Withdraw, Withdraw), everywhere),
        rule(4, 0x80, |n, _| n == 4, (Withdraw, Withdraw), everywhere),
        rule(5, 0x40, |n, _| n == 4, (Withdraw, Withdraw), internal),
        // §3 f, §7.6, §7.7: discarded; §3 c says nothing of discarding for their flags.
        rule(6, 0x40, |n, _| n == 0, (Withdraw, Discard), everywhere),
        rule(7, 0xc0, |n, context| n == if context.four_octet_as { 8 } else { 6 }, (Withdraw, Discard), everywhere),
        // §7.8; §7.9, §7.10: from an external neighbor they are discarded.
        rule(8, 0xc0, |n, _| n != 0 && n % 4 == 0, (Withdraw, Withdraw), everywhere),
        rule(9, 0x80, |n, _| n == 4, (Withdraw, Withdraw), internal),
        rule(10, 0x80, |n, _| n != 0 && n % 4 == 0, (Withdraw, Withdraw), internal),
        // §5.3: incorrect if the flags are wrong or there are less than 5, or 3, octets; §3 j.
        rule(14, 0x80, |n, _| n >= 5, (Reset, Reset), everywhere),
        rule(15, 0x80, |n, _| n >= 3, (Reset, Reset), everywhere),
        // §7.14.
        rule(16, 0xc0, |n, _| n != 0 && n % 8 == 0, (Withdraw, Withdraw), everywhere),
        // RFC 6793 §4.1, §6.
        rule(17, 0xc0, |n, _| n != 0 && n % 6 == 0, (Withdraw, Discard), old_speakers),
        rule(18, 0xc0, |n, _| n == 8, (Withdraw, Discard), old_speakers),
        // §7.15.
        rule(25, 0xc0, |n, _| n != 0 && n % 20 == 0, (Withdraw, Withdraw), everywhere),
        // RFC 7311 §3, RFC 9552 §8.2.2, RFC 8669 §6: what we have no use for is no loss.
        rule(26, 0x80, |_, _| true, (Discard, Discard), everywhere),
        rule(29, 0x80, |_, _| true, (Discard, Discard), everywhere),
        rule(40, 0xc0, |_, _| true, (Discard, Discard), everywhere),
        // Passed on unread; §3 c.
        rule(22, 0xc0, |_, _| true, (Withdraw, Withdraw), everywhere),
        rule(23, 0xc0, |_, _| true, (Withdraw, Withdraw), everywhere),
        rule(128, 0xc0, |_, _| true, (Withdraw, Withdraw), everywhere),
        // RFC 8092 §5, RFC 9234 §5.
        rule(32, 0xc0, |n, _| n != 0 && n % 12 == 0, (Withdraw, Withdraw), everywhere),
        rule(35, 0xc0, |n, _| n == 4, (Withdraw, Withdraw), everywhere),
    ]
}

impl Rule {
    /// Flags in which Optional or Transitive is wrong (RFC 7606 §3 c), or Partial set where it may not be
    /// (RFC 4271 §4.3).
    fn flags_are_wrong(&self, flags: u8) -> bool {
        flags & 0xc0 != self.flags || (flags & 0x20 != 0 && self.flags != 0xc0)
    }

    /// What these flags and so many octets cost where there are routes to lose, and which of both it is.
    fn cost(&self, flags: u8, length: usize, context: &Context) -> Option<(Action, Fault)> {
        if self.flags_are_wrong(flags) {
            Some((self.costs.0, Fault::Flags))
        } else if (self.dropped)(context) {
            Some((Action::Discard, Fault::Length))
        } else if (self.fits)(length, context) {
            None
        } else {
            Some((self.costs.1, Fault::Length))
        }
    }

    /// The shortest well-formed value.
    fn sound(&self, context: &Context) -> Vec<u8> {
        let length = (1..40).find(|length| (self.fits)(*length, context)).unwrap_or(0);
        vec![1; length]
    }

    /// What the peer is told of the attribute, if it ends the session.
    fn told(&self, fault: Fault, whole: &[u8]) -> Notification {
        let (subcode, data) = match (fault, self.code) {
            (Fault::Flags, _) => (4, whole),
            (Fault::Length, 14 | 15) => (1, &[][..]),
            (Fault::Length, 2) => (11, &[][..]),
            (Fault::Length, 1 | 3..=13 | 16..) => (5, whole),
            (Fault::Length, 0) => unreachable!("no attribute has type code 0"),
        };
        Notification {
            code: 3,
            subcode,
            data: Bytes::copy_from_slice(data),
        }
    }
}

/// What an UPDATE carries beside attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// 10.0.0.0/8 in the message's own field.
    Classic,
    /// 2000::/8 in MP_REACH_NLRI.
    Multiprotocol,
    /// Both, 11.0.0.0/8 withdrawn and 2100::/8 in MP_UNREACH_NLRI.
    Everything,
    Nothing,
    /// 11.0.0.0/8 withdrawn.
    Withdrawn,
    /// 2100::/8 in MP_UNREACH_NLRI.
    Unreach,
}

const SHAPES: [Shape; 6] = [
    Shape::Classic,
    Shape::Multiprotocol,
    Shape::Everything,
    Shape::Nothing,
    Shape::Withdrawn,
    Shape::Unreach,
];

impl Shape {
    fn announces(self) -> bool {
        self.announced() != 0
    }

    fn announced(self) -> usize {
        match self {
            Self::Classic | Self::Multiprotocol => 1,
            Self::Everything => 2,
            Self::Nothing | Self::Withdrawn | Self::Unreach => 0,
        }
    }

    fn withdrawn(self) -> usize {
        match self {
            Self::Classic | Self::Multiprotocol | Self::Nothing => 0,
            Self::Everything => 2,
            Self::Withdrawn | Self::Unreach => 1,
        }
    }

    fn has(self, code: u8) -> bool {
        match code {
            14 => matches!(self, Self::Multiprotocol | Self::Everything),
            15 => matches!(self, Self::Unreach | Self::Everything),
            _ => false,
        }
    }

    /// The attributes that such an UPDATE has anyway.
    fn attributes(self, context: &Context) -> Vec<Vec<u8>> {
        let as_path: &[u8] = if context.four_octet_as {
            &[2, 1, 0, 0, 0xfd, 0xe9]
        } else {
            &[2, 1, 0xfd, 0xe9]
        };
        let mut all = vec![attribute(0x40, 1, &[0]), attribute(0x40, 2, as_path)];
        if matches!(self, Self::Classic | Self::Everything) {
            all.push(attribute(0x40, 3, &[192, 0, 2, 1]));
        }
        if !context.external {
            all.push(attribute(0x40, 5, &[0, 0, 0, 100]));
        }
        if self.has(14) {
            let value = unhex("0002011020010db8000000000000000000000001000820");
            all.push(attribute(0x80, 14, &value));
        }
        if self.has(15) {
            all.push(attribute(0x80, 15, &[0, 2, 1, 8, 0x21]));
        }
        all
    }

    fn message(self, attributes: &[Vec<u8>]) -> Bytes {
        let withdrawn: &[u8] = match self {
            Self::Everything | Self::Withdrawn => &[8, 11],
            Self::Classic | Self::Multiprotocol | Self::Nothing | Self::Unreach => &[],
        };
        let nlri: &[u8] = match self {
            Self::Classic | Self::Everything => &[8, 10],
            Self::Multiprotocol | Self::Nothing | Self::Withdrawn | Self::Unreach => &[],
        };
        update(withdrawn, &attributes.concat(), nlri)
    }

    /// The message with `own` in the place of the attribute of its type, or behind the others.
    fn with(self, own: &[u8], context: &Context) -> Bytes {
        let mut all = self.attributes(context);
        match all.iter_mut().find(|other| other[1] == own[1]) {
            Some(place) => *place = own.to_vec(),
            None => all.push(own.to_vec()),
        }
        self.message(&all)
    }
}

/// All kinds of sessions.
fn contexts() -> Vec<Context> {
    let one = |external: bool, four_octet_as| Context {
        four_octet_as,
        ..context(external)
    };
    vec![
        one(false, true),
        one(true, true),
        one(false, false),
        one(true, false),
    ]
}

/// What decoding cost, after checking that the routes are where they belong at this cost.
fn outcome(message: &Bytes, shape: Shape, context: &Context) -> Result<Option<Action>, Error> {
    let (update, problems) = wire::decode_update(message, context)?;
    let cost = problems.iter().map(|(_, action)| *action).max();
    let announced = update.reach.iter().map(|reach| reach.nlri.len()).sum::<usize>();
    let counts = (announced, update.withdrawn.len());
    let (announced, withdrawn) = (shape.announced(), shape.withdrawn());
    if cost == Some(Action::Withdraw) {
        assert_eq!(counts, (0, announced + withdrawn), "{problems:?}");
    } else {
        assert_eq!(counts, (announced, withdrawn), "{problems:?}");
    }
    Ok(cost)
}

/// Checks one case; without routes, what would cost them ends the session (RFC 7606 §5.2).
fn check(rule: &Rule, own: &[u8], value_len: usize, shape: Shape, context: &Context) {
    let message = shape.with(own, context);
    let found = outcome(&message, shape, context);
    let wanted = match rule.cost(own[0], value_len, context) {
        Some((Action::Reset, fault)) => Err(fault),
        Some((Action::Withdraw, fault)) if !shape.announces() => Err(fault),
        Some((action, _)) => Ok(Some(action)),
        None => Ok(None),
    };
    let case = || {
        let shown = &own[..own.len().min(12)];
        format!("{shown:02x?} of {value_len} octets, {shape:?}, {context:?}")
    };
    match (found, wanted) {
        (Ok(found), Ok(Some(Action::Discard))) if matches!(rule.code, 26 | 29 | 40) => {
            assert!(found <= Some(Action::Discard), "{}", case());
        }
        (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{}", case()),
        (Err(error), Err(fault)) => {
            assert_eq!(Notification::from(error), rule.told(fault, own), "{}", case());
        }
        (found, wanted) => panic!("{found:?} instead of {wanted:?}: {}", case()),
    }
}

/// An attribute with Extended Length as these flags say, not as the length needs.
fn with_flags(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    if flags & 0x10 == 0 {
        return attribute(flags, code, value);
    }
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[flags, code], &length[..], value].concat()
}

/// RFC 7606 §3 (c): all flags of all attributes.
/// RFC 4271 §4.3 (flags): the low four mean nothing.
/// nasty case 39
#[test]
fn all_sixteen_flags_cost_what_the_rfcs_say() {
    for context in contexts() {
        for (rule, shape) in rules().iter().flat_map(|rule| SHAPES.map(|shape| (rule, shape))) {
            let value = rule.sound(&context);
            if shape.has(rule.code) {
                continue;
            }
            for flags in (0..=0xf0_u8).step_by(0x10).flat_map(|high| [high, high | 0x0f]) {
                check(
                    rule,
                    &with_flags(flags, rule.code, &value),
                    value.len(),
                    shape,
                    &context,
                );
            }
        }
    }
}

/// RFC 7606 §7.1: ORIGIN.
/// RFC 7606 §7.2: AS_PATH.
/// RFC 7606 §7.3: NEXT_HOP.
/// RFC 7606 §7.4: MULTI_EXIT_DISC.
/// RFC 7606 §7.5: LOCAL_PREF.
/// RFC 7606 §7.6: ATOMIC_AGGREGATE.
/// RFC 7606 §7.7: AGGREGATOR.
/// RFC 7606 §7.8: COMMUNITIES.
/// RFC 7606 §7.9: ORIGINATOR_ID.
/// RFC 7606 §7.10: CLUSTER_LIST.
/// RFC 7606 §7.14: extended communities.
/// RFC 7606 §7.15: IPv6 extended communities.
/// RFC 8092 §6: large communities.
/// RFC 9234 §5 (length): ONLY_TO_CUSTOMER.
/// RFC 4360 §2: eight octets each.
/// nasty cases 4, 16 and 8
#[test]
fn all_lengths_cost_what_the_rfcs_say() {
    for context in contexts() {
        for (rule, shape) in rules().iter().flat_map(|rule| SHAPES.map(|shape| (rule, shape))) {
            if shape.has(rule.code) {
                continue;
            }
            for length in (0..=64).chain([254, 255, 256, 257, 300, 3_600, 3_840, 3_900]) {
                if length == 0 && rule.code == 2 && context.external {
                    // Well-formed, yet an external peer had to add its own AS: see below.
                    continue;
                }
                let value = vec![1; length];
                check(
                    rule,
                    &attribute(rule.flags, rule.code, &value),
                    length,
                    shape,
                    &context,
                );
            }
        }
    }
}

#[test]
fn lengths_that_only_an_extended_message_holds_cost_the_same() {
    for context in contexts() {
        let context = Context {
            max_message: 65_535,
            ..context
        };
        for rule in rules() {
            for length in [4_080, 4_096, 65_280, 65_281, 65_400] {
                let own = attribute(rule.flags, rule.code, &vec![1; length]);
                check(&rule, &own, length, Shape::Classic, &context);
                check(&rule, &own, length, Shape::Nothing, &context);
            }
        }
    }
}

/// RFC 7606 §5.2: without routes there is nothing to lose.
/// nasty case 17
#[test]
fn an_empty_path_is_an_error_of_external_peers_routes_only() {
    for context in contexts() {
        for shape in SHAPES {
            let message = shape.with(&attribute(0x40, 2, &[]), &context);
            let wanted = (context.external && shape.announces()).then_some(Action::Withdraw);
            assert_eq!(outcome(&message, shape, &context), Ok(wanted));
        }
    }
}

/// RFC 7606 §3 (g): each attribute.
/// RFC 4271 §5 (twice): each attribute.
#[test]
fn a_repeated_attribute_is_discarded_and_a_multiprotocol_one_resets() {
    for context in contexts() {
        for (rule, shape) in rules().iter().flat_map(|rule| SHAPES.map(|shape| (rule, shape))) {
            let sound = attribute(rule.flags, rule.code, &rule.sound(&context));
            let wrong = attribute(rule.flags ^ 0xc0, rule.code, &[1, 2, 3]);
            for second in [&sound, &wrong] {
                let found = outcome(
                    &shape.with(&[&sound[..], second].concat(), &context),
                    shape,
                    &context,
                );
                if rule.costs.0 == Action::Reset {
                    let told = found.map_err(Notification::from).unwrap_err();
                    assert_eq!((told.code, told.subcode, &told.data[..]), (3, 1, &[][..]));
                } else {
                    assert_eq!(found, Ok(Some(Action::Discard)), "{sound:02x?} {second:02x?}");
                }
            }
        }
    }
}

/// RFC 4271 §5 (order): any order.
#[test]
fn the_order_of_attributes_means_nothing() {
    for context in contexts() {
        for shape in SHAPES {
            let mut all = shape.attributes(&context);
            let carried = |code: &u8| all.iter().any(|other| other[1] == *code);
            let others = rules().into_iter().filter(|rule| !carried(&rule.code));
            let others = others.filter(|rule| !matches!(rule.code, 3 | 14 | 15));
            let others = others.map(|rule| attribute(rule.flags, rule.code, &rule.sound(&context)));
            all.extend(others.collect::<Vec<_>>());
            all.push(attribute(0xc0, 99, &[7]));
            let decoded = |all: &[Vec<u8>]| {
                let (update, problems) = wire::decode_update(&shape.message(all), &context).unwrap();
                let costs = problems.iter().map(|(_, action)| *action).max();
                (update, costs)
            };
            let (wanted, costs) = decoded(&all);
            assert!(costs <= Some(Action::Discard), "{costs:?}");
            for turn in 0..all.len() {
                let mut turned = all.clone();
                turned.rotate_left(turn);
                assert_eq!(decoded(&turned), (wanted.clone(), costs));
                turned.reverse();
                assert_eq!(decoded(&turned), (wanted.clone(), costs));
            }
        }
    }
}

/// RFC 7606 §4: each attribute, cut anywhere.
#[test]
fn an_attribute_past_the_end_costs_the_routes_or_without_any_the_session() {
    // RFC 7606 §4: the length overruns, or there is no room for a header.
    for context in contexts() {
        for (rule, shape) in rules().iter().flat_map(|rule| SHAPES.map(|shape| (rule, shape))) {
            if shape.has(rule.code) {
                continue;
            }
            let sound = attribute(rule.flags, rule.code, &[1; 4]);
            for kept in 1..sound.len() {
                let mut all = shape.attributes(&context);
                all.retain(|other| other[1] != rule.code);
                all.push(sound[..kept].to_vec());
                let found = outcome(&shape.message(&all), shape, &context);
                let locatable = shape.announces() && (kept == 1 || rule.costs.0 != Action::Reset);
                if locatable {
                    assert_eq!(found, Ok(Some(Action::Withdraw)), "{:02x?}", &sound[..kept]);
                } else {
                    let told = found.map_err(Notification::from).unwrap_err();
                    assert_eq!((told.code, told.subcode, &told.data[..]), (3, 1, &[][..]));
                }
            }
        }
    }
}

/// RFC 7606 §3 (b): at the limits.
#[test]
fn an_update_as_long_as_a_message_can_be_is_read() {
    for max_message in [4_096_usize, 65_535] {
        let context = Context {
            max_message,
            ..context(true)
        };
        let shape = Shape::Classic;
        let room = max_message - shape.message(&shape.attributes(&context)).len() - 4;
        // An unknown attribute takes what is left.
        let full = shape.with(&attribute(0xc0, 99, &vec![7; room]), &context);
        assert_eq!(full.len(), max_message);
        assert_eq!(outcome(&full, shape, &context), Ok(None));
        // Its neighbor's length is one more than the message has, its own length one less.
        for (length, cost) in [(room + 1, Action::Withdraw), (room - 1, Action::Withdraw)] {
            let mut wrong = full.to_vec();
            let at = full.len() - 2 - room - 2;
            wrong[at..at + 2].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            assert_eq!(outcome(&wrong.into(), shape, &context), Ok(Some(cost)));
        }
    }
    // The field lengths at the limit of the message (RFC 7606 §3 b).
    for (withdrawn, attributes, fits) in [
        (0_u16, 0_u16, true),
        (0, 1, false),
        (1, 0, false),
        (0xffff, 0xffff, false),
    ] {
        let body = [withdrawn.to_be_bytes(), attributes.to_be_bytes()].concat();
        let found = wire::decode_update(&framed(2, &body), &context(true));
        assert_eq!(found.is_ok(), fits);
        if let Err(error) = found {
            let told = Notification::from(error);
            assert_eq!((told.code, told.subcode), (3, 1));
        }
    }
}

/// RFC 7606 §3 (h): the strongest action.
/// RFC 7606 §6: all of them can be counted.
#[test]
fn all_problems_of_an_update_are_told_and_the_dearest_counts() {
    // RFC 7606 §3 h. What decode_with tells is what decode_update lists.
    let context = context(true);
    let all = [
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xe9]),
        attribute(0x40, 3, &[192, 0, 2, 1]),
        attribute(0x40, 6, &[1]),
        attribute(0xc0, 8, &[1]),
        attribute(0xc0, 8, &[1; 4]),
    ];
    let message = Shape::Classic.message(&all);
    let mut told = Vec::new();
    let decoded = wire::decode_with(&message, &context, |problem, action| told.push((problem, action)));
    let codes = told.iter().map(|(problem, action)| (problem.code(), *action));
    let wanted = [
        (Some(6), Action::Discard),
        (Some(8), Action::Withdraw),
        (Some(8), Action::Discard),
    ];
    assert_eq!(codes.collect::<Vec<_>>(), wanted);
    let (update, problems) = wire::decode_update(&message, &context).unwrap();
    assert_eq!(
        (decoded, told),
        (Ok(wire::Message::Update(update.clone())), problems)
    );
    assert_eq!(
        update,
        Update {
            withdrawn: vec![crate::nlri("10.0.0.0/8")],
            ..Update::default()
        }
    );
}
