//! Incidents: when they start, how long they last, and the lines they add.
//!
//! An incident is a script of steps; each of its lines is drawn from the steps that are open at that
//! point. The words of the standard kinds are in `script.rs`, those of the hard set in `hard.rs`.
//! Times here are microseconds since the generator's start; nothing reads a clock.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;

use super::{
    MICROS_PER_SECOND,
    event::{IncidentKind, Level},
    template::Template,
};

/// Length of the slots in which an incident may start: `--anomaly-prob` is the chance per slot.
pub const SLOT_US: i64 = 30 * MICROS_PER_SECOND;

/// What one step of an incident writes.
#[derive(Clone, Debug)]
pub(super) enum Line {
    /// A template of one service at one level.
    Of(usize, Level, Template),
    /// Any line of normal traffic.
    Normal,
}

/// Part of an incident: a line that is written between two points of its progress.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Progress (0 to 1) from which on the line is written.
    pub(super) from: f64,
    /// Progress up to which it is written.
    pub(super) until: f64,
    /// Its share among the steps open at the same time.
    pub(super) weight: u32,
    /// The line.
    pub(super) line: Line,
}

/// What an incident does to normal traffic while it lasts.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Nothing: it only adds lines.
    None,
    /// Nothing at all is written.
    Silence,
    /// The service writes no heartbeats.
    MuteHeartbeat(usize),
    /// A share of the service's lines, 0 to 1, is replaced by the incident's own.
    Replace(usize, f64),
}

/// What a kind of incident is, before it is placed in time.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) kind: IncidentKind,
    /// Services touched, the first one first; empty for all.
    pub(super) services: Vec<usize>,
    /// Length in seconds.
    pub(super) seconds: f64,
    /// Lines added per second; 0 for a single line at the start, negative for none.
    pub(super) lines_per_s: f64,
    /// Whether the lines grow more frequent, from a tenth of the rate to twice the rate.
    pub(super) ramp: bool,
    pub(super) steps: Vec<Step>,
    pub(super) effect: Effect,
}

/// An incident under way.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) script: Script,
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    /// When its next line is due; `i64::MAX` if it adds none (any more).
    pub(super) next_us: i64,
    /// Lines written so far.
    pub(super) lines: u64,
    /// The wall time of its start: microseconds since the Unix epoch.
    pub(super) stamped_start_us: i64,
}

impl Active {
    pub(super) fn new(script: Script, start_us: i64, stamped_start_us: i64) -> Self {
        let end_us = start_us.saturating_add(micros(script.seconds));
        let adds_lines = script.lines_per_s >= 0.0 && !script.steps.is_empty();
        Self {
            next_us: if adds_lines { start_us } else { i64::MAX },
            script,
            start_us,
            end_us,
            lines: 0,
            stamped_start_us,
        }
    }

    /// Returns how far the incident is at `at_us`, 0 to 1.
    #[allow(
        clippy::cast_precision_loss,
        reason = "an incident is far shorter than 2^52 us"
    )]
    pub(super) fn progress(&self, at_us: i64) -> f64 {
        let length = (self.end_us - self.start_us).max(1) as f64;
        ((at_us - self.start_us) as f64 / length).clamp(0.0, 1.0)
    }

    /// Moves on to the incident's next line after the one at `at_us`.
    pub(super) fn schedule_next(&mut self, at_us: i64, rng: &mut ChaCha8Rng) {
        let shape = if self.script.ramp {
            self.progress(at_us).mul_add(1.9, 0.1)
        } else {
            1.0
        };
        let rate = self.script.lines_per_s * shape;
        self.next_us = if rate > 0.0 {
            at_us.saturating_add(gap_us(rate, rng))
        } else {
            i64::MAX
        };
    }

    /// Draws the line to write at `progress`; the first step if none is open.
    pub(super) fn draw_line(&self, progress: f64, rng: &mut ChaCha8Rng) -> &Line {
        let steps = &self.script.steps;
        let open = |step: &&Step| (step.from..=step.until).contains(&progress);
        let total: u32 = steps.iter().filter(open).map(|step| step.weight).sum();
        let mut ticket = if total == 0 {
            0
        } else {
            rng.random_range(0..total)
        };
        for step in steps.iter().filter(open) {
            if ticket < step.weight {
                return &step.line;
            }
            ticket -= step.weight;
        }
        steps.first().map_or(&Line::Normal, |step| &step.line)
    }
}

