//! The rhythm of the day: how many lines an hour of the day brings, compared with the whole day.
//!
//! ```text
//! training ─► HourLevels ─► Rhythm (of the model) ─┐
//! stream   ─► Daily: its own rhythm after two days ┴─► Hour: what this hour makes expect
//! ```
//!
//! A rise that comes every morning is no news, and a noon as quiet as the night is. Within an hour
//! nothing is known of when the level changes: whatever lies between the levels of the hour before, this
//! one and the next may be the level, and half an hour to either side what it changes to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    bundle::{BundleDefect, is_usable},
    counts::CountModel,
    drift::{fine, short},
};

/// Hours of a day.
const HOURS: usize = 24;
const HOUR_MS: i64 = 3_600_000;
/// Days on which each hour has to have come before there is a rhythm.
const DAYS_MIN: u32 = 2;
/// Days over which a stream's own hours fade.
const MEMORY_DAYS: u32 = 7;
/// Hours over which its own variation fades: a week.
const MEMORY_HOURS: f64 = 168.0;
/// Windows over which the day's level fades, and before it is compared with: a day at 30 s.
const DAY_WINDOWS: u32 = 2_880;
/// Least level of an hour: a stream that rests at night may write a line then.
const LEVEL_MIN: f64 = 0.02;
/// Lines of an hour from which it says how much hours vary.
const LINES_MIN: f64 = 20.0;
/// Windows that the mean over the last minutes is worth: twice those it fades over, less one.
const RECENT_WORTH: f64 = 19.0;
/// Evidence from which a level is news, in nats, as for absences. Once an alarm told of it, it is news
/// again after so many windows with less.
const LOUD_NATS: f64 = 9.0;
const QUIET_WINDOWS: u32 = 20;

/// Levels of the hours of the day (UTC), 1 on average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rhythm {
    levels: [f64; HOURS],
    /// How much an hour varies from day to day, squared and relative, beyond what chance brings.
    variation: f64,
}

impl Rhythm {
    /// Checks what a file may have got wrong.
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        let level = |level: &f64| is_usable(*level) && *level >= LEVEL_MIN;
        if self.levels.iter().all(level) && is_usable(self.variation) && self.variation >= 0.0 {
            Ok(())
        } else {
            Err(BundleDefect::NotFinite("rhythm"))
        }
    }

    /// Makes a rhythm of the lines a window that each hour has.
    fn of(lines: [f64; HOURS], variation: f64) -> Option<Self> {
        #[allow(clippy::cast_precision_loss, reason = "24")]
        let mean = lines.iter().sum::<f64>() / HOURS as f64;
        (mean > 0.0).then(|| Self {
            levels: lines.map(|lines| (lines / mean).max(LEVEL_MIN)),
            variation,
        })
    }

    /// Returns what is usual at a time.
    fn hour(&self, at_ms: i64) -> Hour {
        let hours = |at_ms: i64| {
            let hour = at_ms.div_euclid(HOUR_MS).rem_euclid(24);
            self.levels[usize::try_from(hour).unwrap_or(0)]
        };
        let around = |step_ms: i64| {
            let around = [-step_ms, 0, step_ms].map(|step_ms| hours(at_ms.saturating_add(step_ms)));
            let [low, high] = [f64::min, f64::max]
                .map(|of: fn(f64, f64) -> f64| around.into_iter().fold(around[1], of));
            (low, high)
        };
        Hour {
            level: hours(at_ms),
            near: around(HOUR_MS / 2),
            wide: around(HOUR_MS),
            variation: self.variation,
        }
    }
}

/// What an hour of the day makes expect, compared with the whole day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hour {
    pub(super) level: f64,
    /// Least and most within half an hour: what a change of level may be explained by.
    pub(super) near: (f64, f64),
    /// Least and most within an hour: what may be the level.
    wide: (f64, f64),
    variation: f64,
}

/// Lines of the hours of training, all streams together.
#[derive(Clone, Debug, Default)]
pub(super) struct HourLevels {
    /// Number since the epoch, lines and windows; in order.
    hours: Vec<(i64, f64, u32)>,
}

impl HourLevels {
    /// Adds a window that starts at `start_ms`.
    pub(super) fn add(&mut self, start_ms: i64, lines: f64) {
        let hour = start_ms.div_euclid(HOUR_MS);
        // Nearly always the last one.
        let at = self.hours.partition_point(|(known, ..)| *known < hour);
        if self.hours.get(at).is_none_or(|(known, ..)| *known != hour) {
            self.hours.insert(at, (hour, 0.0, 0));
        }
        self.hours[at].1 += lines;
        self.hours[at].2 += 1;
    }

