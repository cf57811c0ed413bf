//! How a template that training never saw, but that keeps coming, becomes known to a stream.
//!
//! ```text
//! new ── in six of its windows in a row nothing else was wrong ──► adopted
//!        beside one adopted that began with it: in two
//!        ERROR and FATAL: in six, and six hours have passed since the first
//! ```
//!
//! A release adds lines, and they are news for a handful of windows, not until the next training.
//! A line that comes with another signal is not adopted, whatever its level. Times are those of the
//! windows; everything is a function of the stream's windows and the model, and the lists are bounded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::profile::hex_u64;
use crate::{event::EventTime, features::Observed};

/// Windows in a row in which a new template came without another signal, after which it is known.
/// A template that belongs to incidents which show in every second of its windows passes with a
/// chance of 2^-6, below 2 %; one more would make a harmless one alarm once more.
pub const RECURRENCES: u32 = 6;
/// The same for one that began with another that is adopted by now: a release is one episode, however
/// many lines it adds.
const RECURRENCES_IN_COMPANY: u32 = 2;
/// Templates that came first within this time of each other began together, in milliseconds: those of
/// a release that come a few times an hour do.
const COMPANY_MS: i64 = 30 * 60_000;
/// Longer than incidents last, shorter than habits stay away, in milliseconds: a new `ERROR` or
/// `FATAL` is not adopted earlier, a template that stays away for longer is new again unless it
/// had been coming for as long.
pub const PATIENCE_MS: i64 = 6 * 3_600_000;
/// Most templates of a stream that are watched; releases add dozens.
pub const CANDIDATES_MAX: usize = 64;
/// Most templates adopted; rides in every row, and a model that lacks more should be trained again.
pub const ADOPTED_MAX: usize = 256;
/// What else is in a window counts as another signal if chance brings it in fewer than one window
/// in a hundred: rare enough that six windows in a row are mostly free of false ones.
const LN_OTHER_SIGNAL: f64 = -4.605;
/// Windows that a run of alarms opened by another signal goes on after its last alarm: 5 minutes
/// at 30 s, since an incident is not over at its first quiet window.
const RUN_QUIET_WINDOWS: u32 = 10;
/// Windows after which such a run is over although alarms go on, if the other signal is gone: 2 h
/// at 30 s, as for the volume.
const RUN_WINDOWS_MAX: u32 = super::LEVEL_SHIFT_WINDOWS;
/// Occasions of the unseen, as in the profile.
const UNSEEN: f64 = 0.5;

/// What a stream has seen of templates that training had not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Adoption {
    /// Pairs of service and template in all windows so far.
    draws: u64,
    /// Alarms under way that something else than new templates brought about.
    #[serde(skip_serializing_if = "AlarmRun::is_over")]
    run: AlarmRun,
    /// Least recently seen first, as below. Shared with the rows that carry the same lists: a row
    /// of a window without news takes no memory for them.
    #[serde(skip_serializing_if = "is_empty")]
    candidates: Arc<Vec<Recurring>>,
    #[serde(skip_serializing_if = "is_empty")]
    adopted: Arc<Vec<Recurring>>,
}

#[allow(clippy::ptr_arg, reason = "serde's signature")]
fn is_empty(list: &Arc<Vec<Recurring>>) -> bool {
    list.is_empty()
}

/// A template that training had not, and what this stream has seen of it. Stored as a list, in this
/// order: names would take most of the room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
struct Recurring {
    /// Identity.
    template: u64,
    /// Starts of the first and the last window that held it, in ms since the epoch.
    first_ms: i64,
    last_ms: i64,
    /// Windows that held it.
    windows: u32,
    /// The last of them in a row in which nothing else was wrong.
    alone: u32,
    /// Lines, and lines of the services that wrote it in the windows that held it.
    lines: u64,
    service_lines: u64,
    /// Pairs that the stream had seen before it.
    draws_before: u64,
    /// It came as `ERROR` or `FATAL`.
    critical: bool,
    /// Start of the window in which it was adopted.
    adopted_ms: Option<i64>,
}

