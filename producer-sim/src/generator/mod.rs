//! The model of a system that writes logs: ordinary traffic, and incidents with their ground truth.
//!
//! ```text
//! Plan ──► Script ──► Active ─┐
//!                             ├─► Generator::advance ──► Event (labelled), Incident (ground truth)
//! Catalog (normal traffic) ───┘
//! ```
//!
//! Pure and seeded: the same settings give the same events. Nothing here reads a clock, sleeps or
//! does I/O; whoever drives the generator decides when its events happen.

mod event;
mod hard;
mod incident;
mod lines;
mod messages;
mod script;
mod template;
mod traffic;
mod words;

use rand_chacha::ChaCha8Rng;

pub use self::{
    event::{Event, Incident, IncidentKind, Level},
    incident::SLOT_US,
};
use self::{
    hard::World,
    incident::{Active, Plan, gap_us, stream},
    messages::SERVICES,
    traffic::Catalog,
};

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;

/// Which incidents there are, and what else goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Even traffic; incidents with words of their own, 20 to 120 s long.
    Standard,
    /// Daily rhythm, heartbeats, a release and a promotion; incidents made of everyday lines.
    Hard {
        /// How long the set is, in microseconds: release and promotion are placed by it.
        span_us: i64,
    },
}

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Seed of all random numbers.
    pub seed: u64,
    /// Normal lines per second, on average; above 0. Incidents come on top.
    pub rate_per_s: f64,
    /// Chance, 0 to 1, that an incident starts within one slot of [`SLOT_US`].
    pub anomaly_prob: f64,
    /// Time of the beginning: microseconds since the Unix epoch.
    pub start_us: i64,
    /// An extra incident that starts this long after the beginning, in microseconds.
    pub first_incident_after_us: Option<i64>,
    /// Which world the lines are of.
    pub scenario: Scenario,
}

/// Yields events in order of time, for ever.
#[derive(Clone, Debug)]
pub struct Generator {
    settings: Settings,
    catalog: Catalog,
    plan: Plan,
    world: Option<World>,
    rng: ChaCha8Rng,
    incident_rng: ChaCha8Rng,
    /// Wall time of the generator's zero; moves when [`Self::delay`] is called.
    origin_us: i64,
    next_normal_us: i64,
    /// No incident starts before this (hard scenario: they do not overlap).
    rest_until_us: i64,
    active: Vec<Active>,
    finished: Vec<Incident>,
    /// The incident in `active` that the event last yielded was counted for.
    counted: Option<usize>,
    event: Event,
}

/// What happens next.
enum Due {
    Normal,
    Heartbeat(usize),
    IncidentStarts,
    IncidentLine(usize),
    IncidentEnds(usize),
}

