//! Resident memory over time: whether it stays flat.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::usage::Usage;

/// How often memory is read.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// What comes before is left out of the quarters: caches and pools fill, windows close for the first
/// time.
const WARM_UP_S: f64 = 60.0;

/// The resident memory at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Since watching began.
    seconds: f64,
    mib: f64,
}

/// Reads the resident memory of a process now and then.
#[derive(Debug)]
pub(crate) struct Memory {
    pid: u32,
    started: Instant,
    due: Duration,
    samples: Vec<Sample>,
}

impl Memory {
    /// Returns a reader of process `pid`, whose first sample is due at once.
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            pid,
            started: Instant::now(),
            due: Duration::ZERO,
            samples: Vec::new(),
        }
    }

    /// Takes a sample if one is due; fails if the process has ended.
    pub(crate) fn sample_if_due(&mut self) -> Result<()> {
        let elapsed = self.started.elapsed();
        if elapsed < self.due {
            return Ok(());
        }
        let mib = Usage::of(self.pid)?.rss_mib;
        // Of a process that has ended only its status is left, without memory.
        ensure!(mib > 0.0, "logguard ended while its memory was watched");
        self.samples.push(Sample {
            seconds: elapsed.as_secs_f64(),
            mib,
        });
        self.due = elapsed + SAMPLE_EVERY;
        Ok(())
    }

    /// Returns all samples, in order of time.
    pub(crate) fn into_samples(self) -> Vec<Sample> {
        self.samples
    }
}

/// Memory after the first minute.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quarters {
    /// Medians of the first, second, third and last quarter of the time.
    pub(crate) medians_mib: [f64; 4],
    /// The largest sample.
    pub(crate) max_mib: f64,
}

impl Quarters {
    /// Returns the quarters of `samples`, which are evenly spaced; `None` if one would be empty.
    pub(crate) fn of(samples: &[Sample]) -> Option<Self> {
        let warm: Vec<f64> = samples
            .iter()
            .filter(|sample| sample.seconds >= WARM_UP_S)
            .map(|sample| sample.mib)
            .collect();
        if warm.len() < 4 {
            return None;
        }
        let bound = |quarter: usize| warm.len() * quarter / 4;
        Some(Self {
            medians_mib: std::array::from_fn(|quarter| {
                median(warm[bound(quarter)..bound(quarter + 1)].to_vec())
            }),
            max_mib: warm.iter().copied().fold(0.0, f64::max),
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
