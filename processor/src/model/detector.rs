//! The scorer: one window at a time, against a bundle and the stream's baseline.

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    Baseline, Bundle, ScoredWindow, Verdict,
    absence::Missing,
    adoption::{AdoptionStep, Unseen},
    baseline::BaselineStep,
    calibration::{Evidence, Kind},
    drift::Excess,
    early::{EarlyAlarm, OpenWatch, Sight, early_signals},
    explain::{Explanation, Findings, adoption, explain},
    mute::{Aside, Mutes, Pattern, reason},
    pattern::{Rest, pattern},
    profile::{Facts, TextCache},
    signals::{Signals, TrailingFindings, draws, signals, signals_without},
    silence::Silence,
    youth::{Caution, Judged as JudgedWindow},
};
use crate::{
    event::{EventTime, Level, NextOffset, StreamKey},
    features::{FeatureRow, Observed, observe, row},
    window::{ClosedWindow, TemplateCount, WindowContent},
};

/// Texts of unseen templates kept, so that a release does not cost a tokenisation per window.
const UNSEEN_TEXTS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// Evidence from which an alarm is taken to have told of a trailing sum or a level, in nats.
const SETTLE_NATS: f64 = 3.0;
/// Milliseconds in a day.
const DAY_MS: f64 = 86_400_000.0;
/// The budget is kept within one alarm in 10^12 windows and every second window.
const THRESHOLD_RANGE: (f64, f64) = (1e-12, 0.5);

/// Scores windows.
#[derive(Debug)]
pub struct Detector {
    bundle: Arc<Bundle>,
    threshold: f64,
    ln_threshold: f64,
    /// What is done about a young model.
    caution: Option<Caution>,
    unseen: TextCache,
    mutes: Arc<Mutes>,
}

impl Detector {
    /// Returns a scorer that spends `alarms_per_day` false alarms over `streams` streams on normal
    /// time. Values that make no sense are brought to the nearest that do.
    #[must_use]
    pub fn new(bundle: Arc<Bundle>, alarms_per_day: f64, streams: usize) -> Self {
        let windows_per_day = Self::windows_per_day(&bundle, streams);
        let threshold = Self::threshold_at(alarms_per_day, windows_per_day);
        Self::with_threshold(bundle, threshold)
    }

