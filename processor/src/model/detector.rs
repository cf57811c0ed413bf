//! The scorer: one window at a time, against a bundle and the stream's baseline.

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    Baseline, Bundle, ScoredWindow, Verdict,
    adoption::{AdoptionStep, Unseen},
    baseline::BaselineStep,
    calibration::{Evidence, Kind},
    explain::{Findings, adoption, explain},
    profile::{Facts, TextCache},
    signals::{Signals, TrailingFindings, signals, signals_without},
    silence::Silence,
};
use crate::{
    features::{Observed, observe, row},
    window::{ClosedWindow, TemplateCount},
};

/// Texts of unseen templates kept, so that a release does not cost a tokenisation per window.
const UNSEEN_TEXTS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// Evidence from which an alarm is taken to have told of a trailing sum, in nats.
const SETTLE_NATS: f64 = 3.0;
/// Milliseconds in a day.
const DAY_MS: f64 = 86_400_000.0;
/// The budget is kept within one alarm in 10^12 windows and every second window.
const LN_THRESHOLD_RANGE: (f64, f64) = (-27.631, -std::f64::consts::LN_2);

/// Scores windows.
#[derive(Debug)]
pub struct Detector {
    bundle: Arc<Bundle>,
    ln_threshold: f64,
    unseen: TextCache,
}

