//! A broker that goes away and comes back.

use std::time::{Duration, Instant};

use crate::{
    LOAD,
    common::fresh_database,
    fleet::{Fleet, Plan, STOPS_WITHIN},
    flow::Load,
    probe::{metric, says_yes},
    services::Service,
    store::wait_for_metric,
};

const PARTITIONS: usize = 4;
/// Some times the shortest pause between two commits: one that is sent meanwhile is not answered.
const COMMIT_SENT: Duration = Duration::from_millis(200);
/// How long the broker is away.
const OUTAGE: Duration = Duration::from_secs(30);

/// Prepares a fleet on a broker of its own.
async fn prepare(plan: Plan) -> Option<(Fleet, Service)> {
    let (broker, database) = (Service::kafka()?, fresh_database().await?);
    let brokers = broker.address("bootstrap");
    Some((Fleet::prepare_at(plan, brokers, database).await, broker))
}

fn load(from_s: i64) -> Load {
    Load { from_s, ..LOAD }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broker_away_for_half_a_minute_is_waited_for() {
    let plan = Plan {
        name: "broker-away",
        partitions: PARTITIONS,
        settings: &[],
    };
    let Some((mut fleet, broker)) = prepare(plan).await else {
        return;
    };
    let processors = [fleet.start(), fleet.start()];
    fleet.wait_until_owned_by(&processors).await;
    let flow = fleet.flow(load(86_400));
    fleet.wait_for_rows(40).await;
    flow.stop();
    broker.stop();
    let stopped = Instant::now();
    fleet
        .wait_until("half a minute", async |it| {
            for number in processors {
                assert!(says_yes(it.processor(number), "/livez"));
            }
            (stopped.elapsed() > OUTAGE)
                .then_some(())
                .ok_or("not yet".to_owned())
        })
        .await;
    for number in processors {
        let processor = fleet.processor(number);
        assert!(!says_yes(processor, "/readyz"), "{}", processor.log_tail());
    }
    broker.start_again();
    // What comes next goes on where the first lines ended, at the latest.
    let flow = fleet.flow(load(86_400 + 4 * 3_600));
    fleet.wait_for_rows(80).await;
    flow.stop();
    println!("broker-away: {}", fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broker_that_dies_during_a_commit_loses_none() {
    let plan = Plan {
        name: "broker-commit",
        partitions: PARTITIONS,
        settings: &[
            ("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "50"),
            ("LOGGUARD_KAFKA__SHUTDOWN_TIMEOUT_MS", "3000"),
        ],
    };
    let Some((mut fleet, broker)) = prepare(plan).await else {
        return;
    };
    let number = fleet.start();
    let commits = ("logguard_source_commits_total", &["\"ok\""][..]);
    let flow = fleet.flow(load(86_400));
    fleet.wait_for_rows(20).await;
    wait_for_metric(&mut fleet, number, commits, |it| it > 0.0).await;
    // Frozen while commits come every 50 ms, so that one is under way when it dies.
    broker.freeze();
    tokio::time::sleep(COMMIT_SENT).await;
    let before = metric(fleet.processor(number), commits.0, commits.1);
    broker.kill();
    broker.start_again();
    wait_for_metric(&mut fleet, number, commits, |it| it > before).await;
    fleet.wait_for_rows(20).await;
    flow.stop();
    // The commit that a stop waits for is not answered either.
    broker.freeze();
    let mut stopping = fleet.take(number);
    stopping.terminate();
    let code = stopping.ends(STOPS_WITHIN).await;
    assert!(
        code.is_some(),
        "ended by a signal:\n{}",
        stopping.log_tail()
    );
    broker.kill();
    broker.start_again();
    fleet.start();
    println!("broker-commit: {}", fleet.finish().await);
}