    /// Returns the rhythm, if each hour came on two days.
    pub(super) fn rhythm(&self) -> Option<Rhythm> {
        let mut windows: Vec<_> = self.hours.iter().map(|hour| hour.2).collect();
        windows.sort_unstable();
        let usual = windows.get(windows.len() / 2)?;
        let mut by_hour: [Vec<(f64, f64)>; HOURS] = Default::default();
        for (hour, lines, windows) in &self.hours {
            if 2 * windows >= *usual {
                let of_day = usize::try_from(hour.rem_euclid(24)).unwrap_or(0);
                by_hour[of_day].push((lines / f64::from(*windows), *lines));
            }
        }
        if by_hour.iter().any(|days| days.len() < DAYS_MIN as usize) {
            return None;
        }
        let (mut squares, mut freedoms) = (0.0, 0.0);
        for days in &by_hour {
            let told: Vec<_> = days.iter().filter(|day| day.1 >= LINES_MIN).collect();
            #[allow(clippy::cast_precision_loss, reason = "days")]
            let count = told.len() as f64;
            let mean = told.iter().map(|day| day.0.ln()).sum::<f64>() / count.max(1.0);
            let square = |day: &&(f64, f64)| (day.0.ln() - mean).powi(2);
            let chance = |day: &&(f64, f64)| 1.0 / day.1;
            squares += told.iter().copied().map(|day| square(&day)).sum::<f64>();
            // About the mean of the same days there is less of it by one day's part.
            let free = (1.0 - 1.0 / count.max(1.0)).max(0.0);
            squares -= free * told.iter().copied().map(|day| chance(&day)).sum::<f64>();
            freedoms += (count - 1.0).max(0.0);
        }
        let levels = by_hour.map(|days| median(days.into_iter().map(|day| day.0).collect()));
        Rhythm::of(levels, (squares / freedoms.max(1.0)).max(0.0))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => 0.0,
    }
}

/// A stream's own days; rides in its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Daily {
    /// The hour under way: its number since the epoch, lines and windows.
    hour: (i64, f64, u32),
    /// Lines a window per hour of the day, and days that went into it; none or 24.
    #[serde(skip_serializing_if = "is_empty")]
    hours: Arc<Vec<(f64, u32)>>,
    /// How much hours vary from day to day, and hours that went into it.
    variation: (f64, f64),
    /// Lines a window over the last day, as if all hours were alike, and windows that went into it.
    level: (f64, u32),
    /// Mean level of the hours over the windows that the stream's means are of: the last hour and the
    /// last minutes; 0 while unknown.
    pub(super) seen: (f64, f64),
    /// An alarm told of an unusual level: usual windows until it is news again.
    told: u32,
}

#[allow(clippy::ptr_arg, reason = "serde's signature")]
fn is_empty(list: &Arc<Vec<(f64, u32)>>) -> bool {
    list.is_empty()
}

/// A level that is not the usual one at this hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OddHour {
    /// Evidence, in nats.
    pub(super) nats: f64,
    /// Lines a window that are usual at this hour.
    pub(super) usual: f64,
    /// Lines a window of the last minutes.
    pub(super) recent: f64,
}

impl Daily {
    /// Returns about how many bytes the hours take beside the struct.
    pub(super) fn bytes(&self) -> usize {
        self.hours.len() * size_of::<(f64, u32)>()
    }

    /// Returns what is usual at a time, by the stream's own days or else by training's; nothing before
    /// there were two of either.
    pub(super) fn hour(&self, trained: Option<&Rhythm>, at_ms: i64) -> Option<Hour> {
        match self.rhythm() {
            Some(own) => Some(own.hour(at_ms)),
            None => trained.map(|rhythm| rhythm.hour(at_ms)),
        }
    }

    fn rhythm(&self) -> Option<Rhythm> {
        if self.hours.len() != HOURS || self.hours.iter().any(|(_, days)| *days < DAYS_MIN) {
            return None;
        }
        Rhythm::of(
            std::array::from_fn(|hour| self.hours[hour].0),
            self.variation.0,
        )
    }