/// A template that training had not, as a stream's baseline has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamTemplate {
    /// Identity.
    #[serde(with = "hex_u64")]
    pub template: u64,
    /// Starts of the first and the last window that held it.
    pub first: EventTime,
    /// See `first`.
    pub last: EventTime,
    /// Windows that held it.
    pub windows: u32,
    /// The last of them in a row in which nothing else was wrong.
    pub alone: u32,
    /// Lines.
    pub lines: u64,
    /// It came, or is known, as `ERROR` or `FATAL`.
    pub critical: bool,
    /// Start of the window at which it was adopted; absent while it is watched.
    pub adopted: Option<EventTime>,
}

impl StreamTemplate {
    fn of(known: &Recurring) -> Self {
        let time = |millis| EventTime::default().saturating_add(millis);
        Self {
            template: known.template,
            first: time(known.first_ms),
            last: time(known.last_ms),
            windows: known.windows,
            alone: known.alone,
            lines: known.lines,
            critical: known.critical,
            adopted: known.adopted_ms.map(time),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Packed(
    #[serde(with = "hex_u64")] u64,
    i64,
    i64,
    u32,
    u32,
    u64,
    u64,
    u64,
    bool,
    Option<i64>,
);

impl From<Recurring> for Packed {
    fn from(r: Recurring) -> Self {
        Self(
            r.template,
            r.first_ms,
            r.last_ms,
            r.windows,
            r.alone,
            r.lines,
            r.service_lines,
            r.draws_before,
            r.critical,
            r.adopted_ms,
        )
    }
}

impl From<Packed> for Recurring {
    fn from(packed: Packed) -> Self {
        let Packed(template, first_ms, last_ms, windows, alone, ..) = packed;
        let Packed(.., lines, service_lines, draws_before, critical, adopted_ms) = packed;
        Self {
            template,
            first_ms,
            last_ms,
            windows,
            alone,
            lines,
            service_lines,
            draws_before,
            critical,
            adopted_ms,
        }
    }
}

/// A run of alarms opened by something else than new templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlarmRun {
    /// Windows that it still lasts if the other signal does not come back.
    left: u32,
    /// Every window since has been an alarm.
    unbroken: bool,
}

impl AlarmRun {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_over(&self) -> bool {
        self.left == 0
    }

    fn step(&mut self, anomalous: bool, by_other: bool) {
        if by_other {
            *self = Self {
                left: RUN_WINDOWS_MAX,
                unbroken: true,
            };
            return;
        }
        self.left = self.left.saturating_sub(1);
        self.unbroken &= anomalous;
        if !self.unbroken {
            self.left = self.left.min(RUN_QUIET_WINDOWS);
        }
        self.unbroken &= self.left > 0;
    }
}

/// The pairs of a window that training had not seen, by their places.
#[derive(Clone, Debug, Default)]
pub(super) struct Unseen {
    /// New to the stream as well.
    pub(super) new: Vec<usize>,
    /// Adopted by it.
    adopted: Vec<usize>,
}

/// A window after it was scored.
#[derive(Clone, Copy)]
pub(super) struct AdoptionStep<'a> {
    pub(super) observed: &'a Observed,
    /// Whether the pair at a place came as `ERROR` or `FATAL`.
    pub(super) critical: &'a dyn Fn(usize) -> bool,
    pub(super) unseen: &'a Unseen,
    /// Start of the window, in ms since the epoch.
    pub(super) start_ms: i64,
    /// The window was judged anomalous.
    pub(super) anomalous: bool,
    /// ln p of all there is in the window but the new templates.
    pub(super) ln_p_rest: f64,
    /// ln p of an alarm.
    pub(super) ln_threshold: f64,
}

/// A template that was adopted just now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    /// Place of one of its pairs.
    pub(super) place: usize,
    /// Windows that held it so far.
    pub(super) windows: u32,
    /// Start of the first of them, in ms since the epoch.
    pub(super) first_ms: i64,
}

/// One template of a window, of all its services.
struct Sighting {
    template: u64,
    place: usize,
    lines: u64,
    service_lines: u64,
    critical: bool,
}

