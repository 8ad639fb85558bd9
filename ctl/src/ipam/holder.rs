//! Who holds an address, or why nobody does.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, AttachmentId};
use serde::Serialize;

use super::cluster::{Block, Cluster};
use crate::output::Row;

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Holder {
    ip: IpAddr,
    status: Status,
    /// Given only to pods that ask for it.
    reserved: bool,
    /// The pool that it is of.
    pool: Option<String>,
    /// The block that it is in.
    block: Option<IpNetwork>,
    /// The block's owner.
    node: Option<String>,
    /// `namespace/pod`; none where no pod holds it.
    pod: Option<String>,
    /// The attachment that holds it.
    owner: Option<AttachmentId>,
    /// The allocation's sequence number: as `ipam release` takes it.
    sequence: Option<u64>,
    /// Whether the owner's agent said so; else it is as of the checkpoint.
    live: bool,
}

/// What becomes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    /// A pod holds it.
    InUse,
    /// An interface carries it, and nobody is known to hold it: it is given to nobody.
    Quarantined,
    /// A pod that asks for it may have it.
    Reserved,
    /// A pod may have it.
    Free,
    /// It is Manx's to give in no pool.
    NoPool,
}

impl Holder {
    /// What the cluster knows of `ip`.
    pub(super) fn of(cluster: &Cluster, ip: IpAddr) -> Self {
        let pool = cluster.pool_of(ip.into());
        let block = cluster.block_of(ip);
        let held = block.and_then(|block| block.allocations.iter().find(|held| held.address == ip));
        let reserved = cluster.reserved.contains(ip);
        let status = match held {
            Some(held) if held.owner.is_quarantined() => Status::Quarantined,
            Some(_) => Status::InUse,
            None if pool.is_none() => Status::NoPool,
            None if reserved => Status::Reserved,
            None => Status::Free,
        };
        let pod = |held: &Allocation| format!("{}/{}", held.owner.namespace, held.owner.pod);
        Self {
            ip,
            status,
            reserved,
            pool: pool.map(|pool| pool.metadata.name.clone()),
            block: block.map(Block::cidr),
            node: block.and_then(Block::node).map(str::to_owned),
            pod: held.filter(|_| status == Status::InUse).map(pod),
            owner: held.map(|held| held.owner.clone()),
            sequence: held.map(|held| held.sequence),
            live: block.is_some_and(|block| block.live),
        }
    }
}

/// For people.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, pool, owner, .. } = self;
        match (self.status, owner) {
            (Status::InUse, Some(owner)) => {
                writeln!(f, "{ip} is in use by pod {}/{}.", owner.namespace, owner.pod)
            }
            (Status::Quarantined, Some(owner)) => writeln!(
                f,
                "{ip} is in quarantine: interface {} carries it, and nobody is known to hold it.",
                owner.ifname
            ),
            (Status::InUse | Status::Quarantined, None) => writeln!(f, "{ip} is in use."),
            (Status::Reserved, _) => {
                writeln!(
                    f,
                    "{ip} is free, and reserved: only a pod that asks for it gets it."
                )
            }
            (Status::Free, _) => writeln!(f, "{ip} is free."),
            (Status::NoPool, _) => writeln!(f, "{ip} is in no IPPool."),
        }?;
        if let Some(pool) = pool {
            writeln!(f, "  IPPool      {pool}")?;
        }
        match (self.block, &self.node) {
            (Some(block), Some(node)) => writeln!(f, "  Block       {block} of {node}"),
            (Some(block), None) => writeln!(f, "  Block       {block}, nobody's"),
            (None, _) if pool.is_some() => writeln!(f, "  Block       none: no node has claimed it yet"),
            (None, _) => Ok(()),
        }?;
        if let (Some(owner), Some(sequence)) = (owner, self.sequence) {
            writeln!(f, "  Attachment  {} {}", owner.container_id, owner.ifname)?;
            writeln!(f, "  Sequence    {sequence}")?;
            if self.reserved {
                writeln!(f, "  Reserved    yes")?;
            }
        }
        if let Some(node) = &self.node {
            let source = if self.live {
                "its agent"
            } else {
                "its last checkpoint"
            };
            writeln!(f, "  Source      {node}: {source}")?;
        }
        Ok(())
    }
}