impl Generator {
    /// Returns a generator at its beginning.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (kinds, world): (&'static [IncidentKind], _) = match settings.scenario {
            Scenario::Standard => (&IncidentKind::STANDARD, None),
            Scenario::Hard { span_us } => (
                &IncidentKind::HARD,
                Some(World::new(settings.seed, span_us)),
            ),
        };
        let forced_us = settings.first_incident_after_us;
        let mut generator = Self {
            settings,
            catalog: Catalog::new(),
            plan: Plan::new(settings.seed, settings.anomaly_prob, kinds, forced_us),
            world,
            rng: stream(settings.seed, 0),
            incident_rng: stream(settings.seed, 3),
            origin_us: settings.start_us,
            next_normal_us: 0,
            rest_until_us: 0,
            active: Vec::new(),
            finished: Vec::new(),
            counted: None,
            event: Event {
                time_us: settings.start_us,
                level: Level::Info,
                service: "",
                message: String::new(),
                anomaly: None,
            },
        };
        generator.next_normal_us = generator.draw_normal_gap_us(0);
        generator
    }

    /// Moves on to the next event and returns it. Times never go backwards.
    pub fn advance(&mut self) -> &Event {
        loop {
            let (at_us, due) = self.next_due();
            self.counted = None;
            let written = match due {
                Due::IncidentStarts => self.start_incident(at_us),
                Due::IncidentEnds(index) => self.end_incident(index),
                Due::IncidentLine(index) => self.write_incident_line(index, at_us),
                Due::Heartbeat(service) => self.write_heartbeat(service),
                Due::Normal => self.write_normal_line(at_us),
            };
            if written {
                self.event.time_us = self.origin_us + at_us;
                return &self.event;
            }
        }
    }

    /// Returns the event last yielded.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Takes the event last yielded out of the ground truth: it was not written after all.
    pub fn retract(&mut self) {
        if let Some(active) = self.counted.take().and_then(|at| self.active.get_mut(at)) {
            active.lines -= 1;
        }
    }

    /// Lets the event last yielded, and all that is still to come, happen `by_us` microseconds later.
    pub fn delay(&mut self, by_us: i64) {
        self.origin_us += by_us;
        self.event.time_us += by_us;
    }

    /// Returns the incidents that ended since the last call, in the order of their ends.
    pub fn drain_finished(&mut self) -> impl Iterator<Item = Incident> + '_ {
        self.finished.drain(..)
    }

    /// Ends what is under way at `now_us` (since the Unix epoch); returns it with what ended before.
    pub fn finish(mut self, now_us: i64) -> Vec<Incident> {
        while let Some(mut active) = self.active.pop() {
            let stamped_end_us = self.origin_us + active.end_us;
            if active.stamped_start_us < now_us {
                active.end_us = stamped_end_us.min(now_us) - self.origin_us;
                self.record(active);
            }
        }
        if let Some(world) = &self.world {
            for (kind, services, start_us, end_us) in world.harmless() {
                let (start_us, end_us) = (self.origin_us + start_us, self.origin_us + end_us);
                if start_us < now_us {
                    self.finished.push(Incident {
                        kind,
                        services: names(&services),
                        start_us,
                        end_us: end_us.min(now_us),
                        lines: 0,
                    });
                }
            }
        }
        self.finished
    }

    fn next_due(&self) -> (i64, Due) {
        let mut next = (self.next_normal_us, Due::Normal);
        let mut consider = |at_us: i64, due: Due| {
            if at_us < next.0 {
                next = (at_us, due);
            }
        };
        if let Some(world) = &self.world {
            let (at_us, service) = world.next_heartbeat();
            consider(at_us, Due::Heartbeat(service));
        }
        let start_us = self.plan.next_us().max(self.rest_until_us);
        consider(start_us, Due::IncidentStarts);
        for (index, active) in self.active.iter().enumerate() {
            if active.next_us < active.end_us {
                consider(active.next_us, Due::IncidentLine(index));
            }
            consider(active.end_us, Due::IncidentEnds(index));
        }
        next
    }

    fn start_incident(&mut self, at_us: i64) -> bool {
        let rate_per_s = self.settings.rate_per_s;
        let (kind, rng) = self.plan.take();
        let script = if self.world.is_some() {
            hard::script(kind, rate_per_s, &self.catalog, rng)
        } else {
            script::script(kind, rate_per_s, &self.catalog, rng)
        };
        let active = Active::new(script, at_us, self.origin_us + at_us);
        if self.world.is_some() {
            self.rest_until_us = active.end_us.saturating_add(hard::REST_US);
        }
        self.active.push(active);
        false
    }

    fn end_incident(&mut self, index: usize) -> bool {
        let active = self.active.swap_remove(index);
        self.record(active);
        false
    }

    fn record(&mut self, active: Active) {
        self.finished.push(Incident {
            kind: active.script.kind,
            services: names(&active.script.services),
            start_us: active.stamped_start_us,
            end_us: self.origin_us + active.end_us,
            lines: active.lines,
        });
    }

    fn draw_normal_gap_us(&mut self, at_us: i64) -> i64 {
        let world = self.world.as_ref();
        let load = world.map_or(1.0, |world| world.load(at_us, self.origin_us + at_us));
        gap_us(self.settings.rate_per_s * load, &mut self.rng)
    }
}

fn names(services: &[usize]) -> Vec<&'static str> {
    services.iter().map(|&index| SERVICES[index].name).collect()
}

#[cfg(test)]
mod tests;
