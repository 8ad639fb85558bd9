//! What two ends make of each other: up, down, timers, loss, restarts.

use std::time::Duration;

use manx_bgp::bfd::{Diagnostic, Input, Output, Packet, SessionConfig, State};
use proptest::prelude::*;

use crate::pair::{Pair, key, ms, multiplier, settings};

/// The gaps between an end's packets, those that answer a poll left out.
fn gaps(packets: &[(Duration, usize, Packet)], end: usize) -> Vec<Duration> {
    let sent: Vec<_> = packets
        .iter()
        .filter(|(_, who, packet)| *who == end && !packet.finish)
        .map(|(at, ..)| *at)
        .collect();
    sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn two_ends_come_up_and_agree_on_the_slower_of_each_pair_of_intervals() {
    let mut pair = Pair::new(1);
    pair.set(
        0,
        SessionConfig {
            min_tx: ms(100),
            min_rx: ms(50),
            multiplier: multiplier(5),
            ..settings(0)
        },
    );
    pair.set(
        1,
        SessionConfig {
            min_tx: ms(200),
            min_rx: ms(400),
            ..settings(1)
        },
    );
    pair.run(ms(5000));
    let reported: Vec<_> = pair.reports.iter().map(|(_, _, output)| output.clone()).collect();
    assert_eq!(
        reported,
        [Output::Up(key(0, false)), Output::Up(key(1, false))],
        "each end once"
    );
    let [ours, theirs] = [pair.snapshot(0), pair.snapshot(1)];
    assert_eq!(ours.transmit_interval, Some(ms(400)));
    assert_eq!(theirs.transmit_interval, Some(ms(200)));
    assert_eq!(ours.detection_time, Some(ms(3 * 200)));
    assert_eq!(theirs.detection_time, Some(ms(5 * 400)));
}

/// RFC 5880 §6.8.3: one packet a second at most until the session is Up.
#[test]
fn an_end_that_hears_nothing_sends_slowly_and_names_no_failure() {
    let mut pair = Pair::new(2);
    pair.set(0, settings(0));
    pair.run(ms(20_000));
    let gaps = gaps(&pair.packets, 0);
    assert!(gaps.len() >= 19, "{gaps:?}");
    assert!(
        gaps.iter().all(|gap| (ms(750)..=ms(1000)).contains(gap)),
        "{gaps:?}"
    );
    assert!(pair.reports.is_empty());
}

#[test]
fn periodic_packets_are_jittered_as_the_multiplier_allows() {
    for (lost_at, most) in [(3, 300), (1, 270)] {
        let mut pair = Pair::up(3);
        pair.set(
            0,
            SessionConfig {
                multiplier: multiplier(lost_at),
                ..settings(0)
            },
        );
        pair.run(ms(1000));
        pair.forget();
        pair.run(ms(30_000));
        let gaps = gaps(&pair.packets, 0);
        let (shortest, longest) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*shortest >= ms(225) && *shortest < ms(235), "{shortest:?}");
        assert!(
            *longest <= ms(most) && *longest > ms(most - 10),
            "{longest:?} of {most} ms"
        );
    }
}

#[test]
fn a_cut_wire_is_noticed_by_both_ends_within_the_detection_time() {
    for seed in 0..20 {
        let mut pair = Pair::up(seed);
        pair.cut = [true; 2];
        let cut = pair.elapsed();
        pair.run(ms(2000));
        for end in 0..2 {
            let (at, output) = pair.down(end).expect("the loss is noticed");
            let expected = Output::Down(key(end, false), Diagnostic::ControlDetectionTimeExpired);
            assert_eq!(output, expected);
            let took = at - cut;
            assert!(took > ms(500) && took <= ms(901), "{took:?} with seed {seed}");
        }
        pair.cut = [false; 2];
        pair.run(ms(5000));
        assert_eq!([pair.state(0), pair.state(1)], [State::Up; 2]);
    }
}

