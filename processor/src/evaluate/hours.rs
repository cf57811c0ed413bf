//! False alarms by hour of day: a rhythm that the detector does not know shows here.

use serde::Serialize;

use super::{Kept, Truth, ratio};

const HOUR_MS: i64 = 3_600_000;

/// Alarms by the hour of day (UTC) at which their windows start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlarmHours {
    /// False alarms per hour of day; all alarms if the input carries no labels.
    pub per_hour: [u64; 24],
    /// Windows per hour of day; of labelled input those that labels judge.
    pub windows: [u64; 24],
    /// The hour with the most alarms per window, the earliest of equals; absent without alarms.
    pub worst_hour: Option<usize>,
    /// Its alarms per window over those of the whole day.
    pub worst_over_mean: Option<f64>,
}

impl AlarmHours {
    /// Counts the false alarms among `windows`, or all alarms if `judged` is false.
    pub(super) fn of(windows: &[Kept], judged: bool) -> Self {
        let (mut per_hour, mut counts) = ([0_u64; 24], [0_u64; 24]);
        for window in windows {
            let hour = window.start.as_millis().div_euclid(HOUR_MS).rem_euclid(24);
            let hour = usize::try_from(hour).unwrap_or(0);
            counts[hour] += u64::from(!judged || window.truth != Truth::Unlabelled);
            let counted = !judged || matches!(window.truth, Truth::Normal | Truth::Empty);
            per_hour[hour] += u64::from(window.alarmed && counted);
        }
        let rate = |hour: usize| ratio(per_hour[hour] as f64, counts[hour] as f64);
        let mut worst: Option<(usize, f64)> = None;
        for hour in 0..24 {
            if let Some(rate) = rate(hour).filter(|rate| *rate > 0.0)
                && worst.is_none_or(|(_, most)| rate > most)
            {
                worst = Some((hour, rate));
            }
        }
        let all: (u64, u64) = (per_hour.iter().sum(), counts.iter().sum());
        let mean = ratio(all.0 as f64, all.1 as f64);
        Self {
            per_hour,
            windows: counts,
            worst_hour: worst.map(|(hour, _)| hour),
            worst_over_mean: worst.zip(mean).map(|((_, rate), mean)| rate / mean),
        }
    }
}
