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
        let fits = |it: &Self| it.windows.is_empty() || it.bytes + window.bytes() <= UNDER_WAY_BYTES_MAX;
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
