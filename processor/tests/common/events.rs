//! Labelled events to train on, to replay and to produce: made up by the simulator's generator,
//! always the same for the same seed.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use producer_sim::{
    generator::{Generator, MICROS_PER_SECOND, Scenario, Settings},
    output::{Stamp, encode},
};

/// 2025-12-24T00:00:00Z, in seconds since the epoch: a start of a window. In the past, since
/// events ahead of their record's time are refused.
pub(crate) const START_S: i64 = 1_766_534_400;

/// A stretch of events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) seed: u64,
    /// Seconds from [`START_S`] to its beginning.
    pub(crate) from_s: i64,
    /// Its length in seconds.
    pub(crate) length_s: i64,
    /// Normal lines per second.
    pub(crate) rate_per_s: f64,
    /// Chance that an incident begins within 30 s.
    pub(crate) anomaly_prob: f64,
}

impl Stretch {
    /// Returns its events as JSON, in order of time, without line ends.
    pub(crate) fn lines(self) -> Vec<String> {
        let start_us = (START_S + self.from_s) * MICROS_PER_SECOND;
        let end_us = start_us + self.length_s * MICROS_PER_SECOND;
        let mut generator = Generator::new(Settings {
            seed: self.seed,
            rate_per_s: self.rate_per_s,
            anomaly_prob: self.anomaly_prob,
            start_us,
            first_incident_after_us: None,
            scenario: Scenario::Standard,
        });
        let mut stamp = Stamp::default();
        let mut lines = Vec::new();
        loop {
            let event = generator.advance();
            if event.time_us >= end_us {
                return lines;
            }
            let mut line = Vec::new();
            encode::json(event, &mut stamp, &mut line).unwrap();
            lines.push(String::from_utf8(line).unwrap());
        }
    }
}

/// Returns the lines as a file holds them.
pub(crate) fn text(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}
