//! How long a lab takes from `lab up` to the last route in the kernel, and how much memory an agent takes.
//!
//! `cargo bench -p manx-tests --bench lab`, as root, after `cargo build --release --workspace --bins`.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::time::{Duration, Instant};

use manx_lab::{Lab, Name, Options, Progress, Settings, Topology};
use manx_tests::binaries::program;
use manx_tests::sample::Sample;

const RUNS: usize = 5;
const PODS_PER_NODE: u16 = 2;

fn main() {
    println!(
        "lab up, mesh, {PODS_PER_NODE} pods a node, {RUNS} runs: to all sessions Established and all routes in the kernel"
    );
    for nodes in [3, 20] {
        let (mut times, mut memory) = (Sample::default(), 0);
        for _ in 0..RUNS {
            let (time, resident) = run(nodes);
            times.push(time);
            memory = memory.max(resident);
        }
        println!(
            "{nodes:3} nodes: median {:.2} s, slowest {:.2} s; an agent's memory {:.1} MiB at most",
            times.median().as_secs_f64(),
            times.percentile(100).as_secs_f64(),
            f64::from(memory) / 1024.0
        );
    }
}

/// One lab: how long it took, and the memory of its largest agent in KiB.
fn run(nodes: u16) -> (Duration, u32) {
    let bin_dir = program("manxctl").parent().expect("a folder").to_owned();
    let settings = Settings {
        base: manx_lab::layout::BASE.into(),
        bin_dir,
        timeout: Duration::from_secs(60),
    };
    let name: Name = format!("mxbench-{}", std::process::id()).parse().expect("a name");
    let options = Options {
        name: name.clone(),
        nodes,
        topology: Topology::Mesh,
        pods_per_node: PODS_PER_NODE,
        dual_stack: false,
    };
    let started = Instant::now();
    let lab = Lab::up(&options, &settings, &Progress::silent()).unwrap_or_else(|error| panic!("{error}"));
    let time = started.elapsed();
    let memory = lab
        .processes()
        .iter()
        .map(|process| resident(process.pid))
        .max()
        .unwrap_or_default();
    Lab::down(&settings.base, &name).unwrap_or_else(|error| panic!("{error}"));
    (time, memory)
}

/// A process's resident memory in KiB.
fn resident(pid: i32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