    /// Returns how many windows a day `streams` streams have: a budget is spread over them.
    #[must_use]
    pub fn windows_per_day(bundle: &Bundle, streams: usize) -> f64 {
        #[allow(
            clippy::cast_precision_loss,
            reason = "window lengths and streams are small"
        )]
        let (length_ms, streams) = (
            bundle.window_length_ms() as f64,
            streams.clamp(1, 1 << 30) as f64,
        );
        DAY_MS / length_ms * streams
    }

    /// Returns the combined p-value below which windows are anomalous at a budget, brought into the
    /// range that makes sense.
    #[must_use]
    pub fn threshold_at(alarms_per_day: f64, windows_per_day: f64) -> f64 {
        in_range(alarms_per_day.max(f64::MIN_POSITIVE) / windows_per_day)
    }

    /// Returns a scorer for which windows are anomalous below the combined p-value `threshold`, brought
    /// into the range that makes sense. That of a scored window gives its scores again, bit for bit.
    #[must_use]
    pub fn with_threshold(bundle: Arc<Bundle>, threshold: f64) -> Self {
        let threshold = in_range(threshold);
        let content = &bundle.content;
        let (windows, length_ms) = (content.calibration.windows, content.window_length_ms);
        let caution = Caution::of(windows, length_ms, threshold).filter(|_| content.young);
        Self {
            caution,
            threshold,
            ln_threshold: threshold.ln(),
            bundle,
            unseen: TextCache::new(UNSEEN_TEXTS),
            mutes: Arc::default(),
        }
    }

    /// Returns what is muted.
    #[must_use]
    pub fn mutes(&self) -> &Mutes {
        &self.mutes
    }

    /// Judges windows from now on with these mutes.
    pub fn set_mutes(&mut self, mutes: Arc<Mutes>) {
        self.mutes = mutes;
    }

    /// Returns the bundle.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// Returns how many texts of unseen templates are kept, at most 10,000.
    #[must_use]
    pub fn unseen_texts(&self) -> usize {
        self.unseen.len()
    }

    /// Returns the combined p-value below which a window is anomalous.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Scores the stream's next window and moves its baseline on.
    pub fn score(&mut self, window: ClosedWindow, baseline: &mut Baseline) -> ScoredWindow {
        self.score_after(window, baseline, None)
    }

    /// Scores the stream's next window, of which an alarm may have told before it was full, and moves its
    /// baseline on. Such an alarm stands.
    pub fn score_after(
        &mut self,
        window: ClosedWindow,
        baseline: &mut Baseline,
        early: Option<Arc<EarlyAlarm>>,
    ) -> ScoredWindow {
        let content = &self.bundle.content;
        let mut facts = Facts {
            profile: &content.profile,
            unseen: &mut self.unseen,
        };
        let (mut observed, pairs) = observe(&window.content, &mut facts);
        let critical = |place: usize| pairs[place].level.is_critical();
        let start_ms = window.bounds.start.as_millis();
        let decided = self.mutes.decided(&window.stream, window.bounds.start);
        baseline.adoption.decide(&decided, start_ms);
        let unseen = baseline.adoption.apply(&mut observed, critical, start_ms);
        let time = (start_ms, window.bounds.end.as_millis() - start_ms);
        baseline.observe(&observed, time.1);
        let features = row(&observed, &baseline.trailing);
        let trailing = TrailingFindings::observe(baseline, &content.profile, &observed, time);
        let learnt = (&content.profile, &content.density);
        let all = signals(learnt, &observed, &features, baseline, &trailing);
        let silent = self.silence(&window, baseline);
        let scene = Scene {
            window: &window,
            observed: &observed,
            pairs: &pairs,
            features: &features,
            signals: &all,
            trailing: Some(&trailing),
            baseline,
        };
        let judged = self
            .judge_unmuted(&unseen, silent, &scene)
            .upholding(early.as_deref());
        judged.note_told(baseline);
        let (mut verdict, mut explanation) = (judged.verdict, judged.explanation);
        if window.gap {
            baseline.adoption.gap();
        } else {
            let adopted = baseline.adoption.step(&AdoptionStep {
                observed: &observed,
                critical: &critical,
                unseen: &unseen,
                start_ms,
                anomalous: verdict.is_anomaly,
                ln_p_rest: judged.ln_p_rest,
                ln_threshold: self.ln_threshold,
            });
            let adoptions = adopted.iter().map(|known| adoption(known, &pairs));
            explanation.reasons.extend(adoptions);
            verdict.level_shift = baseline.step(BaselineStep {
                lines: f64::from(observed.lines()),
                pairs: draws(observed.pairs.len()),
                time,
                hour: trailing.hour,
                clump: all.clump,
                anomalous: verdict.is_anomaly || baseline.silence.is_told(),
            });
        }
        let told = (&window, early.is_some(), &mut *baseline);
        self.be_cautious(told, &mut verdict, &mut explanation);
        ScoredWindow {
            features,
            verdict,
            explanation,
            baseline: baseline.clone(),
            model_checksum: Arc::clone(self.bundle.checksum()),
            threshold: self.threshold,
            window,
            early,
        }
    }

    /// Returns a watch for the next window of `stream`, which starts at `start`, while it is open.
    /// What people decided of templates holds for it as for the full window.
    #[must_use]
    pub fn watch(&self, stream: &StreamKey, baseline: &Baseline, start: EventTime) -> OpenWatch {
        let decided = self.mutes.decided(stream, start);
        let profile = &self.bundle.content.profile;
        OpenWatch::new(baseline, profile, &decided, start.as_millis())
    }

    /// Takes in what is new in the stream's next window, which starts at `start`; returns whether it is
    /// worth [`Self::judge_early`].
    pub fn look(
        &mut self,
        watch: &mut OpenWatch,
        (content, start): (&WindowContent, EventTime),
        baseline: &Baseline,
    ) -> bool {
        let bundle = &self.bundle.content;
        let mut sight = Sight {
            facts: Facts {
                profile: &bundle.profile,
                unseen: &mut self.unseen,
            },
            calibration: &bundle.calibration,
            baseline,
            start_ms: start.as_millis(),
            ln_threshold: self.ln_threshold,
        };
        watch.is_worth_judging(content, &mut sight)
    }

    /// Judges the stream's next window as far as it is there, on evidence that a fuller one does not take
    /// back; returns it if that is an alarm. `raised` is the largest event time and one past the last
    /// record read.
    pub fn judge_early(
        &mut self,
        window: ClosedWindow,
        baseline: &Baseline,
        raised: (EventTime, NextOffset),
    ) -> Option<ScoredWindow> {
        let content = &self.bundle.content;
        let mut facts = Facts {
            profile: &content.profile,
            unseen: &mut self.unseen,
        };
        let (mut observed, pairs) = observe(&window.content, &mut facts);
        let start_ms = window.bounds.start.as_millis();
        let critical = |place: usize| pairs[place].level.is_critical();
        let mut after = baseline.clone();
        let decided = self.mutes.decided(&window.stream, window.bounds.start);
        after.adoption.decide(&decided, start_ms);
        let unseen = after.adoption.apply(&mut observed, critical, start_ms);
        after.observe(&observed, window.bounds.end.as_millis() - start_ms);
        let features = row(&observed, &after.trailing);
        let hour = baseline.hour(content.profile.rhythm.as_ref(), start_ms);
        let all = early_signals(&content.profile, &observed, baseline, hour.as_ref());
        let scene = Scene {
            window: &window,
            observed: &observed,
            pairs: &pairs,
            features: &features,
            signals: &all,
            trailing: None,
            baseline,
        };
        let Judged {
            mut verdict,
            explanation,
            ln_p_rest,
            ..
        } = self.judge_unmuted(&unseen, None, &scene);
        if let Some(caution) = self.caution.filter(|it| it.holds(&baseline.youth)) {
            verdict.learning = true;
            verdict.is_anomaly &= !caution.holds_back(&baseline.youth, start_ms);
        }
        let early = verdict.is_anomaly.then(|| {
            let (at, next) = raised;
            Arc::new(EarlyAlarm {
                at,
                next,
                anomaly_score: verdict.anomaly_score,
                severity: verdict.severity,
                log_count: window.content.lines(),
                error_count: window.content.level(Level::Error),
                critical_count: window.content.critical(),
                explanation: explanation.clone(),
                samples: window.content.samples.clone(),
                ln_p_rest,
            })
        })?;
        Some(ScoredWindow {
            features,
            verdict,
            explanation,
            baseline: after,
            model_checksum: Arc::clone(self.bundle.checksum()),
            threshold: self.threshold,
            window,
            early: Some(early),
        })
    }

    /// Judges a window without what is muted in its stream, and says why.
    fn judge_unmuted(&self, unseen: &Unseen, silent: Option<Silent>, scene: &Scene<'_>) -> Judged {
        let window = scene.window;
        let mutes = self.mutes.at(&window.stream, window.bounds.start);
        let muted = Aside::of(&mutes, scene.observed);
        let rest = self.rest(&muted, scene);
        let told = silent.filter(|_| !muted.volume);
        let mut verdict = self.judge(&rest, told, scene);
        verdict.muted = !muted.is_empty()
            && !verdict.is_anomaly
            && (silent.is_some() || self.rest(&Aside::default(), scene).anomalous);
        let mut explanation = self.explanation(&rest, told, &muted, scene);
        let held = mutes
            .iter()
            .filter(|mute| mute.is_felt(scene.observed, scene.signals, silent.is_some()));
        explanation.reasons.extend(held.map(|mute| reason(mute)));
        Judged {
            verdict,
            explanation,
            signals: rest.signals,
            evidence: rest.evidence,
            silent: told.is_some(),
            ln_p_rest: self.ln_p_rest(unseen, muted, scene),
        }
    }

    /// Marks the windows of a young model, and holds back alarms beyond the budget of the day. Last of
    /// all: what the stream learns from a window does not depend on who is told of it.
    fn be_cautious(
        &self,
        (window, early, baseline): (&ClosedWindow, bool, &mut Baseline),
        verdict: &mut Verdict,
        explanation: &mut Explanation,
    ) {
        let Some(caution) = self.caution.filter(|it| it.holds(&baseline.youth)) else {
            return;
        };
        verdict.learning = true;
        let judged = JudgedWindow {
            start_ms: window.bounds.start.as_millis(),
            gap: window.gap,
            anomalous: verdict.is_anomaly,
            stands: early,
        };
        if caution.step(&mut baseline.youth, judged) {
            (verdict.is_anomaly, verdict.capped) = (false, true);
            explanation.reasons.push(caution.reason(&baseline.youth));
        }
    }

    /// Judges a window without what is aside; of one without lines there is nothing to say.
    fn rest(&self, aside: &Aside, scene: &Scene<'_>) -> Rest {
        let calibration = &self.bundle.content.calibration;
        let signals = self.without(aside, scene);
        let evidence = calibration.evidence(&signals.raw);
        let ln_p = if scene.observed.lines() == 0 {
            0.0
        } else {
            self.believed(calibration.ln_p(&evidence), scene.baseline)
        };
        Rest {
            signals,
            evidence,
            ln_p,
            anomalous: ln_p < self.ln_threshold,
        }
    }

    /// Returns ln of a combined p-value as far as it can be believed.
    fn believed(&self, ln_p: f64, baseline: &Baseline) -> f64 {
        self.caution
            .map_or(ln_p, |caution| caution.believed(ln_p, &baseline.youth))
    }

    fn explanation(
        &self,
        rest: &Rest,
        silent: Option<Silent>,
        muted: &Aside,
        scene: &Scene<'_>,
    ) -> Explanation {
        let mut explanation = explain(&Findings {
            content: &self.bundle.content,
            window: &scene.window.content,
            observed: scene.observed,
            pairs: scene.pairs,
            features: scene.features,
            signals: &rest.signals,
            evidence: &rest.evidence,
            baseline: scene.baseline,
            silent: silent.map(|silent| silent.windows),
            detailed: rest.anomalous || silent.is_some(),
        });
        if rest.anomalous {
            let judge = |aside: &Aside| self.rest(aside, scene);
            let profile = &self.bundle.content.profile;
            explanation.pattern = pattern(muted, (scene.observed, scene.pairs), profile, judge);
        } else if silent.is_some() {
            explanation.pattern = vec![Pattern::Volume];
        }
        explanation
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

    /// Returns ln p of what there is in a window besides templates that are new and what is muted.
    fn ln_p_rest(&self, unseen: &Unseen, mut aside: Aside, scene: &Scene<'_>) -> f64 {
        if unseen.new.is_empty() {
            return 0.0;
        }
        aside.add_places(unseen.new.iter().copied());
        self.rest(&aside, scene).ln_p
    }

    /// Returns the signals of a window as if what is aside had not come.
    fn without(&self, aside: &Aside, scene: &Scene<'_>) -> Signals {
        let mut signals = *scene.signals;
        if !aside.places.is_empty() {
            signals = signals_without(
                &aside.places,
                |place| scene.pairs[place].level,
                (&self.bundle.content.profile, scene.baseline),
                scene.observed,
                scene.signals,
            );
        }
        if let Some(trailing) = scene.trailing
            && !scene.baseline.is_cold()
            && scene.observed.lines() > 0
        {
            let counts = |excess: &Excess| {
                let is_aside = |place: usize| aside.places.binary_search(&place).is_ok();
                !aside.holds(excess.template) && !excess.place.is_some_and(is_aside)
            };
            let is_missed = |missing: &Missing| !aside.holds(missing.id);
            let pairs = scene.pairs.len();
            trailing.tell(&mut signals, pairs, counts, is_missed);
        }
        if aside.critical {
            signals.raw.critical = 0.0;
        }
        if aside.volume {
            (signals.raw.volume, signals.odd_hour) = (0.0, None);
        }
        signals
    }

    fn judge(&self, rest: &Rest, silent: Option<Silent>, scene: &Scene<'_>) -> Verdict {
        let ln_p = silent.map_or(rest.ln_p, |silent| silent.ln_p);
        // Not -0.
        let severity = -ln_p / std::f64::consts::LN_10 + 0.0;
        let at_threshold = -self.ln_threshold / std::f64::consts::LN_10;
        let (mut cluster_label, mut dbscan_score) = (-1, 0.0);
        if scene.observed.lines() > 0 {
            let distance = &self.bundle.content.calibration.distance;
            cluster_label = rest.signals.cluster_label;
            dbscan_score = 1.0 - distance.ln_survival(rest.signals.raw.distance).exp();
        }
        Verdict {
            is_anomaly: ln_p < self.ln_threshold,
            anomaly_score: severity / (severity + at_threshold),
            severity,
            cluster_label,
            dbscan_score,
            cold: scene.baseline.is_cold(),
            level_shift: false,
            muted: false,
            learning: false,
            capped: false,
        }
    }

    /// Takes note of whether a window is without lines; returns the silence if it is an alarm that
    /// none told of yet.
    fn silence(&self, window: &ClosedWindow, baseline: &mut Baseline) -> Option<Silent> {
        let length_ms = self.bundle.window_length_ms();
        let span_ms = window.bounds.end.as_millis() - window.bounds.start.as_millis();
        let windows = u32::try_from((span_ms / length_ms).max(1)).unwrap_or(u32::MAX);
        let ln_empty = baseline.ln_empty(self.bundle.content.profile.level_variation);
        let empty = window.content.lines() == 0;
        let (windows, ln_p) = baseline.silence.observe(empty, windows, ln_empty)?;
        if baseline.is_cold() || !Silence::is_alarm(ln_p, self.ln_threshold) {
            return None;
        }
        Some(Silent { windows, ln_p })
    }
}

