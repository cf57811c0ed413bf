//! What is written beside a row, in its statement and under its fence: features, template counts,
//! alarms.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/sinks.rs"]
mod sinks;
#[path = "common/windows.rs"]
mod windows;

use common::{TestDatabase, fresh_database};
use logguard::{
    event::Level,
    features::COLUMNS,
    sink::{WindowJob, alarm_id, migrate::migrate, store::TEMPLATES_LISTED_MAX},
    window::FinalBy,
};
use serde_json::{Value, json};
use sinks::{Harness, KEEP_ROWS, store_config, until};
use tokio_postgres::Client;
use windows::{Spec, job, partition};

/// A database with the schema in it, running sinks, and the fence of partition 0.
async fn claimed() -> Option<(TestDatabase, Client, Harness)> {
    let database = fresh_database().await?;
    migrate(&store_config(&database), KEEP_ROWS).await.unwrap();
    let client = database.client().await;
    let harness = Harness::start(Some(&database));
    claim(&harness).await;
    Some((database, client, harness))
}

async fn claim(harness: &Harness) -> i64 {
    let store = harness.store.as_ref().unwrap();
    let claim = store.claim(&partition(&Spec::default()), None).await;
    claim.unwrap().fence
}

/// Returns the rows of a query as JSON objects.
async fn rows(client: &Client, sql: &str) -> Vec<Value> {
    let sql = format!("SELECT to_jsonb(r) FROM ({sql}) r");
    let rows = client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Text and count of every template, in order of text.
async fn counts(client: &Client) -> Vec<(String, i64)> {
    let sql = "SELECT text, count FROM log_templates ORDER BY text";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn counted<const N: usize>(expected: [(&str, i64); N]) -> Vec<(String, i64)> {
    let owned = expected.map(|(text, count)| (text.to_owned(), count));
    owned.into()
}

fn lines(messages: &[&'static str]) -> Vec<(Level, &'static str, Option<bool>)> {
    let line = |message: &&'static str| (Level::Info, *message, None);
    messages.iter().map(line).collect()
}

/// An anomaly whose alarm is raised, whatever made it final.
fn alarming(spec: &Spec) -> WindowJob {
    WindowJob {
        alarm: true,
        ..job(&Spec {
            is_anomaly: true,
            ..spec.clone()
        })
    }
}

#[tokio::test]
async fn a_window_leaves_its_features_and_templates() {
    let Some((_database, client, mut harness)) = claimed().await else {
        return;
    };
    let spec = Spec {
        lines: vec![
            (Level::Info, "größer als \u{1f680}", None),
            (Level::Error, "a NUL \0", None),
            (Level::Info, "a NUL \0", None),
        ],
        ..Spec::default()
    };
    harness.write(vec![job(&spec)]).await;
    let sql = "SELECT *, window_start = (SELECT window_start FROM anomaly_results) AS same
               FROM window_features";
    let found = rows(&client, sql).await;
    let [row] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(row["same"], true);
    assert_eq!(row["model_checksum"], "c0ffee");
    let features = row["features"].as_object().unwrap();
    assert_eq!(features.len(), COLUMNS.len());
    assert!(COLUMNS.iter().all(|name| features[*name] == 0.5));
    let templates = rows(&client, "SELECT * FROM log_templates ORDER BY text").await;
    let listed: Vec<_> = [(0, "ERROR", 2), (1, "INFO", 1)]
        .into_iter()
        .map(|(place, level, count)| {
            let id = &templates[place]["id"];
            json!({"template": id, "service": "auth-service", "level": level, "count": count})
        })
        .collect();
    assert_eq!(row["templates"], json!(listed));
    assert_eq!(row["templates_overflow"], 0);
    assert_eq!(templates[0]["text"], "a NUL \u{fffd}");
    assert_eq!(templates[1]["text"], "größer als \u{1f680}");
    for (template, level) in templates.iter().zip(["ERROR", "INFO"]) {
        assert_eq!(template["id"].as_str().unwrap().len(), 16);
        assert_eq!(template["stream"], "log-events/0");
        assert_eq!(template["service"], "auth-service");
        assert_eq!(template["level"], level);
        assert_eq!(template["first_seen"], "2025-12-27T10:30:00+00:00");
        assert_eq!(template["last_seen"], "2025-12-27T10:30:00+00:00");
    }
    // Narrow: what moved is not written twice.
    let moved = rows(&client, "SELECT features FROM anomaly_results").await;
    assert_eq!(moved, [json!({"features": {}})]);
}

#[tokio::test]
async fn only_the_most_frequent_templates_are_listed_but_all_are_counted() {
    let Some((_database, client, mut harness)) = claimed().await else {
        return;
    };
    let names: Vec<&'static str> = (0..TEMPLATES_LISTED_MAX + 44)
        .map(|it| &*format!("template {it}").leak())
        .collect();
    let mut all = lines(&names);
    // The last one comes most often.
    all.extend(lines(&[names[names.len() - 1]; 2]));
    let spec = Spec {
        lines: all,
        ..Spec::default()
    };
    harness.write(vec![job(&spec)]).await;
    let sql = "SELECT jsonb_array_length(templates) AS listed, templates_overflow AS rest,
                      (templates -> 0 -> 'count')::int AS most FROM window_features";
    let found = rows(&client, sql).await;
    let listed = TEMPLATES_LISTED_MAX;
    assert_eq!(found, [json!({"listed": listed, "rest": 44, "most": 3})]);
    assert_eq!(counts(&client).await.len(), names.len());
}

#[tokio::test]
async fn lines_are_counted_with_the_first_final_row_only() {
    let Some((_database, client, mut harness)) = claimed().await else {
        return;
    };
    let spec = |window, final_by, messages: &[&'static str]| Spec {
        window,
        final_by,
        lines: lines(messages),
        ..Spec::default()
    };
    let open = spec(0, FinalBy::Open, &["a", "b"]);
    let full = spec(0, FinalBy::Watermark, &["a", "b", "b"]);
    harness.write(vec![job(&open)]).await;
    assert_eq!(counts(&client).await, [], "provisional rows do not count");
    harness.write(vec![job(&full)]).await;
    assert_eq!(counts(&client).await, counted([("a", 1), ("b", 2)]));
    // Written again: after a lost acknowledgement, by the next owner, or provisional once more.
    for again in [&full, &full, &open] {
        harness.write(vec![job(again)]).await;
    }
    let fence = claim(&harness).await;
    let of_next_owner = Spec {
        fence,
        assignment: 8,
        ..full
    };
    harness.write(vec![job(&of_next_owner)]).await;
    assert_eq!(counts(&client).await, counted([("a", 1), ("b", 2)]));
    // Several windows of one batch, in no order; the earliest is known, though templates in it are not.
    let of = |window, messages| Spec {
        fence,
        ..spec(window, FinalBy::Watermark, messages)
    };
    let batch = [
        of(3, &["c", "a", "d"]),
        of(0, &["a", "d", "e"]),
        of(1, &["a", "a"]),
    ];
    harness.write(batch.iter().map(job).collect()).await;
    let expected = counted([("a", 4), ("b", 2), ("c", 1), ("d", 1)]);
    assert_eq!(counts(&client).await, expected);
    let sql = "SELECT extract(epoch FROM last_seen - first_seen)::int AS seconds
               FROM log_templates ORDER BY text";
    let seen = rows(&client, sql).await;
    let seconds = [90, 0, 0, 0].map(|it| json!({"seconds": it}));
    assert_eq!(seen, seconds);
    let sql = "SELECT final_revision FROM anomaly_results ORDER BY window_start";
    let revisions = [5, 1, 1].map(|it| json!({"final_revision": it}));
    assert_eq!(rows(&client, sql).await, revisions);
}

/// A statement that was given up may still run when its batch is written again. Both begin before
/// either has written, so neither sees the other's row in its snapshot.
#[tokio::test]
async fn lines_are_counted_once_though_two_statements_write_them_at_once() {
    let Some((database, client, mut first)) = claimed().await else {
        return;
    };
    let mut second = Harness::start(Some(&database));
    let spec = Spec {
        lines: lines(&["a", "a"]),
        ..Spec::default()
    };
    let sql = "BEGIN;
         INSERT INTO anomaly_results SELECT (jsonb_populate_record(null::anomaly_results,
           to_jsonb(r) || '{\"window_start\": \"2025-12-27T10:30:00Z\",
                           \"window_end\": \"2025-12-27T10:30:30Z\"}')).* FROM anomaly_results r";
    // A row of the same shape, one window later, to copy from.
    let later = Spec {
        window: 1,
        lines: vec![],
        ..spec.clone()
    };
    first.write(vec![job(&later)]).await;
    client.batch_execute(sql).await.unwrap();
    first.sinks.try_submit(job(&spec)).unwrap();
    second.sinks.try_submit(job(&spec)).unwrap();
    let other = database.client().await;
    until("both wait for the row", async || waiting(&other).await == 2).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    first.acks(2).await;
    second.acks(2).await;
    assert_eq!(counts(&client).await, counted([("a", 2)]));
    let sql = "SELECT final_revision FROM anomaly_results WHERE log_count > 0";
    assert_eq!(rows(&client, sql).await, [json!({"final_revision": 2})]);
}

async fn waiting(client: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn lines_are_counted_once_though_the_statement_is_killed() {
    let Some((database, client, mut harness)) = claimed().await else {
        return;
    };
    let other = database.client().await;
    for (window, expected) in [(0, 2), (1, 4), (2, 6)] {
        // At its last table, with everything else written.
        let lock = "BEGIN; LOCK TABLE log_templates IN EXCLUSIVE MODE";
        client.batch_execute(lock).await.unwrap();
        let spec = Spec {
            window,
            lines: lines(&["a", "a"]),
            ..Spec::default()
        };
        harness.sinks.try_submit(job(&spec)).unwrap();
        until("it waits", async || waiting(&other).await == 1).await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
        other.execute(kill, &[]).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        harness.acks(2).await;
        assert_eq!(counts(&client).await, counted([("a", expected)]));
    }
}

#[tokio::test]
async fn a_fenced_process_writes_to_no_table() {
    let Some((_database, client, mut harness)) = claimed().await else {
        return;
    };
    claim(&harness).await;
    harness
        .sinks
        .try_submit(alarming(&Spec::default()))
        .unwrap();
    until("the row is fenced", async || {
        harness.metrics.rows_fenced.get() == 1
    })
    .await;
    let sql = "SELECT (SELECT count(*) FROM window_features) + (SELECT count(*) FROM log_templates)
                      + (SELECT count(*) FROM alarms) AS rows";
    assert_eq!(rows(&client, sql).await, [json!({"rows": 0})]);
}

#[tokio::test]
async fn an_alarm_is_kept_with_what_proves_it() {
    let Some((_database, client, mut harness)) = claimed().await else {
        return;
    };
    let spec = Spec {
        stale: true,
        reasons: vec!["a NUL \0", "größer"],
        lines: vec![
            (Level::Error, "first \0", None),
            (
                Level::Fatal,
                "second, with \"quotes\", {braces} and \\",
                None,
            ),
            (Level::Info, "third", None),
        ],
        ..Spec::default()
    };
    let alarm = alarming(&spec);
    let before = Spec {
        window: -1,
        ..spec.clone()
    };
    let mut scored = (*alarm.scored).clone();
    scored.window.max_event_time_before = Some(windows::window_start(-1));
    scored.window.previous = Some(windows::bounds(&before));
    let alarm = WindowJob {
        scored: scored.into(),
        ..alarm
    };
    harness.write(vec![job(&before), alarm.clone()]).await;
    let mut found = rows(&client, "SELECT * FROM alarms").await;
    assert_eq!(found.len(), 1, "{found:?}");
    let row = found[0].as_object_mut().unwrap();
    for name in ["raised_at", "seq", "explanation"] {
        assert!(!row.remove(name).unwrap().is_null(), "{name}");
    }
    assert_eq!(
        found[0],
        json!({
            "alarm_id": alarm_id(&alarm.scored),
            "early_at": null,
            "window_start": "2025-12-27T10:30:00+00:00",
            "window_end": "2025-12-27T10:30:30+00:00",
            "stream": "log-events/0", "topic": "log-events", "partition": 0, "service": null,
            "kind": "window", "provisional": false, "stale": true,
            "anomaly_score": 0.25, "severity": 4.5, "threshold": 1e-4,
            "log_count": 3, "error_count": 1, "critical_count": 2,
            "reasons": ["a NUL \u{fffd}", "größer"],
            "samples": ["first \u{fffd}", "second, with \"quotes\", {braces} and \\"],
            "first_offset": 100, "next_offset": 103,
            "max_event_time_before": "2025-12-27T10:29:30+00:00",
            "state_window_start": "2025-12-27T10:29:30+00:00",
            "state_window_end": "2025-12-27T10:30:00+00:00",
            "lateness_ms": 2000, "model_checksum": "c0ffee",
            "acknowledged_at": null, "acknowledged_by": null, "feedback": null,
            "feedback_note": null, "feedback_at": null, "feedback_by": null,
        })
    );
}

/// Score, whether provisional, and feedback of the only alarm; none if there is none.
async fn alarm(client: &Client) -> Option<(f64, bool, Option<String>)> {
    let sql = "SELECT anomaly_score, provisional, feedback FROM alarms";
    let rows = client.query(sql, &[]).await.unwrap();
    assert!(rows.len() <= 1);
    rows.first().map(|row| (row.get(0), row.get(1), row.get(2)))
}

#[tokio::test]
async fn final_alarms_replace_provisional_ones_and_never_the_reverse() {
    let Some((_database, client, mut harness)) = claimed().await else {
        return;
    };
    let spec = |score, final_by| Spec {
        score,
        final_by,
        ..Spec::default()
    };
    // Shutting down: a provisional row without an alarm of its own.
    let quiet = job(&Spec {
        is_anomaly: true,
        ..spec(0.1, FinalBy::Open)
    });
    harness.write(vec![quiet]).await;
    assert_eq!(alarm(&client).await, None);
    harness
        .write(vec![alarming(&spec(0.2, FinalBy::Open))])
        .await;
    assert_eq!(alarm(&client).await, Some((0.2, true, None)));
    let judge = "UPDATE alarms SET feedback = 'real', acknowledged_by = 'me'";
    client.execute(judge, &[]).await.unwrap();
    let real = Some("real".to_owned());
    for (score, final_by, stands) in [
        (0.3, FinalBy::Watermark, 0.3),
        (0.4, FinalBy::Open, 0.3),
        (0.5, FinalBy::Watermark, 0.5),
    ] {
        harness.write(vec![alarming(&spec(score, final_by))]).await;
        assert_eq!(alarm(&client).await, Some((stands, false, real.clone())));
    }
    let sql = "SELECT acknowledged_by, seq FROM alarms";
    assert_eq!(
        rows(&client, sql).await,
        [json!({"acknowledged_by": "me", "seq": 1})],
        "the alarm keeps its place for those who follow"
    );
}

/// Once told in time, and once too late from the first time on; then both are read again, too late,
/// as after a crash.
#[tokio::test]
async fn an_alarm_that_was_told_in_time_does_not_become_stale() {
    let Some((_database, client, mut harness)) = claimed().await else {
        return;
    };
    let told = |window, stale| {
        alarming(&Spec {
            window,
            stale,
            ..Spec::default()
        })
    };
    for first in [false, true] {
        harness.write(vec![told(0, first), told(1, true)]).await;
        let sql = "SELECT a.stale, r.stale AS scored_late
                   FROM alarms a JOIN anomaly_results r USING (window_start, window_end, stream)
                   ORDER BY window_start";
        let expected = [
            json!({"stale": false, "scored_late": first}),
            json!({"stale": true, "scored_late": true}),
        ];
        assert_eq!(rows(&client, sql).await, expected);
    }
}

#[tokio::test]
async fn an_alarm_that_the_final_row_does_not_confirm_stays_as_it_was_said() {
    let Some((_database, client, mut harness)) = claimed().await else {
        return;
    };
    let said = Spec {
        final_by: FinalBy::Open,
        score: 0.9,
        ..Spec::default()
    };
    let unconfirmed = Spec {
        score: 0.1,
        ..Spec::default()
    };
    // Apart, and in one batch, where only one row per key can be written.
    for window in [0, 1] {
        let of = |spec: &Spec| Spec {
            window,
            ..spec.clone()
        };
        let lock = "BEGIN; LOCK TABLE anomaly_results IN EXCLUSIVE MODE";
        if window == 1 {
            client.batch_execute(lock).await.unwrap();
        }
        let jobs = [alarming(&of(&said)), job(&of(&unconfirmed))];
        let due = jobs.iter().map(|it| harness.sinks.acks_per_window(it));
        let due = due.sum();
        for job in jobs {
            harness.sinks.try_submit(job).unwrap();
        }
        client.batch_execute("COMMIT").await.unwrap();
        harness.acks(due).await;
    }
    let sql = "SELECT a.anomaly_score AS said, a.provisional, r.anomaly_score AS stands,
                      r.is_anomaly, r.provisional AS open
               FROM alarms a JOIN anomaly_results r USING (window_start, window_end, stream)";
    let row = json!({
        "said": 0.9, "provisional": true, "stands": 0.1, "is_anomaly": 0, "open": false
    });
    assert_eq!(rows(&client, sql).await, [row.clone(), row]);
}
