//! The first day of a model that was learnt from little: what its thresholds claim is believed less,
//! and alarms are held back once a stream has spent its share of the budget.
//!
//! A stream has left its first day when the windows that the model was calibrated on and those of its
//! own that the model has judged add up to a day. How far it is rides in its baseline, so that a score
//! stays a function of the stream's rows.

use serde::{Deserialize, Serialize};

use super::tail::draws_beyond;

/// Milliseconds in a day.
const DAY_MS: i64 = 86_400_000;

/// How far a stream is in its first day. Default for streams of models that have one behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Youth {
    /// Windows judged so far.
    seen: u32,
    /// The day (since 1970, UTC) of the last alarm, and alarms on it.
    day: i64,
    alarms: u32,
}

impl Youth {
    /// Returns whether there is nothing to tell of it.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is done about a model being young.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Caution {
    /// Windows the model was calibrated on.
    learnt: u64,
    /// Windows in a day.
    day: u64,
    /// Alarms a stream may raise on one day.
    alarms_max: u32,
}

impl Caution {
    /// Returns what is done about a model that was calibrated on `learnt` windows of `length_ms`; nothing
    /// if that was a day or more. With a window an anomaly below `threshold`, a stream's share of the
    /// budget is `threshold` times the windows of a day; one alarm it may always raise.
    pub(super) fn of(learnt: u64, length_ms: i64, threshold: f64) -> Option<Self> {
        let day = (DAY_MS / length_ms.max(1)).unsigned_abs();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 86,400,000 and not negative"
        )]
        // The share came of a division: what is meant is the next whole number if it is that close.
        let share = (threshold * day as f64 + 1e-6).floor() as u32;
        (learnt < day).then_some(Self {
            learnt,
            day,
            alarms_max: share.max(1),
        })
    }

    /// Returns whether a stream is still in its first day.
    pub(super) fn holds(&self, youth: &Youth) -> bool {
        self.windows(youth) < self.day
    }

    /// Returns ln of a p-value as far as it can be believed after so little.
    ///
    /// The tail goes on as it fell over the `k` windows beyond which it was no longer read off single
    /// ones, and their mean is known to a factor of about `1 ± 1/√k`. The chance that another value goes
    /// as far is then not `exp(-x)` but `(1 + x/k)^-k`, which is exact for an exponential tail.
    pub(super) fn believed(&self, ln_p: f64, youth: &Youth) -> f64 {
        if !self.holds(youth) {
            return ln_p;
        }
        let draws = draws_beyond(self.windows(youth)).max(1.0);
        -draws * (-ln_p / draws).ln_1p()
    }

    /// Takes note of a window; returns whether its alarm, if it has one, is held back.
    pub(super) fn step(&self, youth: &mut Youth, window: Judged) -> bool {
        let held = window.anomalous && !window.stands && self.holds_back(youth, window.start_ms);
        if window.anomalous && !held {
            let day = window.start_ms.div_euclid(DAY_MS);
            let before = if youth.day == day { youth.alarms } else { 0 };
            (youth.day, youth.alarms) = (day, before + 1);
        }
        if !window.gap {
            youth.seen = youth.seen.saturating_add(1);
        }
        held
    }

    /// Returns whether an alarm of a window that starts at `start_ms` is held back.
    pub(super) fn holds_back(&self, youth: &Youth, start_ms: i64) -> bool {
        self.holds(youth)
            && youth.day == start_ms.div_euclid(DAY_MS)
            && youth.alarms >= self.alarms_max
    }

    /// Says why an alarm is held back.
    pub(super) fn reason(&self, youth: &Youth) -> String {
        let (windows, day) = (self.windows(youth), self.day);
        let of = match self.alarms_max {
            1 => "the one alarm".to_owned(),
            alarms => format!("the {alarms} alarms"),
        };
        format!(
            "held back: {of} of the day were raised, and the model has {windows} of {day} windows"
        )
    }

    fn windows(&self, youth: &Youth) -> u64 {
        self.learnt.saturating_add(youth.seen.into())
    }
}

