//! `ipam check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use manx_ipam::check::{Class, Evidence, Finding, check};
use serde::{Deserialize, Serialize};

use super::args::CheckArgs;
use super::evidence::{Gathered, Unasked, gather};
use crate::error::{CtlError, Result};
use crate::output::{self, Format};
use crate::target::Target;

/// Between the two looks: longer than anything is under way that is no problem.
const PAUSE: Duration = Duration::from_secs(2);
/// Findings of a class that are shown unless more are asked for.
const FEW: usize = 10;
/// Exit code: problems were found.
const PROBLEMS: u8 = 3;
/// Exit code: none were found, but not every node could be asked.
const INCOMPLETE: u8 = 4;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Of manxctl.
    version: String,
    /// When, in seconds since 1970.
    time: u64,
    /// Whether every node was asked.
    complete: bool,
    /// How many findings are problems.
    problems: usize,
    /// How much was looked at.
    counts: Counts,
    /// Nodes whose agent was not asked: only what the datastore shows of them was compared.
    unasked: Vec<Unasked>,
    /// What was found, the worst first.
    pub(super) findings: Vec<Finding>,
    /// The uid of each block that something was found in, by name: the cluster that the report is of.
    #[serde(rename = "blockUIDs")]
    pub(super) block_uids: BTreeMap<String, String>,
    /// Every address that was looked at, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    pools: usize,
    blocks: usize,
    allocations: usize,
    nodes: usize,
    workload_endpoints: usize,
}

/// Checks, and says how it went by the exit code as well.
pub(super) async fn run(target: &Target, args: &CheckArgs) -> Result<ExitCode> {
    let first = gather(target).await?;
    let mut findings = check(&first.evidence);
    let mut gathered = first;
    if findings.iter().any(|finding| finding.class.is_problem()) {
        // What is on its way is gone at a second look; what both see is there to stay.
        anstream::eprintln!(
            "manxctl: {} findings at first; looking again in {} s",
            findings.len(),
            PAUSE.as_secs()
        );
        tokio::time::sleep(PAUSE).await;
        gathered = gather(target).await?;
        let again: BTreeSet<Finding> = check(&gathered.evidence).into_iter().collect();
        findings.retain(|finding| again.contains(finding));
    }
    let report = Report::of(gathered, findings, args.show_all_ips);
    if let Some(file) = &args.report {
        report.write(file)?;
    }
    output::emit(&report.text(args)?)?;
    Ok(report.exit_code())
}

impl Report {
    fn of(gathered: Gathered, findings: Vec<Finding>, all: bool) -> Self {
        let Gathered { evidence, unasked } = gathered;
        let concerned: BTreeSet<_> = findings.iter().filter_map(|finding| finding.block).collect();
        let blocks = evidence
            .blocks
            .iter()
            .filter(|block| concerned.contains(&block.spec.cidr));
        let uid = |block: &manx_api::ipam::IpBlock| {
            Some((block.metadata.name.clone(), block.metadata.uid.clone()?))
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: since.map_or(0, |since| since.as_secs()),
            complete: unasked.is_empty(),
            problems: findings
                .iter()
                .filter(|finding| finding.class.is_problem())
                .count(),
            counts: Counts::of(&evidence),
            unasked,
            block_uids: blocks.filter_map(uid).collect(),
            addresses: if all { addresses(&evidence) } else { Vec::new() },
            findings,
        }
    }

    /// Reads a report that an earlier check wrote.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read(file).map_err(|source| CtlError::Read {
            path: file.to_owned(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| CtlError::NoReport {
            path: file.to_owned(),
            source,
        })
    }

    fn write(&self, file: &Path) -> Result<()> {
        let text = output::json(self)?;
        std::fs::write(file, text).map_err(|source| CtlError::Unwritable {
            path: file.to_owned(),
            source,
        })
    }

    fn exit_code(&self) -> ExitCode {
        match (self.problems, self.complete) {
            (0, true) => ExitCode::SUCCESS,
            (0, false) => ExitCode::from(INCOMPLETE),
            (_, _) => ExitCode::from(PROBLEMS),
        }
    }

    fn text(&self, args: &CheckArgs) -> Result<String> {
        match args.output.output {
            Format::Table | Format::Wide => {
                let most = if args.show_problem_ips || args.show_all_ips {
                    usize::MAX
                } else {
                    FEW
                };
                Ok(self.prose(most))
            }
            Format::Name => {
                let problems = self.findings.iter().filter(|finding| finding.class.is_problem());
                Ok(problems
                    .filter_map(|finding| Some(format!("{}\n", finding.address?)))
                    .collect())
            }
            Format::Yaml => output::yaml(self),
            Format::Json => output::json(self),
        }
    }

    /// For people, and laid out as calicoctl's.
    fn prose(&self, most: usize) -> String {
        let Counts {
            pools,
            blocks,
            allocations,
            nodes,
            workload_endpoints,
        } = self.counts;
        let mut text = format!(
            "Checked {allocations} allocations in {blocks} blocks of {pools} pools, {workload_endpoints} \
             WorkloadEndpoints and {nodes} nodes.\n"
        );
        for address in &self.addresses {
            text += &format!("  {address}\n");
        }
        for Unasked { node, reason } in &self.unasked {
            text += &format!("Not asked, compared as far as the datastore shows: {node} ({reason})\n");
        }
        text += "\n";
        for class in Class::ALL {
            let found: Vec<&Finding> = self
                .findings
                .iter()
                .filter(|finding| finding.class == class)
                .collect();
            text += &format!("Found {} {class}.\n", found.len());
            for finding in found.iter().take(most) {
                text += &format!("  {finding}\n");
            }
            if found.len() > most {
                text += &format!(
                    "  ... and {} more: --show-problem-ips lists them\n",
                    found.len() - most
                );
            }
        }
        let complete = if self.complete { "complete" } else { "incomplete" };
        text + &format!("\nCheck {complete}; found {} problems.\n", self.problems)
    }
}

