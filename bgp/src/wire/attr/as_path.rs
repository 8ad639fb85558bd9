//! AS_PATH and AS4_PATH (RFC 4271 §5.1.2, RFC 6793).
//!
//! Sets are read: RFC 9774 §3 would treat their routes as withdrawn, and fabrics with old aggregating routers
//! would lose routes by it; none is ever made here. A path is as long as its message lets it be.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::bytes::complete::take;
use nom::number::complete::be_u8;
use smallvec::SmallVec;

use crate::wire::open::two_octets;
use crate::wire::{Context, Step};

const SET: u8 = 1;
const SEQUENCE: u8 = 2;
const CONFED_SEQUENCE: u8 = 3;
const CONFED_SET: u8 = 4;

/// AS_PATH (RFC 4271 §5.1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath {
    /// Nearest first. No sequence follows a sequence: on the wire a long one takes several segments.
    pub segments: SmallVec<[Segment; 1]>,
}

/// A segment of an AS_PATH.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// Passed through, in order, nearest first.
    Sequence(Vec<u32>),
    /// Passed through, in no order.
    Set(Vec<u32>),
}

/// How wide AS numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

impl Width {
    /// How many octets that are.
    const fn octets(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// On this session.
    pub(super) fn of(context: &Context) -> Self {
        if context.four_octet_as {
            Self::Four
        } else {
            Self::Two
        }
    }
}

impl Hash for Segment {
    /// Two numbers at a time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let kind = match self {
            Self::Sequence(_) => SEQUENCE,
            Self::Set(_) => SET,
        };
        let numbers = self.numbers();
        state.write_u64((numbers.len() as u64) << 8 | u64::from(kind));
        let (pairs, last) = numbers.as_chunks();
        for [first, second] in pairs {
            state.write_u64(u64::from(*first) << 32 | u64::from(*second));
        }
        for number in last {
            state.write_u32(*number);
        }
    }
}

impl Segment {
    /// The AS numbers in it.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        match self {
            Self::Sequence(numbers) | Self::Set(numbers) => numbers,
        }
    }
}

impl AsPath {
    /// Its length as the decision process counts it: a set counts as one (RFC 4271 §9.1.2.2 a).
    #[must_use]
    pub fn hops(&self) -> usize {
        self.segments.iter().map(Segment::hops).sum()
    }

    /// How often `asn` is in it.
    #[must_use]
    pub fn count(&self, asn: u32) -> usize {
        let numbers = self.segments.iter().flat_map(Segment::numbers);
        numbers.filter(|number| **number == asn).count()
    }

    /// Whether `asn` is anywhere in it: a loop, if it is ours.
    #[must_use]
    pub fn contains(&self, asn: u32) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.numbers().contains(&asn))
    }

    /// The AS that it came from last, if it is known for certain: a set names no first.
    #[must_use]
    pub fn neighbor(&self) -> Option<u32> {
        match self.segments.first()? {
            Segment::Sequence(numbers) => numbers.first().copied(),
            Segment::Set(_) => None,
        }
    }

    /// Puts `asn` in front, as an external peer wants it (RFC 4271 §5.1.2 b).
    pub fn prepend(&mut self, asn: u32) {
        match self.segments.first_mut() {
            Some(Segment::Sequence(numbers)) => numbers.insert(0, asn),
            Some(Segment::Set(_)) | None => self.segments.insert(0, Segment::Sequence(vec![asn])),
        }
    }

    /// Whether a two-octet peer needs AS4_PATH to see all of it.
    pub(super) fn needs_four_octets(&self) -> bool {
        let wide = |asn: &u32| *asn > u16::MAX.into();
        self.segments
            .iter()
            .any(|segment| segment.numbers().iter().any(wide))
    }

    /// Appends a segment that is not empty, joining what belongs together.
    pub(crate) fn push(&mut self, segment: Segment) {
        match (self.segments.last_mut(), segment) {
            (_, segment) if segment.numbers().is_empty() => {}
            (Some(Segment::Sequence(last)), Segment::Sequence(numbers)) => last.extend(numbers),
            (_, segment) => {
                // Most paths are one sequence.
                self.segments.reserve_exact(1);
                self.segments.push(segment);
            }
        }
    }

    /// Appends the value to `out`, with AS_TRANS for what does not fit (RFC 6793 §4.2.2).
    pub(super) fn put(&self, width: Width, out: &mut BytesMut) {
        for segment in &self.segments {
            let kind = match segment {
                Segment::Sequence(_) => SEQUENCE,
                Segment::Set(_) => SET,
            };
            for numbers in segment.numbers().chunks(u8::MAX.into()) {
                out.put_u8(kind);
                out.put_u8(u8::try_from(numbers.len()).unwrap_or(u8::MAX));
                for asn in numbers {
                    match width {
                        Width::Two => out.put_u16(two_octets(*asn)),
                        Width::Four => out.put_u32(*asn),
                    }
                }
            }
        }
    }
}