    /// Judges the level of the last minutes, `recent`, to which a window of `lines` belongs; all
    /// divided by how many lines come as one. What has been told of is no news.
    pub(super) fn odd(
        &mut self,
        hour: &Hour,
        recent: f64,
        lines: f64,
        clump: f64,
    ) -> Option<OddHour> {
        if self.level.1 < DAY_WINDOWS {
            return None;
        }
        let level = self.level.0 / clump;
        let (low, high) = (level * hour.wide.0, level * hour.wide.1);
        let usual = if recent > high { high } else { low };
        let model = CountModel::with_size(RECENT_WORTH * usual, 1.0 / hour.variation.max(1e-6));
        let halfway = f64::midpoint(usual, recent);
        let ln_p = if recent > high && lines > halfway {
            model.ln_upper(RECENT_WORTH * recent)
        } else if recent < low && lines < halfway {
            model.ln_lower(RECENT_WORTH * recent)
        } else {
            0.0
        };
        // Either way, and beside the judgement by the last hour.
        let nats = (-ln_p - 2.0 * std::f64::consts::LN_2).max(0.0);
        if nats < LOUD_NATS {
            self.told = self.told.saturating_sub(1);
        }
        (self.told == 0 && nats >= LOUD_NATS).then_some(OddHour {
            nats,
            usual: usual * clump,
            recent: recent * clump,
        })
    }

    /// Notes that an alarm told of the level.
    pub(super) fn tell(&mut self) {
        self.told = QUIET_WINDOWS;
    }

    /// Adds a window in which nothing was wrong.
    pub(super) fn learn(
        &mut self,
        (start_ms, length_ms): (i64, i64),
        lines: f64,
        hour: Option<&Hour>,
    ) {
        let number = start_ms.div_euclid(HOUR_MS);
        if self.hour.0 != number {
            self.close(length_ms);
            self.hour = (number, 0.0, 0);
        }
        self.hour.1 += lines;
        self.hour.2 += 1;
        let Some(hour) = hour else {
            self.level = (0.0, 0);
            return;
        };
        if self.level.1 == 0 && self.rhythm().is_some() {
            #[allow(clippy::cast_precision_loss, reason = "24")]
            let mean = self.hours.iter().map(|hour| hour.0).sum::<f64>() / HOURS as f64;
            self.level = (fine(mean), DAY_WINDOWS);
        }
        self.level.1 = (self.level.1 + 1).min(DAY_WINDOWS);
        let weight = 1.0 / f64::from(self.level.1);
        self.level.0 = fine(self.level.0 + weight * (lines / hour.level - self.level.0));
    }

    /// Takes `recent` lines a window for the new level at this hour.
    pub(super) fn shift(&mut self, hour: Option<&Hour>, recent: f64) {
        self.seen = (0.0, 0.0);
        self.told = 0;
        self.hour = (0, 0.0, 0);
        let Some(hour) = hour.filter(|_| self.level.0 > 0.0) else {
            // Hours of two levels are no rhythm.
            self.hours = Arc::default();
            self.variation = Default::default();
            return;
        };
        let level = recent / hour.level;
        let ratio = level / self.level.0;
        for hour in Arc::make_mut(&mut self.hours) {
            hour.0 = short(hour.0 * ratio);
        }
        self.level.0 = fine(level);
    }

