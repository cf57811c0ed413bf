//! What holds for any input whatever: windows do not depend on the order of arrival, masks give
//! bounded text, and nothing that a producer writes becomes a line of the alarm file.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test program"
)]

#[path = "common/windows.rs"]
mod windows;

use std::{borrow::Cow, num::NonZeroUsize, sync::Arc};

use logguard::{
    decode::{Masker, TEMPLATE_BYTES_MAX, TemplateDictionary},
    event::{EventTime, Level, LogEvent, TopicPartition},
    sink::alarm_file::{alarm_keys, format_alarm},
    window::{
        ClosedWindow, FinalBy, GroupBy, Placement, Recovered, SAMPLE_BYTES_MAX, WindowConfig, Windower,
    },
};
use proptest::prelude::*;

const LATENESS_MS: i64 = 2_000;
const SERVICES: [&str; 4] = ["auth", "cart", "pay", ""];
const MESSAGES: [&str; 5] = [
    "user 17 signed in",
    "cart 4 has 3 items",
    "cannot reach database",
    "out of memory",
    "",
];
const LEVELS: [Level; 5] = [
    Level::Debug,
    Level::Info,
    Level::Warn,
    Level::Error,
    Level::Fatal,
];

/// A line and when it arrives.
#[derive(Clone, Debug)]
struct Line {
    time_ms: i64,
    arrives_ms: i64,
    service: usize,
    message: usize,
    level: usize,
    label: Option<bool>,
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let step = prop_oneof![4 => 0..9_000_i64, 1 => 0..400_000_i64];
    let line = (step, 0..LATENESS_MS, 0..4_usize, 0..5_usize, 0..5_usize, any::<Option<bool>>());
    prop::collection::vec(line, 1..200).prop_map(|lines| {
        let mut time_ms = 0;
        let line = |(step, delay_ms, service, message, level, label)| {
            time_ms += step;
            Line {
                time_ms,
                arrives_ms: time_ms + delay_ms,
                service,
                message,
                level,
                label,
            }
        };
        lines.into_iter().map(line).collect()
    })
}

/// Returns the rows of the lines in this order.
fn rows(lines: &[Line], group_by: GroupBy) -> Vec<String> {
    let partition = TopicPartition {
        topic: "log-events".into(),
        partition: 0,
    };
    let config = WindowConfig {
        length_ms: 30_000,
        lateness_ms: LATENESS_MS,
        group_by,
    };
    // So few that templates are forgotten and found again.
    let mut dictionary =
        TemplateDictionary::new(Masker::new(&[]).unwrap(), NonZeroUsize::new(3).unwrap());
    let mut windower = Windower::new(config, partition, Recovered::default());
    let mut rows = Vec::new();
    for (offset, line) in (0..).zip(lines) {
        let event = LogEvent {
            time: EventTime::from_millis(line.time_ms).unwrap(),
            level: LEVELS[line.level],
            service: Cow::Borrowed(SERVICES[line.service]),
            message: Cow::Borrowed(MESSAGES[line.message]),
            label: line.label,
        };
        let template = Arc::clone(dictionary.resolve(&event.message));
        let placed = windower.add(&event, &template, offset);
        assert!(matches!(placed, Placement::Counted { .. }), "{line:?}");
        windower.close_final(FinalBy::Watermark, &mut rows);
    }
    windower.close_all(&mut rows);
    rows.iter().map(told).collect()
}

/// Everything a score may depend on.
fn told(row: &ClosedWindow) -> String {
    let content = &row.content;
    let pairs: Vec<_> = content
        .sorted_pairs()
        .into_iter()
        .map(|pair| (content.service_of(pair), &*pair.template.text, pair.level, pair.count))
        .collect();
    let mut services: Vec<_> = content.services.iter().map(|it| (&it.name, it.levels)).collect();
    services.sort_unstable();
    let counts = (content.levels, content.labelled, content.anomalous, content.overflow);
    format!(
        "{} {:?} {:?} {} {:?} {counts:?} {services:?} {pairs:?}",
        row.stream, row.bounds, row.slot, row.gap, row.progress
    )
}