impl Adoption {
    /// Returns about how many bytes the lists take.
    pub(super) fn bytes(&self) -> usize {
        (self.candidates.len() + self.adopted.len()) * size_of::<Recurring>()
    }

    /// Obeys what people decided, as of the window that starts at `start_ms`: `(template, adopted)`. Who
    /// adopts a template says that it is usual from then on, at any level; one that is forgotten stays
    /// new however often it comes.
    pub(super) fn decide(&mut self, decided: &[(u64, bool)], start_ms: i64) {
        for &(template, adopt) in decided.iter().take(ADOPTED_MAX / 2) {
            if !adopt {
                take(&mut self.adopted, template);
                let mut candidates = self.candidates.iter();
                let watched = |it: &Recurring| it.template == template && it.alone > 0;
                if let Some(at) = candidates.position(watched) {
                    Arc::make_mut(&mut self.candidates)[at].alone = 0;
                }
                continue;
            }
            let mut adopted = self.adopted.iter();
            let stands = |known: &Recurring| {
                known.template == template && known.critical && !known.is_gone(start_ms)
            };
            if adopted.any(stands) {
                continue;
            }
            let known = take(&mut self.adopted, template);
            let candidate = take(&mut self.candidates, template);
            let known = known.filter(|known| !known.is_gone(start_ms)).or(candidate);
            let by_hand = Recurring::by_hand(template, known, (start_ms, self.draws));
            push(&mut self.adopted, by_hand, ADOPTED_MAX);
        }
    }

    /// Returns the templates that the stream watches or adopted, least recently seen first.
    pub(super) fn templates(&self) -> Vec<StreamTemplate> {
        let candidates = self.candidates.iter().chain(&*self.adopted);
        candidates.map(StreamTemplate::of).collect()
    }

    /// Gives the facts of adopted templates what the stream has seen of them; returns the pairs
    /// that training had not seen. A template adopted as harmless is new as `ERROR` or `FATAL`.
    pub(super) fn apply(
        &self,
        observed: &mut Observed,
        critical: impl Fn(usize) -> bool,
        start_ms: i64,
    ) -> Unseen {
        let mut unseen = Unseen::default();
        for (place, pair) in observed.pairs.iter_mut().enumerate() {
            if pair.fact.training_lines > 0 {
                continue;
            }
            let Some(known) = self.find(pair.template, critical(place), start_ms) else {
                unseen.new.push(place);
                continue;
            };
            unseen.adopted.push(place);
            pair.fact.adopted = true;
            pair.fact.training_lines = known.lines;
            (pair.fact.surprisal, pair.fact.share) = self.facts(known);
        }
        unseen
    }

    /// Returns surprisal and share of a template that training had not, if it is adopted.
    pub(super) fn adopted(&self, template: u64, critical: bool, at_ms: i64) -> Option<(f64, f64)> {
        let known = self.find(template, critical, at_ms)?;
        Some(self.facts(known))
    }

    fn find(&self, template: u64, critical: bool, at_ms: i64) -> Option<&Recurring> {
        self.adopted.iter().find(|known| {
            known.template == template && known.critical >= critical && !known.is_gone(at_ms)
        })
    }

    fn facts(&self, known: &Recurring) -> (f64, f64) {
        let draws = self.draws.saturating_sub(known.draws_before);
        (
            -share(u64::from(known.windows), draws).ln(),
            share(known.lines, known.service_lines),
        )
    }

    /// Ends a run of alarms: nothing came for long.
    pub(super) fn gap(&mut self) {
        self.run = AlarmRun::default();
    }

