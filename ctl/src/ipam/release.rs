//! `ipam release`: has lost addresses freed, by the owners of their blocks.
//!
//! What is to be freed is an allocation: an address with its sequence number. So a request that comes late, or
//! twice, frees nobody else's. The request stands in the block's resource until the owner has dealt with it, and
//! the owner frees nothing that an interface carries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpBlock, Release, block_name};
use manx_api::{Key, Kind, Resource};
use manx_ipam::check::{Class, Finding, Held, check};
use manx_store::{AnyStore, Error, Store as _};
use serde::Serialize;

use super::args::ReleaseArgs;
use super::check::Report;
use super::evidence::gather;
use crate::error::{CtlError, Result};
use crate::output::{self, Row};
use crate::target::Target;

/// How often the owner's answer is looked for.
const POLL: Duration = Duration::from_millis(200);
/// How often those who wait are told so.
const TELL: Duration = Duration::from_secs(5);
/// How long nothing is said.
const QUIET: Duration = Duration::from_secs(1);

/// An allocation to be freed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    block: IpNetwork,
    release: Release,
    /// The block's uid in the cluster that the report is of.
    uid: Option<String>,
}

/// What became of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    /// Its owner has freed it.
    Released,
    /// It was free before.
    Free,
    /// The allocation is gone, and a later pod holds the address.
    Later,
    /// An interface carries it.
    Kept,
    /// It looks in use, and nobody was asked to free it.
    InUse,
    /// The block's owner has not answered.
    Away,
    /// The block's owner is no node, or nobody owns it.
    OwnerGone,
    /// The report is of another cluster, or of an earlier block.
    OtherBlock,
}

/// An address, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    ip: IpAddr,
    sequence: Option<u64>,
    block: Option<IpNetwork>,
    node: Option<String>,
    outcome: Outcome,
    detail: String,
}

impl Outcome {
    /// Whether the allocation that was meant is no more.
    fn is_well(self) -> bool {
        match self {
            Self::Released | Self::Free | Self::Later => true,
            Self::Kept | Self::InUse | Self::Away | Self::OwnerGone | Self::OtherBlock => false,
        }
    }

    fn detail(self, node: &str) -> String {
        match self {
            Self::Released => "its owner has freed it".to_owned(),
            Self::Free => "not allocated (any more)".to_owned(),
            Self::Later => "the allocation is gone, and another pod holds the address by now".to_owned(),
            Self::Kept => "an interface carries it: delete the pod, and the address is free".to_owned(),
            Self::InUse => {
                "it looks in use: delete the pod; with --force its owner is asked all the same, and keeps \
                            what an interface carries"
                    .to_owned()
            }
            Self::Away => format!(
                "{node}'s agent has not answered: it frees the address when it is back; where the node is gone for \
                 good, delete its Node"
            ),
            Self::OwnerGone => {
                "the block's owner is no Node: the other nodes' agents free the whole block when its \
                                routes are gone"
                    .to_owned()
            }
            Self::OtherBlock => {
                "the report is of another cluster, or of an earlier block: check again".to_owned()
            }
        }
    }
}

/// Has what is asked for freed, and says what became of it.
pub(super) async fn run(target: &Target, args: &ReleaseArgs) -> Result<()> {
    let store = target.store().await?;
    let nodes = store.list(Kind::Node, None).await?.items;
    let nodes: BTreeSet<String> = nodes.into_iter().map(|node| node.key().name).collect();
    let mut lines = Vec::new();
    let wanted = match args.ip {
        Some(ip) => match by_hand(target, ip, args).await? {
            Ok(wanted) => BTreeSet::from([wanted]),
            Err(line) => {
                lines.push(line);
                BTreeSet::new()
            }
        },
        None => reported(&args.from_report, args.force)?,
    };
    let mut asked: BTreeMap<IpNetwork, Vec<Release>> = BTreeMap::new();
    for (block, of_block) in by_block(wanted) {
        let (answered, waiting) = request(&store, block, of_block, &nodes).await?;
        lines.extend(answered);
        asked.insert(block, waiting);
    }
    lines.extend(await_answers(&store, asked, Duration::from_secs(args.timeout)).await?);
    lines.sort_by_key(|line| line.ip);
    output::print(&lines, args.output.output)?;
    let failed = lines.iter().filter(|line| !line.outcome.is_well()).count();
    match failed {
        0 => Ok(()),
        _ => Err(CtlError::Partly {
            failed,
            all: lines.len(),
        }),
    }
}

