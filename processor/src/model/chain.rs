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

use std::{collections::HashMap, ops::ControlFlow};

use super::{
    adoption::{AdoptionStep, Unseen},
    baseline::{Baseline, BaselineStep},
    calibration::{Calibration, added},
    density::Density,
    history::{History, PairLines, TrainingWindow},
    profile::{Names, Profile},
    signals::{Raw, TrailingFindings, draws, signals},
    tail::{Tail, Weighted},
    tally::Tally,
    train::TrainProgress,
};
use crate::features::{FeatureRow, Observed, PairFact, ServiceFact, Trailing, row};

/// Blocks that training time is cut into.
pub(super) const BLOCKS: usize = 10;
/// The first blocks are only fitted on: what a young model makes of the rest says little about
/// the one that is trained on all.
pub(super) const BLOCKS_FITTED_ONLY: i64 = 3;
/// Rows to which a block's core points are fitted.
const BLOCK_SAMPLE_ROWS: usize = 800;
/// Rows to which the model's own core points are fitted: a score compares with each of them.
const MODEL_SAMPLE_ROWS: usize = 3_000;
/// Largest share of windows presumed to be incidents.
const INCIDENTS_MAX: f64 = 0.02;
/// Width of a surprisal bin, in nats, and the number of bins.
const BIN_NATS: f64 = 0.01;
const BINS: usize = 6_000;
/// Surprisal is -ln of a probability, so that its tail falls by one nat per nat where nothing is known
/// of it; so do the parts of the combined evidence, which are calibrated, and their sum a little less.
/// Tails that seem to fall more slowly show incidents.
const SURPRISAL_SLOPE: f64 = 1.0;
const COMBINED_SLOPE: f64 = 0.9;
/// Fewest draws beyond the point where an empirical tail is still believed.
const TAIL_DRAWS: f64 = 10.0;
/// Largest share of windows with one rare line by itself presumed to be incidents: some six a day.
/// Where there are more, that is how the system is.
const LONE_MAX: f64 = 0.002;
/// Occasions from which a rare template is one that comes back.
const RECURRING_OCCASIONS: f64 = 3.0;
/// Evidence from which a trailing sum or a level is taken to have been told of, in nats.
const SETTLE_NATS: f64 = 12.0;
/// Windows between two calls of the progress function.
const PROGRESS_WINDOWS: u64 = 10_000;

/// What a window of training time is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presumed {
    Normal,
    /// One line, by itself, of a template that has come like this several times.
    Lone,
    /// It has templates that are no habit.
    Incident,
}

/// One window scored by the past.
struct Scored {
    signals: Raw,
    presumed: Presumed,
    cold: bool,
}

/// Surprisal of pairs, binned: each template of a window is one draw, however often it comes.
struct LineBins {
    habitual: Vec<f64>,
    lone: Vec<f64>,
    other: Vec<f64>,
    draws: f64,
}

/// Learns the distributions of all signals on normal time. Returns the counts of all of training as
/// well, with what the whole of it tells of its incidents; nothing if `progress` breaks off.
pub(super) fn calibrate<B>(
    (history, length_ms): (&History, i64),
    all: &Tally,
    names: &Names,
    progress: &mut dyn FnMut(TrainProgress) -> ControlFlow<B>,
) -> ControlFlow<B, (Calibration, Tally)> {
    let habitual: Vec<bool> = (0..names.templates.len())
        .map(|template| all.is_habit(template))
        .collect();
    let recurring = (0..names.templates.len())
        .map(|template| all.independent_occasions(template) >= RECURRING_OCCASIONS)
        .collect();
    let mut chain = Chain {
        names,
        length_ms,
        habitual,
        recurring,
        baselines: HashMap::new(),
        scored: Vec::new(),
        bins: LineBins {
            habitual: vec![0.0; BINS],
            lone: vec![0.0; BINS],
            other: vec![0.0; BINS],
            draws: 0.0,
        },
    };
    let tally = chain.run(history, progress)?;
    ControlFlow::Continue((chain.calibration(), tally))
}

struct Chain<'a> {
    names: &'a Names,
    length_ms: i64,
    habitual: Vec<bool>,
    recurring: Vec<bool>,
    baselines: HashMap<u32, Baseline>,
    scored: Vec<Scored>,
    bins: LineBins,
}

