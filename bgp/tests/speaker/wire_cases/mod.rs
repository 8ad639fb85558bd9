//! The table of `data/wire-cases.txt`: what a peer may send, right and wrong, and what must become of it.
//!
//! Peer 2 sends; peer 3, of another AS, peer 4, of ours, and peer 5, of another AS and without capabilities, watch what
//! is passed on.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manx_bgp::wire::{Attributes, Capability, Nlri, Open};
use manx_bgp::{ConnId, Family, PathSnapshot, PeerConfig, Prefix, State};

use self::table::{Case, Check, Phase, Session};
use crate::rig::{Rig, config, external, internal, key, open, prefix};

const TABLE: &str = include_str!("../../data/wire-cases.txt");

/// The names of prefixes, the prefixes and their NLRI; `9` ones are not announced before the case.
const PREFIXES: [(&str, &str, &str); 8] = [
    ("P1", "198.51.100.0/24", "18c63364"),
    ("P2", "203.0.113.0/24", "18cb0071"),
    ("P3", "192.0.2.0/24", "18c00002"),
    ("P9", "203.0.114.0/24", "18cb0072"),
    ("Q1", "2001:db8:1::/48", "3020010db80001"),
    ("Q2", "2001:db8:2::/48", "3020010db80002"),
    ("Q3", "2001:db8:3::/48", "3020010db80003"),
    ("Q9", "2001:db8:9::/48", "3020010db80009"),
];

/// A community by which what came before the case is told.
const BEFORE: &str = "c0 08 [ fdea0063 ]";

/// Ours against a peer, and those who watch.
struct Bench {
    rig: Rig,
    peer: ConnId,
    watchers: [(u8, ConnId); 3],
    /// The attributes of what was announced before the case.
    before: BTreeMap<&'static str, Arc<Attributes>>,
}

impl Bench {
    /// A session in the state that a case is about, with the routes that are to be there.
    fn new(session: &Session) -> Self {
        let families = vec![Family::Ipv4Unicast, Family::Ipv6Unicast];
        let mut rig = Rig::new(config());
        let mut watch = |id, peer: PeerConfig| {
            let mut open = open(id, peer.asn);
            open.capabilities
                .push(Capability::Multiprotocol(Family::Ipv6Unicast));
            let families = families.clone();
            (id, rig.establish_with(PeerConfig { families, ..peer }, id, open))
        };
        let client = PeerConfig {
            route_reflector_client: true,
            ..internal(4)
        };
        let watchers = [watch(3, external(3)), watch(4, client)];
        let bare = Open {
            capabilities: Vec::new(),
            ..open(5, 65_005)
        };
        let watchers = [
            watchers[0],
            watchers[1],
            (5, rig.establish_with(external(5), 5, bare)),
        ];
        rig.input(manx_bgp::Input::SetPeer(Box::new(session.config())));
        let peer = rig.accept(2);
        let mut bench = Self {
            rig,
            peer,
            watchers,
            before: BTreeMap::new(),
        };
        if session.phase() != Phase::OpenSent {
            bench.send(session, "msg 01 04 S 005a 0a000002 [ K ]");
        }
        if session.phase() == Phase::Established {
            bench.send(session, "msg 04");
            assert_eq!(bench.rig.peer(2).state, State::Established);
            bench.announce(session);
        }
        bench
    }

    fn announce(&mut self, session: &Session) {
        self.send(session, &format!("update ; G {BEFORE} ; I P1 I P2 I P3"));
        if session.ipv6() {
            self.send(
                session,
                &format!("update ; 80 0e [ 0002 01 [ T ] 00 I Q1 I Q2 I Q3 ] O A L {BEFORE} ;"),
            );
        }
        for (name, ..) in PREFIXES {
            if let Some(path) = self.best(name) {
                self.before.insert(name, path.attributes);
            }
        }
        assert_eq!(self.before.len(), if session.ipv6() { 6 } else { 3 });
        for (_, watcher) in self.watchers {
            self.rig.octets(watcher);
        }
    }

    /// The prefixes that peer `watcher` has from us when it has heard everything.
    fn known(&mut self, watcher: ConnId) -> BTreeSet<Prefix> {
        let mut known = BTreeSet::new();
        for update in self.rig.updates(watcher) {
            for Nlri { prefix, .. } in update.withdrawn {
                known.remove(&prefix);
            }
            let announced = update.reach.iter().flat_map(|reach| &reach.nlri);
            known.extend(announced.map(|nlri| nlri.prefix));
        }
        known
    }

    fn send(&mut self, session: &Session, messages: &str) {
        self.rig.receive_stream(self.peer, &session.messages(messages));
    }

    fn paths(&self, name: &str) -> Vec<PathSnapshot> {
        let (_, text, _) = PREFIXES.iter().find(|named| named.0 == name).unwrap();
        let from = |path: &PathSnapshot| path.peer == Some(key(2));
        self.rig.paths(prefix(text)).into_iter().filter(from).collect()
    }

    fn best(&self, name: &str) -> Option<PathSnapshot> {
        self.paths(name).into_iter().find(|path| path.best)
    }

    fn held(&self, name: &str, prefix: Prefix, known: &[(u8, BTreeSet<Prefix>)]) -> Held {
        let looked_at = |id| id != 3 || prefix.family() == Family::Ipv4Unicast;
        let knows =
            |(id, known): &(u8, BTreeSet<Prefix>)| (looked_at(*id) && known.contains(&prefix)).then_some(*id);
        let changed = |path: PathSnapshot| self.before.get(name) != Some(&path.attributes);
        Held {
            new: self.best(name).map(changed),
            paths: self.paths(name).len(),
            known: known.iter().filter_map(knows).collect(),
        }
    }