    /// Adds a window; returns the templates adopted at it.
    pub(super) fn step(&mut self, step: &AdoptionStep<'_>) -> Vec<Adopted> {
        let by_other = if step.unseen.new.is_empty() {
            step.anomalous
        } else {
            step.ln_p_rest < step.ln_threshold
        };
        self.run.step(step.anomalous, by_other);
        let draws_before = self.draws;
        self.draws += step.observed.pairs.len() as u64;
        for list in [&mut self.candidates, &mut self.adopted] {
            if list.iter().any(|known| known.is_gone(step.start_ms)) {
                Arc::make_mut(list).retain(|known| !known.is_gone(step.start_ms));
            }
        }
        for sighting in sightings(step, &step.unseen.adopted) {
            if let Some(mut known) = take(&mut self.adopted, sighting.template) {
                known.add(&sighting, step.start_ms);
                push(&mut self.adopted, known, ADOPTED_MAX);
            }
        }
        let new = sightings(step, &step.unseen.new);
        let critical_news = new.iter().any(|sighting| sighting.critical);
        let other_signal = step.ln_p_rest < LN_OTHER_SIGNAL || !self.run.is_over();
        let mut adopted = Vec::new();
        for sighting in new {
            let mut candidate = take(&mut self.candidates, sighting.template)
                .unwrap_or_else(|| Recurring::new(&sighting, step.start_ms, draws_before));
            candidate.add(&sighting, step.start_ms);
            if other_signal || (critical_news && !candidate.critical) {
                candidate.alone = 0;
            } else {
                candidate.alone += 1;
            }
            if candidate.is_due(&self.adopted) {
                candidate.adopted_ms = Some(step.start_ms);
                adopted.push(Adopted {
                    place: sighting.place,
                    windows: candidate.windows,
                    first_ms: candidate.first_ms,
                });
                // It may have been adopted at a lower level.
                take(&mut self.adopted, sighting.template);
                push(&mut self.adopted, candidate, ADOPTED_MAX);
            } else {
                push(&mut self.candidates, candidate, CANDIDATES_MAX);
            }
        }
        adopted
    }
}

impl Recurring {
    fn new(sighting: &Sighting, start_ms: i64, draws_before: u64) -> Self {
        Self {
            template: sighting.template,
            first_ms: start_ms,
            last_ms: start_ms,
            windows: 0,
            alone: 0,
            lines: 0,
            service_lines: 0,
            draws_before,
            critical: false,
            adopted_ms: None,
        }
    }

    /// Returns a template that somebody adopts at the window at `start_ms`, with what the stream knew of
    /// it. It counts as often as one that was adopted by itself, and from then on as often as it comes.
    fn by_hand(template: u64, known: Option<Self>, (start_ms, draws): (i64, u64)) -> Self {
        let known = known.unwrap_or(Self {
            template,
            first_ms: start_ms,
            last_ms: start_ms,
            windows: 0,
            alone: 0,
            lines: 1,
            service_lines: 1,
            draws_before: draws,
            critical: true,
            adopted_ms: None,
        });
        Self {
            last_ms: known.last_ms.max(start_ms),
            windows: known.windows.max(RECURRENCES),
            draws_before: draws,
            critical: true,
            adopted_ms: Some(start_ms),
            ..known
        }
    }

    fn add(&mut self, sighting: &Sighting, start_ms: i64) {
        self.last_ms = self.last_ms.max(start_ms);
        self.windows = self.windows.saturating_add(1);
        self.lines += sighting.lines;
        self.service_lines += sighting.service_lines;
        self.critical |= sighting.critical;
    }

    fn is_due(&self, adopted: &[Self]) -> bool {
        if self.critical {
            let patient = self.last_ms.saturating_sub(self.first_ms) >= PATIENCE_MS;
            return patient && self.alone >= RECURRENCES;
        }
        let together = |known: &Self| {
            known.template != self.template
                && known.first_ms.abs_diff(self.first_ms) <= COMPANY_MS.unsigned_abs()
        };
        self.alone >= RECURRENCES
            || (self.alone >= RECURRENCES_IN_COMPANY && adopted.iter().any(together))
    }

    /// Returns whether it stayed away for longer than it had been coming and than patience lasts:
    /// it was an episode.
    fn is_gone(&self, now_ms: i64) -> bool {
        let coming_ms = self.last_ms.saturating_sub(self.first_ms);
        now_ms.saturating_sub(self.last_ms) > PATIENCE_MS
            && (self.adopted_ms.is_none() || coming_ms < PATIENCE_MS)
    }
}

