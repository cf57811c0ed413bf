//! Incidents of known kinds, laid over copies of normal windows: what a model finds of them where
//! nothing says what is true.
//!
//! Which windows are taken is decided by a hash of stream and time under a fixed seed, so that it is
//! always the same and the models are tried on the same ones.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Side;
use crate::{
    decode::Template,
    evaluate::OverlayRecall,
    event::{Level, LogEvent},
    model::{Baseline, ScoredWindow},
    pipeline::Shared,
    window::{ClosedWindow, WindowContent},
};

/// Windows tried.
const WINDOWS_MAX: usize = 40;
const SEED: u64 = 0x6c6f_6767_7561_7264;
/// Lines that a burst of errors adds, at least; as many as the window has, if those are more.
const BURST_LINES_MIN: u32 = 20;
/// Times the lines of a surge.
const SURGE_FACTOR: u32 = 10;
/// Windows that silence lasts, and a changed mix: 10 and 5 minutes at 30 s.
const SILENT_WINDOWS: i64 = 20;
const MIX_WINDOWS: i64 = 10;
/// A line that no system writes.
const NEW_LINE: &str = "overlay probe: shard ledger handed over to a standby of another colour";

/// What is laid over.
#[derive(Clone, Copy, Debug)]
enum Kind {
    ErrorBurst,
    Surge,
    NewLine,
    Silence,
    ChangedMix,
}

impl Kind {
    const ALL: [(Self, &'static str); 5] = [
        (Self::ErrorBurst, "error burst"),
        (Self::Surge, "surge"),
        (Self::NewLine, "new line"),
        (Self::Silence, "silence"),
        (Self::ChangedMix, "changed mix"),
    ];
}

/// Lines of one template from one service.
#[derive(Clone, Debug)]
struct Lines {
    service: Arc<str>,
    template: Arc<Template>,
    level: Level,
    count: u32,
}

/// A window of one side, and the state its stream was in before.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) window: ClosedWindow,
    pub(super) before: Baseline,
}

/// The windows to try, as each side has them.
#[derive(Debug, Default)]
pub(super) struct Grounds {
    by_hash: BTreeMap<u64, [Ground; 2]>,
}

impl Grounds {
    /// Returns the place of a window, if it is normal for both models and among those to try.
    pub(super) fn place(&self, [a, b]: [&ScoredWindow; 2]) -> Option<u64> {
        let (window, content) = (&a.window, &a.window.content);
        let normal = |scored: &ScoredWindow| !scored.verdict.is_anomaly && !scored.verdict.cold;
        if content.lines() == 0 || content.anomalous > 0 || window.first || window.partial {
            return None;
        }
        let name = format!("{} {}", window.stream, window.bounds.start);
        let hash = xxh3_64_with_seed(name.as_bytes(), SEED);
        let last = self.by_hash.last_key_value().map(|(hash, _)| *hash);
        let wanted = self.by_hash.len() < WINDOWS_MAX || last.is_some_and(|last| hash < last);
        (wanted && normal(a) && normal(b)).then_some(hash)
    }

    /// Keeps a window at its place.
    pub(super) fn keep(&mut self, place: u64, grounds: [Ground; 2]) {
        self.by_hash.insert(place, grounds);
        if self.by_hash.len() > WINDOWS_MAX {
            self.by_hash.pop_last();
        }
    }

