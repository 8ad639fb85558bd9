//! What a start takes to read the address journal: opened as the agent does it (read, replayed, its end made sure of)
//! beside a bare read and fsync of the same file, in one run, in turn.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manx_agent::disk::FileSystem;
use manx_agent::journal::Journal;
use manx_api::ipam::{AttachmentId, IpPool, IpPoolSpec};
use manx_ipam::journal::{HEADER, Record, encode};
use manx_ipam::{Allocator, Blocks, Family, Request, Rest, Want, claim};
use manx_tests::sample::Sample;

const ENTRIES: usize = 10_000;
const PODS: usize = 1_000;
const ROUNDS: usize = 31;

fn pool() -> IpPool {
    IpPool {
        metadata: manx_api::Metadata::default(),
        spec: IpPoolSpec::new("10.244.0.0/16".parse().expect("a network")),
    }
}

fn pod(number: usize) -> AttachmentId {
    AttachmentId {
        container_id: format!("{number:064x}"),
        ifname: "eth0".to_owned(),
        namespace: "default".to_owned(),
        pod: format!("pod-{number}"),
        network: Some("pods".to_owned()),
    }
}

/// What a node did whose pods came and went.
fn history() -> (Vec<Record>, Allocator) {
    let (mut allocator, mut records) = (Allocator::new(), Vec::new());
    let pool = pool();
    let blocks = Blocks::of(&pool);
    let cidrs: Vec<_> = (0..16).filter_map(|number| blocks.get(number)).collect();
    for cidr in &cidrs {
        let block = claim(None, &pool, *cidr, "node").expect("a block of the pool");
        records.push(allocator.add_block(&block).expect("a new block"));
    }
    let wants = [Want::Any {
        family: Family::V4,
        blocks: cidrs,
        unrested: true,
    }];
    for number in (0..PODS).cycle() {
        let owner = pod(number);
        let release = allocator.release(&owner.container_id, &owner.ifname, 0);
        records.extend(release.map(|release| release.record));
        let request = Request {
            owner: &owner,
            wants: &wants,
            rest: Rest::default(),
        };
        records.extend(allocator.assign(&request).expect("there is room").record);
        if records.len() >= ENTRIES {
            break;
        }
    }
    (records, allocator)
}

fn opened(file: &Path, expected: &Allocator) -> Duration {
    let started = Instant::now();
    let (_journal, allocator) = Journal::open(Arc::new(FileSystem), file).expect("a good journal");
    let took = started.elapsed();
    assert_eq!(allocator, *expected);
    took
}

fn bare(file: &Path) -> Duration {
    let started = Instant::now();
    let bytes = fs::read(file).expect("read");
    File::options()
        .append(true)
        .open(file)
        .and_then(|file| file.sync_data())
        .expect("synced");
    let took = started.elapsed();
    assert!(!bytes.is_empty());
    took
}

fn main() {
    let (records, allocator) = history();
    let mut journal = HEADER.to_vec();
    for record in &records {
        journal.extend(encode(std::slice::from_ref(record)).expect("a small record"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ipam.journal");
    fs::write(&file, &journal).expect("written");
    let [mut ours, mut reference] = [Sample::default(), Sample::default()];
    for _ in 0..ROUNDS {
        ours.push(opened(&file, &allocator));
        reference.push(bare(&file));
    }
    let millis = |sample: &Sample| sample.median().as_secs_f64() * 1e3;
    println!(
        "{} entries, {} KiB, median of {ROUNDS} rounds: {:.1} ms; a bare read and fsync {:.1} ms",
        records.len(),
        journal.len() / 1024,
        millis(&ours),
        millis(&reference),
    );
}
