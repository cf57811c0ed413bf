//! Whatever the order of arrival within the lateness, beyond it, and around gaps: the records of a
//! window's offsets, the state before it and the largest event time before it give its score again,
//! bit for bit.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "common/log.rs"]
mod log;
#[path = "common/model.rs"]
mod model;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use logguard::{
    decode::Template,
    event::{EventTime, StreamKey},
    model::{Baseline, Bundle, Detector, Mute, Mutes, Pattern, ScoredWindow},
    pipeline::{PartitionPipeline, Shared, Step},
    rescore::{Provenance, Rescoring},
    sink::results::result_message,
    window::{
        FinalBy, GroupBy, OTHER_SERVICES, Recovered, StreamProgress, WindowBounds, WindowConfig,
    },
};
use proptest::prelude::*;

use crate::{
    log::{log, record},
    model::{MESSAGES, bundle, partition},
};

const CONFIG: WindowConfig = WindowConfig {
    length_ms: 30_000,
    lateness_ms: 2_000,
    group_by: GroupBy::Partition,
};

static BUNDLE: LazyLock<Arc<Bundle>> = LazyLock::new(|| bundle(CONFIG));

fn shared(threshold: f64, mutes: &Mutes) -> Shared {
    let detector = Detector::with_threshold(Arc::clone(&BUNDLE), threshold);
    let mut shared = Shared::new(detector).unwrap();
    shared.set_mutes(Arc::new(mutes.clone()));
    shared
}

/// The windows of a log as they close, and those that are open at its end.
fn windows(
    log: &[String],
    group_by: GroupBy,
    mutes: &Mutes,
) -> (Vec<ScoredWindow>, Vec<ScoredWindow>) {
    let mut shared = shared(1e-3, mutes);
    let config = WindowConfig { group_by, ..CONFIG };
    let mut pipeline =
        PartitionPipeline::new(config, partition(), Recovered::default(), Vec::new());
    let mut steps = Vec::new();
    for (offset, payload) in (0..).zip(log) {
        pipeline.record(&mut shared, record(offset, payload), &mut steps);
    }
    let closed = steps.into_iter().filter_map(|step| match step {
        Step::Closed(scored) => Some(scored),
        _ => None,
    });
    (closed.collect(), pipeline.score_open(&mut shared))
}

/// What a result says, but for what made the window final.
fn text(scored: &ScoredWindow) -> String {
    let mut scored = scored.clone();
    scored.window.final_by = FinalBy::Watermark;
    scored.window.partial = false;
    serde_json::to_string(&result_message(&scored, false)).unwrap()
}

type States = HashMap<(StreamKey, WindowBounds), (StreamProgress, Baseline)>;

/// Every state as the table gives it back.
fn states(windows: &[ScoredWindow]) -> States {
    let state = |scored: &ScoredWindow| {
        let json = serde_json::to_string(&scored.baseline).unwrap();
        let window = &scored.window;
        let key = (window.stream.clone(), window.bounds);
        (key, (window.progress, serde_json::from_str(&json).unwrap()))
    };
    let rows = windows.iter().filter(|scored| !scored.window.gap);
    rows.map(state).collect()
}

fn rescored(
    scored: &ScoredWindow,
    (log, states, shared): (&[String], &States, &mut Shared),
) -> (ScoredWindow, usize) {
    let window = &scored.window;
    let state = window.previous.map(|previous| {
        let key = (window.stream.clone(), previous);
        states.get(&key).cloned().unwrap()
    });
    let provenance = Provenance {
        stream: window.stream.clone(),
        bounds: window.bounds,
        span: window.span,
        max_event_time_before: window.max_event_time_before,
        lateness_ms: window.lateness_ms,
        state,
        open: window.final_by == FinalBy::Open,
        early: false,
    };
    let mut again = Rescoring::new(provenance, shared);
    let mut lines = 0;
    if let Some(span) = window.span {
        // An early alarm may come with a record of another stream, after the window's last one.
        let next = scored.early.as_ref().map_or(span.next, |early| early.next);
        for offset in span.first..span.next.max(next).0 {
            let payload = &log[usize::try_from(offset).unwrap()];
            lines += usize::from(again.record(record(offset, payload)).is_some());
        }
    }
    (again.finish().unwrap(), lines)
}

fn mutes(group_by: GroupBy, kinds: &[(u8, i64)]) -> Mutes {
    let at = |minutes: i64| EventTime::from_millis(1_000_000_000_000 + minutes * 60_000).unwrap();
    let stream = match group_by {
        GroupBy::Partition => partition().to_string(),
        GroupBy::Service => format!("{}/auth", partition()),
    };
    Mutes::new((1..).zip(kinds).map(|(id, (kind, minutes))| Mute {
        id,
        stream: stream.clone(),
        pattern: match kind {
            0 => Pattern::Critical,
            1 => Pattern::Volume,
            _ => Pattern::Template {
                template: Template::new(MESSAGES[4]).hash,
                text: MESSAGES[4].to_owned(),
            },
        },
        active_from: at(*minutes),
        expires_at: at(minutes + 10),
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn a_window_is_scored_the_same_again(
        log in log(),
        by_service: bool,
        kinds in prop::collection::vec((0_u8..3, 0_i64..20), 0..3),
    ) {
        let group_by = if by_service { GroupBy::Service } else { GroupBy::Partition };
        let mutes = mutes(group_by, &kinds);
        let (closed, open) = windows(&log, group_by, &mutes);
        let mut states = states(&closed);
        // What is open follows what is closed.
        states.extend(self::states(&open));
        // Masks take long to compile; caches change no result.
        let mut shared = shared(1e-3, &mutes);
        for scored in closed.iter().chain(&open).filter(|scored| !scored.window.gap) {
            let (again, lines) = rescored(scored, (&log, &states, &mut shared));
            prop_assert_eq!(text(&again), text(scored));
            prop_assert_eq!(&again.baseline, &scored.baseline);
            prop_assert_eq!(lines, usize::try_from(scored.window.content.lines()).unwrap());
        }
    }
}

#[test]
fn services_that_share_a_stream_are_not_told_apart() {
    let provenance = |service: &str| Provenance {
        stream: StreamKey {
            partition: partition(),
            service: Some(service.into()),
        },
        bounds: WindowBounds {
            start: EventTime::default(),
            end: EventTime::default(),
        },
        span: None,
        max_event_time_before: None,
        lateness_ms: 0,
        state: None,
        open: false,
        early: false,
    };
    assert!(provenance("auth").is_told_apart());
    assert!(!provenance(OTHER_SERVICES).is_told_apart());
}
