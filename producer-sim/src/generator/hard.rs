//! The hard scenario: incidents without words of their own, in traffic that has a daily rhythm,
//! heartbeats, a release and a promotion, both harmless.
//!
//! Everything an incident writes also occurs on ordinary days, but for the single new line.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    MICROS_PER_SECOND,
    event::{
        IncidentKind,
        Level::{Debug, Error, Info, Warn},
    },
    incident::{Effect, Line, Script, Step, stream},
    messages::SERVICES,
    script::{novel_template, step},
    template::Template,
    traffic::Catalog,
};

/// Time between two heartbeats of one service.
const HEARTBEAT_US: i64 = 15 * MICROS_PER_SECOND;
/// A heartbeat comes up to this much late.
const HEARTBEAT_JITTER_US: i64 = MICROS_PER_SECOND;
/// Quiet time after an incident, so that each can be judged on its own.
pub(super) const REST_US: i64 = 10 * 60 * MICROS_PER_SECOND;
/// Length of the promotion.
const PROMOTION_US: i64 = 3 * 3_600 * MICROS_PER_SECOND;
/// Share of a released service's lines that are of the new templates.
const RELEASE_SHARE: f64 = 0.08;

/// What the hard scenario adds to normal traffic. Times count from the generator's start.
#[derive(Clone, Debug)]
pub(super) struct World {
    span_us: i64,
    release_us: i64,
    promotion_us: i64,
    /// The services released, each with its new lines.
    released: Vec<(usize, [Line; 2])>,
    heartbeat: Template,
    /// When within a beat each service writes.
    phases_us: [i64; SERVICES.len()],
    /// When each service's next heartbeat is due.
    heartbeats_us: [i64; SERVICES.len()],
}

impl World {
    /// Lays out a world of `span_us`: the release after 55 % of it, the promotion after 80 %.
    pub(super) fn new(seed: u64, span_us: i64) -> Self {
        let mut rng = stream(seed, 2);
        let first = rng.random_range(0..SERVICES.len());
        let second = (first + rng.random_range(1..SERVICES.len())) % SERVICES.len();
        let released = [first, second]
            .map(|service| {
                let lines =
                    [Info, Debug].map(|level| Line::Of(service, level, novel_template(&mut rng)));
                (service, lines)
            })
            .to_vec();
        let phases_us = std::array::from_fn(|_| rng.random_range(0..HEARTBEAT_US));
        Self {
            span_us,
            release_us: span_us / 100 * 55,
            promotion_us: span_us / 100 * 80,
            released,
            heartbeat: Template::compile("Heartbeat, up for {n} min, {small} tasks running"),
            phases_us,
            heartbeats_us: phases_us,
        }
    }

    /// Returns how much busier than on average it is: the day's rhythm times the promotion.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a day in microseconds is below 2^52"
    )]
    pub(super) fn load(&self, at_us: i64, stamped_us: i64) -> f64 {
        const DAY_US: i64 = 86_400 * MICROS_PER_SECOND;
        let day = stamped_us.rem_euclid(DAY_US) as f64 / DAY_US as f64;
        // Busiest at 15:00 UTC, quietest at 03:00.
        let rhythm = 0.6_f64.mul_add((std::f64::consts::TAU * (day - 0.375)).sin(), 1.0);
        let into = (at_us - self.promotion_us) as f64 / self.promotion_length_us() as f64;
        let promotion = if (0.0..1.0).contains(&into) {
            (std::f64::consts::PI * into).sin().mul_add(1.2, 1.0)
        } else {
            1.0
        };
        rhythm * promotion
    }

    /// Returns release and promotion with the services they touch: kind, start, end.
    pub(super) fn harmless(&self) -> [(IncidentKind, Vec<usize>, i64, i64); 2] {
        let services = self.released.iter().map(|(service, _)| *service).collect();
        let promotion_end_us = self.promotion_us + self.promotion_length_us();
        [
            (
                IncidentKind::Release,
                services,
                self.release_us,
                self.span_us,
            ),
            (
                IncidentKind::Promotion,
                Vec::new(),
                self.promotion_us,
                promotion_end_us,
            ),
        ]
    }

    fn promotion_length_us(&self) -> i64 {
        PROMOTION_US.min(self.span_us / 10).max(1)
    }

    /// Returns the line that the release makes `service` write in place of an ordinary one.
    pub(super) fn released_line(
        &self,
        service: usize,
        at_us: i64,
        rng: &mut ChaCha8Rng,
    ) -> Option<&Line> {
        if at_us < self.release_us {
            return None;
        }
        let (_, lines) = self.released.iter().find(|(known, _)| *known == service)?;
        rng.random_bool(RELEASE_SHARE)
            .then(|| &lines[usize::from(rng.random_bool(0.4))])
    }

    /// Returns the service whose heartbeat is due next, and when.
    pub(super) fn next_heartbeat(&self) -> (i64, usize) {
        let due = self
            .heartbeats_us
            .iter()
            .enumerate()
            .min_by_key(|(_, due)| **due);
        due.map_or((i64::MAX, 0), |(service, due_us)| (*due_us, service))
    }

    /// Moves on to the next heartbeat of `service`; returns the template of this one.
    pub(super) fn beat(&mut self, service: usize, rng: &mut ChaCha8Rng) -> &Template {
        let due_us = &mut self.heartbeats_us[service];
        // The beat itself is regular: a late one does not move those after it.
        let late_us = (*due_us - self.phases_us[service]).rem_euclid(HEARTBEAT_US);
        let regular_us = *due_us - late_us;
        *due_us = regular_us + HEARTBEAT_US + rng.random_range(0..HEARTBEAT_JITTER_US);
        &self.heartbeat
    }
}