/// Decides when incidents start and of which kind: each slot with the same chance, kinds in shuffled
/// rounds, so that a short set has all of them.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    rng: ChaCha8Rng,
    probability: f64,
    kinds: &'static [IncidentKind],
    round: Vec<IncidentKind>,
    /// Number of the slot to look at next.
    slot: i64,
    /// Start of the next incident; `i64::MAX` for never.
    next_us: i64,
    /// An extra incident asked for at a certain time.
    forced_us: Option<i64>,
}

impl Plan {
    pub(super) fn new(
        seed: u64,
        probability: f64,
        kinds: &'static [IncidentKind],
        forced_us: Option<i64>,
    ) -> Self {
        let mut plan = Self {
            rng: stream(seed, 1),
            probability,
            kinds,
            round: Vec::new(),
            slot: 0,
            next_us: 0,
            forced_us,
        };
        plan.next_us = plan.draw_start();
        plan
    }

    /// Returns when the next incident starts; `i64::MAX` for never.
    pub(super) fn next_us(&self) -> i64 {
        self.forced_us
            .map_or(self.next_us, |forced| forced.min(self.next_us))
    }

    /// Takes the incident due next: its kind, and the generator of numbers for its details.
    pub(super) fn take(&mut self) -> (IncidentKind, &mut ChaCha8Rng) {
        if self.forced_us.is_some_and(|forced| forced <= self.next_us) {
            self.forced_us = None;
        } else {
            self.next_us = self.draw_start();
        }
        if self.round.is_empty() {
            self.round.extend_from_slice(self.kinds);
            self.round.shuffle(&mut self.rng);
        }
        let kind = self.round.pop().unwrap_or(IncidentKind::SpikeError);
        (kind, &mut self.rng)
    }

    /// Draws the first slot with an incident by the geometric law, and a moment within it.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the number of slots skipped is clamped to 2^40, some 32,000 years"
    )]
    fn draw_start(&mut self) -> i64 {
        const SLOTS_MAX: f64 = (1_u64 << 40) as f64;
        if self.probability <= 0.0 {
            return i64::MAX;
        }
        let skipped = if self.probability >= 1.0 {
            0.0
        } else {
            let exponential: f64 = self.rng.sample(Exp1);
            (exponential / -(-self.probability).ln_1p()).floor()
        };
        let slot = self.slot + skipped.min(SLOTS_MAX) as i64;
        self.slot = slot + 1;
        slot * SLOT_US + self.rng.random_range(0..SLOT_US)
    }
}

/// Returns the numbered stream of random numbers of `seed`. What one stream is used for never shifts
/// another: normal traffic is the same with and without incidents.
pub(super) fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// Draws the time to the next of lines that arrive independently, `rate_per_s` on average.
pub(super) fn gap_us(rate_per_s: f64, rng: &mut ChaCha8Rng) -> i64 {
    let exponential: f64 = rng.sample(Exp1);
    micros(exponential / rate_per_s)
}

/// Converts seconds to microseconds, at most a century.
#[allow(
    clippy::cast_possible_truncation,
    reason = "clamped to a century first"
)]
pub(super) fn micros(seconds: f64) -> i64 {
    const CENTURY_US: f64 = 100.0 * 365.25 * 86_400e6;
    (seconds * 1e6).clamp(0.0, CENTURY_US).round() as i64
}
