//! Deaths between two steps that nothing may come between: the process ends there at once, as by
//! kill -9, and the next one goes on.
//!
//! The points (`fail_point!` in the program) are there in tests alone: a release has the macros of
//! a crate without its feature, which are nothing.
//!
//! | point | between |
//! |---|---|
//! | `store.before_write` | rows taken from the queue, and their statement |
//! | `store.written` | rows stored, and their acks |
//! | `commit.before` | something done, and its commit |
//! | `revoke.draining` | partitions asked back, and everything of them durable |
//! | `alarm_file.locked` | the lock of the alarm file taken, and the file read |
//! | `alarm_file.before_write` | an alarm due, and its line |
//! | `alarm_file.written` | its line in the file, and that on disk |
//! | `learning.enough` | enough found to learn from, and reading it (`learn.rs`) |
//! | `learning.learnt` | the first model learnt, and its being published (`learn.rs`) |
//! | `alarm_file.torn` | a part of its line in the file, and that cut off again |

use std::fs;

use crate::{
    LOAD,
    fleet::{Fleet, Plan, STOPS_WITHIN},
    flow::Flow,
};

const PARTITIONS: usize = 4;

async fn prepare(name: &'static str) -> Option<(Fleet, Flow)> {
    let plan = Plan {
        name,
        partitions: PARTITIONS,
        settings: &[],
    };
    let fleet = Fleet::prepare(plan).await?;
    let flow = fleet.flow(LOAD);
    Some((fleet, flow))
}

/// Starts a processor that is to die at a point, and waits until it has.
async fn die_at(fleet: &mut Fleet, points: &str) {
    let number = fleet.start_with(&[("FAILPOINTS", points)]);
    let mut dying = fleet.take(number);
    let code = dying.ends(STOPS_WITHIN).await;
    assert_eq!(
        code,
        None,
        "{points}: ended by itself\n{}",
        dying.log_tail()
    );
}

/// Has one processor after the other die at a point, later each time, and the last one go on.
async fn die_again_and_again(name: &'static str, point: &str, passes: &[u32]) {
    let Some((mut fleet, flow)) = prepare(name).await else {
        return;
    };
    for pass in passes {
        die_at(&mut fleet, &format!("{point}={pass}*off->return")).await;
    }
    fleet.start();
    fleet.wait_for_rows(20).await;
    flow.stop();
    println!("{name}: {} deaths, {}", passes.len(), fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_death_after_a_write_and_before_its_ack() {
    die_again_and_again("after-write", "store.written", &[0, 1, 6, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_death_before_a_commit() {
    die_again_and_again("before-commit", "commit.before", &[0, 1, 7, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_death_while_revoked_partitions_are_drained() {
    const SLOW_DRAIN: &str = "revoke.draining=1*off->return;store.before_write=sleep(200)";
    let Some((mut fleet, flow)) = prepare("draining").await else {
        return;
    };
    for _ in 0..2 {
        let dying = fleet.start_with(&[("FAILPOINTS", SLOW_DRAIN)]);
        fleet.wait_for_rows(8).await;
        let mut dying = fleet.take(dying);
        // Who joins makes the group ask for partitions back.
        let next = fleet.start();
        assert_eq!(dying.ends(STOPS_WITHIN).await, None, "{}", dying.log_tail());
        fleet.wait_for_rows(8).await;
        fleet.stop(next).await;
    }
    fleet.start();
    flow.stop();
    println!("draining: {}", fleet.finish().await);
}

/// Returns how many final rows of anomalies there are, and how many alarms in the file.
async fn rows_and_alarms(fleet: &Fleet) -> (u64, usize) {
    let rows = fleet.count("NOT provisional AND is_anomaly = 1").await;
    let text = fs::read_to_string(fleet.path("anomalies.log")).unwrap_or_default();
    let alarms = text
        .lines()
        .filter(|it| !it.contains(" | Provisional: yes"));
    let alarms = alarms.filter(|it| it.contains("ANOMALY DETECTED")).count();
    (rows, alarms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_death_after_the_alarm_and_before_the_row() {
    let Some((mut fleet, flow)) = prepare("alarm-row").await else {
        return;
    };
    for alarms in [1, 3] {
        let points =
            format!("alarm_file.written={alarms}*off->return;store.before_write=sleep(30000)");
        let (rows_before, alarms_before) = rows_and_alarms(&fleet).await;
        die_at(&mut fleet, &points).await;
        let (rows, alarms) = rows_and_alarms(&fleet).await;
        assert!(
            rows == rows_before && alarms > alarms_before,
            "{rows} {alarms}"
        );
    }
    fleet.start();
    fleet.wait_for_rows(20).await;
    flow.stop();
    println!("alarm-row: {}", fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_death_after_the_row_and_before_the_alarm() {
    let Some((mut fleet, flow)) = prepare("row-alarm").await else {
        return;
    };
    for alarms in [0, 2] {
        let points =
            format!("alarm_file.locked=sleep(1000);alarm_file.before_write={alarms}*off->return");
        die_at(&mut fleet, &points).await;
        let (rows, alarms) = rows_and_alarms(&fleet).await;
        assert!(rows > alarms as u64, "{rows} rows, {alarms} alarms");
    }
    fleet.start();
    fleet.wait_for_rows(20).await;
    flow.stop();
    println!("row-alarm: {}", fleet.finish().await);
}