impl Row for Holder {
    const COLUMNS: (&'static [&'static str], usize) = (&["IP", "STATUS", "BLOCK", "NODE", "POD", "POOL"], 6);

    fn cells(&self) -> Vec<String> {
        let optional = |value: &Option<String>| value.clone().unwrap_or_default();
        let status = match self.status {
            Status::InUse => "in use",
            Status::Quarantined => "quarantined",
            Status::Reserved => "reserved",
            Status::Free => "free",
            Status::NoPool => "in no pool",
        };
        vec![
            self.ip.to_string(),
            status.to_owned(),
            self.block.map(|block| block.to_string()).unwrap_or_default(),
            optional(&self.node),
            optional(&self.pod),
            optional(&self.pool),
        ]
    }

    fn name(&self) -> String {
        self.ip.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cluster::tests::{cluster, held};
    use super::*;

    fn made() -> Cluster {
        let unknown = json!({
            "address": "10.1.0.2", "sequence": 4294967298_u64,
            "owner": {"containerID": "quarantine", "ifname": "mx0123", "namespace": "quarantine", "pod": "mx0123"},
        });
        cluster(json!([
            ["IPPool", "blue", {"cidr": "10.1.0.0/16"}],
            ["IPReservation", "gateways", {"reservedCIDRs": ["10.1.0.4/32", "10.1.1.0/24"]}],
            ["IPBlock", "10-1-0-0-26", {"cidr": "10.1.0.0/26", "pool": "blue", "node": "n1", "generation": 1,
                "allocations": [held("10.1.0.1", 4_294_967_297), unknown]}],
            ["IPBlock", "10-1-0-64-26", {"cidr": "10.1.0.64/26", "pool": "blue", "generation": 2}],
        ]))
    }

    #[test]
    fn there_is_an_answer_for_every_address() {
        let cluster = made();
        let text: String = [
            "10.1.0.1",
            "10.1.0.2",
            "10.1.0.3",
            "10.1.0.4",
            "10.1.0.64",
            "10.1.0.128",
            "10.2.0.0",
        ]
        .iter()
        .map(|ip| Holder::of(&cluster, ip.parse().unwrap()).to_string())
        .collect();
        insta::assert_snapshot!(text, @r"
        10.1.0.1 is in use by pod shop/web.
          IPPool      blue
          Block       10.1.0.0/26 of n1
          Attachment  c1 eth0
          Sequence    4294967297
          Source      n1: its last checkpoint
        10.1.0.2 is in quarantine: interface mx0123 carries it, and nobody is known to hold it.
          IPPool      blue
          Block       10.1.0.0/26 of n1
          Attachment  quarantine mx0123
          Sequence    4294967298
          Source      n1: its last checkpoint
        10.1.0.3 is free.
          IPPool      blue
          Block       10.1.0.0/26 of n1
          Source      n1: its last checkpoint
        10.1.0.4 is free, and reserved: only a pod that asks for it gets it.
          IPPool      blue
          Block       10.1.0.0/26 of n1
          Source      n1: its last checkpoint
        10.1.0.64 is free.
          IPPool      blue
          Block       10.1.0.64/26, nobody's
        10.1.0.128 is free.
          IPPool      blue
          Block       none: no node has claimed it yet
        10.2.0.0 is in no IPPool.
        ");
    }

    #[test]
    fn scripts_find_the_promised_fields_of_an_address() {
        let found = serde_json::to_value(Holder::of(&made(), "10.1.0.1".parse().unwrap())).unwrap();
        let owner = json!({"containerID": "c1", "ifname": "eth0", "namespace": "shop", "pod": "web"});
        let wanted = json!({
            "ip": "10.1.0.1", "status": "inUse", "reserved": false, "pool": "blue", "block": "10.1.0.0/26",
            "node": "n1", "pod": "shop/web", "owner": owner, "sequence": 4294967297_u64, "live": false,
        });
        assert_eq!(found, wanted);
    }
}
