//! Blocks come and go with the need for them, within the limits that are set.

use std::time::Duration;

use manx_api::ipam::IpBlock;
use manx_api::{Kind, Resource};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::chance::Fate;
use crate::laws;
use crate::runtime::State;
use crate::storm::virtually;
use crate::world::World;

/// How long an ADD or DEL may take: nothing that it does in these worlds takes longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Blocks of four addresses.
const BLOCK: u8 = 30;

/// Long enough for a block to have been empty for long enough, and its address to have rested.
const LATER: Duration = Duration::from_secs(150);

/// A calm cluster with one pool.
async fn cluster(settings: Value) -> World {
    let mut world = World::new(1);
    let settings = json!({
        "apiVersion": "manx.network/v1", "kind": "IPAMConfiguration", "metadata": {"name": "default"},
        "spec": settings,
    });
    world
        .memory
        .insert(serde_json::from_value(settings).unwrap())
        .unwrap();
    world.pool("v4", "10.64.0.0/24", BLOCK);
    world.start_all();
    sleep(Duration::from_secs(5)).await;
    world
}

/// Adds pods; how many of them got an address.
async fn add(world: &World, pods: std::ops::Range<usize>) -> usize {
    for pod in pods.clone() {
        world.runtime.add(0, &world.nodes[0], &format!("pod-{pod}"));
        sleep(PATIENCE).await;
    }
    // Whoever has to wait for a block is told after ten seconds that there is none.
    sleep(Duration::from_secs(15)).await;
    world.runtime.some(|pod| matches!(pod.state, State::Up(_))).len()
}

async fn delete_all(world: &World) {
    for pod in world.runtime.some(|pod| pod.state != State::Gone) {
        world.runtime.delete(&world.nodes[0], pod);
        sleep(PATIENCE).await;
    }
}

/// The first node's blocks, as the datastore has them.
fn owned(world: &World) -> Vec<IpBlock> {
    let blocks = world.memory.items(Kind::IpBlock).into_iter();
    let blocks = blocks.filter_map(|block| IpBlock::try_from(block).ok());
    blocks
        .filter(|block| block.spec.node.as_deref() == Some("node-1"))
        .collect()
}

#[test]
fn what_was_claimed_for_many_pods_goes_back_but_one_block() {
    virtually(async {
        let mut world = cluster(json!({})).await;
        assert_eq!(add(&world, 0..12).await, 12);
        assert!(owned(&world).len() >= 3);
        delete_all(&world).await;
        assert!(owned(&world).len() >= 3, "not at once");
        world.memory.set_away(true);
        sleep(LATER).await;
        world.memory.set_away(false);
        sleep(LATER).await;
        assert_eq!(owned(&world).len(), 1);
        assert_eq!(add(&world, 20..26).await, 6, "and are claimed again");
        laws::always(&mut world).unwrap();
        world.rest().await;
    });
}

#[test]
fn a_cordoned_pools_blocks_go_back_when_their_last_pod_has_left() {
    virtually(async {
        let mut world = cluster(json!({})).await;
        assert_eq!(add(&world, 0..2).await, 2);
        for resource in world.memory.items(Kind::IpPool) {
            if let Resource::IpPool(mut pool) = resource {
                pool.spec.disabled = true;
                world.memory.replace(Resource::IpPool(pool)).unwrap();
            }
        }
        world.pool("next", "10.65.0.0/24", BLOCK);
        sleep(LATER).await;
        let old = |world: &World| {
            let blocks = owned(world).into_iter();
            blocks.filter(|block| block.spec.pool == "v4").count()
        };
        assert_eq!(old(&world), 1, "pods hold addresses of it");
        delete_all(&world).await;
        sleep(LATER).await;
        assert_eq!(old(&world), 0);
        assert_eq!(add(&world, 2..4).await, 2);
        assert_eq!(owned(&world)[0].spec.pool, "next");
        world.rest().await;
    });
}

#[test]
fn a_node_owns_no_more_blocks_than_it_may() {
    virtually(async {
        let mut world = cluster(json!({"maxBlocksPerHost": 2, "strictAffinity": true})).await;
        assert_eq!(add(&world, 0..12).await, 8, "two blocks of four");
        assert_eq!(owned(&world).len(), 2);
        world.rest().await;
    });
}

