//! Forward chaining: what scores look like on normal time, learnt without labels.
//!
//! ```text
//! block 1   2   3   …  10
//!       fit─►score
//!       fit────►score …
//! ```
//!
//! Each block of training time is scored by what was fitted on earlier blocks only, since a model
//! is never surprised by what it was fitted on. Training time holds true incidents and releases:
//! windows with templates that never became a habit, or that were new and not adopted yet, are
//! presumed to be such and left out, up to a share; where there are more of them they are taken for
//! normal in proportion.

use std::collections::HashMap;

use super::{
    adoption::{AdoptionStep, Unseen},
    baseline::{Baseline, BaselineStep},
    calibration::{Calibration, added},
    density::Density,
    history::{History, TrainingWindow},
    profile::{Names, Profile},
    signals::{Signals, draws, signals},
    tail::{Tail, Weighted},
    tally::Tally,
    train::TrainProgress,
};
use crate::features::{FeatureRow, Observed, PairFact, ServiceFact, Trailing, row};

/// Blocks that training time is cut into.
const BLOCKS: usize = 10;
/// The first blocks are only fitted on: what a young model makes of the rest says little about
/// the one that is trained on all.
const BLOCKS_FITTED_ONLY: i64 = 3;
/// Rows to which a block's core points are fitted.
const BLOCK_SAMPLE_ROWS: usize = 800;
/// Rows to which the model's own core points are fitted: a score compares with each of them.
const MODEL_SAMPLE_ROWS: usize = 3_000;
/// Largest share of windows presumed to be incidents.
const INCIDENTS_MAX: f64 = 0.02;
/// Width of a surprisal bin, in nats, and the number of bins.
const BIN_NATS: f64 = 0.01;
const BINS: usize = 6_000;
/// Fewest draws beyond the point where an empirical tail is still believed.
const TAIL_DRAWS: f64 = 10.0;
/// The tails of window signals are not believed further out than this: beyond it the incidents
/// that nothing gave away, silences and surges of familiar lines, may outnumber normal windows.
/// Half of what may be presumed to be incidents by their lines.
const WINDOW_TAIL_SHARE: f64 = 0.5 * INCIDENTS_MAX;
/// Windows between two calls of the progress function.
const PROGRESS_WINDOWS: u64 = 10_000;

/// One window scored by the past.
struct Scored {
    signals: Signals,
    presumed_incident: bool,
    cold: bool,
}

/// Surprisal of pairs, binned: each template of a window is one draw, however often it comes.
struct LineBins {
    habitual: Vec<f64>,
    other: Vec<f64>,
    draws: f64,
}

/// Learns the distributions of all signals on normal time.
pub(super) fn calibrate(
    (history, length_ms): (&History, i64),
    all: &Tally,
    names: &Names,
    progress: &mut dyn FnMut(TrainProgress),
) -> Calibration {
    let habitual: Vec<bool> = (0..names.templates.len())
        .map(|template| all.is_habit(template))
        .collect();
    let mut chain = Chain {
        names,
        length_ms,
        habitual,
        baselines: HashMap::new(),
        scored: Vec::new(),
        bins: LineBins {
            habitual: vec![0.0; BINS],
            other: vec![0.0; BINS],
            draws: 0.0,
        },
    };
    chain.run(history, progress);
    chain.calibration()
}

struct Chain<'a> {
    names: &'a Names,
    length_ms: i64,
    habitual: Vec<bool>,
    baselines: HashMap<u32, Baseline>,
    scored: Vec<Scored>,
    bins: LineBins,
}

