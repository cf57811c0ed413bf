//! Judging a window before it is full, on evidence that a fuller window does not take back.
//!
//! ```text
//! open window ─► bounds, from what is new in it ─► beyond the threshold? ─► judgement ─► EarlyAlarm
//! ```
//!
//! What counts is the largest surprisals and upper tails: repetition, `ERROR` and `FATAL` lines, more lines
//! than usual. Their p-values are taken for the larger of what is there and what a full window of the
//! stream usually holds at most, so that looking at a window every second is no more than looking at
//! a full one. Means, shares, what is missing and trailing sums have no say. No clock, no I/O.

use super::{
    Baseline, Explanation,
    adoption::Adoption,
    calibration::Calibration,
    counts::CountModel,
    profile::{Facts, Profile},
    rhythm::Hour,
    signals::{
        Raw, SURPRISALS, Signals, any_of, critical, draws, most_surprising, push_surprisal,
        repetition,
    },
};
use crate::{
    event::{EventTime, NextOffset},
    features::{Observed, TemplateFacts},
    window::{TemplateCount, WindowContent},
};

/// A repetition below this many nats moves no alarm: counts up to which it stays below need no second
/// look.
const QUIET_NATS: f64 = 4.0;
/// A window that was judged in vain is judged again when its bound has moved by this many nats: of
/// one that stays about the threshold, or is muted, not every second is worth a judgement.
const AGAIN_NATS: f64 = 0.25;

/// An alarm of a window that was not full yet. It stands: the final row says nothing weaker.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyAlarm {
    /// Largest event time of the partition when it was raised: the pane boundary had been passed.
    pub at: EventTime,
    /// One past the record that passed it: what was judged are the lines before.
    pub next: NextOffset,
    /// In [0, 1], as that of a full window.
    pub anomaly_score: f64,
    /// -log10 of the combined p-value.
    pub severity: f64,
    /// Lines so far.
    pub log_count: u32,
    /// `ERROR` lines so far.
    pub error_count: u32,
    /// `ERROR` and `FATAL` lines so far.
    pub critical_count: u32,
    /// Why.
    pub explanation: Explanation,
    /// The first `ERROR` and `FATAL` messages so far, fit to be shown.
    pub samples: Vec<Box<str>>,
    /// ln p of what there was besides templates that are new.
    pub(super) ln_p_rest: f64,
}

impl EarlyAlarm {
    /// Returns about how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let samples = self.samples.iter().map(|sample| sample.len());
        let reasons = self.explanation.reasons.iter().map(String::len);
        size_of::<Self>() + samples.chain(reasons).sum::<usize>()
    }
}

/// What a full window of a stream usually holds at most; nothing for a window that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Fill {
    lines: f64,
    pairs: usize,
}

impl Fill {
    /// Returns what the next window of a stream usually holds at most.
    pub(super) fn of(baseline: &Baseline, profile: &Profile, hour: Option<&Hour>) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let training = profile.lines as f64 / profile.windows.max(1) as f64;
        let lines = baseline.upper_lines(training, profile.level_variation, hour);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; the cast saturates"
        )]
        let pairs = baseline.upper_pairs().unwrap_or(lines).min(lines).ceil() as usize;
        Self { lines, pairs }
    }

    /// Returns the lines to judge `lines` by.
    pub(super) fn lines(self, lines: u32) -> f64 {
        self.lines.max(f64::from(lines))
    }

    /// Returns the pairs to judge `pairs` by.
    pub(super) fn pairs(self, pairs: usize) -> usize {
        self.pairs.max(pairs)
    }

    /// Returns the critical lines to expect where `lines` make expect `mean`: of those to come no fewer
    /// than of all services, nor of the services so far.
    pub(super) fn critical(self, mean: f64, lines: u32, share: f64) -> f64 {
        let there = f64::from(lines);
        let to_come = (self.lines - there).max(0.0);
        mean + to_come * share.max(mean / there.max(1.0))
    }
}

