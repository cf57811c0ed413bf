//! How much memory the windows take that the sinks were given: a budget in bytes beside the sinks'
//! queues, which count windows. A window of 20,000 templates takes as much as a thousand usual ones,
//! and while the store is away thousands of windows wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use crate::model::ScoredWindow;

/// Most bytes of windows under way; beyond it the outbox waits, and with it the reading.
pub(super) const UNDER_WAY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The windows that sinks still hold.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// Oldest first, each with what it takes.
    windows: VecDeque<(Weak<ScoredWindow>, usize)>,
    bytes: usize,
}

impl UnderWay {
    /// Returns how many bytes are under way.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether the sinks may be given a window; the only one under way always.
    pub(super) fn has_room_for(&mut self, window: &ScoredWindow) -> bool {
        let fits =
            |it: &Self| it.windows.is_empty() || it.bytes + window.bytes() <= UNDER_WAY_BYTES_MAX;
        fits(self) || {
            self.forget_done();
            fits(self)
        }
    }

    /// Notes a window that the sinks were given.
    pub(super) fn add(&mut self, window: &Arc<ScoredWindow>) {
        let bytes = window.bytes();
        self.bytes += bytes;
        self.windows.push_back((Arc::downgrade(window), bytes));
    }

    /// Forgets the windows that no sink holds any more.
    pub(super) fn forget_done(&mut self) {
        self.windows.retain(|(window, bytes)| {
            let held = window.strong_count() > 0;
            if !held {
                self.bytes -= bytes;
            }
            held
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::Template,
        event::{EventTime, Level, LogEvent, StreamKey, TopicPartition},
        features::FeatureRow,
        model::{Baseline, Explanation, Verdict},
        window::{ClosedWindow, FinalBy, StreamProgress, WindowBounds, WindowContent},
    };

    /// A window of so many templates of two kilobytes each.
    fn window(templates: usize) -> Arc<ScoredWindow> {
        let start = EventTime::default();
        let mut content = WindowContent::default();
        for number in 0..templates {
            let event = LogEvent {
                time: start,
                level: Level::Info,
                service: "s".into(),
                message: "m".into(),
                label: None,
            };
            content.add(&event, &Arc::new(Template::new(&format!("{number:02048}"))));
        }
        Arc::new(ScoredWindow {
            window: ClosedWindow {
                stream: StreamKey {
                    partition: TopicPartition {
                        topic: "t".into(),
                        partition: 0,
                    },
                    service: None,
                },
                bounds: WindowBounds { start, end: start },
                slot: start,
                content: Arc::new(content),
                span: None,
                final_by: FinalBy::Watermark,
                gap: false,
                first: false,
                partial: false,
                max_event_time_before: None,
                previous: None,
                lateness_ms: 0,
                progress: StreamProgress {
                    row_end: start,
                    empty_run: 0,
                    seen_until: start,
                },
            },
            features: FeatureRow { values: Vec::new() },
            verdict: Verdict {
                is_anomaly: false,
                anomaly_score: 0.0,
                severity: 0.0,
                cluster_label: -1,
                dbscan_score: 0.0,
                cold: false,
                level_shift: false,
                muted: false,
                learning: false,
                capped: false,
            },
            explanation: Explanation::default(),
            baseline: Baseline::default(),
            model_checksum: "c0ffee".into(),
            threshold: 1e-3,
            early: None,
        })
    }

    #[test]
    fn a_window_is_worth_its_texts() {
        let bytes = window(1_000).bytes();
        assert!((2_048_000..3_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn windows_wait_until_the_sinks_let_go_of_others() {
        let mut under_way = UnderWay::default();
        let mut held = Vec::new();
        let next = window(2_000);
        while under_way.has_room_for(&next) {
            let window = window(2_000);
            under_way.add(&window);
            held.push(window);
        }
        assert!(under_way.bytes() <= UNDER_WAY_BYTES_MAX);
        assert!(under_way.bytes() + next.bytes() > UNDER_WAY_BYTES_MAX);
        // Whichever it is.
        held.remove(held.len() / 2);
        assert!(under_way.has_room_for(&next));
        held.clear();
        under_way.forget_done();
        assert_eq!(under_way.bytes(), 0);
    }

    #[test]
    fn a_window_beyond_the_budget_goes_alone() {
        let mut under_way = UnderWay::default();
        let huge = window(2_000);
        under_way.bytes = UNDER_WAY_BYTES_MAX;
        assert!(under_way.has_room_for(&huge), "nothing is under way");
        under_way.bytes = 0;
        under_way.add(&huge);
        under_way.bytes = UNDER_WAY_BYTES_MAX;
        assert!(!under_way.has_room_for(&huge));
    }
}
