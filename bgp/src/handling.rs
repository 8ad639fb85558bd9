//! How a peer's routes are handled beside its filters: AS numbers, preferences, how many there may be.
//!
//! All of it takes effect on a session as it stands, but for [`Handling::local_as`], which our OPEN states.

use std::time::Duration;

use crate::filter::{GRACEFUL_SHUTDOWN, Operation};
use crate::long_lived;
use crate::wire::{AsPath, Attributes};
use crate::{Config, Family, PeerConfig};

/// How a peer's routes are handled beside its filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// Our AS towards this peer, in place of the speaker's.
    pub local_as: Option<u32>,
    /// How often our own AS may be in an AS_PATH that comes in. By default not at all (RFC 4271 §9.1.2).
    pub allowed_own_as: u8,
    /// What comes from another AS has to name it first in AS_PATH (RFC 4271 §6.3).
    pub enforce_first_as: bool,
    /// The preference of what comes in, unless a filter sets another.
    pub local_preference: Option<u32>,
    /// The MULTI_EXIT_DISC of what goes out, unless a filter sets another.
    pub med: Option<u32>,
    /// How often our AS is put in front of AS_PATH towards another AS, beyond the one time that it has to be.
    pub prepend: u8,
    /// Our AS takes the place of the peer's in AS_PATHs, so that sites of one AS hear of each other.
    pub as_override: bool,
    /// Private AS numbers (RFC 6996) are left out of AS_PATHs towards another AS.
    pub remove_private_as: bool,
    /// How many paths may come, by family.
    pub limits: Vec<PathLimit>,
}

/// How routes change on the way out, before rules change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Outgoing {
    /// Our AS towards the peer.
    pub(crate) our_as: u32,
    /// The MULTI_EXIT_DISC, where it is not as it was.
    pub(crate) med: Option<u32>,
    /// How often our AS is put in front beyond the one time.
    pub(crate) prepend: u8,
    /// The AS whose place in AS_PATHs ours takes: the peer's.
    pub(crate) overrides: Option<u32>,
    /// Private AS numbers are left out.
    pub(crate) remove_private_as: bool,
}

/// How many paths of a family a peer may announce, whether they are used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathLimit {
    /// Which family.
    pub family: Family,
    /// How many.
    pub max: u32,
    /// A warning is logged at this percentage of it, 1 to 100.
    pub warn_percent: u8,
    /// What becomes of a peer that announces more.
    pub action: LimitAction,
}

/// What becomes of a peer that announces more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAction {
    /// It is warned of in the log.
    Warn,
    /// Its session ends, and may come back after this time.
    Restart(Duration),
    /// Its session ends, and stays away until its settings change.
    Down,
}

/// How a number of paths stands to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitState {
    /// Below the warning.
    Below,
    /// At the warning or beyond.
    Near,
    /// More than there may be.
    Over,
}

impl PathLimit {
    /// How `count` paths stand to it.
    #[must_use]
    pub fn state(&self, count: u64) -> LimitState {
        let max = u64::from(self.max);
        if count > max {
            LimitState::Over
        } else if count.saturating_mul(100) >= max.saturating_mul(self.warn_percent.into()) {
            LimitState::Near
        } else {
            LimitState::Below
        }
    }
}

impl PeerConfig {
    /// Our AS towards this peer.
    pub(crate) fn local_as(&self, local: &Config) -> u32 {
        self.handling.local_as.unwrap_or(local.asn)
    }

    /// Whether the peer is of another AS than we are towards it.
    pub(crate) fn is_external(&self, local: &Config) -> bool {
        self.asn != self.local_as(local)
    }
}

impl Handling {
    /// The attributes of a route on its way in, once a rule has changed them; none where nothing changes.
    ///
    /// RFC 8326 §4.1: a route from another AS whose sender is about to leave is the last to be taken, unless a
    /// rule took the mark off.
    pub(crate) fn received(
        &self,
        attributes: &Attributes,
        external: bool,
        operations: &[Operation],
    ) -> Option<Attributes> {
        let leaving =
            |attributes: &Attributes| external && attributes.communities.contains(&GRACEFUL_SHUTDOWN);
        if operations.is_empty() && self.local_preference.is_none() && !leaving(attributes) {
            return None;
        }
        let mut changed = attributes.clone();
        changed.local_pref = self.local_preference.or(changed.local_pref);
        for operation in operations {
            operation.apply(&mut changed);
        }
        long_lived::keep_mark(attributes, &mut changed);
        if leaving(&changed) {
            changed.local_pref = Some(0);
        }
        Some(changed)
    }
}