impl Chain<'_> {
    fn run(&mut self, history: &History, progress: &mut dyn FnMut(TrainProgress)) {
        let total = history.len() as u64;
        let (first, last) = history.iter().fold((i64::MAX, i64::MIN), |(min, max), w| {
            (min.min(w.window), max.max(w.window))
        });
        #[allow(clippy::cast_possible_wrap, reason = "ten blocks")]
        let block_windows = (last.saturating_sub(first) / BLOCKS as i64).saturating_add(1);
        let mut tally = Tally::default();
        let mut fitted: Option<(Profile, Density)> = None;
        let mut block = 0;
        for (number, window) in (0..).zip(history.iter()) {
            if number % PROGRESS_WINDOWS == 0 {
                progress(TrainProgress {
                    windows: number,
                    total,
                });
            }
            let of_block = (window.window - first) / block_windows;
            if of_block > block && of_block >= BLOCKS_FITTED_ONLY {
                block = of_block;
                fitted = Some(self.fit(&tally, history));
            }
            if let Some((profile, density)) = &fitted {
                self.score(&window, profile, density);
            }
            tally.add(&window, &self.names.pairs);
        }
        progress(TrainProgress {
            windows: total,
            total,
        });
    }

    fn fit(&self, tally: &Tally, history: &History) -> (Profile, Density) {
        let profile = Profile::fit(tally, self.names);
        let windows = usize::try_from(tally.windows).unwrap_or(usize::MAX);
        let rows = sample(history, windows, BLOCK_SAMPLE_ROWS)
            .map(|window| plain_row(&window, &profile, self.names))
            .collect::<Vec<_>>();
        let density = Density::fit(&rows);
        (profile, density)
    }

    fn score(&mut self, window: &TrainingWindow, profile: &Profile, density: &Density) {
        let mut observed = observe(window, profile, self.names);
        let baseline = self.baselines.entry(window.stream).or_default();
        let unseen = adopt(window, &mut observed, baseline, self.length_ms);
        let mut news: Vec<bool> = window
            .pairs
            .iter()
            .map(|pair| !self.habitual[self.names.pairs[pair.pair as usize].1 as usize])
            .collect();
        unseen.new.iter().for_each(|&place| news[place] = true);
        if window.normal {
            news.fill(false);
        }
        let presumed_incident = news.contains(&true);
        self.bins.add(&observed, &news);
        let features = row(&observed, &Trailing::default());
        let signals = signals((profile, density), &observed, &features, baseline, false);
        self.scored.push(Scored {
            signals,
            presumed_incident,
            cold: baseline.is_cold(),
        });
        baseline.step(BaselineStep {
            lines: f64::from(observed.lines()),
            clump: signals.clump,
            anomalous: false,
        });
    }

    fn calibration(self) -> Calibration {
        let Self { scored, bins, .. } = self;
        #[allow(
            clippy::cast_precision_loss,
            reason = "window counts are far below 2^52"
        )]
        let windows = scored.len() as f64;
        let presumed: f64 = scored.iter().map(|s| f64::from(s.presumed_incident)).sum();
        let share = presumed / windows.max(1.0);
        let weight = (1.0 - INCIDENTS_MAX / share.max(INCIDENTS_MAX)).max(0.0);
        let weighted = |value: fn(&Signals) -> f64, cold: bool| -> Tail {
            let sample = scored
                .iter()
                .filter(|s| cold || !s.cold)
                .map(|s| {
                    (
                        value(&s.signals),
                        if s.presumed_incident { weight } else { 1.0 },
                    )
                })
                .filter(|(_, weight)| *weight > 0.0);
            window_tail(sample.collect())
        };
        let mut calibration = Calibration {
            windows: scored.len() as u64,
            presumed_incidents: share,
            line_surprisal: bins.tail(weight),
            repetition: weighted(|s| s.repetition.ln_1p(), false),
            critical: weighted(|s| s.critical, true),
            volume: weighted(|s| s.volume.ln_1p(), false),
            distance: weighted(|s| s.distance, true),
            combined: Tail::default(),
        };
        let combined = scored
            .iter()
            .filter(|s| !s.cold)
            .map(|s| {
                let sum = added(&calibration.evidence(&s.signals));
                (sum, if s.presumed_incident { weight } else { 1.0 })
            })
            .filter(|(_, weight)| *weight > 0.0);
        calibration.combined = window_tail(combined.collect());
        calibration
    }
}

