//! Storms over many seeds.

use manx_api::Resource;
use manx_api::ipam::LeaseState;

use crate::world::World;

/// Seeds of an ordinary run.
const SEEDS: std::ops::Range<u64> = 0..12;

/// Steps for each.
const STEPS: usize = 900;

/// Runs a story under a clock of its own, which jumps whenever nothing is left to do.
pub(crate) fn virtually<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(story)
}

/// A cluster's whole story under a seed, and how often a lease was written that is granted.
fn tell(seed: u64, steps: usize) -> (Vec<String>, usize) {
    virtually(async {
        let mut world = World::new(seed);
        // A pool in every third story of which one node has no block: it lives on leases.
        let v4 = if seed.is_multiple_of(3) {
            "10.64.0.0/27"
        } else {
            "10.64.0.0/23"
        };
        world.pool("v4", v4, 28);
        if seed.is_multiple_of(2) {
            world.pool("v6", "fd64::/118", 124);
        }
        world.run(steps).await;
        let is_granted = |resource: &Resource| {
            let Resource::IpBlock(block) = resource else {
                return false;
            };
            let lease = block.spec.lease.as_ref();
            lease.is_some_and(|lease| lease.state == LeaseState::Granted)
        };
        let granted = world.memory.written(is_granted);
        (world.story, granted)
    })
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text}")),
    )
}

/// Twelve seeds, or the one that is asked for, on as many threads as there are processors.
#[test]
fn no_storm_makes_addresses_double_or_lost() {
    let steps = number("MANX_CRASH_STEPS").map_or(STEPS, |steps| usize::try_from(steps).unwrap());
    let seeds = number("MANX_CRASH_SEED").map_or(SEEDS, |seed| seed..seed + 1);
    let begun = std::time::Instant::now();
    let mut leases = 0;
    for seed in seeds.clone() {
        let told = std::panic::catch_unwind(|| tell(seed, steps));
        let Ok((_, granted)) = told else {
            panic!("seed {seed}: MANX_CRASH_SEED={seed} tells it again");
        };
        leases += granted;
        eprintln!(
            "seed {seed}: {steps} steps held, {granted} writes of leases, after {:?}",
            begun.elapsed()
        );
    }
    assert!(leases > 0 || seeds.end - seeds.start < 3, "nothing was lent");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    assert_eq!(tell(77, 200), tell(77, 200));
}