    /// Tries every kind on every window kept.
    pub(super) fn try_all(&self, sides: &mut [Side<'_>]) -> Vec<OverlayRecall> {
        let mut recalls = Vec::new();
        for (kind, name) in Kind::ALL {
            let mut recall = OverlayRecall {
                kind: name,
                tried: 0,
                found_a: 0,
                found_b: 0,
            };
            for [a, b] in self.by_hash.values() {
                let found_a = is_found(kind, a, &mut sides[0].shared);
                let found_b = is_found(kind, b, &mut sides[1].shared);
                if let (Some(found_a), Some(found_b)) = (found_a, found_b) {
                    recall.tried += 1;
                    recall.found_a += u64::from(found_a);
                    recall.found_b += u64::from(found_b);
                }
            }
            recalls.push(recall);
        }
        recalls
    }
}

/// Returns whether one of the windows alarms; nothing if the window does not lend itself to the kind.
fn is_found(kind: Kind, ground: &Ground, shared: &mut Shared) -> Option<bool> {
    let (content, windows) = overlaid(kind, &ground.window.content, shared)?;
    let content = Arc::new(content);
    let bounds = ground.window.bounds;
    let length_ms = bounds.end.as_millis() - bounds.start.as_millis();
    let mut baseline = ground.before.clone();
    let found = (0..windows).any(|number| {
        let mut window = ground.window.clone();
        window.content = Arc::clone(&content);
        window.bounds.start = bounds.start.saturating_add(number * length_ms);
        window.bounds.end = bounds.end.saturating_add(number * length_ms);
        window.slot = window.bounds.start;
        let verdict = shared.score(window, &mut baseline).verdict;
        // What a young model holds back it has found.
        verdict.is_anomaly || verdict.capped
    });
    Some(found)
}

/// Returns what the windows of an overlay hold, and how many there are.
fn overlaid(
    kind: Kind,
    content: &WindowContent,
    shared: &mut Shared,
) -> Option<(WindowContent, i64)> {
    let lines = lines_of(content);
    let mut content = content.clone();
    let windows = match kind {
        Kind::ErrorBurst => {
            let more = content.lines().max(BURST_LINES_MIN);
            add(&mut content, &known_error(&lines, more)?);
            1
        }
        Kind::Surge => {
            content.multiply(SURGE_FACTOR);
            1
        }
        Kind::NewLine => {
            let line = Lines {
                service: Arc::clone(&lines.first()?.service),
                template: shared.template(NEW_LINE),
                level: Level::Info,
                count: 1,
            };
            add(&mut content, &line);
            1
        }
        Kind::Silence => {
            content = WindowContent::default();
            SILENT_WINDOWS
        }
        Kind::ChangedMix => {
            content = content_of(&change_mix(lines)?);
            MIX_WINDOWS
        }
    };
    Some((content, windows))
}

/// Returns lines of an error that the window has; of its rarest line, turned into an error, if it has
/// none.
fn known_error(lines: &[Lines], count: u32) -> Option<Lines> {
    let errors = lines.iter().filter(|of| of.level.is_critical());
    let known = errors.min_by_key(|of| (of.count, of.template.hash));
    let known = known.or_else(|| lines.iter().min_by_key(|of| (of.count, of.template.hash)))?;
    Some(Lines {
        level: known.level.max(Level::Error),
        count,
        ..known.clone()
    })
}

/// Lets the service with most lines write nothing but its rarest ones, as many as before.
fn change_mix(mut lines: Vec<Lines>) -> Option<Vec<Lines>> {
    let mut sums: BTreeMap<Arc<str>, (u32, u32)> = BTreeMap::new();
    for of in &lines {
        let (count, templates) = sums.entry(Arc::clone(&of.service)).or_default();
        *count += of.count;
        *templates += 1;
    }
    let several = sums.iter().filter(|(_, (_, templates))| *templates > 1);
    let (service, (count, _)) = several.max_by_key(|(_, (count, _))| *count)?;
    let of_service = lines.iter().filter(|of| of.service == *service);
    let rarest = of_service.min_by_key(|of| (of.count, of.template.hash))?;
    // One error among many lines of a pair is no reason to call all of them errors.
    let rarest = Lines {
        count: *count,
        level: rarest.level.min(Level::Warn),
        ..rarest.clone()
    };
    lines.retain(|of| of.service != rarest.service);
    for of in lines.iter_mut().filter(|of| of.count > 1) {
        of.level = of.level.min(Level::Warn);
    }
    lines.push(rarest);
    Some(lines)
}

/// Returns the lines of each pair, at the highest level that one of them had.
fn lines_of(content: &WindowContent) -> Vec<Lines> {
    let pairs = content.sorted_pairs().into_iter();
    pairs
        .map(|pair| Lines {
            service: Arc::clone(&content.services[pair.service].name),
            template: Arc::clone(&pair.template),
            level: pair.level,
            count: pair.count,
        })
        .collect()
}

fn content_of(lines: &[Lines]) -> WindowContent {
    let mut content = WindowContent::default();
    for of in lines {
        add(&mut content, of);
    }
    content
}

fn add(content: &mut WindowContent, of: &Lines) {
    let event = LogEvent {
        time: crate::event::EventTime::default(),
        level: of.level,
        service: Cow::Borrowed(&of.service),
        message: Cow::Borrowed(&of.template.text),
        label: None,
    };
    for _ in 0..of.count {
        content.add(&event, &of.template);
    }
}
