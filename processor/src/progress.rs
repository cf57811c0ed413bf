//! A progress bar for work that is counted; draws on standard error, and only on a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that is gone when dropped.
#[derive(Debug)]
pub struct CountBar(ProgressBar);

impl CountBar {
    /// Returns a bar labelled `label` that is full at `total`.
    #[must_use]
    pub fn new(label: &str, total: u64) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}")
        {
            bar.set_style(style);
        }
        bar.set_message(label.to_owned());
        Self(bar)
    }

    /// Shows that `done` is done.
    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for CountBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