/// Writes the script of one incident of a hard `kind` in traffic of `rate_per_s` lines.
pub(super) fn script(
    kind: IncidentKind,
    rate_per_s: f64,
    catalog: &Catalog,
    rng: &mut ChaCha8Rng,
) -> Script {
    let service = rng.random_range(0..SERVICES.len());
    let one = vec![service];
    let mut everyday = |service, level| {
        let place = catalog.draw_family(service, level, rng);
        Line::Of(service, level, catalog.template(place).clone())
    };
    let whole = (0.0, 1.0, 1);
    // Services, steps, seconds (from, to), lines per second (share of traffic, at least), effect.
    let (services, steps, seconds, (share, least), effect) = match kind {
        IncidentKind::ServiceCascade => {
            let services: Vec<usize> = (0..3).map(|i| (service + 2 * i) % SERVICES.len()).collect();
            let steps = cascade_steps(&services, &mut everyday);
            (services, steps, (60.0, 240.0), (0.4, 0.5), Effect::None)
        }
        IncidentKind::MissingHeartbeat => (
            one,
            Vec::new(),
            (120.0, 360.0),
            (-1.0, -1.0),
            Effect::MuteHeartbeat(service),
        ),
        IncidentKind::ChangedMix => {
            let steps = [Info, Debug, Warn].map(|level| step(whole, everyday(service, level)));
            let effect = Effect::Replace(service, 0.75);
            (one, steps.to_vec(), (120.0, 300.0), (-1.0, -1.0), effect)
        }
        IncidentKind::SlowLeak => {
            let steps = vec![step(whole, everyday(service, Warn))];
            (one, steps, (1_200.0, 3_600.0), (0.05, 0.03), Effect::None)
        }
        IncidentKind::Silence => (
            Vec::new(),
            Vec::new(),
            (90.0, 300.0),
            (-1.0, -1.0),
            Effect::Silence,
        ),
        IncidentKind::Surge => {
            let steps = vec![step(whole, Line::Normal)];
            (Vec::new(), steps, (60.0, 180.0), (3.0, 2.0), Effect::None)
        }
        IncidentKind::NewLine => {
            let level = [Info, Warn, Error][rng.random_range(0..3)];
            let steps = vec![step(whole, Line::Of(service, level, novel_template(rng)))];
            (one, steps, (1.0, 2.0), (0.0, 0.0), Effect::None)
        }
        _ => {
            let steps = [Error, Error].map(|level| step(whole, everyday(service, level)));
            (one, steps.to_vec(), (30.0, 120.0), (0.5, 0.4), Effect::None)
        }
    };
    Script {
        kind,
        services,
        seconds: rng.random_range(seconds.0..seconds.1),
        lines_per_s: (share * rate_per_s).max(least),
        ramp: kind == IncidentKind::SlowLeak,
        steps,
        effect,
    }
}

fn cascade_steps(
    services: &[usize],
    everyday: &mut impl FnMut(usize, super::Level) -> Line,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (&service, from) in services.iter().zip([0.0, 0.25, 0.5]) {
        steps.push(step((from, 1.0, 3), everyday(service, Error)));
        steps.push(step((from, 1.0, 2), everyday(service, Warn)));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incidents_write_only_what_is_written_every_day() {
        let catalog = Catalog::new();
        let mut rng = stream(9, 0);
        for kind in IncidentKind::HARD {
            for _ in 0..20 {
                let script = script(kind, 5.0, &catalog, &mut rng);
                for step in &script.steps {
                    let Line::Of(service, level, template) = &step.line else {
                        continue;
                    };
                    let everyday = catalog.contains(*service, *level, template);
                    assert_eq!(everyday, kind != IncidentKind::NewLine, "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn load_follows_the_day_and_the_promotion() {
        const HOUR_US: i64 = 3_600 * MICROS_PER_SECOND;
        let world = World::new(1, 10 * 24 * HOUR_US);
        let load_at = |hour: i64| world.load(hour * HOUR_US, hour * HOUR_US);
        assert!((load_at(15) - 1.6).abs() < 1e-9 && (load_at(3) - 0.4).abs() < 1e-9);
        let day: f64 = (0..24).map(load_at).sum();
        assert!((day / 24.0 - 1.0).abs() < 1e-9, "{day}");
        // The promotion is at its height one and a half hours into day eight.
        let height = world.load(193 * HOUR_US + HOUR_US / 2, 15 * HOUR_US);
        assert!((height / 1.6 - 2.2).abs() < 1e-9, "{height}");
    }
}
