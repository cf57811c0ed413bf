//! Processors that end at any moment: by kill -9, by SIGTERM, by a second SIGTERM.

use std::time::Duration;

use crate::{
    fleet::{Figures, Fleet, Plan},
    flow::{Flow, Load, Random},
};

const PARTITIONS: usize = 4;
/// Members at a time.
const MEMBERS: usize = 3;
/// How often processors are killed, unless the environment says otherwise.
const KILLS: usize = 30;
/// Final windows between two kills, at most.
const ROWS_BETWEEN_MAX: u64 = 24;
/// Sometimes the next one comes this soon instead: while the group still settles.
const SOON_MS_MAX: u64 = 600;

/// Returns how often something is to be done, where the environment does not say.
pub(crate) fn times(usual: usize) -> usize {
    let asked = std::env::var("LOGGUARD_DRILL_KILLS").ok();
    asked.map_or(usual, |it| it.parse().unwrap())
}

async fn prepare(plan: Plan, load: Load) -> Option<(Fleet, Flow)> {
    let mut fleet = Fleet::prepare(plan).await?;
    let flow = fleet.flow(load);
    for _ in 0..MEMBERS {
        fleet.start();
    }
    fleet.wait_for_rows(1).await;
    Some((fleet, flow))
}

/// Waits for a moment that the seed decides: a number of windows later, or soon.
async fn some_moment(fleet: &mut Fleet, random: &mut Random) {
    if random.below(3) == 0 {
        tokio::time::sleep(Duration::from_millis(random.below(SOON_MS_MAX))).await;
    } else {
        fleet
            .wait_for_rows(1 + random.below(ROWS_BETWEEN_MAX))
            .await;
    }
}

async fn kill_again_and_again(plan: Plan, load: Load, kills: usize) {
    let Some((mut fleet, flow)) = prepare(plan, load).await else {
        return;
    };
    let mut random = Random::new(load.seed);
    for _ in 0..kills {
        some_moment(&mut fleet, &mut random).await;
        let numbers = fleet.numbers();
        fleet.kill(numbers[random.index(numbers.len())]);
        fleet.start();
    }
    flow.stop();
    report(plan.name, "kills", kills, fleet.finish().await);
}

pub(crate) fn report(drill: &str, what: &str, times: usize, figures: Figures) {
    println!("{drill}: {times} {what}, {figures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn kill_nine_under_load_changes_nothing() {
    let plan = Plan {
        name: "kills",
        partitions: PARTITIONS,
        settings: &[],
    };
    kill_again_and_again(plan, Load::default(), times(KILLS)).await;
}
