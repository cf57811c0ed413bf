//! A stream's own recent past: its volume, how its lines clump, its trailing statistics.

use serde::{Deserialize, Serialize};

use super::{
    absence::Absences,
    adoption::Adoption,
    counts::CountModel,
    drift::{Drift, fine},
    rhythm::{Daily, Hour, OddHour, Rhythm},
    silence::Silence,
    youth::Youth,
};
use crate::features::{Observed, Trailing};

/// Own windows before a stream's volume and repetition are judged.
pub const COLD_WINDOWS: u32 = 20;
/// Windows over which the past fades: an hour at 30 s.
const MEMORY_WINDOWS: u32 = 120;
/// Windows over which the last minutes fade: five at 30 s.
const RECENT_WINDOWS: u32 = 10;
/// Windows after which a lasting change of volume is taken for the new level: 2 h at 30 s.
pub const LEVEL_SHIFT_WINDOWS: u32 = 240;
/// Deviations above the mean that a usual window stays below.
const UPPER_DEVIATIONS: f64 = 3.0;
/// Largest squared relative spread that says how many lines are usual: a stream that has one line an hour
/// has none.
const SPREAD_MAX: f64 = 4.0;
/// One window moves the baseline by at most this many deviations: an incident is not a habit.
const DEVIATIONS_MAX: f64 = 4.0;

/// A stream's rolling baseline: what a score depends on besides the window and the model. Rides
/// in the row as JSON and is read back when the partition is assigned again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Baseline {
    /// Own windows that went into it.
    pub windows: u32,
    /// Lines a window, recent mean and variance.
    mean: f64,
    variance: f64,
    /// Lines a window over the last minutes.
    recent: f64,
    /// Pairs of service and template a window, recent mean; 0 while that is not known.
    pairs: f64,
    /// Recent squared deviations of template counts, observed and expected.
    clump_observed: f64,
    clump_expected: f64,
    /// Anomalous windows in a row; the volume is frozen meanwhile.
    frozen: u32,
    /// Statistics over the last 5 minutes and the last hour.
    pub(super) trailing: Trailing,
    /// Templates that training had not seen.
    pub(super) adoption: Adoption,
    /// Runs of empty windows.
    pub(super) silence: Silence,
    /// Trailing sums of familiar templates.
    pub(super) drift: Drift,
    /// How regular templates and services come and go.
    pub(super) absences: Absences,
    /// How far it is in the first day of a young model.
    #[serde(skip_serializing_if = "Youth::is_default")]
    pub(super) youth: Youth,
    /// The rhythm of its days.
    pub(super) daily: Daily,
}

/// What a window adds to the baseline.
#[derive(Clone, Copy, Debug)]
pub(super) struct BaselineStep {
    pub(super) lines: f64,
    /// Distinct pairs of service and template.
    pub(super) pairs: f64,
    /// Start and length of the window in ms.
    pub(super) time: (i64, i64),
    /// What is usual at that hour.
    pub(super) hour: Option<Hour>,
    /// Squared deviations of template counts, observed and expected.
    pub(super) clump: (f64, f64),
    /// The window was judged anomalous.
    pub(super) anomalous: bool,
}

