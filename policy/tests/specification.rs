//! Random clusters: what the engine says of every packet, beside what the specifications say of the resources.

use manx_policy::{Engine, Walk};

#[path = "../../tests/policy/reference.rs"]
mod reference;
#[path = "../../tests/policy/told.rs"]
mod told;
#[path = "../../tests/policy/world.rs"]
mod world;

use told::{explained, updates};
use world::{Packet, packets, random};

/// What the engine says of a packet, as far as pods' policies go.
fn allowed(engine: &Engine, packet: &Packet) -> bool {
    let said = explained(engine, packet);
    let of_pod = |walk: &&Walk| walk.endpoint.starts_with("WorkloadEndpoint/");
    let mut walks = [&said.egress, &said.ingress].into_iter().flatten().filter(of_pod);
    walks.all(|walk| walk.allowed)
}

/// How many random worlds; `POLICY_WORLDS` sets another number.
fn worlds() -> u64 {
    let stated = std::env::var("POLICY_WORLDS").ok();
    stated.and_then(|count| count.parse().ok()).unwrap_or(100)
}

#[test]
fn the_engine_explains_what_the_resources_say() {
    for seed in 0..worlds() {
        let world = random(seed);
        let mut engine = Engine::new();
        drop(engine.apply(updates(&world)));
        for packet in packets(&world, []) {
            let expected = reference::allowed(&world, &packet, |_| true);
            assert_eq!(
                allowed(&engine, &packet),
                expected,
                "seed {seed}: {packet:?}\n{world}"
            );
        }
    }
}