impl LineBins {
    /// Adds the pairs of a window; `news` marks those that were no habit, or none yet.
    fn add(&mut self, observed: &Observed, news: &[bool]) {
        self.draws += draws(news.len());
        for (pair, news) in observed.pairs.iter().zip(news) {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "surprisal is finite and positive; the cast saturates"
            )]
            let bin = ((pair.fact.surprisal / BIN_NATS) as usize).min(BINS - 1);
            let bins = if *news {
                &mut self.other
            } else {
                &mut self.habitual
            };
            bins[bin] += 1.0;
        }
    }

    /// `weight` is that of lines that are no habit.
    fn tail(&self, weight: f64) -> Tail {
        let sample: Vec<Weighted> = self
            .habitual
            .iter()
            .zip(&self.other)
            .enumerate()
            .map(|(bin, (habitual, other))| {
                #[allow(clippy::cast_precision_loss, reason = "a bin number")]
                let middle = (bin as f64 + 0.5) * BIN_NATS;
                (middle, habitual + weight * other)
            })
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        Tail::fit(sample, self.draws, TAIL_DRAWS / (self.draws + 1.0))
    }
}

fn window_tail(sample: Vec<Weighted>) -> Tail {
    let total: f64 = sample.iter().map(|(_, weight)| weight).sum();
    let trusted = (TAIL_DRAWS / (total + 1.0)).clamp(WINDOW_TAIL_SHARE, 0.5);
    Tail::fit(sample, total, trusted)
}

/// Lets the stream know templates that keep coming, as the scorer does; returns those that are new.
/// What a release brings is news for a few windows, and from then on normal.
fn adopt(
    window: &TrainingWindow,
    observed: &mut Observed,
    baseline: &mut Baseline,
    length_ms: i64,
) -> Unseen {
    let start_ms = window.window.saturating_mul(length_ms);
    let critical = |_| false;
    let unseen = baseline.adoption.apply(observed, critical, start_ms);
    baseline.adoption.step(&AdoptionStep {
        observed,
        critical: &critical,
        unseen: &unseen,
        start_ms,
        anomalous: false,
        ln_p_rest: 0.0,
        ln_threshold: f64::NEG_INFINITY,
    });
    unseen
}

/// Returns a packed window as the formulas see it.
fn observe(window: &TrainingWindow, profile: &Profile, names: &Names) -> Observed {
    let mut observed = Observed {
        levels: window.levels,
        ..Observed::default()
    };
    let mut places: Vec<u32> = Vec::new();
    for pair in &window.pairs {
        let (service, template) = names.pairs[pair.pair as usize];
        let place = places.iter().position(|known| *known == service);
        let place = place.unwrap_or_else(|| {
            places.push(service);
            observed.services.push(ServiceFact {
                known: Some(service as usize),
                ..ServiceFact::default()
            });
            places.len() - 1
        });
        observed.services[place].lines += pair.lines;
        observed.pairs.push(PairFact {
            template: names.templates[template as usize].0,
            service: place,
            count: pair.lines,
            fact: profile.known_fact(Some(service as usize), template as usize),
        });
    }
    for &(service, critical) in &window.critical {
        if let Some(place) = places.iter().position(|known| *known == service) {
            observed.services[place].critical = critical;
        }
    }
    observed
}

fn plain_row(window: &TrainingWindow, profile: &Profile, names: &Names) -> FeatureRow {
    row(&observe(window, profile, names), &Trailing::default())
}

/// Every so-manieth of the first `windows` windows that has lines, at most `rows` of them.
fn sample(
    history: &History,
    windows: usize,
    rows: usize,
) -> impl Iterator<Item = TrainingWindow> + '_ {
    let step = windows.div_ceil(rows).max(1);
    history
        .iter()
        .take(windows)
        .step_by(step)
        .filter(|window| window.lines() > 0)
}

/// Returns the rows of an even sample of the windows with lines, of which there are `with_lines`.
pub(super) fn sample_rows(
    (history, with_lines): (&History, usize),
    profile: &Profile,
    names: &Names,
    length_ms: i64,
) -> Vec<FeatureRow> {
    let mut trailing: HashMap<u32, Trailing> = HashMap::new();
    let step = with_lines.div_ceil(MODEL_SAMPLE_ROWS).max(1);
    let mut sampled = Vec::new();
    let mut number = 0;
    for window in history.iter() {
        let observed = observe(&window, profile, names);
        let trailing = trailing.entry(window.stream).or_default();
        trailing.add(&observed, length_ms);
        if window.lines() == 0 {
            continue;
        }
        if number % step == 0 {
            sampled.push(row(&observed, trailing));
        }
        number += 1;
    }
    sampled
}
