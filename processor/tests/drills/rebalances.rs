//! Processors that join and leave without end: partitions move all the time.

use crate::{
    fleet::{Fleet, Plan},
    flow::{Load, Random},
    report, times,
};

/// Most processors at a time.
const MEMBERS_MAX: usize = 10;
/// Every so often one leaves without a word.
const ONE_KILL_IN: u64 = 5;
/// Final windows between two changes, at most.
const ROWS_BETWEEN_MAX: u64 = 40;

async fn storm(plan: Plan, load: Load, changes: usize) {
    let Some(mut fleet) = Fleet::prepare(plan).await else {
        return;
    };
    let flow = fleet.flow(load);
    let mut random = Random::new(load.seed);
    // Up to ten and down again, with a step back now and then.
    let (mut growing, mut most) = (true, 1);
    fleet.start();
    for change in 0..changes {
        let numbers = fleet.numbers();
        most = most.max(numbers.len());
        let (alone, crowded) = (numbers.len() == 1, numbers.len() == MEMBERS_MAX);
        growing = alone || (growing && !crowded);
        let step_back = change % 4 == 3;
        if alone || (growing != step_back && !crowded) {
            fleet.start();
        } else {
            let leaving = numbers[random.index(numbers.len())];
            if random.below(ONE_KILL_IN) == 0 {
                fleet.kill(leaving);
            } else {
                fleet.stop(leaving).await;
            }
        }
        fleet.wait_for_rows(random.below(ROWS_BETWEEN_MAX)).await;
    }
    assert_eq!(most, MEMBERS_MAX);
    flow.stop();
    report(
        plan.name,
        &format!("{changes} joins and leaves"),
        fleet.finish().await,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_storm_of_rebalances() {
    let plan = Plan {
        name: "storm",
        partitions: 12,
        settings: &[],
    };
    let load = Load {
        seed: 21,
        rate_per_s: 20.0,
        speed: 60,
        ..Load::default()
    };
    storm(plan, load, times(30)).await;
}