#[test]
fn an_end_that_is_no_longer_heard_is_told_so() {
    let mut pair = Pair::up(4);
    pair.cut = [true, false];
    pair.run(ms(2000));
    let down = |end, diagnostic| Output::Down(key(end, false), diagnostic);
    let (deaf, _) = pair.down(1).unwrap();
    let (told, output) = pair.down(0).unwrap();
    assert_eq!(output, down(0, Diagnostic::NeighborSignaledSessionDown));
    assert_eq!(told - deaf, pair.delay);
    assert_eq!(
        pair.down(1).unwrap().1,
        down(1, Diagnostic::ControlDetectionTimeExpired)
    );
    // One direction does not make a session.
    assert_ne!(pair.state(0), State::Up);
    assert_ne!(pair.state(1), State::Up);
}

#[test]
fn fewer_lost_packets_than_the_multiplier_are_no_failure() {
    let mut pair = Pair::up(5);
    for _ in 0..50 {
        // Two packets at most fall into this time: 225 ms apart at least.
        pair.cut = [true; 2];
        pair.run(ms(449));
        pair.cut = [false; 2];
        pair.run(ms(1000));
    }
    assert_eq!(pair.reports, []);
}

#[test]
fn a_neighbour_that_restarts_is_down_and_up_again() {
    let mut pair = Pair::up(6);
    pair.restart(1, 99);
    pair.run(ms(5000));
    let (_, output) = pair.down(0).unwrap();
    let expected = Output::Down(key(0, false), Diagnostic::NeighborSignaledSessionDown);
    assert_eq!(output, expected);
    assert_eq!([pair.state(0), pair.state(1)], [State::Up; 2]);
}

/// RFC 5880 §6.8.16: the neighbour is told that it is on purpose.
/// RFC 5882 §3.2: which is no failure.
#[test]
fn a_removed_session_is_no_failure_to_the_neighbour() {
    let mut pair = Pair::up(7);
    pair.input(0, Input::RemoveSession(key(0, false)));
    assert_eq!(pair.state(0), State::AdminDown);
    pair.run(ms(10_000));
    assert_eq!(
        pair.reports
            .iter()
            .map(|(_, end, output)| (*end, output))
            .collect::<Vec<_>>(),
        [
            (1, &Output::NeighborAdminDown(key(1, false))),
            (0, &Output::Gone(key(0, false)))
        ]
    );
    assert!(pair.ends[0].sessions().is_empty(), "forgotten in the end");
    assert_eq!(pair.ends[0].deadline(), None);
    assert_eq!(pair.state(1), State::Down);
    pair.set(0, settings(0));
    pair.run(ms(5000));
    assert_eq!([pair.state(0), pair.state(1)], [State::Up; 2]);
}

#[test]
fn a_session_that_is_wanted_again_while_it_leaves_comes_back() {
    let mut pair = Pair::up(8);
    pair.input(0, Input::RemoveSession(key(0, false)));
    pair.run(ms(500));
    pair.set(0, settings(0));
    pair.run(ms(10_000));
    assert_eq!([pair.state(0), pair.state(1)], [State::Up; 2]);
    assert_eq!(pair.down(1), None);
}

/// RFC 5880 §6.8.3: an end that is to send more slowly polls first; one that may send faster does so.
#[test]
fn slower_packets_wait_for_the_polls_answer() {
    let mut pair = Pair::up(9);
    pair.run(ms(1000));
    pair.cut = [false, true];
    pair.set(
        0,
        SessionConfig {
            min_tx: ms(2000),
            ..settings(0)
        },
    );
    // At least one packet falls into this time, and two at most.
    pair.run(ms(449));
    assert_eq!(
        pair.snapshot(0).transmit_interval,
        Some(ms(300)),
        "nothing was answered yet"
    );
    let polls = |pair: &Pair| {
        let last = pair.packets.iter().rev().find(|(_, end, _)| *end == 0);
        last.is_some_and(|(.., packet)| packet.poll)
    };
    assert!(polls(&pair));
    pair.cut = [false; 2];
    pair.run(ms(4000));
    assert_eq!(pair.snapshot(0).transmit_interval, Some(ms(2000)));
    assert_eq!(pair.snapshot(1).detection_time, Some(ms(6000)));
    assert!(!polls(&pair));
    assert_eq!(pair.reports, [], "the change is no failure");
    pair.set(0, settings(0));
    assert_eq!(pair.snapshot(0).transmit_interval, Some(ms(300)));
}