impl Baseline {
    /// Returns whether the stream is too young for its volume to be judged.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.windows < COLD_WINDOWS
    }

    /// Returns the templates that training had not and that the stream watches or adopted.
    #[must_use]
    pub fn templates(&self) -> Vec<super::StreamTemplate> {
        self.adoption.templates()
    }

    /// Returns about how many bytes the baseline takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.adoption.bytes()
            + self.drift.bytes()
            + self.absences.bytes()
            + self.daily.bytes()
    }

    /// Returns the recent mean number of lines a window.
    #[must_use]
    pub fn usual_lines(&self) -> f64 {
        self.mean
    }

    /// Returns how many lines come as one: 1 if lines are as independent as in training, 30 if
    /// each comes 30 times over.
    pub(super) fn clump(&self) -> f64 {
        if self.clump_expected > 0.0 {
            (self.clump_observed / self.clump_expected).max(1.0)
        } else {
            1.0
        }
    }

    /// Returns -ln p of a number of lines, both ways, as far as lines are independent. It has to be
    /// unlikely both for the last hour and for the last minutes: a step up or down is news when it
    /// comes, not for as long as it lasts. A change that the hour of the day brings is none.
    pub(super) fn volume(&self, lines: f64, level_variation: f64, hour: Option<&Hour>) -> f64 {
        let clump = self.clump();
        let lines = lines / clump;
        let spread = self.volume_spread(clump) + level_variation;
        let unlikely = |mean: f64, seen: f64| {
            let (low, high) = (fall(hour, seen), rise(hour, seen));
            let model = |level: f64| CountModel::with_size(level * mean / clump, 1.0 / spread);
            let ln_p = model(high).ln_upper(lines).min(model(low).ln_lower(lines));
            (-ln_p - std::f64::consts::LN_2).max(0.0)
        };
        let seen = self.daily.seen;
        unlikely(self.mean, seen.0).min(unlikely(self.recent, seen.1))
    }

    /// Returns what is usual at a time of the day; nothing while that is unknown.
    pub(super) fn hour(&self, trained: Option<&Rhythm>, at_ms: i64) -> Option<Hour> {
        self.daily.hour(trained, at_ms)
    }

    /// Judges the level of the last minutes, with a window of `lines`, by the hour of the day.
    pub(super) fn odd_hour(&mut self, hour: Option<&Hour>, lines: f64) -> Option<OddHour> {
        let clump = self.clump();
        let recent = self.recent + self.recent_weight() * (lines - self.recent);
        self.daily.odd(hour?, recent / clump, lines / clump, clump)
    }

    fn recent_weight(&self) -> f64 {
        1.0 / f64::from(self.windows.saturating_add(1).min(RECENT_WINDOWS))
    }

    /// Returns -ln p of so many lines or more, as far as there are more than usual: never weaker for more
    /// lines.
    pub(super) fn volume_above(
        &self,
        lines: f64,
        level_variation: f64,
        hour: Option<&Hour>,
    ) -> f64 {
        let seen = self.daily.seen;
        let mean = rise(hour, seen.0) * self.mean;
        let recent = rise(hour, seen.1) * self.recent;
        if lines <= mean.max(recent) {
            return 0.0;
        }
        let clump = self.clump();
        let spread = self.volume_spread(clump) + level_variation;
        let unlikely = |mean: f64| {
            let model = CountModel::with_size(mean / clump, 1.0 / spread);
            (-model.ln_upper(lines / clump) - std::f64::consts::LN_2).max(0.0)
        };
        unlikely(mean).min(unlikely(recent))
    }

    /// Returns how many lines a window has at most, but for one in hundreds. A cold stream is taken to be
    /// as loud as training, where `training` lines a window came, if it is not louder.
    pub(super) fn upper_lines(
        &self,
        training: f64,
        level_variation: f64,
        hour: Option<&Hour>,
    ) -> f64 {
        let clump = self.clump();
        let seen = self.daily.seen;
        let mut mean = (rise(hour, seen.0) * self.mean).max(rise(hour, seen.1) * self.recent);
        if self.is_cold() {
            mean = mean.max(training);
        }
        let mean = mean / clump;
        let spread = self.volume_spread(clump).min(SPREAD_MAX) + level_variation;
        clump * (mean + UPPER_DEVIATIONS * (mean + mean * mean * spread).sqrt())
    }

    /// Returns how many distinct pairs of service and template a window has at most, but for one in
    /// hundreds; `None` while that is not known.
    pub(super) fn upper_pairs(&self) -> Option<f64> {
        (self.pairs > 0.0).then(|| self.pairs + UPPER_DEVIATIONS * self.pairs.sqrt())
    }

    /// Returns ln of the chance that a window is empty, as far as lines are independent.
    pub(super) fn ln_empty(&self, level_variation: f64) -> f64 {
        let clump = self.clump();
        let spread = self.volume_spread(clump) + level_variation;
        let least = self.mean.min(self.recent) / clump;
        CountModel::with_size(least, 1.0 / spread).ln_lower(0.0)
    }

    /// Squared relative spread of the recent past beyond chance.
    fn volume_spread(&self, clump: f64) -> f64 {
        let (mean, variance) = (self.mean / clump, self.variance / (clump * clump));
        let windows = f64::from(self.windows.clamp(1, MEMORY_WINDOWS));
        // The mean is itself uncertain while young.
        let excess = (variance - mean).max(0.0) / (mean * mean).max(1e-9);
        excess + 1.0 / (windows * mean.max(1e-3))
    }

    /// Adds the trailing statistics of a window; before it is scored.
    pub(super) fn observe(&mut self, observed: &Observed, length_ms: i64) {
        self.trailing.add(observed, length_ms);
    }

    /// Adds a window after it was scored. Returns whether a lasting change was just taken for the
    /// new level.
    pub(super) fn step(&mut self, step: BaselineStep) -> bool {
        let weight = self.recent_weight();
        self.recent += weight * (step.lines - self.recent);
        let level = step.hour.map_or(0.0, |hour| hour.level);
        self.daily.seen.1 = faded(self.daily.seen.1, level, weight);
        if step.anomalous && !self.is_cold() {
            self.frozen += 1;
            if self.frozen < LEVEL_SHIFT_WINDOWS {
                return false;
            }
            self.daily.shift(step.hour.as_ref(), self.recent);
            *self = Self {
                daily: std::mem::take(&mut self.daily),
                trailing: self.trailing,
                adoption: std::mem::take(&mut self.adoption),
                silence: self.silence,
                drift: std::mem::take(&mut self.drift),
                absences: std::mem::take(&mut self.absences),
                youth: self.youth,
                recent: self.recent,
                ..Self::default()
            };
            self.learn(step);
            return true;
        }
        self.frozen = 0;
        self.learn(step);
        false
    }

    fn learn(&mut self, step: BaselineStep) {
        let cold = self.is_cold();
        self.windows = self.windows.saturating_add(1);
        let weight = 1.0 / f64::from(self.windows.min(MEMORY_WINDOWS));
        let spread = DEVIATIONS_MAX * self.variance.max(self.mean).max(1.0).sqrt();
        let mut deviation = step.lines - self.mean;
        if !cold {
            deviation = deviation.clamp(-spread, spread);
        }
        self.mean += weight * deviation;
        let level = step.hour.map_or(0.0, |hour| hour.level);
        self.daily.seen.0 = faded(self.daily.seen.0, level, weight);
        self.daily.learn(step.time, step.lines, step.hour.as_ref());
        self.variance = (1.0 - weight) * (self.variance + weight * deviation * deviation);
        self.pairs += weight * (step.pairs - self.pairs);
        let (mut observed, expected) = step.clump;
        if !cold {
            observed = observed.min(DEVIATIONS_MAX * DEVIATIONS_MAX * self.clump() * expected);
        }
        self.clump_observed += weight * (observed.max(0.0) - self.clump_observed);
        self.clump_expected += weight * (expected - self.clump_expected);
    }
}

