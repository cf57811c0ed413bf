//! The reference data, where it lies beside the project (`../shared/data`): what is read must be
//! what its descriptions say. Skipped, with a word, where it is not there.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test stops at the first surprise, and a skipped one says so"
)]

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf};

use logguard::source::file::{FileRow, LogFile, ReadOptions, TimeOrder};

fn reference(name: &str) -> Option<PathBuf> {
    let project = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let found = project
        .ancestors()
        .map(|folder| folder.join("shared/data").join(name))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no ../shared/data/{name} here");
    }
    found
}

#[derive(Default)]
struct Counts {
    events: u64,
    rejected: u64,
    anomalous: u64,
    types: BTreeMap<String, u64>,
    beyond_lateness: u64,
    first: String,
    last: String,
}

fn count(path: &std::path::Path, label_column: &str) -> Counts {
    let options = ReadOptions {
        label_column: label_column.to_owned(),
        ..ReadOptions::default()
    };
    let mut counts = Counts::default();
    let mut order = TimeOrder::new(2_000);
    let summary = LogFile::open(path, &options)
        .unwrap()
        .read(&mut |record| {
            if let FileRow::Event {
                event,
                anomaly_type,
            } = record.row
            {
                order.observe(event.time);
                counts.anomalous += u64::from(event.label == Some(true));
                if let Some(name) = anomaly_type {
                    *counts.types.entry(name.into_owned()).or_default() += 1;
                }
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    counts.events = summary.events;
    counts.rejected = summary.rejected;
    counts.beyond_lateness = order.beyond_lateness;
    counts.first = order.first.unwrap().to_string();
    counts.last = order.last.unwrap().to_string();
    counts
}

#[test]
fn the_training_lines_are_all_read() {
    let Some(path) = reference("reference/training_logs.parquet") else {
        return;
    };
    let counts = count(&path, "is_anomaly");
    assert_eq!((counts.events, counts.rejected), (131_935, 0));
    assert_eq!(counts.anomalous, 771);
    let types: Vec<(&str, u64)> = counts
        .types
        .iter()
        .map(|(name, lines)| (name.as_str(), *lines))
        .collect();
    assert_eq!(
        types,
        [
            ("cascade_failure", 179),
            ("cascade_spike", 195),
            ("new_pattern", 40),
            ("resource_spike", 153),
            ("security_breach", 33),
            ("spike_error_spike", 171),
        ]
    );
    assert_eq!(counts.first, "2025-12-17T23:44:21.030Z");
}

#[test]
fn the_test_lines_are_all_read() {
    let Some(path) = reference("reference/test_logs.csv") else {
        return;
    };
    let counts = count(&path, "is_anomaly");
    assert_eq!((counts.events, counts.rejected), (10_045, 0));
    assert_eq!(counts.first, "2025-12-24T23:44:17.636Z");
}

#[test]
fn the_hdfs_lines_carry_two_labels() {
    let Some(path) = reference("hdfs/hdfs_first60.parquet") else {
        return;
    };
    let derived = count(&path, "is_anomaly");
    let official = count(&path, "block_anomaly");
    assert_eq!((derived.events, derived.rejected), (83_936, 0));
    assert!(derived.anomalous > 0 && derived.anomalous < official.anomalous);
    assert_eq!(derived.first, "2008-11-09T20:35:30.000Z");
    assert_eq!(derived.last, "2008-11-10T20:21:53.000Z");
}
