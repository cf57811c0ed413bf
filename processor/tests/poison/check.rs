//! Compares what is there with what was written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use logguard::sink::{DEAD_LETTER_BYTES_MAX, alarm_file::alarm_keys};
use serde_json::Value;
use tokio_postgres::Client;

use crate::{broker::Record, send::Written};

/// Rows of all windows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    count: usize,
    /// `Window: start to end` of each final anomaly.
    alarms: Vec<String>,
}

/// What tells how full each queue, table and cache is, or how often it was.
const BOUNDS: [&str; 19] = [
    "logguard_outbox",
    "logguard_open_windows",
    "logguard_open_pairs",
    "logguard_streams",
    "logguard_baselines",
    "logguard_overflow_lines_total",
    "logguard_templates",
    "logguard_template_bytes",
    "logguard_template_evictions",
    "logguard_unseen_texts",
    "logguard_windows_pending",
    "logguard_windows_under_way_bytes",
    "logguard_letters_pending",
    "logguard_acks_waiting",
    "logguard_alarms_remembered",
    "logguard_sink_pending{sink=\"alarm_file\"}",
    "logguard_sink_pending{sink=\"results\"}",
    "logguard_source_paused",
    "logguard_source_pauses_total",
];

/// What was read is what was scored and what was rejected, for each reason.
pub(crate) fn metrics(metrics: &BTreeMap<String, f64>, written: &Written) {
    #[allow(clippy::cast_precision_loss, reason = "hundreds of records")]
    let float = |count: usize| count as f64;
    let get = |name: &str| {
        *metrics
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {metrics:#?}"))
    };
    for name in BOUNDS {
        get(name);
    }
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in written.letters.values() {
        *by_reason.entry(letter.reason).or_default() += 1;
    }
    for (name, value) in metrics {
        let Some(reason) = name.strip_prefix("logguard_rejected_total{reason=\"") else {
            continue;
        };
        let reason = reason.trim_end_matches("\"}");
        let expected = by_reason.get(reason).copied().unwrap_or_default();
        assert!(
            (value - float(expected)).abs() < 0.5,
            "{reason}: {value}, expected {expected}"
        );
    }
    let read = get("logguard_source_records_total");
    // The last record's window is still open.
    let scored = get("logguard_lines_total") + 1.0;
    let rejected = float(written.letters.len());
    assert!(
        (read - scored - rejected).abs() < 0.5,
        "{read} != {scored} + {rejected}"
    );
    assert!(
        (read - float(usize::try_from(written.readable).unwrap())).abs() < 0.5,
        "{read}"
    );
    for (name, expected) in [
        ("logguard_sink_pending{sink=\"dead_letter\"}", 0.0),
        ("logguard_sink_pending{sink=\"store\"}", 0.0),
        (
            "logguard_sink_delivered_total{sink=\"dead_letter\"}",
            rejected,
        ),
        ("logguard_sink_refused_total{sink=\"dead_letter\"}", 0.0),
        ("logguard_sink_refused_total{sink=\"store\"}", 0.0),
        ("logguard_sink_refused_total{sink=\"results\"}", 0.0),
        ("logguard_late_not_copied_total", 0.0),
    ] {
        assert!(
            (get(name) - expected).abs() < 0.5,
            "{name}: {}, expected {expected}",
            get(name)
        );
    }
}

/// Every rejected record is there once, with its place, reason and payload.
pub(crate) fn letters(found: &[Record], written: &Written, topic: &str) {
    let mut seen = BTreeSet::new();
    for (key, text) in found {
        let letter: Value = serde_json::from_str(text).unwrap();
        let offset = letter["offset"].as_i64().unwrap();
        let head: String = text.chars().take(300).collect();
        let expected = written
            .letters
            .get(&offset)
            .unwrap_or_else(|| panic!("surplus: {head}"));
        let kind = expected.kind;
        assert!(seen.insert(offset), "{kind}: twice");
        assert_eq!(letter["reason"], expected.reason, "{kind}: {head}");
        assert_eq!(*key, format!("{topic}/0/{offset}"), "{kind}");
        assert_eq!(
            (&letter["topic"], &letter["partition"]),
            (&topic.into(), &0.into()),
            "{kind}"
        );
        assert_eq!(letter["payload_bytes"], expected.payload.len(), "{kind}");
        let payload = letter["payload"].as_str().unwrap();
        let payload = match letter["payload_encoding"].as_str() {
            Some("base64") => STANDARD.decode(payload).unwrap(),
            _ => payload.as_bytes().to_vec(),
        };
        let kept = expected.payload.len().min(DEAD_LETTER_BYTES_MAX);
        assert!(
            payload == expected.payload[..kept],
            "{kind}: another payload: {head}"
        );
    }
    let missing = written
        .letters
        .iter()
        .filter(|(offset, _)| !seen.contains(offset));
    let missing: Vec<_> = missing.map(|(_, letter)| letter.kind).collect();
    assert!(missing.is_empty(), "no dead letter of {missing:?}");
}

/// Every counted record is a line of its window.
pub(crate) async fn rows(client: &Client, written: &Written) -> Rows {
    let sql =
        "SELECT window_start, window_end, log_count, is_anomaly, provisional FROM anomaly_results";
    let mut lines: BTreeMap<DateTime<Utc>, i64> = BTreeMap::new();
    let mut rows = Rows::default();
    for row in client.query(sql, &[]).await.unwrap() {
        let (start, end): (DateTime<Utc>, DateTime<Utc>) = (row.get(0), row.get(1));
        let (count, anomaly, provisional): (i32, i32, bool) = (row.get(2), row.get(3), row.get(4));
        rows.count += 1;
        if count > 0 {
            *lines.entry(start).or_default() += i64::from(count);
        }
        if anomaly == 1 && !provisional {
            let iso = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S.000Z");
            rows.alarms
                .push(format!("Window: {} to {}", iso(start), iso(end)));
        }
    }
    assert_eq!(lines, written.lines);
    rows.alarms.sort_unstable();
    rows
}

/// There is a result message for every row, each of them JSON. Before its last word on a window comes
/// nothing but what an early alarm says of it.
pub(crate) fn messages(messages: &[Record], rows: &Rows) {
    let mut last: BTreeMap<&[u8], Value> = BTreeMap::new();
    for (key, text) in messages {
        let message: Value = serde_json::from_str(text).unwrap();
        let stream = message["stream"].as_str().unwrap();
        assert!(key.starts_with(stream), "{key}: {text}");
        if let Some(before) = last.insert(key.as_bytes(), message) {
            assert_eq!(before["provisional"], true, "{key}: {before}, then {text}");
        }
    }
    assert_eq!(last.len(), rows.count);
}

/// The alarm file holds the alarms of the rows and their samples, whatever the samples say.
pub(crate) fn alarms(path: &Path, rows: &Rows) {
    let text = fs::read_to_string(path).unwrap();
    let mut windows = Vec::new();
    for key in alarm_keys([text.as_bytes()]) {
        let (window, stream) = key.split_once(" | ").unwrap();
        assert!(stream.starts_with("Stream: poison-"), "forged: {key}");
        windows.push(window.to_owned());
    }
    windows.sort_unstable();
    assert_eq!(windows, rows.alarms);
    // Enough of them that the texts of the corpus stand in the file.
    assert!(
        windows.len() > 60 && text.contains("forged/0"),
        "{} alarms",
        windows.len()
    );

    let hidden = |c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c);
    for line in text.lines() {
        assert!(!line.contains(hidden), "{line:?}");
        let (time, rest) = line
            .split_once(" | WARNING | ")
            .unwrap_or_else(|| panic!("{line}"));
        assert_eq!(time.len(), "2025-12-27 10:30:31".len(), "{line}");
        let alarm = rest.starts_with("ANOMALY DETECTED | Score: ");
        assert!(alarm || rest.starts_with("  Sample Error "), "{line}");
    }
}
