//! Offsets that change behind the processors' backs: an operator moves them, or retention deletes
//! what they point at.

use std::collections::BTreeMap;

use crate::{
    broker,
    events::Stretch,
    fleet::{Fleet, Plan},
    flow::Load,
    report,
};

const PARTITIONS: usize = 2;

/// Lines of twenty minutes, 40 windows.
const STRETCH: Stretch = Stretch {
    seed: 41,
    from_s: 86_400,
    length_s: 20 * 60,
    rate_per_s: 4.0,
    anomaly_prob: 0.15,
};

/// Sets the group's offset of every partition.
fn move_offsets(fleet: &Fleet, to: impl Fn(i64) -> i64) -> BTreeMap<i32, i64> {
    let (group, topic) = (fleet.own("group"), fleet.own("in"));
    let mut offsets = broker::committed(&fleet.brokers, &group, &topic);
    for offset in offsets.values_mut() {
        *offset = to(*offset);
    }
    broker::reset_offsets(&fleet.brokers, &group, &topic, &offsets);
    offsets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_operator_goes_back_to_the_beginning() {
    let plan = Plan {
        name: "reset",
        partitions: PARTITIONS,
        settings: &[],
    };
    let Some(mut fleet) = Fleet::prepare(plan).await else {
        return;
    };
    let flow = fleet.flow(Load {
        seed: 42,
        ..Load::default()
    });
    let first = fleet.start();
    fleet.wait_for_total_rows(60).await;
    fleet.stop(first).await;
    move_offsets(&fleet, |_| 0);
    fleet.start();
    fleet.wait_for_total_rows(90).await;
    flow.stop();
    let figures = fleet.finish().await;
    // Every window is told again, and says the same.
    assert!(figures.tally.republished >= 60, "{figures}");
    report(plan.name, "1 reset to the beginning", figures);
}

/// From the midst, streams begin anew: scores may differ, counts may not, and the window that
/// reading begins in gives way to the complete row.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_operator_goes_back_into_the_midst() {
    let plan = Plan {
        name: "reset-midst",
        partitions: PARTITIONS,
        settings: &[],
    };
    let Some(mut fleet) = Fleet::prepare(plan).await else {
        return;
    };
    let flow = fleet.flow(Load {
        seed: 43,
        ..Load::default()
    });
    let first = fleet.start();
    fleet.wait_for_total_rows(60).await;
    fleet.stop(first).await;
    move_offsets(&fleet, |committed| committed / 2);
    fleet.start();
    fleet.wait_for_total_rows(90).await;
    flow.stop();
    let replayed = fleet.replay();
    fleet.wait_for_the_end(&replayed.oracle).await;
    fleet.stop_all().await;
    assert_eq!(
        fleet.count("partial").await,
        0,
        "a partial row replaced a complete one"
    );
    let tally = replayed.oracle.check_counts(&fleet.outcome().await);
    assert_eq!(tally.windows, replayed.oracle.closed_count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn retention_deletes_what_was_not_read() {
    let plan = Plan {
        name: "retention",
        partitions: 1,
        settings: &[],
    };
    let Some(mut fleet) = Fleet::prepare(plan).await else {
        return;
    };
    let lines = STRETCH.lines();
    let (read, rest) = lines.split_at(lines.len() / 4);
    let (deleted, left) = rest.split_at(rest.len() / 3);
    fleet.write(0, read);
    let first = fleet.start();
    fleet.wait_for_total_rows(8).await;
    fleet.stop(first).await;
    let rows_before = fleet.count("NOT provisional").await;
    fleet.write(0, deleted);
    let low = i64::try_from(read.len() + deleted.len()).unwrap();
    broker::delete_before(&fleet.brokers, &fleet.own("in"), 0, low).await;
    fleet.write(0, left);
    let second = fleet.start();
    fleet
        .wait_for_log(second, "retention deleted records before they were read")
        .await;
    let replayed = fleet.replay();
    fleet.wait_for_the_end(&replayed.oracle).await;
    fleet.stop_all().await;
    // What was final before is there and complete; from the hole on, everything that is there is
    // counted, and the windows that may lack lines say so.
    let tally = replayed.oracle.check_counts(&fleet.outcome().await);
    assert!(tally.windows > 15, "{tally}");
    assert!(fleet.count("partial AND log_count > 0").await >= 1);
    let complete = fleet
        .count(&format!(
            "NOT partial AND NOT provisional AND next_offset <= {}",
            read.len()
        ))
        .await;
    assert!(
        complete >= rows_before,
        "{complete} of {rows_before} rows from before the hole"
    );
}