/// The allocation of one address, if it looks lost.
async fn by_hand(
    target: &Target,
    ip: IpAddr,
    args: &ReleaseArgs,
) -> Result<std::result::Result<Wanted, Line>> {
    let evidence = gather(target).await?.evidence;
    let held = evidence.held().filter(|held| held.allocation.address == ip);
    let Some(held) = held.max_by_key(|held| held.block.prefix()) else {
        return Ok(Err(Line::new(ip, None, None, None, Outcome::Free)));
    };
    let Held {
        block,
        node,
        allocation,
    } = held;
    let sequence = args.sequence.unwrap_or(allocation.sequence);
    let line = |outcome| Line::new(ip, Some(sequence), Some(block), node, outcome);
    if sequence != allocation.sequence {
        let outcome = if sequence < allocation.sequence {
            Outcome::Later
        } else {
            Outcome::Free
        };
        return Ok(Err(line(outcome)));
    }
    let lost = |finding: &Finding| {
        finding.address == Some(ip) && matches!(finding.class, Class::Leaked | Class::NoWorkload)
    };
    if !args.force && !check(&evidence).iter().any(lost) {
        return Ok(Err(line(Outcome::InUse)));
    }
    Ok(Ok(Wanted {
        block,
        release: Release {
            address: ip,
            sequence,
        },
        uid: None,
    }))
}

/// What all reports call leaked; with `force`, also what has no WorkloadEndpoint on a node that was not asked.
fn reported(files: &[PathBuf], force: bool) -> Result<BTreeSet<Wanted>> {
    let mut common: Option<BTreeSet<Wanted>> = None;
    for file in files {
        let report = Report::read(file)?;
        let lost = report.findings.iter().filter(|finding| match finding.class {
            Class::Leaked => true,
            Class::NoWorkload => force,
            Class::Duplicate
            | Class::NotAllocated
            | Class::OutsidePools
            | Class::InconsistentBlock
            | Class::OwnerGone
            | Class::Unrouted
            | Class::WorkloadUnallocated
            | Class::CheckpointBehind
            | Class::Quarantined
            | Class::Tombstone
            | Class::Reserved => false,
        });
        let wanted = lost.filter_map(|finding| {
            let (address, sequence, block) = (finding.address?, finding.sequence?, finding.block?);
            // A report without the block's uid could be anybody's.
            let uid = report
                .block_uids
                .get(&block_name(block))
                .cloned()
                .unwrap_or_default();
            Some(Wanted {
                block,
                release: Release { address, sequence },
                uid: Some(uid),
            })
        });
        let wanted: BTreeSet<Wanted> = wanted.collect();
        common = Some(match common {
            Some(common) => common.intersection(&wanted).cloned().collect(),
            None => wanted,
        });
    }
    Ok(common.unwrap_or_default())
}

fn by_block(wanted: BTreeSet<Wanted>) -> BTreeMap<IpNetwork, Vec<Wanted>> {
    let mut blocks: BTreeMap<IpNetwork, Vec<Wanted>> = BTreeMap::new();
    for one in wanted {
        blocks.entry(one.block).or_default().push(one);
    }
    blocks
}

