//! Alarms outside the truth per hour of the day: whether the daily rhythm is taken for news.

use serde::Serialize;

use crate::event::EventTime;

const HOUR_MS: i64 = 3_600_000;
const HOURS: usize = 24;

/// One hour of the day (UTC), over all days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HourOfDay {
    /// Windows that are not anomalous by their labels.
    pub windows: u64,
    /// Those that alarmed.
    pub false_alarms: u64,
}

/// Counts windows that are not anomalous by the hour of the day in which they start: the time, and
/// whether it alarmed.
pub fn by_hour_of_day(windows: impl IntoIterator<Item = (EventTime, bool)>) -> [HourOfDay; HOURS] {
    let mut hours = [HourOfDay::default(); HOURS];
    for (start, alarmed) in windows {
        let hour = start.as_millis().div_euclid(HOUR_MS).rem_euclid(24);
        let hour = &mut hours[usize::try_from(hour).unwrap_or(0)];
        hour.windows += 1;
        hour.false_alarms += u64::from(alarmed);
    }
    hours
}

/// Returns how many times the mean of all hours the worst hour has, by alarms per window; `None`
/// without any.
#[must_use]
pub fn worst_hour(hours: &[HourOfDay]) -> Option<f64> {
    let sum = |count: fn(&HourOfDay) -> u64| hours.iter().map(count).sum::<u64>() as f64;
    let mean = sum(|hour| hour.false_alarms) / sum(|hour| hour.windows);
    let seen = hours.iter().filter(|hour| hour.windows > 0);
    let worst = seen
        .map(|hour| hour.false_alarms as f64 / hour.windows as f64)
        .fold(0.0, f64::max);
    (mean > 0.0).then(|| worst / mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn false_alarms_are_counted_by_the_hour_in_which_they_start() {
        let at = |hour: i64| EventTime::from_millis(hour * HOUR_MS + 1).unwrap();
        // Three days; at eight each window alarms, at nine one in three.
        let windows = (0..72).map(|hour| (at(hour), hour % 24 == 8 || hour == 33));
        let hours = by_hour_of_day(windows);
        let alarms = hours.map(|hour| hour.false_alarms);
        assert_eq!((alarms[8], alarms[9], alarms.iter().sum()), (3, 1, 4));
        assert!(hours.iter().all(|hour| hour.windows == 3));
        assert_eq!(worst_hour(&hours), Some(18.0));
        assert_eq!(worst_hour(&by_hour_of_day([(at(1), false)])), None);
        assert_eq!(worst_hour(&by_hour_of_day([])), None);
    }
}
