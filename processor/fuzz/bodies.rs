//! What each fuzz target does with its input. Plain functions, so that an ordinary test can run
//! the corpus through them: see `tests/fuzz_corpus.rs`.
//!
//! A body fails by panicking: on a defect of the code under test, or where a promise is broken.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken promise ends the run"
)]

use std::{
    borrow::Cow,
    cell::RefCell,
    fs,
    io::{Cursor, Write},
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::Arc,
};

use logguard::{
    config::Config,
    decode::{Masker, SERVICE_BYTES_MAX, TEMPLATE_BYTES_MAX, TemplateDictionary, decode},
    event::{EventTime, Level, LogEvent, TopicPartition},
    model::{BUNDLE_FORMAT, Baseline, Bundle, Detector, ScoredWindow},
    pipeline::{Intake, Step},
    sink::alarm_file::{alarm_keys, format_alarm},
    source::{
        CommitMetadata,
        file::{FileRow, LogFile, ReadOptions},
    },
    window::{ClosedWindow, GroupBy, Recovered, WindowConfig},
};
use sha2::{Digest, Sha256};

/// What a target does with an input: it must not panic.
pub type Body = fn(&[u8]);

/// Every body by the name of its target and corpus.
pub const BODIES: [(&str, Body); 8] = [
    ("record", record),
    ("json_lines", json_lines),
    ("csv", csv),
    ("parquet", parquet),
    ("commit_metadata", commit_metadata),
    ("alarm_file", alarm_file),
    ("model", model),
    ("config", config),
];

/// Longest line that the file readers are asked to hold; small, so that inputs reach beyond it.
const LINE_BYTES_MAX: usize = 512;
/// Windows after which a stream is no longer cold, and then some.
const WARM_WINDOWS: i64 = 24;
/// Most of a rejected row that is handed over.
const REJECTED_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static DICTIONARY: RefCell<TemplateDictionary> = RefCell::new(TemplateDictionary::new(
        Masker::new(&Masker::default_rules()).unwrap(),
        NonZeroUsize::new(64).unwrap(),
    ));
}

/// A Kafka record: an event within its bounds, or a reject with a reason.
pub fn record(payload: &[u8]) {
    for record_time in [None, EventTime::from_millis(1_766_619_857_636)] {
        match decode(Some(payload), record_time) {
            Ok(event) => check_event(&event),
            Err(rejected) => assert!(!rejected.reason.as_str().is_empty()),
        }
    }
}

fn check_event(event: &LogEvent<'_>) {
    assert_eq!(
        EventTime::from_millis(event.time.as_millis()),
        Some(event.time)
    );
    assert!(event.service.len() <= SERVICE_BYTES_MAX && !event.service.contains('\0'));
    DICTIONARY.with_borrow_mut(|dictionary| {
        let template = Arc::clone(dictionary.resolve(&event.message));
        assert!(template.text.len() <= TEMPLATE_BYTES_MAX);
        assert_eq!(dictionary.resolve(&event.message), &template);
    });
}

/// JSON lines, compressed or not.
pub fn json_lines(text: &[u8]) {
    read_text("fuzz.jsonl", text);
}

/// CSV with whatever separator, compressed or not.
pub fn csv(text: &[u8]) {
    read_text("fuzz.csv", text);
}

fn read_text(name: &str, text: &[u8]) {
    let options = ReadOptions {
        line_bytes_max: LINE_BYTES_MAX,
        ..ReadOptions::default()
    };
    if let Ok(file) = LogFile::from_reader(name, Cursor::new(text.to_vec()), &options) {
        read(file);
    }
}

/// A parquet file. Its decoder panics on some damaged pages, which the reader catches; a panic
/// that it does not catch gets out of here.
pub fn parquet(bytes: &[u8]) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut file = tempfile::Builder::new()
        .suffix(".parquet")
        .tempfile()
        .unwrap();
    file.write_all(bytes).unwrap();
    if let Ok(file) = LogFile::open(file.path(), &ReadOptions::default()) {
        read(file);
    }
    std::panic::set_hook(hook);
}

/// Reads to the end: what is delivered is what is counted, and lines never go back (a lone carriage
/// return ends a record of CSV, but no line).
fn read(file: LogFile) {
    let (mut events, mut rejects, mut last_line) = (0, 0, 0);
    let summary = file.read(&mut |record| {
        assert!(
            record.line >= last_line,
            "{} after {last_line}",
            record.line
        );
        last_line = record.line;
        match record.row {
            FileRow::Event { event, .. } => {
                check_event(&event);
                events += 1;
            }
            FileRow::Rejected { payload, .. } => {
                assert!(payload.len() <= REJECTED_BYTES_MAX);
                rejects += 1;
            }
        }
        ControlFlow::Continue(())
    });
    if let Ok(summary) = summary {
        assert_eq!((summary.events, summary.rejected), (events, rejects));
    }
}

/// The metadata string of a committed offset: ours, and then exactly so, or nothing.
pub fn commit_metadata(bytes: &[u8]) {
    if let Some(metadata) = CommitMetadata::decode(bytes) {
        assert_eq!(
            CommitMetadata::decode(metadata.encode().as_bytes()),
            Some(metadata)
        );
    }
}