/// Writes requests into a block's resource. Returns what needs no request, and what was asked.
async fn request(
    store: &AnyStore,
    cidr: IpNetwork,
    wanted: Vec<Wanted>,
    nodes: &BTreeSet<String>,
) -> Result<(Vec<Line>, Vec<Release>)> {
    loop {
        let block = read(store, cidr).await?;
        let (mut lines, mut ask) = (Vec::new(), Vec::new());
        for one in &wanted {
            match answer(block.as_ref(), one, nodes) {
                Some(outcome) => lines.push(Line::of(block.as_ref(), cidr, one.release, outcome)),
                None => ask.push(one.release),
            }
        }
        let Some(mut block) = block.filter(|_| !ask.is_empty()) else {
            return Ok((lines, Vec::new()));
        };
        let known: BTreeSet<Release> = block.spec.releases.iter().copied().collect();
        let new = ask.iter().filter(|release| !known.contains(release));
        block.spec.releases.extend(new);
        match store.update(Resource::IpBlock(block)).await {
            Ok(_) => return Ok((lines, ask)),
            // The owner's checkpoint came between: look again.
            Err(Error::Conflict { .. } | Error::NotFound(_)) => {}
            Err(
                error @ (Error::AlreadyExists(_)
                | Error::Invalid { .. }
                | Error::Expired(_)
                | Error::Denied { .. }
                | Error::Unavailable { .. }),
            ) => {
                return Err(error.into());
            }
        }
    }
}

/// What is known without asking the block's owner; none where it has to be asked.
fn answer(block: Option<&IpBlock>, wanted: &Wanted, nodes: &BTreeSet<String>) -> Option<Outcome> {
    let Some(block) = block else {
        return Some(Outcome::Free);
    };
    if wanted.uid.is_some() && wanted.uid != block.metadata.uid {
        return Some(Outcome::OtherBlock);
    }
    if let Some(outcome) = gone(block, wanted.release) {
        return Some(outcome);
    }
    let owner = block.spec.node.as_ref().filter(|node| nodes.contains(*node));
    owner.is_none().then_some(Outcome::OwnerGone)
}

/// What became of an allocation that the block's checkpoint no longer has.
fn gone(block: &IpBlock, release: Release) -> Option<Outcome> {
    let mut held = block.spec.allocations.iter();
    match held.find(|held| held.address == release.address) {
        None => Some(Outcome::Free),
        Some(held) if held.sequence != release.sequence => Some(Outcome::Later),
        Some(_) => None,
    }
}

/// Waits until owners have taken all requests out of their blocks.
async fn await_answers(
    store: &AnyStore,
    mut asked: BTreeMap<IpNetwork, Vec<Release>>,
    timeout: Duration,
) -> Result<Vec<Line>> {
    let (begin, mut tell) = (Instant::now(), QUIET);
    let mut lines = Vec::new();
    loop {
        let mut waiting = BTreeMap::new();
        let mut owners = BTreeSet::new();
        for (cidr, releases) in std::mem::take(&mut asked) {
            let block = read(store, cidr).await?;
            let open = |release: &Release| {
                block
                    .as_ref()
                    .is_some_and(|block| block.spec.releases.contains(release))
            };
            let (open, done): (Vec<_>, Vec<_>) = releases.into_iter().partition(open);
            let outcome = |release| match block.as_ref().map(|block| gone(block, release)) {
                Some(None) => Outcome::Kept,
                Some(Some(_)) | None => Outcome::Released,
            };
            lines.extend(
                done.into_iter()
                    .map(|release| Line::of(block.as_ref(), cidr, release, outcome(release))),
            );
            if open.is_empty() {
                continue;
            }
            if begin.elapsed() >= timeout {
                let away = |release| Line::of(block.as_ref(), cidr, release, Outcome::Away);
                lines.extend(open.into_iter().map(away));
                continue;
            }
            owners.extend(block.and_then(|block| block.spec.node));
            waiting.insert(cidr, open);
        }
        if waiting.is_empty() {
            return Ok(lines);
        }
        if begin.elapsed() >= tell {
            tell += TELL;
            let owners: Vec<String> = owners.into_iter().collect();
            anstream::eprintln!("manxctl: waiting for the agent of {}", owners.join(", "));
        }
        asked = waiting;
        tokio::time::sleep(POLL).await;
    }
}

