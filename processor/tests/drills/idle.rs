//! Partitions that fall silent beside one that does not: the clock writes their last window, and
//! what it wrote stays or gives way as it should, whoever dies meanwhile.

use crate::{
    events::{START_S, Stretch},
    fleet::{ByClock, Fleet, Plan},
    flow::Load,
    report,
};

/// The silent partition; lines flow to the others.
const SILENT: usize = 0;
const PARTITIONS: usize = 3;
const DAY_S: i64 = 86_400;

/// Returns lines of the silent partition, from the 30-second window `first` to before `end`.
fn lines(first: i64, end: i64) -> Vec<String> {
    let stretch = Stretch {
        seed: 51,
        from_s: DAY_S + first * 30,
        length_s: (end - first) * 30,
        rate_per_s: 2.0,
        anomaly_prob: 0.0,
    };
    stretch.lines()
}

/// Returns the SQL condition of the row of a window of the silent partition.
fn row_of(window: i64) -> String {
    let start = START_S + DAY_S + window * 30;
    format!("partition = {SILENT} AND window_start = to_timestamp({start})")
}

async fn begin(plan: Plan) -> Option<Fleet> {
    let mut fleet = Fleet::prepare(plan).await?;
    fleet.write(SILENT, &lines(0, 3));
    fleet.start();
    Some(fleet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_provisional_row_gives_way_to_the_final_one() {
    let plan = Plan {
        name: "idle-open",
        partitions: PARTITIONS,
        settings: &[],
    };
    let Some(mut fleet) = begin(plan).await else {
        return;
    };
    let flow = fleet.flow_to(1..PARTITIONS, Load::default());
    let last = row_of(2);
    fleet
        .wait_for_row(&format!("{last} AND final_by = 'open'"))
        .await;
    let number = fleet.numbers()[0];
    fleet.kill(number);
    fleet.start();
    fleet.write(SILENT, &lines(3, 5));
    fleet
        .wait_for_row(&format!("{last} AND final_by = 'watermark'"))
        .await;
    flow.stop();
    report(plan.name, "1 kill", fleet.finish().await);
}

/// A window that the clock made final is final for whoever comes next: what comes for it then is
/// late.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_window_the_clock_made_final_stays_final() {
    let plan = Plan {
        name: "idle-final",
        partitions: PARTITIONS,
        settings: &[("LOGGUARD_WINDOW__IDLE_FINAL_S", "8")],
    };
    let Some(mut fleet) = begin(plan).await else {
        return;
    };
    let flow = fleet.flow_to(1..PARTITIONS, Load::default());
    let last = row_of(2);
    fleet
        .wait_for_row(&format!("{last} AND final_by = 'idle'"))
        .await;
    let number = fleet.numbers()[0];
    fleet.kill(number);
    // A straggler, then the next window begins.
    let mut more = lines(2, 3).split_off(10);
    more.truncate(1);
    more.extend(lines(3, 4));
    fleet.write(SILENT, &more);
    // From here on the clock has no say.
    fleet.start_with(&[("LOGGUARD_WINDOW__IDLE_FINAL_S", "86400")]);
    flow.stop();
    let by_clock = ByClock {
        rows: 1,
        letters: 1,
    };
    report(plan.name, "1 kill", fleet.finish_with(by_clock).await);
}