/// The same for the detection time, which shrinks only once the neighbour knows to send faster.
#[test]
fn faster_packets_are_not_expected_before_the_polls_answer() {
    let mut pair = Pair::new(10);
    let slow = |end| SessionConfig {
        min_tx: ms(100),
        min_rx: ms(1000),
        ..settings(end)
    };
    (0..2).for_each(|end| pair.set(end, slow(end)));
    pair.run(ms(8000));
    pair.cut = [false, true];
    pair.set(0, settings(0));
    assert_eq!(pair.snapshot(0).detection_time, Some(ms(3000)));
    pair.cut = [false; 2];
    pair.run(ms(4000));
    assert_eq!(pair.snapshot(0).detection_time, Some(ms(900)));
    assert_eq!(pair.snapshot(1).transmit_interval, Some(ms(300)));
    assert_eq!(pair.down(0), None);
}

#[test]
fn a_change_during_a_poll_is_polled_for_again() {
    let mut pair = Pair::up(11);
    pair.delay = ms(400);
    pair.run(ms(2000));
    let slower = |interval| SessionConfig {
        min_tx: ms(interval),
        ..settings(0)
    };
    pair.set(0, slower(1000));
    pair.run(ms(500));
    pair.set(0, slower(2000));
    // The answer to the first poll comes and is not taken for one to the second.
    pair.run(ms(600));
    assert_eq!(pair.snapshot(0).transmit_interval, Some(ms(300)));
    pair.run(ms(5000));
    assert_eq!(pair.snapshot(0).transmit_interval, Some(ms(2000)));
    assert_eq!(pair.reports, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the wire did before, sessions are up after quiet, and each end reported its ups and downs in turn.
    #[test]
    fn sessions_return_after_any_trouble(
        seed in any::<u64>().prop_map(|seed| seed >> 1),
        loss in 0.0..0.9_f64,
        spread in 0_u64..2000,
        intervals in proptest::array::uniform4(10_u64..1500),
        lost_at in 1_u8..6,
        restart in proptest::option::of(0_usize..2),
    ) {
        let mut pair = Pair::new(seed);
        for end in 0..2 {
            let config = SessionConfig {
                min_tx: ms(intervals[end]),
                min_rx: ms(intervals[2 + end]),
                multiplier: multiplier(lost_at),
                ..settings(end)
            };
            pair.set(end, config);
        }
        (pair.loss, pair.spread) = (loss, ms(spread));
        pair.run(ms(10_000));
        if let Some(end) = restart {
            pair.restart(end, 77);
        }
        pair.run(ms(10_000));
        (pair.loss, pair.spread) = (0.0, Duration::ZERO);
        pair.run(ms(15_000));
        let quiet = pair.reports.len();
        pair.run(ms(10_000));
        prop_assert_eq!([pair.state(0), pair.state(1)], [State::Up; 2]);
        prop_assert_eq!(pair.reports.len(), quiet);
        for end in 0..2 {
            let mut up = false;
            for (_, _, output) in pair.reports.iter().filter(|(_, who, _)| *who == end) {
                let rises = matches!(output, Output::Up(_));
                prop_assert!(rises != up || restart == Some(end), "{:?} twice", output);
                up = rises;
            }
        }
    }

    /// The rate that the neighbour can take is never exceeded, answers to polls aside.
    #[test]
    fn no_end_sends_faster_than_the_other_takes(seed in 0_u64..1000, fast in 10_u64..100, slow in 100_u64..1000) {
        let mut pair = Pair::new(seed);
        pair.set(0, SessionConfig { min_tx: ms(fast), ..settings(0) });
        pair.set(1, SessionConfig { min_rx: ms(slow), ..settings(1) });
        pair.run(ms(6000));
        pair.forget();
        pair.run(ms(10_000));
        prop_assert!(gaps(&pair.packets, 0).iter().all(|gap| *gap >= ms(slow).mul_f64(0.749)));
    }
}