/// Share of `part` in `whole`, smoothed as the profile's: in (0, 1].
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share(part: u64, whole: u64) -> f64 {
    ((part as f64 + UNSEEN) / (whole as f64 + 1.0)).min(1.0)
}

/// Returns the templates of the pairs at `places`, in order of their first place.
fn sightings(step: &AdoptionStep<'_>, places: &[usize]) -> Vec<Sighting> {
    let mut sightings: Vec<Sighting> = Vec::with_capacity(places.len());
    let mut numbers = std::collections::HashMap::with_capacity(places.len());
    for &place in places {
        let pair = &step.observed.pairs[place];
        let number = *numbers.entry(pair.template).or_insert(sightings.len());
        if number == sightings.len() {
            sightings.push(Sighting {
                template: pair.template,
                place,
                lines: 0,
                service_lines: 0,
                critical: false,
            });
        }
        let sighting = &mut sightings[number];
        sighting.lines += u64::from(pair.count);
        sighting.service_lines += u64::from(step.observed.services[pair.service].lines);
        sighting.critical |= (step.critical)(place);
    }
    sightings
}

fn take(list: &mut Arc<Vec<Recurring>>, template: u64) -> Option<Recurring> {
    let place = list.iter().position(|known| known.template == template)?;
    Some(Arc::make_mut(list).remove(place))
}

/// Adds the one seen most recently; the one seen least recently makes room.
fn push(list: &mut Arc<Vec<Recurring>>, known: Recurring, max: usize) {
    let list = Arc::make_mut(list);
    if list.len() >= max {
        list.remove(0);
    }
    list.push(known);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(template: u64, at_ms: i64) -> Recurring {
        let sighting = Sighting {
            template,
            place: 0,
            lines: 3,
            service_lines: 7,
            critical: false,
        };
        let mut known = Recurring::new(&sighting, at_ms, 5);
        known.add(&sighting, at_ms);
        known
    }

    #[test]
    fn a_full_list_forgets_the_template_seen_least_recently() {
        let mut list = Arc::default();
        for template in 0..10 {
            push(&mut list, known(template, 0), 4);
        }
        let kept: Vec<_> = list.iter().map(|known| known.template).collect();
        assert_eq!(kept, [6, 7, 8, 9]);
        let seen = take(&mut list, 6).unwrap();
        push(&mut list, seen, 4);
        push(&mut list, known(10, 0), 4);
        let kept: Vec<_> = list.iter().map(|known| known.template).collect();
        assert_eq!(kept, [8, 9, 6, 10]);
    }

    #[test]
    fn full_lists_stay_small_and_json_gives_them_back_exactly() {
        let at = |n: u64| (u64::MAX - n, 1_766_000_000_000 + n.cast_signed());
        let list = |max: usize| (0..max as u64).map(at).map(|(hash, ms)| known(hash, ms));
        let mut full = Adoption {
            draws: 1 << 52,
            run: AlarmRun {
                left: RUN_WINDOWS_MAX,
                unbroken: true,
            },
            candidates: Arc::new(list(CANDIDATES_MAX).collect()),
            adopted: Arc::new(list(ADOPTED_MAX).collect()),
        };
        for known in Arc::make_mut(&mut full.adopted) {
            known.critical = true;
            known.adopted_ms = Some(known.last_ms);
        }
        let json = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<Adoption>(&json).unwrap(), full);
        assert!(json.len() < 32_000, "{}", json.len());
    }

    #[test]
    fn a_run_of_alarms_lasts_while_alarms_go_on_and_a_little_longer() {
        let mut run = AlarmRun::default();
        run.step(true, false);
        assert!(run.is_over(), "opened by a new template");
        run.step(true, true);
        for _ in 1..RUN_WINDOWS_MAX {
            run.step(true, false);
            assert!(!run.is_over());
        }
        run.step(true, false);
        assert!(run.is_over(), "not for ever");
        run.step(true, true);
        for _ in 0..RUN_QUIET_WINDOWS {
            assert!(!run.is_over());
            run.step(false, false);
        }
        run.step(false, false);
        assert_eq!(run, AlarmRun::default());
    }
}