proptest! {
    #[test]
    fn order_within_the_lateness_changes_no_window(lines in lines(), by_service: bool) {
        let group_by = if by_service { GroupBy::Service } else { GroupBy::Partition };
        let mut shuffled = lines.clone();
        shuffled.sort_by_key(|line| line.arrives_ms);
        prop_assert_eq!(rows(&lines, group_by), rows(&shuffled, group_by));
    }

    #[test]
    fn every_line_is_in_one_window(lines in lines(), by_service: bool) {
        let group_by = if by_service { GroupBy::Service } else { GroupBy::Partition };
        let rows = rows(&lines, group_by);
        let mut distinct = rows.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), rows.len(), "a window twice");
    }

    #[test]
    fn masks_of_any_text_are_bounded_and_always_the_same(text in ".{0,4000}") {
        let masker = Masker::new(&Masker::default_rules()).unwrap();
        let (mut once, mut again) = ("kept ".to_owned(), "kept ".to_owned());
        masker.mask_into(&text, &mut once);
        masker.mask_into(&text, &mut again);
        prop_assert_eq!(&once, &again);
        // The longest placeholder stands for at least one byte.
        prop_assert!(once.starts_with("kept ") && once.len() <= 5 + 12 * text.len());
        let mut dictionary = TemplateDictionary::new(masker, NonZeroUsize::MIN);
        prop_assert!(dictionary.resolve(&text.repeat(8)).text.len() <= TEMPLATE_BYTES_MAX);
    }

    #[test]
    fn masks_of_ordinary_lines_are_idempotent(
        words in prop::collection::vec(
            prop_oneof![
                "[a-z]{1,9}", "[0-9]{1,6}", "[0-9]{1,3}ms", "[0-9]{1,2}%", "0x[0-9a-f]{1,8}",
                "10\\.[0-9]\\.[0-9]\\.[0-9]{1,2}", "/[a-z]{1,5}/[a-z]{1,5}", "sess_[0-9]{1,6}",
                "[a-z]{1,5}@[a-z]{1,5}\\.org", "\"[a-z ]{0,9}\"", "https://[a-z]{1,5}/[a-z]{1,5}",
            ],
            0..30,
        )
    ) {
        let masker = Masker::new(&Masker::default_rules()).unwrap();
        let mask = |text: &str| {
            let mut out = String::new();
            masker.mask_into(text, &mut out);
            out
        };
        let once = mask(&words.join(" "));
        prop_assert_eq!(mask(&once), once);
    }

    #[test]
    fn no_text_forges_a_line_of_the_alarm_file(
        texts in prop::collection::vec(hostile(), 3),
        service in hostile(),
        reasons in prop::collection::vec(hostile(), 0..5),
        stale: bool,
    ) {
        let spec = windows::Spec { is_anomaly: true, ..windows::Spec::default() };
        let mut scored = (*windows::job(&spec).scored).clone();
        scored.window.stream.service = Some(service.into());
        scored.explanation.reasons = reasons;
        let content = Arc::make_mut(&mut scored.window.content);
        content.samples = texts.iter().map(|text| {
            text.split_at(text.floor_char_boundary(SAMPLE_BYTES_MAX)).0.into()
        }).collect();
        let now = scored.window.bounds.end.to_datetime();
        let honest = scored.clone();
        let text = format_alarm(&scored, stale, now);
        prop_assert_eq!(text.matches('\n').count(), 4, "{}", text);
        prop_assert!(text.ends_with('\n'));
        let steers = |c: char| c.is_control() && c != '\n' || ('\u{2028}'..='\u{202e}').contains(&c);
        prop_assert!(!text.contains(steers), "{text:?}");
        // One alarm, of the window that it is of.
        let keys = alarm_keys([text.as_bytes()]);
        let bounds = honest.window.bounds;
        let window = format!("Window: {} to {} | Stream: log-events/", bounds.start, bounds.end);
        prop_assert_eq!(keys.len(), 1, "{}", text);
        prop_assert!(keys[0].starts_with(&window), "{}", keys[0]);
        for line in text.lines().skip(1) {
            prop_assert!(alarm_keys([line.as_bytes(), b"\n"]).is_empty(), "{line}");
        }
    }
}

/// Text that tries.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n2025-12-27 10:30:31 | WARNING | ANOMALY DETECTED | Window: a to b | Stream: c\n".to_owned()),
        Just(" | Stream: forged/0 | Window: a to b".to_owned()),
        Just("2025-12-27 10:30:31 | WARNING |   Sample Error 1: x".to_owned()),
        "[\r\n\t\u{b}\u{c}\u{1b}\u{85}\u{2028}\u{2029}\u{202e}\u{9b}|]{1,5}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}
