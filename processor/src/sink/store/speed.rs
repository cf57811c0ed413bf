//! How fast rows are written, next to pgbench with the same statement, batch and server. Not a test of
//! anything: run by hand, see `docs/adr/0008-one-statement.md` for the command and what came out.

use std::{
    fmt::Write as _,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Store, StoreConfig, Writer, arrays::Arrays, batch::Batch, columns::ResultRow,
    templates::TemplateLines, upsert::upsert_sql,
};
use crate::{
    decode::Template,
    event::{EventTime, Level, LogEvent, NextOffset, OffsetSpan, StreamKey, TopicPartition},
    features::{COLUMNS, FeatureRow},
    model::{Baseline, Explanation, ScoredWindow, Verdict},
    secret::Secret,
    sink::{
        SinkMetrics, WindowJob,
        ack::{AckSender, StopFlag},
        migrate::{MigrateOptions, migrate},
    },
    window::{ClosedWindow, FinalBy, StreamProgress, WindowBounds, WindowContent},
};

/// 2026-01-01, a Thursday long past every policy's reach.
const START_MS: i64 = 1_767_225_600_000;
const LENGTH_MS: i64 = 30_000;
const PARTITIONS: i32 = 10;
const BATCH: usize = 500;
const BATCHES: usize = 12;
/// Lines and distinct templates of a window.
const LINES: u32 = 60;
const TEMPLATES: u32 = 20;
const ROUNDS: usize = 21;

fn window(number: usize) -> WindowBounds {
    let start = START_MS + i64::try_from(number).unwrap() * LENGTH_MS;
    WindowBounds {
        start: EventTime::from_millis(start).unwrap(),
        end: EventTime::from_millis(start + LENGTH_MS).unwrap(),
    }
}

fn content(bounds: WindowBounds) -> WindowContent {
    let mut content = WindowContent::default();
    for line in 0..LINES {
        let number = line % TEMPLATES;
        let message = format!("request <num> of kind {number} took <num> ms, answered by <ip>");
        let event = LogEvent {
            time: bounds.start,
            level: if number == 0 {
                Level::Error
            } else {
                Level::Info
            },
            service: "auth-service".into(),
            message: message.as_str().into(),
            label: None,
        };
        content.add(&event, &Arc::new(Template::new(&message)));
    }
    content
}

/// The rows of one stream after the other would be windows in a row; live, streams take turns.
pub(super) fn job(number: usize) -> WindowJob {
    let partition = i32::try_from(number).unwrap() % PARTITIONS;
    let bounds = window(number / usize::try_from(PARTITIONS).unwrap());
    let progress = StreamProgress {
        row_end: bounds.end,
        empty_run: 0,
        seen_until: bounds.end,
    };
    let window = ClosedWindow {
        stream: StreamKey {
            partition: TopicPartition {
                topic: "log-events".into(),
                partition,
            },
            service: None,
        },
        bounds,
        slot: bounds.start,
        content: Arc::new(content(bounds)),
        span: Some(OffsetSpan {
            first: 100,
            next: NextOffset(100 + i64::from(LINES)),
        }),
        final_by: FinalBy::Watermark,
        gap: false,
        first: false,
        partial: false,
        max_event_time_before: None,
        previous: None,
        lateness_ms: 2_000,
        progress,
    };
    let scored = ScoredWindow {
        window,
        features: FeatureRow {
            values: (0..COLUMNS.len())
                .map(|it| 1.0 / (it as f64 + 3.0))
                .collect(),
        },
        verdict: Verdict {
            is_anomaly: false,
            anomaly_score: 0.123_456_789,
            severity: 0.4,
            cluster_label: 3,
            dbscan_score: 0.75,
            cold: false,
            level_shift: false,
            muted: false,
            learning: false,
            capped: false,
        },
        explanation: Explanation::default(),
        baseline: Baseline::default(),
        model_checksum: "0123456789abcdef".repeat(4).into(),
        threshold: 1e-4,
        early: None,
    };
    WindowJob {
        scored: Arc::new(scored),
        assignment: 1,
        fence: 1,
        alarm: true,
        stale: false,
    }
}

