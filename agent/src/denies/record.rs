//! What is kept of logged packets: those that are alike as one, in bounded memory and as bounded a number of entries,
//! whatever comes.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use manx_api::denied::DeniedPacket;
use manx_linux::nflog::Logged;
use tokio::time::Instant;

/// Entries that are remembered, at most.
pub(super) const REMEMBERED: usize = 1024;

/// Kinds of packets that are told apart, at most; others are only counted.
pub(super) const KINDS: usize = 1024;

/// Entries a second, at most: what comes to more waits for the next second.
const ENTRIES: usize = 100;

/// How long packets that are like one that was told of are gathered before they are told of in their turn.
pub(super) const GATHERED: Duration = Duration::from_secs(5);

/// The second that entries are counted by.
const SECOND: Duration = Duration::from_secs(1);

/// What packets have in common that are told of as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alike {
    /// What the rule wrote before them.
    pub(super) prefix: String,
    /// The indices of the interfaces that they came by, and would have left by.
    pub(super) interfaces: [Option<u32>; 2],
    /// Their protocol, by IANA's number.
    pub(super) protocol: u8,
    /// Who sent them.
    pub(super) source: IpAddr,
    /// Whom they were for.
    pub(super) destination: SocketAddr,
}

/// Packets of a kind that are not told of yet.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    /// How many.
    pub(super) count: u64,
    /// The port that the last of them came from.
    pub(super) source_port: u16,
    /// When that came.
    pub(super) last: jiff::Timestamp,
    /// When such packets were last told of.
    told: Option<Instant>,
}

/// Packets on their way to becoming entries.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    kinds: BTreeMap<Alike, Gathered>,
    /// Packets of kinds that there was no room for.
    omitted: u64,
    /// The second that entries are counted in, and how many it has had.
    second: Option<(Instant, usize)>,
}

impl Gatherer {
    /// Takes in a packet.
    pub(super) fn see(&mut self, packet: Logged, time: jiff::Timestamp) {
        let alike = Alike {
            prefix: packet.prefix,
            interfaces: [packet.from, packet.to],
            protocol: packet.protocol,
            source: packet.source.ip(),
            destination: packet.destination,
        };
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(&alike) {
            self.omitted += 1;
            return;
        }
        let gathered = self.kinds.entry(alike).or_insert(Gathered {
            count: 0,
            source_port: 0,
            last: time,
            told: None,
        });
        gathered.count += 1;
        gathered.source_port = packet.source.port();
        gathered.last = time;
    }

    /// What is to be told of now: the first packets of a kind at once, what is like them after a while.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Alike, Gathered)> {
        let rested = |told: Option<Instant>| told.is_none_or(|told| told + GATHERED <= now);
        self.kinds
            .retain(|_, gathered| gathered.count > 0 || !rested(gathered.told));
        let (begun, had) = self
            .second
            .filter(|(begun, _)| now < *begun + SECOND)
            .unwrap_or((now, 0));
        let waiting = self.kinds.iter_mut();
        let due = waiting.filter(|(_, gathered)| gathered.count > 0 && rested(gathered.told));
        let mut found = Vec::new();
        for (alike, gathered) in due.take(ENTRIES - had) {
            found.push((alike.clone(), gathered.clone()));
            gathered.count = 0;
            gathered.told = Some(now);
        }
        self.second = Some((begun, had + found.len()));
        found
    }

    /// When something is to be told of next, or may be forgotten.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let full = self.second.filter(|(_, had)| *had >= ENTRIES);
        let earliest = full.map(|(begun, _)| begun + SECOND);
        let rested = |gathered: &Gathered| gathered.told.map_or(now, |told| told + GATHERED);
        let first = self.kinds.values().map(rested).min()?;
        Some(earliest.map_or(first, |earliest| earliest.max(first)))
    }

    /// How many packets were left out.
    pub(super) const fn omitted(&self) -> u64 {
        self.omitted
    }
}

/// The last entries, numbered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: VecDeque<DeniedPacket>,
    /// The number of the next entry.
    next: u64,
}

