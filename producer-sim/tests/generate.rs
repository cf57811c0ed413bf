//! `producer-sim generate`, run as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

const LEVELS: [&str; 5] = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL"];

fn simulator(dir: &Path, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_producer-sim"))
        .args(args.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap()
}

fn generated(dir: &TempDir, args: &str) {
    let output = simulator(dir.path(), args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args}: {stderr}");
    assert!(output.stdout.is_empty());
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect()
}

#[test]
fn json_lines_keep_the_contract_and_match_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    generated(
        &dir,
        "generate --seed 1 --days 0.2 --anomaly-prob 0.05 --out a.jsonl --truth t.jsonl",
    );
    let events = json_lines(&fs::read(dir.path().join("a.jsonl")).unwrap());
    let mut labelled = 0;
    let mut last = String::new();
    for event in &events {
        let timestamp = event["timestamp"].as_str().unwrap();
        let time = chrono::DateTime::parse_from_rfc3339(timestamp).unwrap();
        assert!(
            timestamp.len() == 24 && timestamp >= last.as_str(),
            "{timestamp} {time}"
        );
        last = timestamp.to_owned();
        assert!(LEVELS.contains(&event["level"].as_str().unwrap()));
        assert!(!event["service"].as_str().unwrap().is_empty());
        assert!(!event["message"].as_str().unwrap().is_empty());
        let is_anomaly = event["is_anomaly"].as_u64().unwrap();
        assert_eq!(
            is_anomaly == 1,
            event.get("anomaly_type").is_some(),
            "{event}"
        );
        labelled += is_anomaly;
    }
    assert!((15_000..25_000).contains(&events.len()), "{}", events.len());
    let truth = json_lines(&fs::read(dir.path().join("t.jsonl")).unwrap());
    let counted: u64 = truth
        .iter()
        .map(|incident| incident["lines"].as_u64().unwrap())
        .sum();
    assert!(labelled > 0 && labelled == counted, "{labelled} {counted}");
    assert!(truth.iter().all(|incident| {
        incident["start"].as_str() < incident["end"].as_str() && incident["kind"].is_string()
    }));
}

#[test]
fn csv_and_compressed_files_hold_the_same_events() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "generate --seed 3 --duration 2h --rate 2 --anomaly-prob 0.1 --out";
    for name in ["a.jsonl", "a.csv", "a.csv.gz", "a.jsonl.zst"] {
        generated(&dir, &format!("{flags} {name}"));
    }
    let bytes = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(bytes("a.csv.gz").as_slice())
        .read_to_end(&mut unzipped)
        .unwrap();
    assert!(unzipped == bytes("a.csv"));
    assert!(zstd::decode_all(bytes("a.jsonl.zst").as_slice()).unwrap() == bytes("a.jsonl"));

    let events = json_lines(&bytes("a.jsonl"));
    let csv = bytes("a.csv");
    let mut reader = csv::Reader::from_reader(csv.as_slice());
    let header = reader.headers().unwrap().clone();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), events.len());
    for (row, event) in rows.iter().zip(&events) {
        for (name, field) in header.iter().zip(row) {
            let expected = match &event[name] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            assert_eq!(field, expected, "{name}");
        }
    }
}

#[test]
fn the_same_flags_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for flags in ["--days 0.05", "--days 0.05 --hard --anomaly-prob 0.2"] {
        let run = |seed: u32| {
            generated(
                &dir,
                &format!("generate --seed {seed} {flags} --out a.jsonl --truth t.jsonl"),
            );
            let read = |name| fs::read(dir.path().join(name)).unwrap();
            (read("a.jsonl"), read("t.jsonl"))
        };
        let first = run(5);
        assert!(first == run(5), "{flags}: not reproducible");
        assert!(first.0 != run(6).0, "{flags}: the seed is ignored");
    }
}

#[test]
fn standard_output_can_be_cut_off() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_producer-sim"))
        .args(["generate", "--days", "2", "--out", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(
        first.starts_with("{\"timestamp\":\"2025-01-06T00:00:0"),
        "{first}"
    );
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn bad_flags_and_paths_are_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code, expected) in [
        ("--rate 0", 2, "expected 0.1 to 200000"),
        ("--rate fast", 2, "not a number"),
        ("--anomaly-prob 2", 2, "expected 0 to 1"),
        ("--duration soon", 2, "--duration"),
        ("generate", 2, "--out <FILE>"),
        ("generate --start yesterday --out a", 2, "--start"),
        (
            "generate --days 1 --out no/such/dir/a.jsonl",
            3,
            "cannot open `no/such/dir/a.jsonl`",
        ),
        ("generate --days 1 --out .", 3, "cannot open `.`"),
        ("broker --topic a:0", 2, "expected 1 to 1000 partitions"),
        ("broker --topic nocolon", 2, "expected NAME:PARTITIONS"),
        ("broker --listen nowhere", 2, "expected IP:PORT"),
        ("--kafka nonsense=1", 3, "nonsense"),
        ("--kafka acks=0", 3, "this property is the program's own"),
    ] {
        let output = simulator(dir.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args}: {stderr}");
        assert!(stderr.contains(expected), "{args}: {stderr}");
        if code != 2 {
            assert_eq!(stderr.lines().count(), 1, "{args}: {stderr}");
        }
        assert!(output.stdout.is_empty(), "{args}");
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "left something behind"
    );
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    for args in ["--help", "generate --help", "broker --help", "run --help"] {
        let output = simulator(dir.path(), args);
        assert!(output.status.success());
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Examples:"), "{args}: {help}");
    }
}
