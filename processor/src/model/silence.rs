//! Whether a stream that writes nothing is silent, or merely between two lines.
//!
//! The chance of a run of empty windows is judged by the stream's own runs: how often one begins,
//! how often it goes on. It is told once per run, and a run that was told of teaches nothing.

use serde::{Deserialize, Serialize};

use super::drift::fine;

/// Windows over which the past fades: a day at 30 s.
const MEMORY_WINDOWS: f64 = 2_880.0;
/// Weight, in empty windows, of what the number of lines makes expect of a run.
const RUN_PRIOR: f64 = 5.0;
/// Silence may take this share of the alarm budget.
const LN_BUDGET_SHARE: f64 = -std::f64::consts::LN_10;
/// A run is not remarkable unless it is this many times the longest of late.
const LONGEST_FACTOR: f64 = 1.5;

/// The runs of empty windows of one stream; rides in its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Silence {
    /// Windows, those that were empty, and runs of such; fading.
    windows: f64,
    empty: f64,
    runs: f64,
    /// Longest run of late, slowly fading.
    longest: f64,
    /// Empty windows of the run under way.
    run: u32,
    /// It was told of.
    told: bool,
}

impl Silence {
    /// Adds `windows` windows, empty or not. Returns the length of the run under way and ln of the
    /// chance that a run gets as long in a given window of normal time; nothing once told.
    pub(super) fn observe(
        &mut self,
        empty: bool,
        windows: u32,
        ln_p_empty: f64,
    ) -> Option<(u32, f64)> {
        if !empty {
            self.end_run();
            self.windows += 1.0;
            self.fade();
            return None;
        }
        self.run = self.run.saturating_add(windows);
        if self.told {
            return None;
        }
        Some((self.run, self.ln_p(ln_p_empty)))
    }

    /// Returns after how many more empty windows the run is an alarm, if that is within `most`.
    pub(super) fn due(&self, ln_p_empty: f64, ln_threshold: f64, most: u32) -> Option<u32> {
        let mut ahead = *self;
        (1..=most).find(|_| {
            let found = ahead.observe(true, 1, ln_p_empty);
            found.is_some_and(|(_, ln_p)| Self::is_alarm(ln_p, ln_threshold))
        })
    }

    /// Notes that an alarm told of the run under way.
    pub(super) fn tell(&mut self) {
        self.told = true;
    }

    /// Returns whether `ln_p` is an alarm where `ln_threshold` is that of windows.
    pub(super) fn is_alarm(ln_p: f64, ln_threshold: f64) -> bool {
        ln_p < ln_threshold + LN_BUDGET_SHARE
    }

    /// Returns whether an alarm told of the run under way.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    fn end_run(&mut self) {
        if self.run > 0 && !self.told {
            let run = f64::from(self.run);
            self.windows += run;
            self.empty += run;
            self.runs += 1.0;
            self.longest = self.longest.max(run);
        }
        self.run = 0;
        self.told = false;
    }

    fn fade(&mut self) {
        if self.windows > MEMORY_WINDOWS {
            let keep = MEMORY_WINDOWS / self.windows;
            self.windows = MEMORY_WINDOWS;
            for sum in [&mut self.empty, &mut self.runs] {
                *sum = fine(*sum * keep);
            }
            self.longest = fine(self.longest * (1.0 - 0.25 / MEMORY_WINDOWS));
        }
    }

    /// ln of the chance that a window of normal time is the one at which a run gets this long.
    fn ln_p(&self, ln_p_empty: f64) -> f64 {
        let run = f64::from(self.run);
        if run < LONGEST_FACTOR * self.longest {
            return 0.0;
        }
        let begins = (self.runs + 0.5) / (self.windows + 1.0);
        let goes_on = (self.empty - self.runs).max(0.0) + RUN_PRIOR * ln_p_empty.exp();
        let goes_on = goes_on / (self.empty + RUN_PRIOR);
        let begins = begins.ln().max(ln_p_empty).min(0.0);
        begins + (run - 1.0) * goes_on.clamp(1e-12, 1.0).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LN_THRESHOLD: f64 = -7.97;

    /// Feeds runs of (windows with lines, empty ones); returns at which run it was told of.
    fn told(ln_p_empty: f64, runs: &[(u32, u32)]) -> Vec<(usize, u32)> {
        let mut silence = Silence::default();
        let mut told = Vec::new();
        for (number, &(busy, quiet)) in runs.iter().enumerate() {
            (0..busy).for_each(|_| assert_eq!(silence.observe(false, 1, ln_p_empty), None));
            for _ in 0..quiet {
                if let Some((run, ln_p)) = silence.observe(true, 1, ln_p_empty)
                    && Silence::is_alarm(ln_p, LN_THRESHOLD)
                {
                    silence.tell();
                    told.push((number, run));
                }
            }
        }
        told
    }

    #[test]
    fn a_busy_stream_is_missed_within_two_windows_and_each_time() {
        let quiet_twice = told(-20.0, &[(100, 30), (200, 4), (50, 0)]);
        assert_eq!(quiet_twice, [(0, 2), (1, 2)]);
    }

    #[test]
    fn a_sparse_stream_may_pause_as_it_used_to() {
        let mut runs: Vec<_> = (0..300).map(|n| (2, [1, 3, 12, 1, 6][n % 5])).collect();
        runs.push((2, 17));
        assert!(told(-0.5, &runs).is_empty());
        runs.push((2, 200));
        assert_eq!(told(-0.5, &runs).len(), 1);
    }

    #[test]
    fn json_gives_it_back_exactly() {
        let mut silence = Silence::default();
        for window in 0..4_000 {
            silence.observe(window % 7 == 0, 1, -2.0);
            let json = serde_json::to_string(&silence).unwrap();
            assert_eq!(serde_json::from_str::<Silence>(&json).unwrap(), silence);
            assert!(json.len() < 120, "{json}");
        }
    }
}
