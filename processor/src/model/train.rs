//! Training: windows in, one after the other; a bundle out.
//!
//! Memory holds what was counted and the windows in packed form, a few bytes per distinct line;
//! messages are never kept.

use std::{collections::HashMap, convert::Infallible, ops::ControlFlow, sync::Arc};

use super::{
    bundle::{Bundle, BundleDefect, Content, Usual},
    chain::{calibrate, sample_rows},
    density::{Density, quantile},
    history::{History, PairLines, TrainingWindow},
    profile::{Names, Profile, cut},
    second::Second,
    tally::{Tally, critical_lines},
    youth::Caution,
};
use crate::{
    decode::{MaskError, MaskRule, Masker},
    event::{EventTime, StreamKey},
    features::{COLUMNS, FeatureRow},
    window::{ClosedWindow, WindowContent},
};

/// Most distinct templates learnt; lines of further ones are counted but not told apart. Keeps
/// the bundle below its limit; real systems have hundreds to a few thousand.
const TEMPLATES_MAX: usize = 20_000;
/// Most (service, template) pairs learnt.
const PAIRS_MAX: usize = 60_000;
/// Most services learnt.
const SERVICES_MAX: usize = 4_096;

/// Fewest windows with lines that make a model: fewer do not even make up a stream's own past, and
/// the core points would be none or chance. A day or more is what gives good thresholds.
pub const WINDOWS_MIN: usize = super::COLD_WINDOWS as usize;

/// Why no model came of the training data.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A masking rule does not compile.
    #[error("cannot use the configured masks")]
    Mask(#[from] MaskError),
    /// The window length is not positive.
    #[error("window length is {0} ms, it has to be positive")]
    WindowLength(i64),
    /// There was nothing to learn from.
    #[error("the training data has no log lines; check the input and its time range")]
    NoLines,
    /// There was too little to learn from.
    #[error(
        "the training data has {found} windows with log lines, at least {WINDOWS_MIN} are needed; \
         train on a longer time"
    )]
    TooFewWindows {
        /// Windows that had lines.
        found: usize,
    },
    /// What was learnt cannot be stored.
    #[error("cannot make a model bundle of what was learnt")]
    Bundle(#[from] BundleDefect),
}

/// How far [`Trainer::finish`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainProgress {
    /// Windows scored so far to calibrate the thresholds.
    pub windows: u64,
    /// Windows there are.
    pub total: u64,
}

/// Learns from windows given in time order.
#[derive(Debug)]
pub struct Trainer {
    masks: Vec<MaskRule>,
    first_start: bool,
    window_length_ms: i64,
    names: Names,
    index: NameIndex,
    streams: HashMap<StreamKey, u32>,
    tally: Tally,
    history: History,
    span: Option<(EventTime, EventTime)>,
    untracked_lines: u64,
    windows_with_lines: usize,
    second_detector: bool,
}

#[derive(Debug, Default)]
struct NameIndex {
    templates: HashMap<u64, u32>,
    services: HashMap<Arc<str>, u32>,
    pairs: HashMap<(u32, u32), u32>,
}

impl Trainer {
    /// Returns a trainer for windows of `window_length_ms` whose templates were made by `masks`.
    ///
    /// # Errors
    /// A mask does not compile, or the window length is not positive.
    pub fn new(masks: &[MaskRule], window_length_ms: i64) -> Result<Self, TrainError> {
        Masker::new(masks)?;
        if window_length_ms <= 0 {
            return Err(TrainError::WindowLength(window_length_ms));
        }
        Ok(Self {
            masks: masks.to_vec(),
            first_start: false,
            window_length_ms,
            names: Names::default(),
            index: NameIndex::default(),
            streams: HashMap::new(),
            tally: Tally::new(window_length_ms),
            history: History::default(),
            span: None,
            untracked_lines: 0,
            windows_with_lines: 0,
            second_detector: false,
        })
    }

    /// Lets the model hold the second detector, an isolation forest, as well.
    pub fn with_second_detector(&mut self) {
        self.second_detector = true;
    }

    /// Learns from a window. Windows come in time order; rows that stand for a gap are skipped.
    pub fn add(&mut self, window: &ClosedWindow) {
        self.learn(window, false);
    }

    /// Learns from a window whose alarm somebody called false: it is presumed no incident, and its
    /// templates count as habits however seldom they come.
    pub fn add_false_alarm(&mut self, window: &ClosedWindow) {
        self.learn(window, true);
    }

    fn learn(&mut self, window: &ClosedWindow, normal: bool) {
        if window.gap {
            return;
        }
        let bounds = window.bounds;
        let (from, to) = self.span.unwrap_or((bounds.start, bounds.end));
        self.span = Some((from.min(bounds.start), to.max(bounds.end)));
        let mut packed = self.pack(window);
        packed.normal = normal;
        self.windows_with_lines += usize::from(packed.lines() > 0);
        self.tally.add(&packed, &self.names.pairs, true);
        self.history.push(&packed);
    }

    /// Returns how many lines belonged to templates or services beyond what is told apart.
    #[must_use]
    pub fn untracked_lines(&self) -> u64 {
        self.untracked_lines
    }

    /// Makes a model for a first start: caution is due if it turns out to rest on less than a day.
    #[must_use]
    pub fn for_first_start(mut self) -> Self {
        self.first_start = true;
        self
    }