#[test]
fn a_node_that_may_not_claim_keeps_to_what_it_owns() {
    virtually(async {
        let mut world = cluster(json!({"autoAllocateBlocks": false, "strictAffinity": true})).await;
        assert_eq!(add(&world, 0..2).await, 0);
        assert!(owned(&world).is_empty());
        world.rest().await;
    });
}

#[test]
fn a_claim_that_was_done_and_said_to_have_failed_is_taken_over() {
    virtually(async {
        let mut world = cluster(json!({"strictAffinity": true})).await;
        world.chance.doom("ipam create", Fate::DoneButRefused);
        assert_eq!(add(&world, 0..12).await, 12);
        assert!(world.chance.is_fulfilled());
        world.rest().await;
    });
}

#[test]
fn a_block_that_was_given_back_unnoticed_and_claimed_again_stays() {
    virtually(async {
        let mut world = cluster(json!({"strictAffinity": true})).await;
        assert_eq!(add(&world, 0..5).await, 5);
        assert_eq!(owned(&world).len(), 2);
        delete_all(&world).await;
        // Everything is checkpointed: what is written next is that a block is given back.
        sleep(Duration::from_secs(10)).await;
        world.chance.doom("ipam update", Fate::DoneButRefused);
        while owned(&world).len() == 2 {
            sleep(Duration::from_millis(1)).await;
        }
        for pod in 5..10 {
            world.runtime.add(0, &world.nodes[0], &format!("pod-{pod}"));
        }
        sleep(Duration::from_secs(20)).await;
        assert_eq!(owned(&world).len(), 2);
        world.rest().await;
    });
}

#[test]
fn a_node_that_was_deleted_while_pods_run_has_their_blocks_again_when_it_comes_back() {
    virtually(async {
        let mut world = cluster(json!({"strictAffinity": true})).await;
        assert_eq!(add(&world, 0..3).await, 3);
        let before = owned(&world);
        world.nodes[0].be_deleted();
        sleep(Duration::from_secs(60)).await;
        assert!(owned(&world).is_empty(), "the other agents have freed them");
        world.nodes[0].join();
        world.start_all();
        sleep(Duration::from_secs(10)).await;
        let after = owned(&world);
        let generations = |blocks: &[IpBlock]| -> Vec<_> {
            let generation = |block: &IpBlock| (block.spec.cidr, block.spec.generation);
            blocks.iter().map(generation).collect()
        };
        let later: Vec<_> = generations(&before)
            .into_iter()
            .map(|(cidr, generation)| (cidr, generation + 2))
            .collect();
        assert_eq!(generations(&after), later);
        assert_eq!(add(&world, 3..7).await, 7);
        laws::always(&mut world).unwrap();
        world.rest().await;
    });
}

#[test]
fn a_lender_that_does_not_answer_is_asked_once_and_then_another() {
    virtually(async {
        let mut world = World::new(1);
        // Two blocks for three nodes.
        world.pool("v4", "10.64.0.0/27", 28);
        world.nodes[0].start();
        world.nodes[1].start();
        sleep(Duration::from_secs(5)).await;
        world.runtime.add(1, &world.nodes[1], "at-the-fuller");
        sleep(Duration::from_secs(5)).await;
        world.nodes[0].kill();
        world.nodes[2].start();
        world.runtime.add(2, &world.nodes[2], "first");
        sleep(Duration::from_secs(10)).await;
        let up = |world: &World| {
            let pods = world.runtime.some(|pod| pod.node == 2);
            pods.iter()
                .filter(|pod| matches!(pod.state, State::Up(_)))
                .count()
        };
        assert_eq!(up(&world), 1);
        // More than the lease has: the next part is the living lender's at once.
        for pod in 0..8 {
            world.runtime.add(2, &world.nodes[2], &format!("later-{pod}"));
        }
        sleep(Duration::from_secs(2)).await;
        assert_eq!(up(&world), 9);
        world.rest().await;
    });
}