async fn read(store: &AnyStore, cidr: IpNetwork) -> Result<Option<IpBlock>> {
    match store.get(&Key::cluster(Kind::IpBlock, block_name(cidr))).await {
        Ok(resource) => Ok(IpBlock::try_from(resource).ok()),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Line {
    fn new(
        ip: IpAddr,
        sequence: Option<u64>,
        block: Option<IpNetwork>,
        node: Option<&str>,
        outcome: Outcome,
    ) -> Self {
        Self {
            ip,
            sequence,
            block,
            node: node.map(str::to_owned),
            outcome,
            detail: outcome.detail(node.unwrap_or("its owner")),
        }
    }

    fn of(block: Option<&IpBlock>, cidr: IpNetwork, release: Release, outcome: Outcome) -> Self {
        let node = block.and_then(|block| block.spec.node.as_deref());
        Self::new(release.address, Some(release.sequence), Some(cidr), node, outcome)
    }
}

impl Row for Line {
    const COLUMNS: (&'static [&'static str], usize) =
        (&["IP", "NODE", "OUTCOME", "DETAIL", "BLOCK", "SEQUENCE"], 4);

    fn cells(&self) -> Vec<String> {
        let outcome = match self.outcome {
            Outcome::Released => "released",
            Outcome::Free => "free",
            Outcome::Later => "held by a later pod",
            Outcome::Kept => "kept",
            Outcome::InUse => "in use",
            Outcome::Away => "owner away",
            Outcome::OwnerGone => "owner gone",
            Outcome::OtherBlock => "other block",
        };
        vec![
            self.ip.to_string(),
            self.node.clone().unwrap_or_default(),
            outcome.to_owned(),
            self.detail.clone(),
            self.block.map(|block| block.to_string()).unwrap_or_default(),
            self.sequence
                .map(|sequence| sequence.to_string())
                .unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.ip.to_string()
    }

    fn is_well(&self) -> bool {
        self.outcome.is_well()
    }
}

#[cfg(test)]
mod tests {
    use manx_store::SqliteStore;
    use serde_json::{Value, json};

    use super::*;

    fn block(releases: Value) -> Resource {
        let owner = json!({"containerID": "c1", "ifname": "eth0", "namespace": "shop", "pod": "web"});
        serde_json::from_value(json!({
            "apiVersion": "manx.network/v1", "kind": "IPBlock", "metadata": {"name": "10-1-0-0-26"},
            "spec": {"cidr": "10.1.0.0/26", "pool": "blue", "node": "n1", "generation": 1, "releases": releases,
                "allocations": [{"address": "10.1.0.1", "sequence": 7, "owner": owner}]},
        }))
        .unwrap()
    }

    fn cidr() -> IpNetwork {
        "10.1.0.0/26".parse().unwrap()
    }

    fn release(address: &str, sequence: u64) -> Release {
        let address = address.parse().unwrap();
        Release { address, sequence }
    }

    fn wanted(address: &str, sequence: u64, uid: Option<&str>) -> Wanted {
        Wanted {
            block: cidr(),
            release: release(address, sequence),
            uid: uid.map(str::to_owned),
        }
    }

    #[test]
    fn what_needs_no_answer_is_not_asked() {
        let nodes = BTreeSet::from(["n1".to_owned()]);
        let mut block = IpBlock::try_from(block(json!([]))).unwrap();
        block.metadata.uid = Some("u1".to_owned());
        let about = |wanted: &Wanted| answer(Some(&block), wanted, &nodes);
        assert_eq!(about(&wanted("10.1.0.1", 7, None)), None);
        assert_eq!(about(&wanted("10.1.0.1", 7, Some("u1"))), None);
        assert_eq!(
            about(&wanted("10.1.0.1", 7, Some("u2"))),
            Some(Outcome::OtherBlock)
        );
        assert_eq!(about(&wanted("10.1.0.1", 7, Some(""))), Some(Outcome::OtherBlock));
        assert_eq!(about(&wanted("10.1.0.1", 6, None)), Some(Outcome::Later));
        assert_eq!(about(&wanted("10.1.0.2", 7, None)), Some(Outcome::Free));
        assert_eq!(
            answer(None, &wanted("10.1.0.1", 7, None), &nodes),
            Some(Outcome::Free)
        );
        let nobody = answer(Some(&block), &wanted("10.1.0.1", 7, None), &BTreeSet::new());
        assert_eq!(nobody, Some(Outcome::OwnerGone));
    }

    #[test]
    fn of_several_reports_only_what_all_call_leaked_is_released() {
        let report = |addresses: &[(&str, &str)]| {
            let finding = |(class, address): &(&str, &str)| json!({"class": class, "address": address, "block": "10.1.0.0/26", "sequence": 7, "detail": ""});
            let findings: Vec<Value> = addresses.iter().map(finding).collect();
            let report = json!({
                "version": "0", "time": 0, "complete": true, "problems": 1, "unasked": [], "findings": findings,
                "counts": {"pools": 0, "blocks": 0, "allocations": 0, "nodes": 0, "workloadEndpoints": 0},
                "blockUIDs": {"10-1-0-0-26": "u1"},
            });
            let file = tempfile::NamedTempFile::new().unwrap();
            serde_json::to_writer(&file, &report).unwrap();
            file
        };
        let one = report(&[
            ("leaked", "10.1.0.1"),
            ("leaked", "10.1.0.2"),
            ("noWorkload", "10.1.0.3"),
        ]);
        let two = report(&[
            ("leaked", "10.1.0.2"),
            ("noWorkload", "10.1.0.3"),
            ("reserved", "10.1.0.1"),
        ]);
        let files = [one.path().to_owned(), two.path().to_owned()];
        let of = |files: &[PathBuf], force| -> Vec<String> {
            let found = reported(files, force).unwrap();
            found.iter().map(|one| one.release.address.to_string()).collect()
        };
        assert_eq!(of(&files[..1], false), ["10.1.0.1", "10.1.0.2"]);
        assert_eq!(of(&files, false), ["10.1.0.2"]);
        assert_eq!(of(&files, true), ["10.1.0.2", "10.1.0.3"]);
    }

    #[tokio::test]
    async fn a_request_stands_in_the_block_until_its_owner_has_answered() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db")).await.unwrap();
        let store = AnyStore::Sqlite(store);
        store.create(block(json!([]))).await.unwrap();
        let nodes = BTreeSet::from(["n1".to_owned()]);
        let ask = || request(&store, cidr(), vec![wanted("10.1.0.1", 7, None)], &nodes);
        for _ in 0..2 {
            let (lines, asked) = ask().await.unwrap();
            assert_eq!((lines, asked), (Vec::new(), vec![release("10.1.0.1", 7)]));
            let stored = read(&store, cidr()).await.unwrap().unwrap();
            assert_eq!(stored.spec.releases, [release("10.1.0.1", 7)], "asked for once");
        }
        let answers = async |timeout| {
            let asked = BTreeMap::from([(cidr(), vec![release("10.1.0.1", 7)])]);
            let lines = await_answers(&store, asked, timeout).await.unwrap();
            lines[0].outcome
        };
        assert_eq!(answers(Duration::ZERO).await, Outcome::Away);
        for (held, outcome) in [(true, Outcome::Kept), (false, Outcome::Released)] {
            let mut stored = read(&store, cidr()).await.unwrap().unwrap();
            stored.spec.releases.clear();
            stored.spec.allocations.retain(|_| held);
            store.update(Resource::IpBlock(stored)).await.unwrap();
            assert_eq!(answers(Duration::ZERO).await, outcome);
        }
    }
}