impl Segment {
    /// The segment with every number replaced, or left out.
    pub(crate) fn renumbered(&self, change: impl Fn(u32) -> Option<u32>) -> Self {
        let numbers = self.numbers().iter().copied().filter_map(change).collect();
        match self {
            Self::Sequence(_) => Self::Sequence(numbers),
            Self::Set(_) => Self::Set(numbers),
        }
    }

    fn hops(&self) -> usize {
        match self {
            Self::Sequence(numbers) => numbers.len(),
            Self::Set(_) => 1,
        }
    }

    /// Its first `hops` hops; a set is indivisible.
    fn take(&self, hops: usize) -> Self {
        match self {
            Self::Sequence(numbers) => Self::Sequence(numbers[..hops.min(numbers.len())].to_vec()),
            Self::Set(numbers) => Self::Set(numbers.clone()),
        }
    }
}

/// The segments of a value, one by one: type and AS numbers, of which there is at least one and none is 0 (RFC 7607).
fn segments(value: &[u8], width: Width) -> impl Iterator<Item = Option<(u8, Vec<u32>)>> {
    let mut left = value;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let parsed: Step<'_, _> = (be_u8, length_numbers(width)).parse(left);
        let Ok((rest, (kind, numbers))) = parsed else {
            left = &[];
            return Some(None);
        };
        left = rest;
        let sound = !numbers.is_empty() && !numbers.contains(&0);
        Some(sound.then_some((kind, numbers)))
    })
}

/// How many there are, and the numbers.
fn length_numbers<'a>(width: Width) -> impl Parser<&'a [u8], Output = Vec<u32>, Error = ()> {
    be_u8.flat_map(move |count| {
        let octets = usize::from(count) * width.octets();
        take(octets).map(move |octets: &[u8]| match width {
            Width::Two => octets
                .as_chunks()
                .0
                .iter()
                .map(|it| u16::from_be_bytes(*it).into())
                .collect(),
            Width::Four => octets
                .as_chunks()
                .0
                .iter()
                .map(|it| u32::from_be_bytes(*it))
                .collect(),
        })
    })
}

/// The path in an AS_PATH's value; none where it is malformed. Segments of a confederation are, as we are
/// in none (RFC 5065 §5).
pub(super) fn decode(value: &[u8], width: Width) -> Option<AsPath> {
    let mut path = AsPath::default();
    for segment in segments(value, width) {
        let (kind, numbers) = segment?;
        path.push(match kind {
            SET => Segment::Set(numbers),
            SEQUENCE => Segment::Sequence(numbers),
            _ => return None,
        });
    }
    Some(path)
}

/// The path in an AS4_PATH's value; none where it is malformed. Segments of a confederation are left out
/// (RFC 6793 §3).
pub(super) fn decode_as4(value: &[u8]) -> Option<AsPath> {
    let mut path = AsPath::default();
    for segment in segments(value, Width::Four) {
        let (kind, numbers) = segment?;
        match kind {
            SET => path.push(Segment::Set(numbers)),
            SEQUENCE => path.push(Segment::Sequence(numbers)),
            CONFED_SEQUENCE | CONFED_SET => {}
            _ => return None,
        }
    }
    (!value.is_empty()).then_some(path)
}

/// The true path, of what a two-octet peer sent (RFC 6793 §4.2.3): AS4_PATH, after as much of AS_PATH as
/// makes both equally long; AS_PATH alone where AS4_PATH claims to be longer.
pub(super) fn merge(as_path: AsPath, as4_path: AsPath) -> AsPath {
    let Some(mut missing) = as_path.hops().checked_sub(as4_path.hops()) else {
        return as_path;
    };
    let mut merged = AsPath::default();
    for segment in &as_path.segments {
        if missing == 0 {
            break;
        }
        merged.push(segment.take(missing));
        missing = missing.saturating_sub(segment.hops());
    }
    for segment in as4_path.segments {
        merged.push(segment);
    }
    merged
}

impl fmt::Display for AsPath {
    /// `65001 65002 {1 2}`, nearest first; a set in braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            segment.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers().iter().map(u32::to_string).collect::<Vec<_>>();
        let numbers = numbers.join(" ");
        match self {
            Self::Sequence(_) => f.write_str(&numbers),
            Self::Set(_) => write!(f, "{{{numbers}}}"),
        }
    }
}
