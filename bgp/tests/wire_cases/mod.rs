//! The table of `data/wire-cases.txt`: what a peer may send, right and wrong, and what must become of it; for tests that
//! play the peer, and those who watch what is passed on.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod table;

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use manx_bgp::wire::{self, Capability, Context, Message, Notification, Open};
use manx_bgp::{Family, PathSnapshot, Prefix};

use self::table::{BEFORE, Check, PREFIXES};
pub(crate) use self::table::{Case, cases};

/// Who watches: peer 3, of another AS; peer 4, of ours and our client; peer 5, of another AS and without capabilities.
pub(crate) const WATCHERS: [u8; 3] = [3, 4, 5];

/// The AS of an observer, where ours is `ours`.
pub(crate) fn asn(watcher: u8, ours: u32) -> u32 {
    match watcher {
        4 => ours,
        _ => 65_000 + u32::from(watcher),
    }
}

/// What an observer opens its session with.
pub(crate) fn open(watcher: u8, ours: u32) -> Open {
    let asn = asn(watcher, ours);
    let mut capabilities = Family::ALL.map(Capability::Multiprotocol).to_vec();
    capabilities.push(Capability::FourOctetAs(asn));
    if watcher == 5 {
        capabilities.clear();
    }
    Open {
        asn,
        hold_time: 90,
        router_id: [10, 0, 0, watcher].into(),
        capabilities,
    }
}

/// How what an observer is sent is read.
pub(crate) fn context(watcher: u8) -> Context {
    Context {
        four_octet_as: watcher != 5,
        external: watcher != 4,
        families: Family::ALL.to_vec(),
        ..Context::default()
    }
}

/// The messages in a stream.
pub(crate) fn messages(octets: &[u8], context: &Context) -> Vec<Message> {
    let mut stream = BytesMut::from(octets);
    let mut messages = Vec::new();
    while let Some(frame) = wire::frame(&mut stream, context.max_message).unwrap() {
        messages.push(wire::decode(&frame, context).unwrap());
    }
    messages
}

/// The NOTIFICATION that somebody was sent last.
pub(crate) fn last_words(messages: Vec<Message>) -> Option<Notification> {
    match messages.into_iter().next_back()? {
        Message::Notification(notification) => Some(notification),
        Message::Open(_) | Message::Update(_) | Message::Keepalive | Message::RouteRefresh(_) => None,
    }
}

/// What became of a case.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) closed: bool,
    /// An UPDATE after the case was taken.
    pub(crate) goes_on: bool,
    /// What the peer was sent last, if it was a NOTIFICATION.
    pub(crate) last_words: Option<Notification>,
    /// The peer's paths.
    pub(crate) paths: Vec<PathSnapshot>,
    /// The octets that the observers were sent before the case, and since.
    pub(crate) told: BTreeMap<u8, (Vec<u8>, Vec<u8>)>,
}

impl Observed {
    /// What is wrong with it.
    pub(crate) fn complaint(&self, case: &Case) -> Option<String> {
        let right = case.outcomes.iter().any(|outcome| self.is(case, outcome));
        let Case {
            name,
            session,
            outcomes,
            ..
        } = case;
        let known = WATCHERS.map(|watcher| self.known(watcher));
        (!right).then(|| {
            format!(
                "{name}, {session}: wanted {outcomes:02x?}, got {self:02x?}; the observers know {known:?}"
            )
        })
    }

    fn is(&self, case: &Case, outcome: &[Check]) -> bool {
        let ends = outcome.iter().any(Check::ends_the_session);
        let known = WATCHERS.map(|watcher| (watcher, self.known(watcher)));
        let rest = PREFIXES.iter().all(|(name, ..)| {
            let unsaid = case.session.has_before(name).then_some(false);
            let in_use = match () {
                () if ends => self.in_use(name).is_none(),
                () if outcome.iter().any(|check| check.is_about(name)) => true,
                () => self.in_use(name) == unsaid,
            };
            in_use && self.is_told_as_used(name, outcome, &known)
        });
        self.closed == ends && self.goes_on != ends && rest && outcome.iter().all(|check| self.meets(check))
    }

    fn paths(&self, name: &str) -> impl Iterator<Item = &PathSnapshot> {
        let prefix = prefix(name);
        self.paths.iter().filter(move |path| path.prefix == prefix)
    }

    /// Whether a prefix in use has other attributes than before; none where it is not in use.
    fn in_use(&self, name: &str) -> Option<bool> {
        let best = self.paths(name).find(|path| path.best)?;
        Some(!best.attributes.communities.contains(&BEFORE))
    }

    /// The prefixes that an observer has from us when it has heard everything.
    fn known(&self, watcher: u8) -> BTreeSet<Prefix> {
        let mut known = BTreeSet::new();
        let (before, since) = &self.told[&watcher];
        for message in messages(&[&before[..], since].concat(), &context(watcher)) {
            if let Message::Update(update) = message {
                for nlri in update.withdrawn {
                    known.remove(&nlri.prefix);
                }
                let announced = update.reach.iter().flat_map(|reach| &reach.nlri);
                known.extend(announced.map(|nlri| nlri.prefix));
            }
        }
        known
    }

    /// Whether those have heard of a prefix who are to hear of it: all, if it is in use and may leave. Of IPv6 only what
    /// an internal peer hears is looked at: for others we have no next hop here.
    fn is_told_as_used(&self, name: &str, outcome: &[Check], known: &[(u8, BTreeSet<Prefix>)]) -> bool {
        if outcome.contains(&Check::Any(name.to_owned())) {
            return true;
        }
        let in_use = self.in_use(name).is_some();
        known.iter().all(|(watcher, known)| {
            let lacks = outcome.contains(&Check::Lack(*watcher, name.to_owned()));
            let looked_at = *watcher == 4 || name.starts_with('P');
            !looked_at || known.contains(&prefix(name)) == (in_use && !lacks)
        })
    }

    fn meets(&self, check: &Check) -> bool {
        let has = |id, octets: &[u8]| {
            self.told[id]
                .1
                .windows(octets.len())
                .any(|window| window == octets)
        };
        match check {
            Check::Up => self.goes_on,
            Check::Hold(name) => self.in_use(name) == Some(true),
            Check::Drop(name) => self.in_use(name).is_none(),
            Check::Any(_) | Check::Lack(..) | Check::End => true,
            Check::Paths(name, count) => self.paths(name).count() == *count,
            Check::Tell(id, octets) => has(id, octets),
            Check::Hide(id, octets) => !has(id, octets),
            Check::Reset(code, subcode, data) => self.last_words.as_ref().is_some_and(|last| {
                last.code == *code
                    && subcode.is_none_or(|subcode| last.subcode == subcode)
                    && data.as_ref().is_none_or(|data| last.data == *data)
            }),
            Check::Close => self.last_words.is_none(),
        }
    }
}

/// The prefix of a name.
fn prefix(name: &str) -> Prefix {
    let (_, text, _) = PREFIXES.iter().find(|named| named.0 == name).unwrap();
    text.parse().unwrap()
}
