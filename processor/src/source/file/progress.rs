//! How far reading has come, and a bar that shows it where someone is looking.

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadUnit {
    /// Bytes of the file as it lies on disk.
    Bytes,
    /// Rows (parquet).
    Rows,
}

/// How much of a file was read. Bytes move in chunks of a buffer, ahead of the records.
#[derive(Debug)]
pub struct ReadProgress {
    unit: ReadUnit,
    done: AtomicU64,
    /// `u64::MAX` while unknown.
    total: AtomicU64,
}

impl ReadProgress {
    pub(super) fn new(unit: ReadUnit, total: Option<u64>) -> Self {
        Self {
            unit,
            done: AtomicU64::new(0),
            total: AtomicU64::new(total.unwrap_or(u64::MAX)),
        }
    }

    /// Returns the unit of [`done`](Self::done) and [`total`](Self::total).
    #[must_use]
    pub const fn unit(&self) -> ReadUnit {
        self.unit
    }

    /// Returns how much was read.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Returns how much there is; `None` for standard input.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|total| *total != u64::MAX)
    }

    pub(super) fn add(&self, amount: u64) {
        self.done.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }
}

/// A bar on stderr; draws nothing unless stderr is a terminal. Gone when dropped.
#[derive(Debug)]
pub struct ReadBar {
    bar: ProgressBar,
    progress: Arc<ReadProgress>,
    shown: u64,
}

impl ReadBar {
    /// Returns a bar for `progress` with `label` before it, such as `reading FILE`.
    #[must_use]
    pub fn new(label: &str, progress: Arc<ReadProgress>) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(progress.total(), target);
        let template = match (progress.unit(), progress.total()) {
            (ReadUnit::Bytes, Some(_)) => "{msg} {wide_bar} {bytes}/{total_bytes} {eta}",
            (ReadUnit::Bytes, None) => "{msg} {spinner} {bytes}",
            (ReadUnit::Rows, _) => "{msg} {wide_bar} {human_pos}/{human_len} rows {eta}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(label.to_owned());
        Self {
            bar,
            progress,
            shown: 0,
        }
    }

    /// Brings the bar up to date; cheap enough to be called for every record.
    pub fn refresh(&mut self) {
        let done = self.progress.done();
        if done != self.shown {
            self.shown = done;
            self.bar.set_position(done);
        }
    }
}

impl Drop for ReadBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