/// A window that was judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) start_ms: i64,
    pub(super) gap: bool,
    pub(super) anomalous: bool,
    /// An alarm told of it before it was full.
    pub(super) stands: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH_MS: i64 = 30_000;
    const DAY: u64 = 2_880;

    fn caution(learnt: u64, alarms_per_day: f64) -> Caution {
        Caution::of(learnt, LENGTH_MS, alarms_per_day / 2_880.0).unwrap()
    }

    fn at(window: i64, anomalous: bool) -> Judged {
        Judged {
            start_ms: window * LENGTH_MS,
            gap: false,
            anomalous,
            stands: false,
        }
    }

    #[test]
    fn a_model_of_a_day_is_believed() {
        assert_eq!(Caution::of(DAY, LENGTH_MS, 1e-4), None);
        assert!(Caution::of(DAY - 1, LENGTH_MS, 1e-4).is_some());
    }

    #[test]
    fn what_is_claimed_is_believed_less_the_less_was_learnt() {
        let youth = Youth::default();
        let claimed: Vec<f64> = (0..400).map(|tenth| -f64::from(tenth) / 10.0).collect();
        let believed = |learnt: u64| {
            let caution = caution(learnt, 1.0);
            let believed: Vec<f64> = claimed
                .iter()
                .map(|ln_p| caution.believed(*ln_p, &youth))
                .collect();
            assert!(
                believed.windows(2).all(|pair| pair[0] > pair[1]),
                "it ranks"
            );
            believed
        };
        let (few, some, most) = (believed(12), believed(60), believed(2_800));
        for (place, claim) in claimed.iter().enumerate() {
            assert!(*claim <= most[place] && most[place] <= some[place]);
            assert!(some[place] <= few[place] && few[place] <= 0.0);
        }
        // One alarm a day, ln 2,880 = 7.97, takes 12.3 nats after half an hour and 9.2 near the end.
        let needed = |learnt: u64| {
            let threshold = -(DAY as f64).ln();
            let caution = caution(learnt, 1.0);
            let reached = |ln_p: &&f64| caution.believed(**ln_p, &youth) <= threshold;
            -*claimed.iter().find(reached).unwrap()
        };
        assert!((needed(42) - 12.3).abs() < 0.15, "{}", needed(42));
        assert!((needed(2_800) - 9.2).abs() < 0.15, "{}", needed(2_800));
    }

    #[test]
    fn a_stream_that_has_seen_the_rest_of_the_day_is_grown_up() {
        let (caution, mut youth) = (caution(2_877, 1.0), Youth::default());
        for window in 0..3 {
            assert!(caution.holds(&youth));
            assert!(!caution.step(&mut youth, at(window, false)));
        }
        assert!(!caution.holds(&youth));
        assert!((caution.believed(-9.0, &youth) + 9.0).abs() < 1e-12);
    }

    #[test]
    fn alarms_beyond_the_budget_of_a_day_are_held_back() {
        let (caution, mut youth) = (caution(60, 2.0), Youth::default());
        let held: Vec<bool> = (0..5)
            .map(|window| caution.step(&mut youth, at(window, true)))
            .collect();
        assert_eq!(held, [false, false, true, true, true]);
        assert!(!caution.step(&mut youth, at(2_880, true)), "another day");
        assert!(caution.reason(&youth).contains("2 alarms of the day"));
    }

    #[test]
    fn a_share_below_one_alarm_is_one() {
        let (caution, mut youth) = (caution(60, 0.1), Youth::default());
        assert!(!caution.step(&mut youth, at(0, true)));
        assert!(caution.step(&mut youth, at(1, true)));
    }

    #[test]
    fn the_state_comes_back_as_it_was() {
        let (caution, mut youth) = (caution(60, 1.0), Youth::default());
        caution.step(&mut youth, at(100, true));
        let json = serde_json::to_string(&youth).unwrap();
        assert_eq!(serde_json::from_str::<Youth>(&json).unwrap(), youth);
        assert!(!youth.is_default() && Youth::default().is_default());
    }
}