/// Returns the signals of an open window that a fuller one does not take back.
pub(super) fn early_signals(
    profile: &Profile,
    observed: &Observed,
    baseline: &Baseline,
    hour: Option<&Hour>,
) -> Signals {
    let fill = Fill::of(baseline, profile, hour);
    let clump = baseline.clump();
    let (surprisals, surprising) = most_surprising(observed);
    let mut signals = Signals {
        raw: Raw {
            draws: draws(fill.pairs(observed.pairs.len())),
            surprisals,
            critical: critical(profile, observed, clump, fill),
            ..Raw::default()
        },
        surprising,
        cluster_label: -1,
        fill,
        ..Signals::default()
    };
    if !baseline.is_cold() {
        (signals.raw.repetition, signals.repeated) = repetition(observed, clump, fill);
        let lines = f64::from(observed.lines());
        signals.raw.volume = baseline.volume_above(lines, profile.level_variation, hour);
    }
    signals
}

/// What has been seen of an open window: enough to tell, from what is new in it, that it is no alarm.
#[derive(Clone, Debug)]
pub struct OpenWatch {
    fill: Fill,
    hour: Option<Hour>,
    /// The baseline's, with what people decided of templates; absent if they decided nothing.
    adoption: Option<Adoption>,
    lines: u32,
    services: Vec<Option<usize>>,
    pairs: Vec<PairWatch>,
    /// Largest surprisals, and the most excessive repetition before it is corrected for having looked
    /// at every pair: no smaller than they are.
    surprisals: [f64; SURPRISALS],
    repetition: f64,
    /// The bounds last looked at, and whether they were worth a judgement.
    bounds: Raw,
    /// Bound of ln p at the last judgement, which was in vain.
    judged_ln_p: f64,
}

#[derive(Clone, Copy, Debug)]
struct PairWatch {
    /// Training never saw it.
    unseen: bool,
    critical: bool,
    share: f64,
    clumping: f64,
    /// Largest count that needs no second look.
    quiet_to: u32,
    count: u32,
}

/// What a watch looks with.
pub(super) struct Sight<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) calibration: &'a Calibration,
    pub(super) baseline: &'a Baseline,
    /// Start of the window, in ms since the epoch.
    pub(super) start_ms: i64,
    pub(super) ln_threshold: f64,
}

impl OpenWatch {
    /// Returns the watch of a stream's next window, of which nothing has been seen; `decided` are
    /// the templates that people decided of by then.
    pub(super) fn new(
        baseline: &Baseline,
        profile: &Profile,
        decided: &[(u64, bool)],
        start_ms: i64,
    ) -> Self {
        let hour = baseline.hour(profile.rhythm.as_ref(), start_ms);
        let adoption = (!decided.is_empty()).then(|| {
            let mut adoption = baseline.adoption.clone();
            adoption.decide(decided, start_ms);
            adoption
        });
        Self {
            fill: Fill::of(baseline, profile, hour.as_ref()),
            hour,
            adoption,
            lines: 0,
            services: Vec::new(),
            pairs: Vec::new(),
            surprisals: [0.0; SURPRISALS],
            repetition: 0.0,
            bounds: Raw::default(),
            judged_ln_p: 0.0,
        }
    }

    /// Takes in what is new; returns whether the window is worth a judgement. One that is not would not
    /// come out as an alarm.
    pub(super) fn is_worth_judging(
        &mut self,
        content: &WindowContent,
        sight: &mut Sight<'_>,
    ) -> bool {
        let lines = content.lines();
        if lines == self.lines {
            return false;
        }
        self.lines = lines;
        self.take_in(content, sight);
        let bounds = self.bounds(content, sight);
        if bounds == self.bounds {
            return false;
        }
        self.bounds = bounds;
        let calibration = sight.calibration;
        let ln_p = calibration.ln_p(&calibration.evidence(&bounds));
        if ln_p >= sight.ln_threshold || ln_p > self.judged_ln_p - AGAIN_NATS {
            return false;
        }
        self.judged_ln_p = ln_p;
        true
    }