impl Outgoing {
    /// Changes a route on its way out, before rules do.
    pub(crate) fn apply(&self, attributes: &mut Attributes, external: bool) {
        if external {
            // What another AS said of its links is not for a third one (RFC 4271 §5.1.4); what we say is.
            attributes.med = None;
            if self.remove_private_as {
                attributes.as_path = renumbered(&attributes.as_path, |asn| (!is_private(asn)).then_some(asn));
            }
            if let Some(theirs) = self.overrides {
                let ours = |asn| Some(if asn == theirs { self.our_as } else { asn });
                attributes.as_path = renumbered(&attributes.as_path, ours);
            }
        }
        attributes.med = self.med.or(attributes.med);
    }
}

/// The path with every AS number replaced, or left out; a segment that loses all of them goes.
fn renumbered(path: &AsPath, change: impl Fn(u32) -> Option<u32>) -> AsPath {
    let mut changed = AsPath::default();
    for segment in &path.segments {
        changed.push(segment.renumbered(&change));
    }
    changed
}

/// RFC 6996 §5.
fn is_private(asn: u32) -> bool {
    matches!(asn, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Segment;

    fn limit(max: u32, warn_percent: u8) -> PathLimit {
        PathLimit {
            family: Family::Ipv4Unicast,
            max,
            warn_percent,
            action: LimitAction::Warn,
        }
    }

    /// nasty case 35: a threshold in percent of the greatest limit does not overflow.
    #[test]
    fn a_limit_is_exact_up_to_the_greatest_number() {
        use LimitState::{Below, Near, Over};
        let most = u64::from(u32::MAX);
        for (limit, count, state) in [
            (limit(10, 80), 7, Below),
            (limit(10, 80), 8, Near),
            (limit(10, 80), 10, Near),
            (limit(10, 80), 11, Over),
            (limit(10, 75), 7, Below),
            (limit(0, 100), 0, Near),
            (limit(0, 100), 1, Over),
            (limit(u32::MAX, 100), most - 1, Below),
            (limit(u32::MAX, 100), most, Near),
            (limit(u32::MAX, 100), most + 1, Over),
            (limit(u32::MAX, 1), u64::MAX, Over),
        ] {
            assert_eq!(limit.state(count), state, "{limit:?} {count}");
        }
    }

    fn path(segments: &[Segment]) -> AsPath {
        AsPath {
            segments: segments.to_vec().into(),
        }
    }

    #[test]
    fn private_numbers_and_the_peers_own_are_taken_out_of_paths() {
        let before = Attributes {
            as_path: path(&[
                Segment::Sequence(vec![64_512, 7]),
                Segment::Set(vec![65_534]),
                Segment::Sequence(vec![4_200_000_000, 65_535, 8]),
            ]),
            med: Some(3),
            ..Attributes::default()
        };
        let sent = |outgoing: &Outgoing, external| {
            let mut attributes = before.clone();
            outgoing.apply(&mut attributes, external);
            attributes
        };
        let private = Outgoing {
            remove_private_as: true,
            ..Outgoing::default()
        };
        assert_eq!(
            sent(&private, true).as_path,
            path(&[Segment::Sequence(vec![7, 65_535, 8])])
        );
        assert_eq!(sent(&private, false), before);
        let overriding = Outgoing {
            our_as: 1,
            overrides: Some(7),
            med: Some(9),
            ..Outgoing::default()
        };
        let changed = sent(&overriding, true);
        assert_eq!(changed.as_path.to_string(), "64512 1 {65534} 4200000000 65535 8");
        assert_eq!(changed.med, Some(9));
        assert_eq!(sent(&overriding, false).as_path, before.as_path);
    }

    /// RFC 8326 §4.1: a route marked with GRACEFUL_SHUTDOWN gets the lowest preference.
    #[test]
    fn who_is_about_to_leave_is_preferred_least() {
        let marked = Attributes {
            communities: [GRACEFUL_SHUTDOWN].into(),
            ..Attributes::default()
        };
        let preferring = Handling {
            local_preference: Some(200),
            ..Handling::default()
        };
        let preference =
            |handling: &Handling, attributes: &Attributes, external, operations: &[Operation]| {
                let changed = handling.received(attributes, external, operations);
                changed.map(|it| it.local_pref)
            };
        let none = Handling::default();
        assert_eq!(preference(&none, &marked, true, &[]), Some(Some(0)));
        assert_eq!(preference(&none, &marked, false, &[]), None);
        assert_eq!(preference(&preferring, &marked, true, &[]), Some(Some(0)));
        assert_eq!(preference(&preferring, &marked, false, &[]), Some(Some(200)));
        let raise = [Operation::SetLocalPreference(300)];
        assert_eq!(preference(&preferring, &marked, true, &raise), Some(Some(0)));
        let unmark = [Operation::SetCommunities(Vec::new())];
        assert_eq!(preference(&preferring, &marked, true, &unmark), Some(Some(200)));
    }
}
