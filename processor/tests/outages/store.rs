//! PostgreSQL that is away, slow, dead on the wire or cut off, and migrations that fail.

use std::time::{Duration, Instant};

use crate::{
    LOAD,
    common::{fresh_database, fresh_database_at, kafka_brokers},
    events::Stretch,
    fleet::{Fleet, Plan},
    probe::{memory_peak_mib, metric, says_yes},
    program::run,
    proxy::{Cut, Proxy, Wire},
    services::Service,
};

const PARTITIONS: usize = 4;
/// A buffer that is full within seconds.
const SMALL_BUFFER: [(&str, &str); 2] = [
    ("LOGGUARD_STORE__BUFFER_ROWS_MAX", "40"),
    ("LOGGUARD_STORE__BATCH_ROWS_MAX", "10"),
];
/// As short as Kafka's rules for it allow, so that a member that does not poll is soon out.
const MAX_POLL_INTERVAL: (&str, &str) = ("LOGGUARD_KAFKA__MAX_POLL_INTERVAL_MS", "10000");
/// How long the group is watched while partitions are paused: longer than that interval.
const PAUSED_FOR: Duration = Duration::from_secs(12);
/// Lines before the outage: ten minutes, so that every partition is in its midst.
const BEFORE: Stretch = Stretch {
    seed: 31,
    from_s: 86_400,
    length_s: 600,
    rate_per_s: 10.0,
    anomaly_prob: 0.15,
};
/// Lines during the outage, an hour of them.
const DURING: Stretch = Stretch {
    seed: 32,
    from_s: 87_000,
    length_s: 3_600,
    rate_per_s: 6.0,
    anomaly_prob: 0.15,
};
/// Bytes by which each of those is longer than it need be: 60 MB of backlog.
const BALLAST_BYTES: usize = 3_000;
/// What memory may grow by in an outage: what librdkafka fetches ahead (16 MiB), rows that wait
/// and rows in the outbox, and as much again for what the allocator keeps.
const GROWTH_MAX_MIB: u64 = 40;

/// Writes a stretch of lines, dealt out to the partitions, each longer by `ballast` bytes.
fn write(fleet: &Fleet, stretch: Stretch, ballast: usize) {
    let mut partitions = vec![Vec::new(); PARTITIONS];
    for (number, line) in stretch.lines().into_iter().enumerate() {
        let padding = "x".repeat(ballast);
        let line = line.replacen('{', &format!("{{\"trace\":\"{padding}\","), 1);
        partitions[number % PARTITIONS].push(line);
    }
    for (partition, lines) in partitions.iter().enumerate() {
        fleet.write(partition, lines);
    }
}