    /// Brings surprisals and repetition up to date.
    fn take_in(&mut self, content: &WindowContent, sight: &mut Sight<'_>) {
        let known = self.services.len();
        let services = content.services[known..].iter();
        let numbers = services.map(|service| sight.facts.service(&service.name));
        self.services.extend(numbers);
        for (place, pair) in content.pairs.iter().enumerate() {
            match self.pairs.get(place) {
                // What was adopted as harmless is new as `ERROR`.
                Some(watch) if watch.unseen && watch.critical != pair.level.is_critical() => {
                    self.pairs[place] = self.look_up(content, pair, sight);
                }
                Some(watch) if watch.count == pair.count => continue,
                Some(_) => {}
                None => {
                    let watch = self.look_up(content, pair, sight);
                    self.pairs.push(watch);
                }
            }
            self.pairs[place].count = pair.count;
            if pair.count > self.pairs[place].quiet_to && !sight.baseline.is_cold() {
                self.look_at_repetition(place, content, sight.baseline.clump());
            }
        }
    }

    fn look_up(
        &mut self,
        content: &WindowContent,
        pair: &TemplateCount,
        sight: &mut Sight<'_>,
    ) -> PairWatch {
        let fact = sight.facts.fact(content.service_of(pair), &pair.template);
        let critical = pair.level.is_critical();
        let unseen = fact.training_lines == 0;
        let (mut surprisal, mut share) = (fact.surprisal, fact.share);
        if unseen {
            let adoption = self.adoption.as_ref();
            let adoption = adoption.unwrap_or(&sight.baseline.adoption);
            let hash = pair.template.hash;
            if let Some(adopted) = adoption.adopted(hash, critical, sight.start_ms) {
                (surprisal, share) = adopted;
            }
        }
        push_surprisal(&mut self.surprisals, surprisal);
        PairWatch {
            unseen,
            critical,
            share,
            clumping: fact.clumping,
            quiet_to: 1,
            count: 0,
        }
    }

    /// Looks ahead as long as the count says little, and closely from there on.
    fn look_at_repetition(&mut self, place: usize, content: &WindowContent, clump: f64) {
        let service = &content.services[content.pairs[place].service];
        let lines = self.fill.lines(service.levels.iter().sum()) / clump;
        let watch = &mut self.pairs[place];
        let factor = 1.0 + (lines - 1.0).max(0.0) * watch.clumping;
        let model = CountModel::with_factor(lines * watch.share, factor);
        let ln_any = model.ln_any();
        let at_most = |count: u32| ln_any - model.ln_upper_least(f64::from(count) / clump);
        let ahead = watch.count.saturating_mul(2);
        let mut nats = at_most(ahead);
        if nats < QUIET_NATS {
            watch.quiet_to = ahead;
        } else {
            nats = at_most(watch.count);
        }
        self.repetition = self.repetition.max(nats);
    }

    /// Returns signals that are no weaker than those of a judgement.
    fn bounds(&self, content: &WindowContent, sight: &Sight<'_>) -> Raw {
        let (profile, baseline) = (sight.facts.profile, sight.baseline);
        let pairs = self.fill.pairs(self.pairs.len());
        let clump = baseline.clump();
        let mut raw = Raw {
            draws: draws(pairs),
            surprisals: self.surprisals,
            critical: self.critical(content, profile, clump),
            ..Raw::default()
        };
        if !baseline.is_cold() {
            raw.repetition = any_of(self.repetition, pairs);
            raw.volume = baseline.volume_above(
                f64::from(self.lines),
                profile.level_variation,
                self.hour.as_ref(),
            );
        }
        raw
    }

    fn critical(&self, content: &WindowContent, profile: &Profile, clump: f64) -> f64 {
        let count = f64::from(content.critical()) / clump;
        if count <= 0.0 {
            return 0.0;
        }
        let (mut mean, mut told_apart) = (0.0, 0);
        for (service, known) in content.services.iter().zip(&self.services) {
            let lines: u32 = service.levels.iter().sum();
            told_apart += lines;
            mean += f64::from(lines) * profile.critical_share(*known);
        }
        let rest = self.lines.saturating_sub(told_apart);
        mean += f64::from(rest) * profile.critical_share(None);
        let mean = self.fill.critical(mean, self.lines, profile.critical_share);
        let lines = self.fill.lines(self.lines) / clump;
        let factor = 1.0 + (lines - 1.0).max(0.0) * profile.critical_clumping;
        -CountModel::with_factor(mean / clump, factor).ln_upper_least(count)
    }
}
