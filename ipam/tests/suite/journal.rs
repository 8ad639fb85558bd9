//! The journal's promises: what was synced comes back, what was cut is cut, what is damaged is said.

use std::fs;
use std::path::Path;

use manx_api::ipam::AttachmentId;
use manx_ipam::journal::{HEADER, Record, ReplayError, Torn, compact, encode, replay};
use manx_ipam::{Allocator, Family, Rest};
use proptest::prelude::*;

use crate::model::{Event, Pair, events};
use crate::{attachment, block, cases, request, wants};

/// A journal with so many records in a frame, and after each frame its length and the allocator so far.
fn write(records: &[Record], group: usize) -> (Vec<u8>, Vec<(usize, Allocator)>) {
    let mut journal = HEADER.to_vec();
    let mut allocator = Allocator::new();
    let mut history = vec![(journal.len(), allocator.clone())];
    for group in records.chunks(group) {
        journal.extend(encode(group).unwrap());
        group.iter().for_each(|record| allocator.apply(record).unwrap());
        history.push((journal.len(), allocator.clone()));
    }
    (journal, history)
}

/// A short history with every kind of record.
fn short() -> Vec<Record> {
    let families: &[Family] = &[Family::V4, Family::V6];
    let assign = |owner| Event::Assign {
        owner,
        families,
        pools: vec!["blue", "six"],
        unrested: true,
    };
    let events = [
        Event::Add(0),
        Event::Add(3),
        Event::Add(2),
        assign(1),
        assign(2),
        Event::Release(1),
        Event::Remove(2),
        assign(3),
    ];
    let records = Pair::run(&events).records;
    assert_eq!(records.len(), events.len());
    records
}

#[test]
fn a_file_that_was_never_written_is_an_empty_journal() {
    let empty = replay(&[]).unwrap();
    assert_eq!(
        (empty.allocator, empty.valid_len, empty.torn),
        (Allocator::new(), 0, None)
    );
    let fresh = replay(&HEADER).unwrap();
    assert_eq!(
        (fresh.allocator, fresh.valid_len, fresh.torn),
        (Allocator::new(), HEADER.len(), None)
    );
}

#[test]
fn cut_at_any_byte_a_journal_says_what_its_whole_frames_say() {
    for group in [1, 3] {
        let (journal, history) = write(&short(), group);
        for cut in 0..=journal.len() {
            let replay = replay(&journal[..cut]).unwrap();
            let (valid_len, allocator) = history
                .iter()
                .rev()
                .find(|(length, _)| *length <= cut)
                .map_or_else(
                    || (0, Allocator::new()),
                    |(length, allocator)| (*length, allocator.clone()),
                );
            assert_eq!(replay.allocator, allocator, "cut at {cut}");
            assert_eq!(replay.valid_len, valid_len, "cut at {cut}");
            let torn = (cut > valid_len).then_some(Torn {
                offset: valid_len,
                bytes: cut - valid_len,
            });
            assert_eq!(replay.torn, torn, "cut at {cut}");
        }
    }
}

#[test]
fn one_wrong_bit_is_an_error_or_the_torn_end_and_never_another_state() {
    let (journal, history) = write(&short(), 1);
    let [.., (last, before_last), _] = history.as_slice() else {
        panic!("more than one frame")
    };
    for at in 0..journal.len() {
        let mut damaged = journal.clone();
        damaged[at] ^= 0x10;
        match replay(&damaged) {
            Ok(replay) => {
                assert!(at >= *last, "byte {at} of a synced frame");
                assert_eq!((&replay.allocator, replay.valid_len), (before_last, *last));
            }
            Err(ReplayError::NotAJournal) => assert!(at < 8),
            Err(ReplayError::Version(_)) => assert!((8..12).contains(&at)),
            Err(ReplayError::Damaged { offset, bytes }) => {
                let frame = history
                    .windows(2)
                    .find(|pair| (pair[0].0..pair[1].0).contains(&at))
                    .unwrap();
                assert_eq!((offset, offset + bytes), (frame[0].0, frame[1].0), "byte {at}");
            }
            Err(other @ (ReplayError::NoRecords { .. } | ReplayError::Contradiction { .. })) => {
                panic!("byte {at}: {other}")
            }
        }
    }
}