impl Detector {
    /// Returns a scorer that spends `alarms_per_day` false alarms over `streams` streams on normal
    /// time. Values that make no sense are brought to the nearest that do.
    #[must_use]
    pub fn new(bundle: Arc<Bundle>, alarms_per_day: f64, streams: usize) -> Self {
        #[allow(
            clippy::cast_precision_loss,
            reason = "window lengths and streams are small"
        )]
        let windows_per_day =
            DAY_MS / bundle.window_length_ms() as f64 * streams.clamp(1, 1 << 30) as f64;
        let ln_threshold = (alarms_per_day.max(f64::MIN_POSITIVE) / windows_per_day).ln();
        Self {
            ln_threshold: ln_threshold.clamp(LN_THRESHOLD_RANGE.0, LN_THRESHOLD_RANGE.1),
            bundle,
            unseen: TextCache::new(UNSEEN_TEXTS),
        }
    }

    /// Returns the bundle.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// Returns the combined p-value below which a window is anomalous.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.ln_threshold.exp()
    }

    /// Scores the stream's next window and moves its baseline on.
    pub fn score(&mut self, window: ClosedWindow, baseline: &mut Baseline) -> ScoredWindow {
        let content = &self.bundle.content;
        let mut facts = Facts {
            profile: &content.profile,
            unseen: &mut self.unseen,
        };
        let (mut observed, pairs) = observe(&window.content, &mut facts);
        let critical = |place: usize| pairs[place].level.is_critical();
        let start_ms = window.bounds.start.as_millis();
        let unseen = baseline.adoption.apply(&mut observed, critical, start_ms);
        let length_ms = window.bounds.end.as_millis() - start_ms;
        baseline.observe(&observed, length_ms);
        let features = row(&observed, &baseline.trailing);
        let trailing = TrailingFindings::observe(baseline, &content.profile, &observed, length_ms);
        let signals = signals(
            (&content.profile, &content.density),
            &observed,
            &features,
            baseline,
            &trailing,
        );
        let evidence = content.calibration.evidence(&signals.raw);
        let mut verdict = self.judge(&evidence, &signals, observed.lines() == 0);
        let silent = self.silence(&window, baseline, &mut verdict);
        let mut explanation = explain(&Findings {
            content,
            window: &window.content,
            observed: &observed,
            pairs: &pairs,
            features: &features,
            signals: &signals,
            evidence: &evidence,
            baseline,
            silent,
            detailed: verdict.is_anomaly,
        });
        if let Some(excess) = signals.excess
            && verdict.is_anomaly
            && evidence[Kind::Drift as usize] >= SETTLE_NATS
        {
            baseline.drift.settle(&observed, &excess);
        }
        if window.gap {
            baseline.adoption.gap();
        } else {
            let ln_p_rest = self.ln_p_rest(&unseen, (&observed, &pairs), &signals, baseline);
            let adopted = baseline.adoption.step(&AdoptionStep {
                observed: &observed,
                critical: &critical,
                unseen: &unseen,
                start_ms,
                anomalous: verdict.is_anomaly,
                ln_p_rest,
                ln_threshold: self.ln_threshold,
            });
            let adoptions = adopted.iter().map(|known| adoption(known, &pairs));
            explanation.reasons.extend(adoptions);
            verdict.level_shift = baseline.step(BaselineStep {
                lines: f64::from(observed.lines()),
                clump: signals.clump,
                anomalous: verdict.is_anomaly || baseline.silence.is_told(),
            });
        }
        ScoredWindow {
            features,
            verdict,
            explanation,
            baseline: baseline.clone(),
            model_checksum: Arc::clone(self.bundle.checksum()),
            window,
        }
    }

    /// Returns after how many empty windows more the stream is silent beyond its habit, if that is
    /// within `most`; nothing if an alarm told of it already.
    #[must_use]
    pub fn silent_after(&self, baseline: &Baseline, most: u32) -> Option<u32> {
        if baseline.is_cold() {
            return None;
        }
        let ln_empty = baseline.ln_empty(self.bundle.content.profile.level_variation);
        baseline.silence.due(ln_empty, self.ln_threshold, most)
    }

    /// Returns ln p of what there is in a window besides templates that are new.
    fn ln_p_rest(
        &self,
        unseen: &Unseen,
        (observed, pairs): (&Observed, &[&TemplateCount]),
        signals: &Signals,
        baseline: &Baseline,
    ) -> f64 {
        let content = &self.bundle.content;
        if unseen.new.is_empty() {
            return 0.0;
        }
        let rest = signals_without(
            &unseen.new,
            |place| pairs[place].level,
            (&content.profile, baseline),
            observed,
            signals,
        );
        let calibration = &content.calibration;
        calibration.ln_p(&calibration.evidence(&rest))
    }

    /// Judges a window by its lines; one without any is [`Self::silence`]'s.
    fn judge(&self, evidence: &Evidence, signals: &Signals, empty: bool) -> Verdict {
        let calibration = &self.bundle.content.calibration;
        if empty {
            return self.verdict(0.0);
        }
        let survival = calibration.distance.ln_survival(signals.raw.distance);
        Verdict {
            cluster_label: signals.cluster_label,
            dbscan_score: 1.0 - survival.exp(),
            ..self.verdict(calibration.ln_p(evidence))
        }
    }

    /// Judges a window without lines; returns how many there have been in a row if that is an
    /// alarm.
    fn silence(
        &self,
        window: &ClosedWindow,
        baseline: &mut Baseline,
        verdict: &mut Verdict,
    ) -> Option<u32> {
        verdict.cold = baseline.is_cold();
        let length_ms = self.bundle.window_length_ms();
        let span_ms = window.bounds.end.as_millis() - window.bounds.start.as_millis();
        let windows = u32::try_from((span_ms / length_ms).max(1)).unwrap_or(u32::MAX);
        let ln_empty = baseline.ln_empty(self.bundle.content.profile.level_variation);
        let empty = window.content.lines() == 0;
        let (run, ln_p) = baseline.silence.observe(empty, windows, ln_empty)?;
        if baseline.is_cold() || !Silence::is_alarm(ln_p, self.ln_threshold) {
            return None;
        }
        baseline.silence.tell();
        // Not cold, as was seen above.
        *verdict = self.verdict(ln_p);
        Some(run)
    }

    fn verdict(&self, ln_p: f64) -> Verdict {
        // Not -0.
        let severity = -ln_p / std::f64::consts::LN_10 + 0.0;
        let at_threshold = -self.ln_threshold / std::f64::consts::LN_10;
        Verdict {
            is_anomaly: ln_p < self.ln_threshold,
            anomaly_score: severity / (severity + at_threshold),
            severity,
            cluster_label: -1,
            dbscan_score: 0.0,
            cold: false,
            level_shift: false,
        }
    }
}
