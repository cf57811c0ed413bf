//! Processors that are stopped in their tracks for longer than their session, and wake up when
//! their partitions belong to others.

use crate::{
    fleet::{Fleet, Plan, STOPS_WITHIN},
    flow::{Load, Random},
    report, times,
};

const PARTITIONS: usize = 4;
/// Members beside the one that is paused.
const OTHERS: usize = 2;

/// Pauses a processor at a moment of the seed's and waits until the others have what it had and
/// have gone on from there.
async fn pause_one(fleet: &mut Fleet, random: &mut Random) -> usize {
    fleet.wait_for_rows(1 + random.below(12)).await;
    let numbers = fleet.numbers();
    let paused = numbers[random.index(numbers.len())];
    let others: Vec<usize> = numbers.into_iter().filter(|it| *it != paused).collect();
    fleet.processor(paused).pause();
    fleet.wait_until_owned_by(&others).await;
    fleet.wait_for_rows(8).await;
    paused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_processor_that_wakes_up_writes_nothing_of_its_old_partitions() {
    let plan = Plan {
        name: "zombies",
        partitions: PARTITIONS,
        settings: &[],
    };
    let Some(mut fleet) = Fleet::prepare(plan).await else {
        return;
    };
    let load = Load {
        seed: 31,
        ..Load::default()
    };
    let flow = fleet.flow(load);
    for _ in 0..=OTHERS {
        fleet.start();
    }
    let mut random = Random::new(load.seed);
    let pauses = times(4);
    for _ in 0..pauses {
        let everyone = fleet.numbers();
        fleet.wait_until_owned_by(&everyone).await;
        let paused = pause_one(&mut fleet, &mut random).await;
        fleet.processor(paused).resume();
    }
    // The last one, too, has learnt what has become of it and is a member again.
    let everyone = fleet.numbers();
    fleet.wait_until_owned_by(&everyone).await;
    flow.stop();
    report(plan.name, &format!("{pauses} pauses"), fleet.finish().await);
}

/// A zombie that is told to stop before it learns that it is one: what it writes last is of no
/// consequence.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_processor_that_wakes_up_to_stop_changes_nothing() {
    let plan = Plan {
        name: "zombies-stop",
        partitions: PARTITIONS,
        settings: &[],
    };
    let Some(mut fleet) = Fleet::prepare(plan).await else {
        return;
    };
    let load = Load {
        seed: 32,
        ..Load::default()
    };
    let flow = fleet.flow(load);
    for _ in 0..=OTHERS {
        fleet.start();
    }
    let mut random = Random::new(load.seed);
    let pauses = times(3);
    for _ in 0..pauses {
        let everyone = fleet.numbers();
        fleet.wait_until_owned_by(&everyone).await;
        let paused = pause_one(&mut fleet, &mut random).await;
        let mut zombie = fleet.take(paused);
        zombie.terminate();
        zombie.resume();
        zombie.ends_well(STOPS_WITHIN).await;
        fleet.start();
    }
    flow.stop();
    report(plan.name, &format!("{pauses} pauses"), fleet.finish().await);
}