    /// Fits and calibrates the model; `progress` is called now and then.
    ///
    /// # Errors
    /// There were no lines or fewer than [`WINDOWS_MIN`] windows with any, or the model is too large
    /// to be stored.
    pub fn finish(self, progress: &mut dyn FnMut(TrainProgress)) -> Result<Bundle, TrainError> {
        let mut progress = |at| -> ControlFlow<Infallible> {
            progress(at);
            ControlFlow::Continue(())
        };
        let ControlFlow::Continue(bundle) = self.finish_or_break(&mut progress)?;
        Ok(bundle)
    }

    /// Fits and calibrates the model, as [`Self::finish`] does, unless `progress` breaks off; it is
    /// asked between the steps.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_or_break<B>(
        self,
        progress: &mut dyn FnMut(TrainProgress) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B, Bundle>, TrainError> {
        let Some(span) = self.span.filter(|_| self.tally.lines > 0) else {
            return Err(TrainError::NoLines);
        };
        if self.windows_with_lines < WINDOWS_MIN {
            return Err(TrainError::TooFewWindows {
                found: self.windows_with_lines,
            });
        }
        Ok(match self.fit(span, progress) {
            ControlFlow::Continue(content) => ControlFlow::Continue(Bundle::seal(content)?),
            ControlFlow::Break(broken_off) => ControlFlow::Break(broken_off),
        })
    }

    fn fit<B>(
        self,
        span: (EventTime, EventTime),
        progress: &mut dyn FnMut(TrainProgress) -> ControlFlow<B>,
    ) -> ControlFlow<B, Content> {
        let (calibration, tally) = calibrate(
            (&self.history, self.window_length_ms),
            &self.tally,
            &self.names,
            progress,
        )?;
        let total = self.history.len() as u64;
        let calibrated = TrainProgress {
            windows: total,
            total,
        };
        let profile = Profile::fit(&tally, &self.names);
        progress(calibrated)?;
        let rows = sample_rows(
            (&self.history, self.windows_with_lines),
            &profile,
            &self.names,
            self.window_length_ms,
        );
        progress(calibrated)?;
        let density = Density::fit(&rows);
        progress(calibrated)?;
        let wanted = self.second_detector.then_some(self.window_length_ms);
        ControlFlow::Continue(Content {
            second: wanted.and_then(|length| Second::fit(&self.history, &self.names, length)),
            window_length_ms: self.window_length_ms,
            span,
            masks: self.masks,
            density,
            usual: usual(&rows),
            profile,
            young: self.first_start
                && Caution::of(calibration.windows, self.window_length_ms, 0.0).is_some(),
            calibration,
        })
    }

    fn pack(&mut self, window: &ClosedWindow) -> TrainingWindow {
        let content = &*window.content;
        let next = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        let stream = *self.streams.entry(window.stream.clone()).or_insert(next);
        let services: Vec<_> = content
            .services
            .iter()
            .map(|service| self.service(&service.name))
            .collect();
        let mut packed = TrainingWindow {
            window: window.bounds.start.as_millis() / self.window_length_ms,
            stream,
            levels: content.levels,
            ..TrainingWindow::default()
        };
        self.pack_pairs(content, &services, &mut packed);
        for (service, number) in content.services.iter().zip(&services) {
            let critical = critical_lines(&service.levels);
            if let Some(number) = number
                && critical > 0
            {
                packed.critical.push((*number, critical));
            }
        }
        packed.critical.sort_unstable();
        packed
    }

    fn pack_pairs(
        &mut self,
        content: &WindowContent,
        services: &[Option<u32>],
        packed: &mut TrainingWindow,
    ) {
        self.untracked_lines += u64::from(content.overflow);
        for pair in content.sorted_pairs() {
            let number = services[pair.service].and_then(|service| {
                let template = self.template(pair.template.hash, &pair.template.text)?;
                intern(
                    &mut self.index.pairs,
                    (service, template),
                    PAIRS_MAX,
                    |key| {
                        self.names.pairs.push(key);
                    },
                )
            });
            match number {
                Some(number) => packed.pairs.push(PairLines {
                    pair: number,
                    lines: pair.count,
                }),
                None => self.untracked_lines += u64::from(pair.count),
            }
        }
    }

    fn service(&mut self, name: &Arc<str>) -> Option<u32> {
        let names = &mut self.names.services;
        let name = Arc::clone(name);
        intern(&mut self.index.services, name, SERVICES_MAX, |name| {
            names.push(name);
        })
    }

    fn template(&mut self, hash: u64, text: &str) -> Option<u32> {
        let names = &mut self.names.templates;
        intern(&mut self.index.templates, hash, TEMPLATES_MAX, |hash| {
            names.push((hash, cut(text).into()));
        })
    }
}

/// Returns the number of `key`, a new one (passed to `named`) if there is room for it.
fn intern<K: Clone + Eq + std::hash::Hash>(
    index: &mut HashMap<K, u32>,
    key: K,
    max: usize,
    named: impl FnOnce(K),
) -> Option<u32> {
    if let Some(&number) = index.get(&key) {
        return Some(number);
    }
    let next = u32::try_from(index.len()).ok()?;
    if index.len() >= max {
        return None;
    }
    index.insert(key.clone(), next);
    named(key);
    Some(next)
}

fn usual(rows: &[FeatureRow]) -> Vec<Usual> {
    (0..COLUMNS.len())
        .map(|column| {
            let mut values: Vec<_> = rows.iter().map(|row| row.values[column]).collect();
            values.sort_unstable_by(f64::total_cmp);
            Usual {
                low: quantile(&values, 0.01),
                median: quantile(&values, 0.5),
                high: quantile(&values, 0.99),
            }
        })
        .collect()
}