/// Says what a window is taken for, whose pairs are `news` or not.
fn presume(window: &TrainingWindow, news: &[bool], names: &Names, recurring: &[bool]) -> Presumed {
    let mut new = window.pairs.iter().zip(news).filter(|(_, new)| **new);
    let Some((first, _)) = new.next() else {
        return Presumed::Normal;
    };
    let template = names.pairs[first.pair as usize].1 as usize;
    if new.next().is_none() && first.lines == 1 && recurring[template] {
        Presumed::Lone
    } else {
        Presumed::Incident
    }
}

impl Chain<'_> {
    fn run<B>(
        &mut self,
        history: &History,
        progress: &mut dyn FnMut(TrainProgress) -> ControlFlow<B>,
    ) -> ControlFlow<B, Tally> {
        let total = history.len() as u64;
        let (first, last) = history.iter().fold((i64::MAX, i64::MIN), |(min, max), w| {
            (min.min(w.window), max.max(w.window))
        });
        #[allow(clippy::cast_possible_wrap, reason = "ten blocks")]
        let block_windows = (last.saturating_sub(first) / BLOCKS as i64).saturating_add(1);
        let mut tally = Tally::new(self.length_ms);
        let mut fitted: Option<(Profile, Density)> = None;
        let mut block = 0;
        for (number, window) in (0..).zip(history.iter()) {
            if number % PROGRESS_WINDOWS == 0 {
                progress(TrainProgress {
                    windows: number,
                    total,
                })?;
            }
            let of_block = (window.window - first) / block_windows;
            if of_block > block && of_block >= BLOCKS_FITTED_ONLY {
                // Fitting takes as long as many windows.
                progress(TrainProgress {
                    windows: number,
                    total,
                })?;
                block = of_block;
                fitted = Some(self.fit(&tally, history));
            }
            if let Some((profile, density)) = &fitted {
                self.score(&window, profile, density);
            }
            let habit =
                |pair: &PairLines| self.habitual[self.names.pairs[pair.pair as usize].1 as usize];
            let calm = window.pairs.iter().all(habit);
            tally.add(&window, &self.names.pairs, calm);
        }
        progress(TrainProgress {
            windows: total,
            total,
        })?;
        ControlFlow::Continue(tally)
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
        let presumed = if window.normal {
            Presumed::Normal
        } else if unseen.new.is_empty() {
            presume(window, &news, self.names, &self.recurring)
        } else {
            Presumed::Incident
        };
        self.bins.add(&observed, &news, presumed);
        let features = row(&observed, &Trailing::default());
        let time = (window.window.saturating_mul(self.length_ms), self.length_ms);
        let trailing = TrailingFindings::observe(baseline, profile, &observed, time);
        let signals = signals(
            (profile, density),
            &observed,
            &features,
            baseline,
            &trailing,
        );
        if let Some(surplus) = &signals.surplus
            && signals.raw.drift >= SETTLE_NATS
        {
            baseline.drift.settle(surplus);
        }
        if signals.odd_hour.is_some() && signals.raw.volume >= SETTLE_NATS {
            baseline.daily.tell();
        }
        self.scored.push(Scored {
            signals: signals.raw,
            presumed,
            cold: baseline.is_cold(),
        });
        baseline.step(BaselineStep {
            lines: f64::from(observed.lines()),
            pairs: draws(observed.pairs.len()),
            time,
            hour: trailing.hour,
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
        let share_of = |presumed: Presumed| -> f64 {
            let count = scored.iter().filter(|s| s.presumed == presumed);
            // Not -0, which a sum of none is.
            count.map(|_| 1.0).sum::<f64>() / windows.max(1.0) + 0.0
        };
        let (incidents, lone) = (share_of(Presumed::Incident), share_of(Presumed::Lone));
        let weights = Weights {
            incident: (1.0 - INCIDENTS_MAX / incidents.max(INCIDENTS_MAX)).max(0.0),
            lone: (1.0 - LONE_MAX / lone.max(LONE_MAX)).max(0.0),
        };
        let normal = weights.thin(&scored);
        let weighted = |value: fn(&Raw) -> f64, cold: bool| -> Tail {
            let sample = normal.iter().filter(|s| cold || !s.cold);
            Tail::of_windows(&sample.map(|s| value(&s.signals)).collect::<Vec<_>>())
        };
        let mut calibration = Calibration {
            windows: scored.len() as u64,
            presumed_incidents: incidents + lone,
            line_surprisal: bins.tail(&weights),
            repetition: weighted(|s| s.repetition.ln_1p(), false),
            critical: weighted(|s| s.critical, true),
            volume: weighted(|s| s.volume.ln_1p(), false),
            drift: weighted(|s| s.drift, false),
            absence: weighted(|s| s.absence, false),
            knows_hours: Tail::knows_spells(normal.len()),
            distance: weighted(|s| s.distance, true),
            company: Tail::default(),
            combined: Tail::default(),
        };
        let company = normal.iter().map(|s| calibration.company(&s.signals));
        calibration.company = Tail::of_windows(&company.collect::<Vec<_>>());
        let combined = normal
            .iter()
            .filter(|s| !s.cold)
            .map(|s| added(&calibration.evidence(&s.signals)));
        calibration.combined =
            Tail::of_windows(&combined.collect::<Vec<_>>()).at_least(COMBINED_SLOPE);
        calibration
    }
}

/// What windows that are presumed to be incidents still count for: as far as there are more of them
/// than is believed, they are normal.
struct Weights {
    incident: f64,
    lone: f64,
}

impl Weights {
    /// Returns the windows taken for normal: of the presumed incidents every so-manieth.
    fn thin<'a>(&self, scored: &'a [Scored]) -> Vec<&'a Scored> {
        let (mut incident, mut lone) = (0.0, 0.0);
        let due = |sum: &mut f64, weight: f64| {
            *sum += weight;
            let due = *sum >= 1.0;
            *sum -= f64::from(u8::from(due));
            due
        };
        let normal = scored.iter().filter(|s| match s.presumed {
            Presumed::Normal => true,
            Presumed::Lone => due(&mut lone, self.lone),
            Presumed::Incident => due(&mut incident, self.incident),
        });
        normal.collect()
    }
}