/// The text of an alarm file, in one piece and in two; and an alarm whose every text is the input:
/// it is one alarm of its own window, whatever it says.
pub fn alarm_file(text: &[u8]) {
    let whole = alarm_keys([text]);
    let cut = text.first().map_or(0, |byte| usize::from(*byte)) % (text.len() + 1);
    let (head, tail) = text.split_at(cut);
    assert_eq!(alarm_keys([head, tail]), whole);

    let hostile = String::from_utf8_lossy(text);
    let scored = hostile_window(&hostile);
    let alarm = format_alarm(&scored, true, scored.window.bounds.end.to_datetime());
    let lines = 1 + scored.window.content.samples.len();
    assert_eq!(alarm.lines().count(), lines, "{alarm}");
    assert!(
        !alarm.replace('\n', "").contains(char::is_control),
        "{alarm}"
    );
    let keys = alarm_keys([alarm.as_bytes()]);
    assert_eq!(keys.len(), 1, "{alarm}");
    assert!(
        keys[0].starts_with("Window: 2025-12-24T23:44:00.000Z to "),
        "{alarm}"
    );
}

/// A scored window that names `hostile` wherever a producer decides the text.
fn hostile_window(hostile: &str) -> ScoredWindow {
    let mut window = closed_windows(hostile, hostile, 1).remove(0);
    let mut baseline = Baseline::default();
    window.stream.service = Some(hostile.into());
    let mut detector = Detector::new(Arc::clone(&plain_bundle()), 1.0, 1);
    let mut scored = detector.score(window, &mut baseline);
    scored.explanation.reasons = vec![hostile.to_owned(); 4];
    scored
}

/// Windows of six lines each, closed.
fn closed_windows(service: &str, message: &str, count: i64) -> Vec<ClosedWindow> {
    const LENGTH_MS: i64 = 30_000;
    let config = WindowConfig {
        length_ms: LENGTH_MS,
        lateness_ms: 0,
        group_by: GroupBy::Partition,
    };
    let partition = TopicPartition {
        topic: "log-events".into(),
        partition: 0,
    };
    let mut intake = Intake::new(config, partition, Recovered::default());
    let mut steps = Vec::new();
    DICTIONARY.with_borrow_mut(|dictionary| {
        for line in 0..6 * count {
            let event = LogEvent {
                time: EventTime::from_millis(1_766_619_840_000 + line * LENGTH_MS / 6).unwrap(),
                level: if line % 2 == 0 {
                    Level::Error
                } else {
                    Level::Info
                },
                service: Cow::Borrowed(service),
                message: Cow::Borrowed(if line % 3 == 0 {
                    "user 17 signed in"
                } else {
                    message
                }),
                label: None,
            };
            intake.event(dictionary, &event, line, &mut steps);
        }
    });
    intake.end(&mut steps);
    let closed = steps.into_iter().filter_map(|step| match step {
        Step::Closed(window) => Some(window),
        _ => None,
    });
    closed.collect()
}

/// The content of a bundle, with a checksum that fits. What is not refused has to score.
pub fn model(content: &[u8]) {
    let Ok(content) = std::str::from_utf8(content) else {
        return;
    };
    if let Ok(bundle) = Bundle::from_bytes(envelope(content).as_bytes()) {
        use_bundle(bundle);
    }
}

fn use_bundle(bundle: Bundle) {
    let summary = bundle.summary();
    assert!(summary.eps.is_finite());
    let mut detector = Detector::new(Arc::new(bundle), 1.0, 1);
    let mut baseline = Baseline::default();
    for window in closed_windows("auth", "cannot reach database", WARM_WINDOWS) {
        let scored = detector.score(window, &mut baseline);
        let (score, severity) = (scored.verdict.anomaly_score, scored.verdict.severity);
        assert!((0.0..=1.0).contains(&score), "score {score}");
        assert!(severity.is_finite(), "severity {severity}");
        assert!(scored.features.values.iter().all(|value| value.is_finite()));
    }
}

/// Returns the file that holds `content` as a bundle's model.
fn envelope(content: &str) -> String {
    // What is hashed is the content as it stands, without the space around it.
    let content = content.trim_matches([' ', '\t', '\r', '\n']);
    let digest = Sha256::digest(content.as_bytes());
    let checksum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(r#"{{"format":{BUNDLE_FORMAT},"checksum":"{checksum}","model":{content}}}"#)
}

/// Returns the bundle that stands first in the corpus: small, complete and accepted.
fn plain_bundle() -> Arc<Bundle> {
    thread_local! {
        static BUNDLE: Arc<Bundle> = {
            let content = include_str!("corpus/model/plain.json");
            Arc::new(Bundle::from_bytes(envelope(content).as_bytes()).unwrap())
        };
    }
    BUNDLE.with(Arc::clone)
}

/// A configuration file: refused, or usable and printable.
pub fn config(text: &[u8]) {
    thread_local! {
        static DIR: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    DIR.with(|dir| {
        let file = dir.path().join("logguard.toml");
        fs::write(&file, text).unwrap();
        if let Ok(config) = Config::load(Some(&file), serde_json::json!({})) {
            assert!(config.window.window_config().length_ms > 0);
            config.to_toml().unwrap();
        }
    });
}
