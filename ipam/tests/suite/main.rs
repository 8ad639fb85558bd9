//! The invariants of IPAM: tables, properties and models.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod allocator;
mod any_order;
mod blocks;
mod journal;
mod lease;
mod model;
mod ownership;
mod reconcile;
mod releases;
mod requested;
mod reserved;
mod selection;
mod surplus;

use ipnetwork::IpNetwork;
use manx_api::Metadata;
use manx_api::ipam::{Allocation, AttachmentId, IpBlock, IpPool, IpPoolSpec};
use manx_ipam::{Allocator, Family, Request, Rest, Want, claim};
use proptest::test_runner::{Config, RngSeed};

/// The node that the tests' blocks belong to.
const NODE: &str = "node-1";

/// So many cases, the same in every run.
fn cases(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(20_260),
        failure_persistence: None,
        ..Config::default()
    }
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn pool(name: &str, cidr: &str, block_size: Option<u8>) -> IpPool {
    IpPool {
        metadata: Metadata {
            name: name.to_owned(),
            ..Metadata::default()
        },
        spec: IpPoolSpec {
            block_size,
            ..IpPoolSpec::new(net(cidr))
        },
    }
}

/// A block of a pool that is cut into such blocks, owned by [`NODE`].
fn block(pool_name: &str, pool_cidr: &str, cidr: &str) -> IpBlock {
    let cidr = net(cidr);
    claim(None, &pool(pool_name, pool_cidr, Some(cidr.prefix())), cidr, NODE).unwrap()
}

fn attachment(number: usize) -> AttachmentId {
    AttachmentId {
        container_id: format!("container-{number}"),
        ifname: "eth0".to_owned(),
        namespace: "default".to_owned(),
        pod: format!("pod-{number}"),
        network: Some("pods".to_owned()),
    }
}

fn allocation(address: &str, sequence: u64, owner: usize) -> Allocation {
    Allocation {
        address: address.parse().unwrap(),
        sequence,
        owner: attachment(owner),
    }
}

/// An address of each family, of the blocks of these pools in that order.
fn wants<P: AsRef<str>>(
    allocator: &Allocator,
    families: &[Family],
    pools: &[P],
    unrested: bool,
) -> Vec<Want> {
    let of = |family: Family| {
        let blocks = pools.iter().flat_map(|pool| {
            let of_pool = allocator.blocks().filter(|block| block.pool() == pool.as_ref());
            of_pool
                .map(manx_ipam::Block::cidr)
                .filter(|cidr| Family::of_network(*cidr) == family)
        });
        Want::Any {
            family,
            blocks: blocks.collect(),
            unrested,
        }
    };
    families.iter().map(|family| of(*family)).collect()
}

/// A request where freed addresses do not rest.
fn request<'a>(owner: &'a AttachmentId, wants: &'a [Want]) -> Request<'a> {
    Request {
        owner,
        wants,
        rest: Rest::default(),
    }
}