/// Waits until a metric of a processor is as it should be.
pub(crate) async fn wait_for_metric(
    fleet: &mut Fleet,
    number: usize,
    (name, labels): (&str, &[&str]),
    reached: impl Fn(f64) -> bool,
) {
    fleet
        .wait_until(name, async |it| {
            let value = metric(it.processor(number), name, labels);
            reached(value).then_some(()).ok_or(format!("{value}"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn postgres_away_for_longer_than_the_buffer_lasts_delays_rows_and_nothing_else() {
    let plan = Plan {
        name: "pg-away",
        partitions: PARTITIONS,
        settings: &[SMALL_BUFFER[0], SMALL_BUFFER[1], MAX_POLL_INTERVAL],
    };
    let (Some(brokers), Some(server)) = (kafka_brokers(), Service::postgres()) else {
        return;
    };
    let database = fresh_database_at(server.address("superuser_url")).await;
    let mut fleet = Fleet::prepare_at(plan, brokers, database).await;
    let number = fleet.start();
    write(&fleet, BEFORE, 0);
    fleet.wait_for_total_rows(60).await;
    let rebalances = ("logguard_source_rebalances_total", &[][..]);
    let rebalanced = metric(fleet.processor(number), rebalances.0, rebalances.1);
    let memory_before = memory_peak_mib(fleet.processor(number));

    server.kill();
    write(&fleet, DURING, BALLAST_BYTES);
    wait_for_metric(&mut fleet, number, ("logguard_source_paused", &[]), |it| {
        it == 1.0
    })
    .await;
    let paused_at = Instant::now();
    fleet
        .wait_until("the group goes on", async |it| {
            let processor = it.processor(number);
            let lost = metric(processor, rebalances.0, rebalances.1) - rebalanced;
            assert_eq!(lost, 0.0, "a rebalance although the group was polled");
            assert!(says_yes(processor, "/livez"));
            (paused_at.elapsed() > PAUSED_FOR)
                .then_some(())
                .ok_or("not long enough".to_owned())
        })
        .await;
    let processor = fleet.processor(number);
    assert!(!says_yes(processor, "/readyz"));
    assert_eq!(metric(processor, "logguard_sink_up", &["\"store\""]), 0.0);
    assert_eq!(metric(processor, "logguard_source_paused", &[]), 1.0);
    let waiting = metric(processor, "logguard_sink_pending", &["\"store\""]);
    // A full buffer and what is being written.
    assert!(
        (40.0..=51.0).contains(&waiting),
        "rows that wait: {waiting}"
    );
    for lag in ["read", "commit"] {
        let lag = format!("logguard_source_{lag}_lag_records");
        let lag = (metric(processor, &lag, &[]), lag);
        assert!(lag.0 > 10_000.0, "{} of {}", lag.0, lag.1);
    }
    let grown = memory_peak_mib(processor) - memory_before;
    println!("pg-away: {memory_before} MiB before, {grown} MiB more in the outage");
    assert!(grown <= GROWTH_MAX_MIB, "grown by {grown} MiB");

    server.start_again();
    fleet.client = fleet.database.client().await;
    wait_for_metric(&mut fleet, number, ("logguard_source_paused", &[]), |it| {
        it == 0.0
    })
    .await;
    println!("pg-away: {}", fleet.finish().await);
}

/// Prepares a fleet whose processors reach the database by way of a proxy.
async fn prepare_with_proxy(plan: Plan) -> Option<(Fleet, Proxy)> {
    let mut fleet = Fleet::prepare(plan).await?;
    let proxy = Proxy::start(&fleet.database.url).await;
    fleet.database_url = proxy.url(&fleet.database.name);
    Some((fleet, proxy))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_that_answers_slowly_gets_every_row() {
    let plan = Plan {
        name: "pg-slow",
        partitions: PARTITIONS,
        settings: &SMALL_BUFFER,
    };
    let Some((mut fleet, proxy)) = prepare_with_proxy(plan).await else {
        return;
    };
    let flow = fleet.flow(LOAD);
    fleet.start();
    fleet.wait_for_rows(10).await;
    proxy.set(Wire::Slow(Duration::from_millis(150)));
    // One that starts, claims and takes over while every answer takes so long.
    fleet.start();
    fleet.wait_for_rows(60).await;
    let first = fleet.numbers()[0];
    fleet.stop(first).await;
    fleet.wait_for_rows(60).await;
    flow.stop();
    proxy.set(Wire::Sound);
    println!("pg-slow: {}", fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_midst_of_a_batch_loses_and_doubles_no_row() {
    const CUTS: u32 = 10;
    let plan = Plan {
        name: "pg-cut",
        partitions: PARTITIONS,
        settings: &[],
    };
    let Some((mut fleet, proxy)) = prepare_with_proxy(plan).await else {
        return;
    };
    let flow = fleet.flow(LOAD);
    let number = fleet.start();
    fleet.wait_for_rows(10).await;
    for done in 1..=CUTS {
        proxy.cut(if done % 2 == 0 {
            Cut::Request
        } else {
            Cut::Answer
        });
        fleet
            .wait_until("the wire is cut", async |_| {
                let cuts = proxy.cuts();
                (cuts == done).then_some(()).ok_or(format!("{cuts} cuts"))
            })
            .await;
        fleet.wait_for_rows(4).await;
    }
    let retries = ("logguard_sink_retries_total", &["\"store\""][..]);
    let retries = metric(fleet.processor(number), retries.0, retries.1);
    assert!(retries >= f64::from(CUTS), "{retries} retries");
    flow.stop();
    println!("pg-cut: {CUTS} cuts, {}", fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_that_takes_everything_and_answers_nothing_is_left_and_tried_again() {
    let plan = Plan {
        name: "pg-dead",
        partitions: PARTITIONS,
        settings: &[
            ("LOGGUARD_STORE__STATEMENT_TIMEOUT", "1s"),
            ("LOGGUARD_STORE__CONNECT_TIMEOUT", "1s"),
        ],
    };
    let Some((mut fleet, proxy)) = prepare_with_proxy(plan).await else {
        return;
    };
    let flow = fleet.flow(LOAD);
    let number = fleet.start();
    fleet.wait_for_rows(10).await;
    proxy.set(Wire::Dead);
    // Several attempts end by their timeout, on connections that were open and on new ones.
    let retries = ("logguard_sink_retries_total", &["\"store\""][..]);
    wait_for_metric(&mut fleet, number, retries, |it| it >= 3.0).await;
    // One that starts now says so and waits; it joins the group all the same.
    let second = fleet.start();
    fleet
        .wait_until("partitions wait for the store", async |it| {
            let log = it.processor(second).log();
            log.contains("partition waits for the store")
                .then_some(())
                .ok_or(it.processor(second).log_tail())
        })
        .await;
    proxy.set(Wire::Sound);
    fleet.wait_for_rows(40).await;
    flow.stop();
    println!("pg-dead: {}", fleet.finish().await);
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_half_done() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let client = database.client().await;
    // Stands where the last but one migration wants its table.
    client
        .batch_execute("CREATE VIEW models AS SELECT 1 AS one")
        .await
        .unwrap();
    let migrate = || run(dir.path(), ["migrate", "--database-url", &database.url]);
    let failed = migrate();
    let stderr = String::from_utf8(failed.stderr).unwrap();
    assert!(!failed.status.success());
    assert!(stderr.contains("models"), "{stderr}");
    // Each migration is whole or not there: the history and the tables agree.
    let sql = "SELECT max(version), to_regclass('alarms') IS NOT NULL,
                      to_regclass('deploys') IS NULL FROM refinery_schema_history";
    let row = client.query_one(sql, &[]).await.unwrap();
    let found: (i32, bool, bool) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(found, (7, true, true));
    // No processor starts on such a database, and it says what to do.
    let args = ["run", "--database-url", &database.url];
    let refused = run(dir.path(), args);
    assert!(!refused.status.success());
    client.batch_execute("DROP VIEW models").await.unwrap();
    let done = migrate();
    assert!(done.status.success(), "{done:?}");
    let done = String::from_utf8(done.stdout).unwrap();
    assert!(
        done.contains("applied V8__models") && !done.contains("V7"),
        "{done}"
    );
}