impl Memory {
    pub(super) fn put(&mut self, entry: DeniedPacket) {
        if self.entries.len() == REMEMBERED {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.next += 1;
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The entries from this number on, and how many of those are forgotten.
    pub(super) fn since(&self, number: u64) -> (Vec<DeniedPacket>, u64) {
        let oldest = self.next - self.entries.len() as u64;
        let skipped = usize::try_from(number.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let entries = self.entries.iter().skip(skipped).cloned().collect();
        (entries, oldest.saturating_sub(number))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn packet(from_port: u16, to: &str) -> Logged {
        Logged {
            prefix: "manx:D:i:0:NetworkPolicy.ns/a".to_owned(),
            from: Some(2),
            to: Some(3),
            protocol: 6,
            source: SocketAddr::new("10.0.0.1".parse().unwrap(), from_port),
            destination: to.parse().unwrap(),
        }
    }

    fn see(gatherer: &mut Gatherer, from_port: u16, to: &str) {
        gatherer.see(packet(from_port, to), jiff::Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn the_first_of_a_kind_is_told_of_at_once_and_others_are_gathered() {
        let (mut gatherer, start) = (Gatherer::default(), Instant::now());
        see(&mut gatherer, 1, "10.0.0.2:80");
        see(&mut gatherer, 2, "10.0.0.2:80");
        see(&mut gatherer, 3, "10.0.0.2:81");
        let counts = |due: Vec<(Alike, Gathered)>| -> Vec<(u16, u64, u16)> {
            let of = |(alike, gathered): (Alike, Gathered)| {
                (alike.destination.port(), gathered.count, gathered.source_port)
            };
            due.into_iter().map(of).collect()
        };
        assert_eq!(counts(gatherer.due(start)), [(80, 2, 2), (81, 1, 3)]);
        for port in 4..10 {
            see(&mut gatherer, port, "10.0.0.2:80");
        }
        assert_eq!(counts(gatherer.due(start)), []);
        assert_eq!(gatherer.deadline(start), Some(start + GATHERED));
        assert_eq!(counts(gatherer.due(start + GATHERED)), [(80, 6, 9)]);
        assert_eq!(counts(gatherer.due(start + GATHERED * 2)), []);
        assert_eq!(gatherer.deadline(start), None, "nothing is kept of it");
    }

    #[test]
    fn a_flood_of_different_packets_is_bounded_in_memory_and_entries() {
        let (mut gatherer, start) = (Gatherer::default(), Instant::now());
        for port in 1..=60_000 {
            see(&mut gatherer, 1, &format!("10.0.0.2:{port}"));
        }
        assert_eq!(
            (gatherer.kinds.len(), gatherer.omitted()),
            (KINDS, 60_000 - KINDS as u64)
        );
        let mut told = 0;
        for second in 0..20 {
            let now = start + SECOND * second;
            let due = gatherer.due(now).len() + gatherer.due(now).len();
            assert!(due <= ENTRIES, "{due} in one second");
            assert!(gatherer.deadline(now).is_none_or(|next| next > now));
            told += due;
        }
        assert_eq!(told, KINDS, "all of those in the end");
        assert!(gatherer.kinds.is_empty());
    }

    #[test]
    fn whoever_asks_late_is_told_how_much_is_forgotten() {
        let mut memory = Memory::default();
        assert_eq!(memory.since(0), (Vec::new(), 0));
        let entry = |number: u64| -> DeniedPacket {
            let end = json!({"address": "10.0.0.1"});
            let entry = json!({
                "time": "", "node": "", "count": number, "verdict": "deny", "direction": "Egress",
                "reason": "sourceAddress", "source": end, "destination": end, "protocol": "TCP",
            });
            serde_json::from_value(entry).unwrap()
        };
        let many = REMEMBERED as u64 + 10;
        (0..many).for_each(|number| memory.put(entry(number)));
        let numbers = |since: u64| {
            let (entries, lost) = memory.since(since);
            (entries.first().map(|entry| entry.count), entries.len(), lost)
        };
        assert_eq!(memory.next(), many);
        assert_eq!(numbers(0), (Some(10), REMEMBERED, 10));
        assert_eq!(numbers(many - 3), (Some(many - 3), 3, 0));
        assert_eq!(numbers(many), (None, 0, 0));
        assert_eq!(numbers(many + 5), (None, 0, 0), "of another life");
    }
}