#[test]
fn zeros_behind_the_last_frame_are_a_torn_end() {
    let (mut journal, history) = write(&short(), 2);
    let valid_len = journal.len();
    journal.resize(valid_len + 4096, 0);
    let replay = replay(&journal).unwrap();
    assert_eq!(
        replay.torn,
        Some(Torn {
            offset: valid_len,
            bytes: 4096
        })
    );
    assert_eq!(replay.allocator, history.last().unwrap().1);
}

#[test]
fn records_that_contradict_each_other_are_an_error_with_the_place() {
    let records = short();
    let (mut journal, _) = write(&records, 4);
    let offset = journal.len();
    journal.extend(encode(&records[..1]).unwrap());
    let error = replay(&journal).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "the IPAM journal contradicts itself in the frame at byte {offset}: \
             block 10.0.0.0/30 overlaps 10.0.0.0/30, which this node has"
        )
    );
}

#[test]
fn a_good_frame_that_holds_no_records_is_an_error_with_the_place() {
    let payload = br#"[{"assigned":[{"address":"here"}]}]"#;
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let checksum = crc32fast::hash(&[&length, payload.as_slice()].concat()).to_le_bytes();
    let journal = [&HEADER[..], &length, &checksum, payload].concat();
    let error = replay(&journal).unwrap_err().to_string();
    assert!(
        error.starts_with("the IPAM journal's frame at byte 12 holds no records: invalid IP"),
        "{error}"
    );
}

#[test]
fn a_journal_of_another_kind_or_version_is_left_alone() {
    assert!(matches!(replay(b"something else"), Err(ReplayError::NotAJournal)));
    let mut newer = HEADER;
    newer[8] = 2;
    assert!(matches!(replay(&newer), Err(ReplayError::Version(2))));
}

#[test]
fn the_formats_bytes_stay_what_they_are() {
    let records = short();
    let frame = encode(&records[3..4]).unwrap();
    let sequence = (1u64 << 32) + 1;
    let payload = format!(
        r#"[{{"assigned":[{{"address":"10.0.0.0","sequence":{sequence},"owner":{{"containerID":"container-1","ifname":"eth0","namespace":"default","pod":"pod-1","network":"pods"}}}},{{"address":"fd00::4","sequence":{sequence},"owner":{{"containerID":"container-1","ifname":"eth0","namespace":"default","pod":"pod-1","network":"pods"}}}}]}}]"#
    );
    assert_eq!(frame[..4], u32::try_from(payload.len()).unwrap().to_le_bytes());
    assert_eq!(String::from_utf8_lossy(&frame[8..]), payload);
    let release = encode(&records[5..6]).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&release[8..]),
        format!(
            r#"[{{"released":[{{"address":"10.0.0.0","sequence":{sequence},"at":6}},{{"address":"fd00::4","sequence":{sequence},"at":6}}]}}]"#
        )
    );
}

/// What version 1 wrote before freed addresses had times.
#[test]
fn a_journal_without_times_is_read_and_its_free_addresses_count_as_rested() {
    let frames: [&[u8]; 2] = [
        br#"[{"blockAdded":{"cidr":"10.0.0.0/31","pool":"blue","generation":1,"sequence":4294967297,"free":["10.0.0.1"],"held":{"10.0.0.0":{"sequence":4294967297,"owner":{"containerID":"c","ifname":"eth0","namespace":"default","pod":"p"}}}}}]"#,
        br#"[{"released":[{"address":"10.0.0.0","sequence":4294967297}]}]"#,
    ];
    let mut journal = HEADER.to_vec();
    for payload in frames {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let checksum = crc32fast::hash(&[&length, payload].concat()).to_le_bytes();
        journal.extend([&length, &checksum, payload].concat());
    }
    let allocator = replay(&journal).unwrap().allocator;
    let rest = Rest { now: 7, seconds: 60 };
    let states: Vec<_> = allocator
        .blocks()
        .map(|block| (block.free(), block.cooling(rest)))
        .collect();
    assert_eq!(states, [(2, 0)]);
}

