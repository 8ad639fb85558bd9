//! CNI ADD and DEL, from the plugin's start to its answer, beside the reference `ptp` with `host-local`:
//! both in turn, in one network namespace, in one run; then two hundred calls at once. Without a policy, and then with
//! one for every pod.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::time::{Duration, Instant};

use manx_tests::node::{Node, Plugin};
use manx_tests::sample::Sample;
use serde_json::json;

const ROUNDS: usize = 100;

/// Calls at once.
const BURST: usize = 200;

/// The number of the first pod that is called for at once with others.
const FIRST_OF_BURST: usize = 1000;

/// A plugin, and how long its calls took.
struct Contender {
    name: &'static str,
    plugin: Plugin,
    add: Sample,
    del: Sample,
}

fn contenders(node: &Node) -> [Contender; 2] {
    let contender = |name, plugin| Contender {
        name,
        plugin,
        add: Sample::default(),
        del: Sample::default(),
    };
    [
        contender("manx", Plugin::manx(node, &[])),
        contender("ptp + host-local", Plugin::reference(node)),
    ]
}

fn resident_kilobytes(process: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(String::new, |size| size.trim().to_owned())
}

/// One ADD after another, both contenders in turn, then one DEL after another.
fn in_turn(node: &Node, contenders: &mut [Contender]) {
    // One pod beyond the count warms caches and is not counted.
    for pod in 0..=ROUNDS {
        for contender in contenders.iter_mut() {
            let (took, _) = node.call(&contender.plugin, "ADD", pod);
            if pod > 0 {
                contender.add.push(took);
            }
        }
    }
    println!(
        "memory of manxd with {} pods: {}",
        ROUNDS + 1,
        resident_kilobytes(node.agent())
    );
    for pod in 0..=ROUNDS {
        for contender in contenders.iter_mut() {
            let (took, _) = node.call(&contender.plugin, "DEL", pod);
            if pod > 0 {
                contender.del.push(took);
            }
        }
    }
}

/// So many calls at once, each for another pod; how many a second were done.
fn at_once(node: &Node, contender: &Contender, command: &str) -> f64 {
    let pods = FIRST_OF_BURST..FIRST_OF_BURST + BURST;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for pod in pods {
            scope.spawn(move || node.call(&contender.plugin, command, pod));
        }
    });
    f64::from(u32::try_from(BURST).expect("a small number")) / began.elapsed().as_secs_f64()
}

fn print_in_turn(contenders: &[Contender; 2]) {
    println!(
        "{:18} {:>10} {:>10} {:>10} {:>10}",
        "milliseconds", "ADD p50", "ADD p99", "DEL p50", "DEL p99"
    );
    let figures = contenders.each_ref().map(|contender| {
        [
            contender.add.median(),
            contender.add.percentile(99),
            contender.del.median(),
            contender.del.percentile(99),
        ]
        .map(|duration| duration.as_secs_f64() * 1000.0)
    });
    for (contender, row) in contenders.iter().zip(&figures) {
        print_row(contender.name, *row);
    }
    let mut ratios = [0.0; 4];
    for (column, ratio) in ratios.iter_mut().enumerate() {
        *ratio = figures[0][column] / figures[1][column];
    }
    print_row("ratio", ratios);
}

fn print_row(name: &str, row: [f64; 4]) {
    println!(
        "{name:18} {:10.2} {:10.2} {:10.2} {:10.2}",
        row[0], row[1], row[2], row[3]
    );
}

/// Everything that is measured, once.
fn measure(node: &Node) {
    let mut contenders = contenders(node);
    in_turn(node, &mut contenders);
    print_in_turn(&contenders);
    println!(
        "{:18} {:>10} {:>10}",
        format!("{BURST} at once"),
        "ADD/s",
        "DEL/s"
    );
    for contender in &contenders {
        let (add, del) = (at_once(node, contender, "ADD"), at_once(node, contender, "DEL"));
        println!("{:18} {add:10.0} {del:10.0}", contender.name);
    }
}

fn main() {
    let node = Node::start();
    for pod in (0..=ROUNDS).chain(FIRST_OF_BURST..FIRST_OF_BURST + BURST) {
        node.make_pod(pod);
    }
    println!("without policies");
    measure(&node);
    node.apply(&json!({
        "apiVersion": "manx.network/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": { "name": "bench" },
        "spec": {
            "selector": "all()",
            "ingress": [{ "action": "Allow", "source": { "selector": "all()" } }],
            "egress": [{ "action": "Allow" }],
        },
    }));
    std::thread::sleep(Duration::from_secs(2));
    println!("with a policy for every pod");
    measure(&node);
}
