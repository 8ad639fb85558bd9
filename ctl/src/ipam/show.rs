//! `ipam show`.

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpPool, IpamConfigurationSpec, block_cidr};
use serde::Serialize;

use super::args::{ShowArgs, ShowWhat};
use super::cluster::{Block, Cluster, size};
use super::holder::Holder;
use super::usage::usage;
use crate::error::{CtlError, Result};
use crate::output::{self, Format, Row};
use crate::target::Target;

/// Shows what is asked for.
pub(super) async fn show(target: &Target, args: &ShowArgs) -> Result<()> {
    let cluster = Cluster::load(target).await?;
    let format = args.output.output;
    let only = args
        .pool
        .as_deref()
        .map(|pool| find(&cluster.pools, pool))
        .transpose()?;
    let ShowWhat {
        show_blocks,
        show_borrowed,
        show_configuration,
        ip,
    } = args.what;
    if let Some(ip) = ip {
        let found = Holder::of(&cluster, ip);
        return match format {
            Format::Table => output::emit(&found.to_string()),
            Format::Json => output::emit(&output::json(&found)?),
            Format::Yaml => output::emit(&output::yaml(&found)?),
            Format::Wide | Format::Name => output::print(&[found], format),
        };
    }
    if show_configuration {
        return output::emit(&configuration_text(&cluster.configuration, format)?);
    }
    if show_borrowed {
        return output::print(&borrowed(&cluster, only), format);
    }
    output::print(&usage(&cluster, only, show_blocks), format)
}

/// The pool of this name or CIDR.
pub(super) fn find<'a>(pools: &'a [IpPool], wanted: &str) -> Result<&'a IpPool> {
    let is_it = |pool: &&IpPool| pool.metadata.name == wanted || pool.spec.cidr.to_string() == wanted;
    pools.iter().find(is_it).ok_or_else(|| CtlError::NoPool {
        name: wanted.to_owned(),
        known: pools.iter().map(|pool| pool.metadata.name.clone()).collect(),
    })
}

/// A setting, as calicoctl lists them.
fn configuration_text(spec: &IpamConfigurationSpec, format: Format) -> Result<String> {
    let IpamConfigurationSpec {
        strict_affinity,
        max_blocks_per_host,
        ip_cooldown_seconds,
        auto_allocate_blocks,
    } = spec;
    let settings = [
        ("StrictAffinity", strict_affinity.to_string()),
        ("AutoAllocateBlocks", auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", max_blocks_per_host.to_string()),
        ("IPCooldownSeconds", ip_cooldown_seconds.to_string()),
    ];
    match format {
        Format::Table | Format::Wide => {
            let lines = settings.map(|(name, value)| (vec![name.to_owned(), value], true));
            Ok(output::table(&["PROPERTY", "VALUE"], lines.into_iter()))
        }
        Format::Name => Ok(settings.iter().map(|(name, _)| format!("{name}\n")).collect()),
        Format::Yaml => output::yaml(spec),
        Format::Json => output::json(spec),
    }
}

/// A block that one node lends another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Borrowed {
    /// The addresses.
    block: IpNetwork,
    /// The block that they are part of.
    of: Option<IpNetwork>,
    /// Its owner; none where it has none.
    lender: Option<String>,
    /// Who has them.
    borrower: Option<String>,
    /// `Requested`, `Granted` or `Returned`.
    state: String,
    /// How many there are.
    total: u128,
    /// How many pods have.
    in_use: usize,
}

fn borrowed(cluster: &Cluster, only: Option<&IpPool>) -> Vec<Borrowed> {
    let wanted = |block: &&Block| {
        let pool = cluster.pool_of(block.cidr()).map(|pool| &pool.metadata.name);
        only.is_none_or(|only| pool == Some(&only.metadata.name))
    };
    let borrowed = |block: &Block| {
        let lease = block.resource.spec.lease.as_ref()?;
        let lender = cluster.block_named(&lease.of).and_then(Block::node);
        Some(Borrowed {
            block: block.cidr(),
            of: block_cidr(&lease.of),
            lender: lender.map(str::to_owned),
            borrower: block.node().map(str::to_owned),
            state: lease.state.to_string(),
            total: size(block.cidr()),
            in_use: block.allocations.len(),
        })
    };
    cluster
        .blocks
        .iter()
        .filter(wanted)
        .filter_map(borrowed)
        .collect()
}

impl Row for Borrowed {
    const COLUMNS: (&'static [&'static str], usize) = (
        &[
            "BLOCK",
            "OF",
            "LENDER",
            "BORROWER",
            "STATE",
            "IPS TOTAL",
            "IPS IN USE",
        ],
        7,
    );

    fn cells(&self) -> Vec<String> {
        vec![
            self.block.to_string(),
            self.of.map(|of| of.to_string()).unwrap_or_default(),
            self.lender.clone().unwrap_or_default(),
            self.borrower.clone().unwrap_or_default(),
            self.state.clone(),
            self.total.to_string(),
            self.in_use.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.block.to_string()
    }

    fn is_well(&self) -> bool {
        self.lender.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cluster::tests::{cluster, held};
    use super::*;

    #[test]
    fn leases_are_listed_with_both_sides() {
        let cluster = cluster(json!([
            ["IPPool", "blue", {"cidr": "10.1.0.0/16"}],
            ["IPBlock", "10-1-0-0-26", {"cidr": "10.1.0.0/26", "pool": "blue", "node": "n1", "generation": 1}],
            ["IPBlock", "10-1-0-32-28", {"cidr": "10.1.0.32/28", "pool": "blue", "node": "n2", "generation": 1,
                "lease": {"of": "10-1-0-0-26", "state": "Granted"}, "allocations": [held("10.1.0.33", 1)]}],
            ["IPBlock", "10-1-0-64-28", {"cidr": "10.1.0.64/28", "pool": "blue", "node": "n2", "generation": 1,
                "lease": {"of": "10-1-0-64-26", "state": "Requested"}}],
        ]));
        let text = output::text(&borrowed(&cluster, None), Format::Table).unwrap();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text), @r"
        BLOCK         OF            LENDER  BORROWER  STATE      IPS TOTAL  IPS IN USE
        10.1.0.32/28  10.1.0.0/26   n1      n2        Granted    16         1
        10.1.0.64/28  10.1.0.64/26  -       n2        Requested  16         0
        ");
    }

    #[test]
    fn settings_are_listed_as_calicoctl_does() {
        let spec = IpamConfigurationSpec::default();
        let text = configuration_text(&spec, Format::Table).unwrap();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text), @r"
        PROPERTY            VALUE
        StrictAffinity      false
        AutoAllocateBlocks  true
        MaxBlocksPerHost    0
        IPCooldownSeconds   60
        ");
        let json: serde_json::Value =
            serde_json::from_str(&configuration_text(&spec, Format::Json).unwrap()).unwrap();
        assert_eq!(json["ipCooldownSeconds"], 60);
    }

    #[test]
    fn a_pool_is_named_by_its_name_or_its_addresses() {
        let cluster = cluster(json!([["IPPool", "blue", {"cidr": "10.1.0.0/16"}]]));
        for name in ["blue", "10.1.0.0/16"] {
            assert_eq!(find(&cluster.pools, name).unwrap().metadata.name, "blue");
        }
        let error = find(&cluster.pools, "red").unwrap_err().to_string();
        assert_eq!(error, "there is no IPPool 'red': there is blue");
    }
}