impl Counts {
    fn of(evidence: &Evidence) -> Self {
        Self {
            pools: evidence.pools.len(),
            blocks: evidence.blocks.len(),
            allocations: evidence.held().count(),
            nodes: evidence.nodes.len(),
            workload_endpoints: evidence.workloads.len(),
        }
    }
}

/// Every address that somebody holds.
fn addresses(evidence: &Evidence) -> Vec<String> {
    let line = |held: manx_ipam::check::Held<'_>| {
        let owner = &held.allocation.owner;
        let node = held.node.unwrap_or("nobody");
        format!(
            "{} held by {}/{} in {} of {node}",
            held.allocation.address, owner.namespace, owner.pod, held.block
        )
    };
    evidence.held().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(findings: serde_json::Value, unasked: &[&str]) -> Report {
        let unasked = unasked.iter().map(|node| Unasked {
            node: (*node).to_owned(),
            reason: "away".to_owned(),
        });
        let gathered = Gathered {
            evidence: Evidence::default(),
            unasked: unasked.collect(),
        };
        Report {
            time: 1_700_000_000,
            ..Report::of(gathered, serde_json::from_value(findings).unwrap(), false)
        }
    }

    fn leaks(count: u8) -> serde_json::Value {
        let leak = |last: u8| {
            json!({
                "class": "leaked", "address": format!("10.0.0.{last}"), "block": "10.0.0.0/26", "node": "n1",
                "sequence": 7, "detail": "its interface is gone",
                "owner": {"containerID": "c1", "ifname": "eth0", "namespace": "shop", "pod": "web"},
            })
        };
        (0..count).map(leak).collect()
    }

    #[test]
    fn a_report_for_people_shows_a_few_of_each_kind() {
        insta::assert_snapshot!(report(leaks(12), &["n2"]).prose(2), @r"
        Checked 0 allocations in 0 blocks of 0 pools, 0 WorkloadEndpoints and 0 nodes.
        Not asked, compared as far as the datastore shows: n2 (away)

        Found 0 addresses that more than one pod or node has.
        Found 0 addresses in use but not allocated.
        Found 0 addresses in use outside all pools.
        Found 0 inconsistencies of blocks.
        Found 0 blocks whose owner is no node.
        Found 12 addresses allocated but not in use.
          10.0.0.0 on n1 (shop/web, sequence 7): its interface is gone
          10.0.0.1 on n1 (shop/web, sequence 7): its interface is gone
          ... and 10 more: --show-problem-ips lists them
        Found 0 addresses in use without a route.
        Found 0 addresses allocated without a WorkloadEndpoint.
        Found 0 WorkloadEndpoints' addresses that are not allocated.
        Found 0 addresses whose checkpoint is behind the owner's journal.
        Found 0 addresses in quarantine.
        Found 0 DELs not carried out yet.
        Found 0 reserved addresses in use.

        Check incomplete; found 12 problems.
        ");
    }

    #[test]
    fn scripts_know_by_the_exit_code() {
        let note = json!([{"class": "reserved", "detail": "it is reserved"}]);
        for (findings, unasked, code) in [
            (json!([]), [].as_slice(), 0),
            (note, &[], 0),
            (json!([]), &["n2"], INCOMPLETE),
            (leaks(1), &[], PROBLEMS),
            (leaks(1), &["n2"], PROBLEMS),
        ] {
            assert_eq!(report(findings, unasked).exit_code(), ExitCode::from(code));
        }
    }

    #[test]
    fn scripts_find_the_promised_fields_of_a_report_and_release_reads_them_back() {
        let report = report(leaks(1), &["n2"]);
        let value = serde_json::to_value(&report).unwrap();
        let wanted = json!({
            "version": env!("CARGO_PKG_VERSION"), "time": 1_700_000_000, "complete": false, "problems": 1,
            "counts": {"pools": 0, "blocks": 0, "allocations": 0, "nodes": 0, "workloadEndpoints": 0},
            "unasked": [{"node": "n2", "reason": "away"}], "findings": leaks(1), "blockUIDs": {},
        });
        assert_eq!(value, wanted);
        let file = tempfile::NamedTempFile::new().unwrap();
        report.write(file.path()).unwrap();
        assert_eq!(Report::read(file.path()).unwrap(), report);
        std::fs::write(file.path(), "{}").unwrap();
        let error = Report::read(file.path()).unwrap_err().to_string();
        assert!(error.contains("is no report of `manxctl ipam check`"), "{error}");
    }
}