    /// The NOTIFICATION that was the last thing said to the peer: code, subcode, data.
    fn last_words(octets: &[u8]) -> Option<(u8, u8, Vec<u8>)> {
        let mut rest = octets;
        let mut last = None;
        while rest.len() >= 19 {
            let (message, after) = rest.split_at(usize::from(u16::from_be_bytes([rest[16], rest[17]])));
            last = (message[18] == 3).then(|| (message[19], message[20], message[21..].to_vec()));
            rest = after;
        }
        last
    }
}

/// What became of a prefix.
#[derive(Debug)]
struct Held {
    /// It is in use, with other attributes than before; none where it is not.
    new: Option<bool>,
    paths: usize,
    /// Who was told of it. What peer 3 hears of IPv6 is not looked at: it has no IPv6 address of ours.
    known: Vec<u8>,
}

/// What became of a case.
#[derive(Debug)]
struct Observed {
    closed: bool,
    last_words: Option<(u8, u8, Vec<u8>)>,
    /// What was announced before the case.
    before: Vec<&'static str>,
    held: BTreeMap<&'static str, Held>,
    told: BTreeMap<u8, Vec<u8>>,
    /// An UPDATE after the case was taken.
    goes_on: bool,
}

impl Observed {
    fn of(case: &Case) -> Self {
        let mut bench = Bench::new(&case.session);
        let silent = bench.rig.octets(bench.peer);
        assert_eq!(Bench::last_words(&silent), None);
        bench.rig.receive_stream(bench.peer, &case.octets);
        let known = bench.watchers.map(|(id, conn)| (id, bench.known(conn)));
        let held = PREFIXES.map(|(name, text, _)| (name, bench.held(name, prefix(text), &known)));
        let told = bench
            .watchers
            .map(|(id, conn)| (id, bench.rig.octets(conn).to_vec()));
        let said = bench.rig.octets(bench.peer);
        bench.send(&case.session, "update ; G ; I 18 0a0a0a");
        let goes_on = bench.rig.peer(2).state == State::Established
            && !bench.rig.paths(prefix("10.10.10.0/24")).is_empty();
        Self {
            closed: bench.rig.closed.contains(&bench.peer),
            last_words: Bench::last_words(&said),
            before: bench.before.into_keys().collect(),
            held: held.into(),
            told: told.into(),
            goes_on,
        }
    }

    /// Whether it is what one of the outcomes of a case demands.
    fn is(&self, outcome: &[Check]) -> bool {
        let ends = outcome.iter().any(Check::ends_the_session);
        let rest = PREFIXES.iter().all(|(name, ..)| {
            let held = &self.held[name];
            let unsaid = self.before.contains(name).then_some(false);
            let in_use = match () {
                () if ends => held.new.is_none(),
                () if outcome.iter().any(|check| check.is_about(name)) => true,
                () => held.new == unsaid,
            };
            in_use && self.is_told_as_used(name, outcome)
        });
        self.closed == ends && self.goes_on != ends && rest && outcome.iter().all(|check| self.meets(check))
    }

    /// Whether those have heard of a prefix who are to hear of it: all, if it is in use and may leave.
    fn is_told_as_used(&self, name: &str, outcome: &[Check]) -> bool {
        let held = &self.held[name];
        let watchers: &[u8] = match held.new {
            None => &[],
            Some(_) if name.starts_with('P') => &[3, 4, 5],
            Some(_) => &[4],
        };
        let lacks = |id| outcome.contains(&Check::Lack(id, name.to_owned()));
        let wanted = watchers.iter().copied().filter(|id| !lacks(*id));
        outcome.contains(&Check::Any(name.to_owned())) || held.known.iter().copied().eq(wanted)
    }

    fn meets(&self, check: &Check) -> bool {
        let has = |id, octets: &[u8]| self.told[id].windows(octets.len()).any(|window| window == octets);
        match check {
            Check::Up => self.goes_on,
            Check::Hold(name) => self.held[&**name].new == Some(true),
            Check::Drop(name) => self.held[&**name].new.is_none(),
            Check::Any(_) | Check::Lack(..) | Check::End => true,
            Check::Paths(name, count) => self.held[&**name].paths == *count,
            Check::Tell(id, octets) => has(id, octets),
            Check::Hide(id, octets) => !has(id, octets),
            Check::Reset(code, subcode, data) => self.last_words.as_ref().is_some_and(|last| {
                last.0 == *code
                    && subcode.is_none_or(|subcode| last.1 == subcode)
                    && data.as_ref().is_none_or(|data| last.2 == *data)
            }),
            Check::Close => self.last_words.is_none(),
        }
    }
}

/// Every case of the table ends as it says, and every one that leaves the session up is followed by an UPDATE that is
/// taken.
///
/// RFC 7606 §3 (h): of several errors the strongest action is taken.
/// RFC 7606 §4: prefixes are found though attributes run past their end.
/// RFC 7606 §5.2: an error without prefixes ends the session, unless it costs an attribute only.
///
/// nasty case 33: a role is asked for, and the OPEN has no parameters.
#[test]
fn every_case_of_the_table_ends_as_the_rfcs_say() {
    let cases = table::cases(TABLE);
    let wrong: Vec<_> = cases.iter().filter_map(complaint).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// What is wrong with what became of a case.
fn complaint(case: &Case) -> Option<String> {
    let observed = Observed::of(case);
    let right = case.outcomes.iter().any(|outcome| observed.is(outcome));
    let Case {
        name,
        session,
        outcomes,
        ..
    } = case;
    (!right).then(|| format!("{name}, {session}: wanted {outcomes:02x?}, got {observed:02x?}"))
}