fn in_range(threshold: f64) -> f64 {
    let (least, most) = THRESHOLD_RANGE;
    // Not `clamp`: what is no number is brought into the range as well.
    threshold.max(least).min(most)
}

/// A window about to be judged.
#[derive(Clone, Copy)]
struct Scene<'a> {
    window: &'a ClosedWindow,
    features: &'a FeatureRow,
    observed: &'a Observed,
    pairs: &'a [&'a TemplateCount],
    /// All there is in it.
    signals: &'a Signals,
    /// What goes beyond the window; nothing of one that is not full.
    trailing: Option<&'a TrailingFindings>,
    baseline: &'a Baseline,
}

/// What is said of a window.
struct Judged {
    verdict: Verdict,
    explanation: Explanation,
    /// What speaks for an anomaly without what is muted, and what it is worth.
    signals: Signals,
    evidence: Evidence,
    /// It tells of a silence.
    silent: bool,
    /// ln p of what there is besides templates that are new.
    ln_p_rest: f64,
}

impl Judged {
    /// Lets an alarm stand that told of the window before it was full: what is said weighs no less, and
    /// all that follows from an anomaly follows.
    fn upholding(mut self, early: Option<&EarlyAlarm>) -> Self {
        let Some(early) = early else {
            return self;
        };
        self.verdict.is_anomaly = true;
        self.verdict.muted = false;
        self.ln_p_rest = self.ln_p_rest.min(early.ln_p_rest);
        if early.severity > self.verdict.severity {
            self.verdict.severity = early.severity;
            self.verdict.anomaly_score = early.anomaly_score;
            self.explanation = early.explanation.clone();
        }
        self
    }

    /// Lets the baseline know what an alarm told of: more of the same is no news. What is muted was
    /// not told of.
    fn note_told(&self, baseline: &mut Baseline) {
        if self.silent {
            baseline.silence.tell();
        }
        if self.signals.odd_hour.is_some()
            && self.verdict.is_anomaly
            && self.evidence[Kind::Volume as usize] >= SETTLE_NATS
        {
            baseline.daily.tell();
        }
        if let Some(surplus) = &self.signals.surplus
            && self.verdict.is_anomaly
            && self.evidence[Kind::Drift as usize] >= SETTLE_NATS
        {
            baseline.drift.settle(surplus);
        }
    }
}

/// A silence that is an alarm.
#[derive(Clone, Copy, Debug)]
struct Silent {
    /// Windows without lines in a row.
    windows: u32,
    /// ln of the p-value.
    ln_p: f64,
}
