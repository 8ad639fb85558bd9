//! The same at full size: a thousand speakers, and the largest mesh that fits. These take minutes, and print what they took:
//!
//! ```text
//! cargo test --release -p manx-tests --test sim scale -- --ignored --nocapture --test-threads 1
//! ```
//!
//! `MANX_SIM_SPEAKERS` changes the size of the mesh, `MANX_SIM_SEED` what happens.

use std::time::Duration;

use crate::network::{Network, Node, number, seeds};
use crate::ordeal::endure;
use crate::plan::Plan;
use crate::storm::start_all;

/// What the process has taken so far: run one test at a time.
fn report(what: &str, speakers: usize, sessions: usize) -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let status = read("/proc/self/status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    // proc(5): the fourteenth field is the time in user mode, in hundredths of a second.
    let ticks = read("/proc/self/stat")
        .split(' ')
        .nth(13)
        .and_then(|it| it.parse().ok());
    format!(
        "{what}: {speakers} speakers, {sessions} sessions: {} s of one core, {} at most",
        ticks.unwrap_or(0_u64) / 100,
        peak.unwrap_or("?").trim()
    )
}

/// A plan whose speakers originate one prefix each endures what smaller ones do.
fn endure_at_size(what: &str, mut plan: Plan, seed: u64) -> String {
    for origins in &mut plan.origins {
        origins.pop_last();
    }
    let (speakers, sessions) = (plan.speakers.len(), plan.links().len());
    endure(plan, seed, 200);
    report(what, speakers, sessions)
}

#[test]
#[ignore = "a minute in release, with 3 GB"]
fn a_thousand_speakers_under_two_levels_of_reflectors() {
    for seed in seeds(1) {
        println!(
            "{}",
            endure_at_size("reflectors", Plan::reflectors(32, 30, seed), seed)
        );
    }
}

#[test]
#[ignore = "a minute in release, with 3 GB"]
fn a_thousand_speakers_in_a_fabric() {
    for seed in seeds(1) {
        println!(
            "{}",
            endure_at_size("fabric", Plan::fabric(4, 36, 27, seed), seed)
        );
    }
}

#[test]
#[ignore = "minutes in release, with 6 GB"]
fn a_mesh_of_a_thousand_speakers() {
    let count = number("MANX_SIM_SPEAKERS").map_or(1000, |count| Node::try_from(count).unwrap());
    for seed in seeds(1) {
        let mut network = Network::new(count, seed);
        let mut plan = Plan::mesh(count, seed);
        for origins in &mut plan.origins {
            origins.pop_last();
        }
        start_all(&plan, &mut network, Duration::from_micros(100));
        let begun = network.elapsed();
        while !network.complete() {
            network.check(
                network.elapsed() - begun < Duration::from_secs(5),
                "the mesh is complete",
            );
            network.run(Duration::from_millis(50));
        }
        let converged = network.elapsed();
        network.run(Duration::from_secs(60));
        network.check(network.complete(), "and stays so");
        println!("the mesh was complete after {converged:?} of its own time");
        println!("{}", report("mesh", count, count * (count - 1) / 2));
    }
}
