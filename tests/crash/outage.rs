//! The datastore goes away, or the disk: pods come and go all the same.

use std::sync::atomic::Ordering;
use std::time::Duration;

use manx_api::Kind;
use manx_api::ipam::QUARANTINE;
use tokio::time::sleep;

use crate::laws;
use crate::runtime::State;
use crate::storm::virtually;
use crate::world::World;

/// How long an ADD or DEL may take: nothing that it does in these worlds takes longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A calm cluster whose nodes have a block each.
async fn cluster() -> World {
    let mut world = World::new(1);
    world.pool("v4", "10.64.0.0/16", 26);
    world.start_all();
    for node in 0..world.nodes.len() {
        add(&world, node, &format!("first-{node}")).await;
    }
    sleep(Duration::from_secs(5)).await;
    world
}

async fn add(world: &World, node: usize, container: &str) {
    world.runtime.add(node, &world.nodes[node], container);
    sleep(PATIENCE).await;
    let pods = world.runtime.some(|pod| pod.container == container);
    assert!(matches!(pods[0].state, State::Up(_)), "{:?}", pods[0]);
}

async fn delete(world: &World, container: &str) {
    let pods = world.runtime.some(|pod| pod.container == container);
    let pod = pods[0].clone();
    world.runtime.delete(&world.nodes[pod.node], pod);
    sleep(PATIENCE).await;
    let pods = world.runtime.some(|pod| pod.container == container);
    assert_eq!(pods[0].state, State::Gone, "{container}");
}

#[test]
fn ten_minutes_without_a_datastore_stop_no_pod_and_heal_by_themselves() {
    virtually(async {
        let mut world = cluster().await;
        world.memory.set_away(true);
        for minute in 0..10 {
            for node in 0..world.nodes.len() {
                for pod in 0..3 {
                    add(&world, node, &format!("pod-{node}-{minute}-{pod}")).await;
                }
                delete(&world, &format!("pod-{node}-{minute}-1")).await;
                if minute % 3 == 2 {
                    delete(&world, &format!("pod-{node}-{}-0", minute - 1)).await;
                }
            }
            sleep(Duration::from_secs(40)).await;
            laws::always(&mut world).unwrap();
        }
        world.rest().await;
    });
}

#[test]
fn an_agent_that_starts_without_a_datastore_carries_out_every_del() {
    virtually(async {
        let mut world = cluster().await;
        add(&world, 0, "heard").await;
        add(&world, 0, "unheard").await;
        world.memory.set_away(true);
        world.nodes[0].kill();
        delete(&world, "unheard").await;
        world.start_all();
        sleep(PATIENCE).await;
        delete(&world, "heard").await;
        assert_eq!(holders(&world), ["first-0"]);
        laws::always(&mut world).unwrap();
        world.rest().await;
    });
}

/// Who holds addresses on the first node, as its journal says.
fn holders(world: &World) -> Vec<String> {
    let journal = world.nodes[0].replay();
    journal
        .allocations()
        .map(|held| held.owner.container_id)
        .collect()
}

#[test]
fn a_lost_disk_costs_no_pod_its_address_and_no_del_its_effect() {
    virtually(async {
        let mut world = cluster().await;
        add(&world, 0, "described").await;
        add(&world, 0, "forgotten").await;
        sleep(Duration::from_secs(5)).await;
        // Of these nobody but the lost journal has ever heard.
        world.memory.set_away(true);
        add(&world, 0, "unheard-of").await;
        add(&world, 0, "unheard-of-too").await;
        world.nodes[0].lose_disk();
        world.start_all();
        sleep(PATIENCE).await;
        world.memory.set_away(false);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(
            holders(&world),
            ["first-0", "described", "forgotten", QUARANTINE, QUARANTINE]
        );
        assert_eq!(
            world.memory.items(Kind::WorkloadEndpoint).len(),
            5,
            "two of other nodes"
        );
        for gone in ["described", "unheard-of"] {
            delete(&world, gone).await;
        }
        assert_eq!(holders(&world), ["first-0", "forgotten", QUARANTINE]);
        world.runtime.set("forgotten", State::Forgotten(Vec::new()));
        world.rest().await;
        assert_eq!(holders(&world), ["first-0", QUARANTINE]);
        laws::always(&mut world).unwrap();
    });
}

#[test]
fn what_ends_before_a_lost_disk_is_recovered_holds_nothing_then() {
    virtually(async {
        let mut world = cluster().await;
        add(&world, 0, "short").await;
        sleep(Duration::from_secs(5)).await;
        world.memory.set_away(true);
        world.nodes[0].lose_disk();
        world.start_all();
        sleep(PATIENCE).await;
        delete(&world, "short").await;
        world.memory.set_away(false);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(holders(&world), ["first-0"]);
        world.rest().await;
    });
}

#[test]
fn an_add_waits_for_no_call_of_the_datastore_and_makes_none() {
    virtually(async {
        let world = cluster().await;
        let calls = || world.nodes[0].calls.load(Ordering::Relaxed);
        // Calls hang. A checkpoint is one, beside the task and not for an ADD; it is the last until it is answered.
        world.memory.set_away(true);
        add(&world, 0, "checkpointed").await;
        sleep(Duration::from_secs(2)).await;
        world.memory.set_hanging();
        sleep(Duration::from_secs(60)).await;
        let before = calls();
        for pod in 0..20 {
            add(&world, 0, &format!("pod-{pod}")).await;
        }
        assert_eq!(calls(), before);
    });
}