impl LineBins {
    /// Adds the pairs of a window; `news` marks those that were no habit, or none yet.
    fn add(&mut self, observed: &Observed, news: &[bool], presumed: Presumed) {
        self.draws += draws(news.len());
        for (pair, news) in observed.pairs.iter().zip(news) {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "surprisal is finite and positive; the cast saturates"
            )]
            let bin = ((pair.fact.surprisal / BIN_NATS) as usize).min(BINS - 1);
            let bins = match (news, presumed) {
                (false, _) => &mut self.habitual,
                (true, Presumed::Lone) => &mut self.lone,
                (true, _) => &mut self.other,
            };
            bins[bin] += 1.0;
        }
    }

    fn tail(&self, weights: &Weights) -> Tail {
        let sample: Vec<Weighted> = self
            .habitual
            .iter()
            .zip(&self.lone)
            .zip(&self.other)
            .enumerate()
            .map(|(bin, ((habitual, lone), other))| {
                #[allow(clippy::cast_precision_loss, reason = "a bin number")]
                let middle = (bin as f64 + 0.5) * BIN_NATS;
                (
                    middle,
                    habitual + weights.lone * lone + weights.incident * other,
                )
            })
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        Tail::fit(sample, self.draws, TAIL_DRAWS / (self.draws + 1.0)).at_least(SURPRISAL_SLOPE)
    }
}

/// Lets the stream know templates that keep coming, as the scorer does; returns those that are new.
/// What a release brings is news for a few windows, and from then on normal.
pub(super) fn adopt(
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
pub(super) fn observe(window: &TrainingWindow, profile: &Profile, names: &Names) -> Observed {
    let mut observed = Observed {
        levels: window.levels,
        ..Observed::default()
    };
    let mut places: Vec<u32> = Vec::new();
    for pair in &window.pairs {
        let (service, template) = names.pairs[pair.pair as usize];
        // Pairs come service by service.
        let last = places.len().checked_sub(1);
        let place = last.filter(|last| places[*last] == service);
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
    for (fact, service) in observed.services.iter_mut().zip(&places) {
        let found = window
            .critical
            .binary_search_by_key(service, |(known, _)| *known);
        fact.critical = found.map_or(0, |at| window.critical[at].1);
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