    /// Adds the hour that is over to its hour of the day, if at least half of it was seen.
    fn close(&mut self, length_ms: i64) {
        let (number, lines, windows) = self.hour;
        if i64::from(windows).saturating_mul(length_ms) < HOUR_MS / 2 {
            return;
        }
        let hours = Arc::make_mut(&mut self.hours);
        hours.resize(HOURS, (0.0, 0));
        let of_day = usize::try_from(number.rem_euclid(24)).unwrap_or(0);
        let (level, days) = &mut hours[of_day];
        let mean = lines / f64::from(windows);
        if *days > 0 && lines >= LINES_MIN && *level > 0.0 {
            // Both this hour and the mean of the days before vary.
            let both = 1.0 + 1.0 / f64::from(*days);
            let square = (mean / *level).ln().powi(2) / both - 1.0 / lines;
            let (variation, hours) = &mut self.variation;
            *hours = (*hours + 1.0).min(MEMORY_HOURS);
            *variation = fine((*variation + (square - *variation) / *hours).max(0.0));
        }
        *days = (*days + 1).min(MEMORY_DAYS);
        *level = short(*level + (mean - *level) / f64::from(*days));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::baseline::{Baseline, BaselineStep};

    const LENGTH_MS: i64 = 30_000;
    const DAY: i64 = 2_880;

    /// 4 lines a window at night, 40 from eight to six.
    fn lines_at(window: i64) -> f64 {
        let hour = window.rem_euclid(DAY) / 120;
        let level = if (8..18).contains(&hour) { 40.0 } else { 4.0 };
        // A little chance.
        level + f64::from(u32::try_from(window * 7 % 5).unwrap()) - 2.0
    }

    /// Runs a stream; returns per window the evidence of the last hour and of the time of the day.
    fn run(
        windows: std::ops::Range<i64>,
        baseline: &mut Baseline,
        trained: Option<&Rhythm>,
        lines: impl Fn(i64) -> f64,
    ) -> Vec<(i64, f64, f64)> {
        let evidence = windows.map(|number| {
            let (start_ms, lines) = (number * LENGTH_MS, lines(number));
            let hour = baseline.hour(trained, start_ms);
            let odd = baseline.odd_hour(hour.as_ref(), lines);
            if odd.is_some() {
                baseline.daily.tell();
            }
            let volume = baseline.volume(lines, 0.01, hour.as_ref());
            baseline.step(BaselineStep {
                lines,
                time: (start_ms, LENGTH_MS),
                hour,
                pairs: 3.0,
                clump: (lines, lines),
                anomalous: false,
            });
            (number, volume, odd.map_or(0.0, |odd| odd.nats))
        });
        evidence.collect()
    }

    fn loudest(evidence: &[(i64, f64, f64)], windows: std::ops::Range<i64>) -> (f64, f64) {
        let within = evidence.iter().filter(|e| windows.contains(&e.0));
        within.fold((0.0, 0.0), |max: (f64, f64), e| {
            (max.0.max(e.1), max.1.max(e.2))
        })
    }

    #[test]
    fn a_rise_that_comes_every_morning_is_news_until_the_stream_knows_it() {
        let evidence = run(0..5 * DAY, &mut Baseline::default(), None, lines_at);
        let morning = |day: i64| day * DAY + 950..day * DAY + 980;
        assert!(loudest(&evidence, morning(0)).0 > 20.0);
        for day in 2..5 {
            let (volume, odd) = loudest(&evidence, morning(day));
            assert!(volume < 5.0 && odd < LOUD_NATS, "{day}: {volume} {odd}");
        }
        assert!(loudest(&evidence, 3 * DAY..5 * DAY).1 < LOUD_NATS);
    }

    #[test]
    fn training_tells_of_the_rhythm_from_two_days_on() {
        let mut levels = HourLevels::default();
        for window in 0..4 * DAY {
            if window == 47 * 120 {
                assert_eq!(levels.rhythm(), None);
            }
            levels.add(window * LENGTH_MS, lines_at(window));
        }
        let rhythm = levels.rhythm().unwrap();
        rhythm.check().unwrap();
        assert!(rhythm.variation < 0.01, "{rhythm:?}");
        let ratio = rhythm.levels[12] / rhythm.levels[3];
        assert!((9.0..11.0).contains(&ratio), "{rhythm:?}");
        let evidence = run(0..DAY, &mut Baseline::default(), Some(&rhythm), lines_at);
        let (volume, _) = loudest(&evidence, 100..DAY);
        assert!(volume < 5.0, "{volume}");
    }

    #[test]
    fn a_night_at_noon_is_news_once_and_usual_at_night() {
        let mut baseline = Baseline::default();
        run(0..3 * DAY, &mut baseline, None, lines_at);
        // Falls slowly from ten on, so that no step shows.
        let falling = |window: i64| {
            let into = (window - 3 * DAY - 1_200).clamp(0, 240);
            let usual = lines_at(window);
            usual.min(40.0 - 0.15 * f64::from(u32::try_from(into).unwrap()))
        };
        let evidence = run(3 * DAY..4 * DAY, &mut baseline, None, falling);
        let told: Vec<_> = evidence.iter().filter(|e| e.2 >= LOUD_NATS).collect();
        assert!(!told.is_empty() && told.len() <= 2, "{told:?}");
        let (first, _, _) = told[0];
        assert!((1_200..1_450).contains(&(first - 3 * DAY)), "{told:?}");
        let json = serde_json::to_string(&baseline.daily).unwrap();
        assert_eq!(
            serde_json::from_str::<Daily>(&json).unwrap(),
            baseline.daily
        );
        assert!(json.len() < 500, "{}: {json}", json.len());
    }

    #[test]
    fn a_lasting_change_moves_all_hours() {
        let mut daily = Daily::default();
        for window in 0..3 * DAY {
            let time = (window * LENGTH_MS, LENGTH_MS);
            let hour = daily.hour(None, time.0);
            daily.learn(time, lines_at(window), hour.as_ref());
        }
        let noon = daily.hour(None, 12 * HOUR_MS).unwrap();
        daily.shift(Some(&noon), 120.0);
        let after = daily.hour(None, 12 * HOUR_MS).unwrap();
        assert!((after.level - noon.level).abs() < 1e-3, "{after:?}");
        assert!((daily.hours[12].0 - 120.0).abs() < 6.0, "{:?}", daily.hours);
    }
}