/// The body of the fuzz target, over its corpus.
#[path = "../../../tests/fuzz/src/journal.rs"]
#[expect(unreachable_pub, reason = "the fuzz package publishes it")]
mod fuzz;

#[test]
fn the_fuzz_corpus_finds_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/journal");
    let inputs: Vec<_> = fs::read_dir(folder).unwrap().collect();
    assert!(inputs.len() >= 10, "the corpus is here");
    for input in inputs {
        fuzz::journal(&fs::read(input.unwrap().path()).unwrap());
    }
}

#[test]
fn seeds_of_the_fuzz_corpus_are_whole_journals() {
    for (seed, records) in [("pods", 8), ("leases", 6)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/journal");
        let lines = fs::read_to_string(folder.join(seed)).unwrap();
        let mut journal = HEADER.to_vec();
        for line in lines[1..].lines() {
            let group: Vec<Record> = serde_json::from_str(line).unwrap();
            journal.extend(encode(&group).unwrap());
        }
        assert_eq!(replay(&journal).unwrap().records, records, "{seed}");
    }
}

/// A node of 1,000 pods, each of which came and went until there are 10,000 records.
fn long() -> (Vec<Record>, Allocator) {
    let mut allocator = Allocator::new();
    let mut records = Vec::new();
    for n in 0..16 {
        let cidr = format!("10.244.{}.{}/26", n / 4, n % 4 * 64);
        records.push(
            allocator
                .add_block(&block("blue", "10.244.0.0/16", &cidr))
                .unwrap(),
        );
    }
    let wants = wants(&allocator, &[Family::V4], &["blue"], false);
    for n in 0.. {
        let gone: AttachmentId = attachment(n % 1000);
        if let Some(release) = allocator.release(&gone.container_id, &gone.ifname, 0) {
            records.push(release.record);
        }
        let owner = attachment(n % 1000);
        records.extend(allocator.assign(&request(&owner, &wants)).unwrap().record);
        if records.len() >= 10_000 {
            break;
        }
    }
    (records, allocator)
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a promise about time is held to a clock"
)]
fn ten_thousand_entries_are_replayed_at_once() {
    let (records, allocator) = long();
    let mut journal = HEADER.to_vec();
    records
        .iter()
        .for_each(|record| journal.extend(encode(std::slice::from_ref(record)).unwrap()));
    let start = std::time::Instant::now();
    let replay = replay(&journal).unwrap();
    let took = start.elapsed();
    assert_eq!(replay.records, records.len());
    assert_eq!(replay.allocator, allocator);
    // Ten-odd milliseconds when optimized; the bound is for an unoptimized build on a busy machine.
    assert!(took.as_millis() < 1_000, "{took:?} for {} bytes", journal.len());
    println!("{} records, {} bytes: {took:?}", records.len(), journal.len());
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_journal_replayed_is_the_allocator_that_wrote_it(events in events(100), group in 1..8usize) {
        let pair = Pair::run(&events);
        let (journal, _) = write(&pair.records, group);
        let replay = replay(&journal).unwrap();
        prop_assert_eq!(replay.records, pair.records.len());
        prop_assert_eq!((replay.valid_len, replay.torn), (journal.len(), None));
        prop_assert_eq!(replay.allocator, pair.allocator);
    }

    #[test]
    fn a_compacted_journal_says_the_same_and_can_be_continued(events in events(100), cut in 0..100usize) {
        let pair = Pair::run(&events);
        let cut = cut.min(pair.records.len());
        let mut early = Allocator::new();
        pair.records[..cut].iter().for_each(|record| early.apply(record).unwrap());
        let mut journal = compact(&early).unwrap();
        prop_assert_eq!(&replay(&journal).unwrap().allocator, &early);
        journal.extend(encode(&pair.records[cut..]).unwrap());
        prop_assert_eq!(replay(&journal).unwrap().allocator, pair.allocator);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let journal = [&HEADER[..], &noise].concat();
        prop_assert_eq!(replay(&journal).unwrap().allocator, Allocator::new());
    }
}