/// Moves the mean level of the hours on; 0 while it is unknown, so that what was before counts for
/// nothing.
fn faded(mean: f64, level: f64, weight: f64) -> f64 {
    if level <= 0.0 || mean <= 0.0 {
        level
    } else {
        fine(mean + weight * (level - mean))
    }
}

/// Returns by what factor an hour may be quieter than what was `seen` of late.
fn fall(hour: Option<&Hour>, seen: f64) -> f64 {
    let hour = hour.filter(|_| seen > 0.0);
    hour.map_or(1.0, |hour| (hour.near.0 / seen).min(1.0))
}

/// Returns by what factor an hour may be louder than what was `seen` of late.
fn rise(hour: Option<&Hour>, seen: f64) -> f64 {
    let hour = hour.filter(|_| seen > 0.0);
    hour.map_or(1.0, |hour| (hour.near.1 / seen).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(lines: f64) -> BaselineStep {
        BaselineStep {
            lines,
            pairs: 3.0,
            time: (0, 30_000),
            hour: None,
            clump: (lines, lines),
            anomalous: false,
        }
    }

    #[test]
    fn a_stream_is_cold_for_its_first_windows() {
        let mut baseline = Baseline::default();
        for _ in 0..COLD_WINDOWS {
            assert!(baseline.is_cold());
            baseline.step(quiet(5.0));
        }
        assert!(!baseline.is_cold() && (baseline.usual_lines() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn an_episode_freezes_the_volume_until_it_is_the_new_level() {
        let mut baseline = Baseline::default();
        (0..100).for_each(|i| assert!(!baseline.step(quiet(5.0 + f64::from(i % 3)))));
        let before = baseline.usual_lines();
        let loud = BaselineStep {
            anomalous: true,
            ..quiet(500.0)
        };
        for _ in 1..LEVEL_SHIFT_WINDOWS {
            assert!(!baseline.step(loud));
            assert!((baseline.usual_lines() - before).abs() < 1e-9);
        }
        assert!(baseline.step(loud), "the level shift is reported once");
        assert!(baseline.is_cold() && (baseline.usual_lines() - 500.0).abs() < 1e-9);
    }

    #[test]
    fn lines_that_all_come_thirty_times_raise_the_clump() {
        let mut baseline = Baseline::default();
        for _ in 0..COLD_WINDOWS {
            baseline.step(BaselineStep {
                clump: (900.0, 30.0),
                ..quiet(150.0)
            });
        }
        assert!((baseline.clump() - 30.0).abs() < 1e-6);
    }

    #[test]
    fn json_gives_it_back_exactly() {
        let mut baseline = Baseline::default();
        for lines in [1.0 / 3.0, 7.1, 1e9 / 7.0, 0.0] {
            baseline.step(quiet(lines));
        }
        let json = serde_json::to_string(&baseline).unwrap();
        assert_eq!(serde_json::from_str::<Baseline>(&json).unwrap(), baseline);
        assert!(json.len() < 900, "{}: {json}", json.len());
    }
}