/// The batch as a pgbench script. Its arrays are variables, read once from a table: pgbench sends
/// them with every run, as the writer does.
async fn script(store: &Store, jobs: &[WindowJob]) -> String {
    let mut batch = Batch::default();
    for job in jobs {
        batch.push(job.clone()).unwrap();
    }
    let entries = batch.into_entries();
    let counted = TemplateLines::of(&entries);
    let arrays = Arrays::of(&entries, &counted);
    let group = "group";
    let params = arrays.params(&group);
    let mut sql = upsert_sql();
    let client = store.client().await.unwrap();
    client
        .batch_execute("CREATE TABLE parameters (number int PRIMARY KEY, p text NOT NULL)")
        .await
        .unwrap();
    let mut load = "\\if :loaded = 0\n".to_owned();
    // From the last, so that `$1` is not found in `$10`.
    for (place, param) in params.iter().enumerate().rev() {
        let number = place + 1;
        let place = format!("${number}");
        let of_type = sql.split(&format!("{place}::")).nth(1);
        let of_type = of_type.map_or("text", |it| it.split([',', ')']).next().unwrap());
        let keep = format!("INSERT INTO parameters VALUES ({number}, ($1::{of_type})::text)");
        client.execute(&keep, &[*param]).await.unwrap();
        writeln!(
            load,
            "SELECT p AS p{number} FROM parameters WHERE number = {number} \\gset"
        )
        .unwrap();
        sql = sql.replace(&place, &format!(":p{number}"));
    }
    load += "\\set loaded 1\n\\endif\n";
    let mut moved = String::new();
    for (name, _) in ResultRow::COLUMNS {
        let time = matches!(
            *name,
            "\"timestamp\"" | "\"window_start\"" | "\"window_end\""
        );
        let by = if time {
            " + :run * interval '25 minutes'"
        } else {
            ""
        };
        write!(moved, "{name}{by} AS {name}, ").unwrap();
    }
    let valid = "valid AS MATERIALIZED (\n           SELECT *";
    assert!(sql.contains(valid));
    let columns = format!(
        "valid AS MATERIALIZED (SELECT {moved} features, templates, templates_overflow, number"
    );
    let sql = sql.replacen(valid, &columns, 1);
    format!("{load}\\set run :run + 1\n{};\n", sql.replace('\n', " "))
}

/// Rows a second of pgbench.
fn pgbench(url: &str, file: &std::path::Path, first_run: usize) -> f64 {
    let output = Command::new("pgbench")
        .args([
            "-n",
            "-c",
            "1",
            "-M",
            "prepared",
            "-t",
            &BATCHES.to_string(),
        ])
        .args(["-D", "loaded=0", "-D", &format!("run={first_run}"), "-f"])
        .arg(file)
        .arg(url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = tps.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let tps: f64 = tps.split(' ').next().unwrap().parse().unwrap();
    tps * BATCH as f64
}

/// Rows a second of the writer.
async fn writer(store: &Store, jobs: Vec<WindowJob>) -> f64 {
    let (sender, acks) = crossbeam_channel::bounded(jobs.len());
    let stop = StopFlag::default();
    let metrics = SinkMetrics::default();
    let acks_sender = AckSender::new(sender, stop.clone());
    let (writer, queue) = Writer::new(store.clone(), acks_sender, stop, &metrics);
    let (rows, started) = (jobs.len(), Instant::now());
    let task = tokio::spawn(writer.run());
    for job in jobs {
        queue.send(job).await.unwrap();
    }
    drop(queue);
    task.await.unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!((acks.len(), metrics.rows_fenced.get()), (rows, 0));
    rows as f64 / seconds
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: minutes long, and its figures are the machine's"]
async fn rows_a_second_next_to_pgbench() {
    // An empty database; pgbench is looked for in PATH.
    let url = std::env::var("LOGGUARD_SPEED_DATABASE_URL").unwrap();
    let config = StoreConfig {
        url: Some(Secret::new(&url)),
        statement_timeout: Duration::from_secs(120),
        ..StoreConfig::default()
    };
    migrate(&config, MigrateOptions::default()).await.unwrap();
    let store = Store::new(&config, "group").unwrap();
    for partition in 0..PARTITIONS {
        let topic = "log-events".into();
        let claimed = store
            .claim(&TopicPartition { topic, partition }, None)
            .await;
        assert_eq!(claimed.unwrap().fence, 1, "the database is not empty");
    }
    let first: Vec<_> = (0..BATCH).map(job).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script(&store, &first).await).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // Each run writes windows that nobody has written before.
    let mut next_batch = 0;
    for round in 0..ROUNDS {
        let from = next_batch * BATCH;
        let jobs = (from..from + BATCHES * BATCH).map(job).collect();
        ours.push(writer(&store, jobs).await);
        next_batch += BATCHES;
        theirs.push(pgbench(&url, file.path(), next_batch - 1));
        next_batch += BATCHES;
        let (ours, theirs) = (ours[round], theirs[round]);
        eprintln!(
            "writer {ours:.0} rows/s, pgbench {theirs:.0} rows/s, {:.2}",
            ours / theirs
        );
    }
    let ratio = median(
        ours.iter()
            .zip(&theirs)
            .map(|(it, other)| it / other)
            .collect(),
    );
    let (ours, theirs) = (median(ours), median(theirs));
    eprintln!("medians: {ours:.0} and {theirs:.0} rows/s, ratio {ratio:.2}");
}
