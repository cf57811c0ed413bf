//! Early alarms of one partition: at each second of event time that records pass, the windows that are
//! next to become final are looked at.
//!
//! Whether an alarm is raised, and on which lines, is a function of the records in offset order and the
//! model, whatever died in between:
//!
//! - seconds are those of the largest event time, which commits carry;
//! - a window is judged from when the watermark has passed its start, hence against the state that the
//!   window before has left, which rides in its row; while both are open it is not;
//! - its records are read again from its first one until it is done, so each second is passed again.

use std::{collections::HashMap, sync::Arc};

use super::{Shared, redact_samples};
use crate::{
    event::{EventTime, NextOffset},
    model::{Baseline, EarlyAlarm, OpenWatch, ScoredWindow},
    window::{ClosedWindow, Windower},
};

/// Length of a pane, in milliseconds of event time.
pub const PANE_MS: i64 = 1_000;

/// What is known of the windows that are next to become final.
#[derive(Debug, Default)]
pub(super) struct EarlyWatch {
    /// First event time that is in no pane passed.
    next_pane: Option<EventTime>,
    /// Start of the windows under watch.
    start: EventTime,
    /// By name of the stream; no more than the windower has open.
    windows: HashMap<Arc<str>, Watched>,
}

#[derive(Debug)]
enum Watched {
    Open(Box<OpenWatch>),
    Raised(Arc<EarlyAlarm>),
}

impl EarlyWatch {
    /// Returns the watch of a partition whose records so far reach to `max_event_time`.
    pub(super) fn new(max_event_time: Option<EventTime>) -> Self {
        let mut watch = Self::default();
        watch.pass(max_event_time);
        watch
    }

    /// Returns whether `max_event_time` passes the end of a pane.
    #[inline]
    pub(super) fn is_due(&self, max_event_time: Option<EventTime>) -> bool {
        max_event_time >= self.next_pane
    }

    /// Takes the panes before `max_event_time` as passed.
    pub(super) fn pass(&mut self, max_event_time: Option<EventTime>) {
        self.next_pane =
            max_event_time.map(|time| time.window_start(PANE_MS).saturating_add(PANE_MS));
    }

    /// Returns the alarm that told of a window.
    pub(super) fn alarm_of(&self, window: &ClosedWindow) -> Option<Arc<EarlyAlarm>> {
        if window.gap || window.bounds.start != self.start {
            return None;
        }
        let name = window.stream.service.as_deref().unwrap_or_default();
        match self.windows.get(name)? {
            Watched::Raised(alarm) => Some(Arc::clone(alarm)),
            Watched::Open(_) => None,
        }
    }

    /// Looks at the windows that are next to become final, after the record before `next`; returns those
    /// that are alarms, by the name of their stream.
    pub(super) fn look(
        &mut self,
        (windower, baselines): (&Windower, &HashMap<Option<Arc<str>>, Baseline>),
        shared: &mut Shared,
        next: NextOffset,
    ) -> Vec<ScoredWindow> {
        let mut alarms = Vec::new();
        let (Some(start), Some(at)) = (windower.next_final(), windower.max_event_time()) else {
            return alarms;
        };
        if start != self.start {
            self.start = start;
            self.windows.clear();
        }
        let fresh = Baseline::default();
        for (name, content) in windower.open_at(start) {
            // The usual case of one stream takes no key of its own.
            let service = windower.by_service().then(|| Arc::clone(name));
            let known = baselines.get(&service);
            let known = known.filter(|_| !windower.is_first(start, name));
            let baseline = known.unwrap_or(&fresh);
            if baseline.windows == 0 {
                // Nobody knows how many lines are usual.
                continue;
            }
            let detector = &mut shared.detector;
            let watched = match self.windows.get_mut(name) {
                Some(watched) => watched,
                None => {
                    let stream = windower.stream_key(name);
                    let watch = detector.watch(&stream, baseline, start);
                    let watch = Watched::Open(Box::new(watch));
                    self.windows.entry(Arc::clone(name)).or_insert(watch)
                }
            };
            let Watched::Open(watch) = watched else {
                continue;
            };
            if !detector.look(watch, (content, start), baseline) {
                continue;
            }
            let Some(mut row) = windower.open_row(start, name) else {
                continue;
            };
            redact_samples(&shared.redactor, &mut row);
            let judged = shared.detector.judge_early(row, baseline, (at, next));
            if let Some(scored) = judged
                && let Some(alarm) = &scored.early
            {
                *watched = Watched::Raised(Arc::clone(alarm));
                alarms.push(scored);
            }
        }
        alarms.sort_unstable_by(|a, b| a.window.stream.cmp(&b.window.stream));
        alarms
    }
}
