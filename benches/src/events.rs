//! The events that are measured on: the simulator's, as JSON lines in a file, padded to a stated
//! size. The same settings give the same bytes.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};
use producer_sim::{
    generator::{Generator, Scenario, Settings},
    output::{Stamp, encode},
};

/// 2026-01-05T00:00:00Z, a Monday.
pub(crate) const START_US: i64 = 1_767_571_200_000_000;

/// Length of a line in most measurements, in bytes.
pub(crate) const LINE_BYTES: usize = 220;

/// What the lines are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Events {
    /// Seed of the simulator.
    pub(crate) seed: u64,
    /// How many.
    pub(crate) count: u64,
    /// Lines a second of event time.
    pub(crate) rate_per_s: f64,
    /// Chance per 30 s that an incident starts.
    pub(crate) anomaly_prob: f64,
    /// Length of a line that is not longer by itself, in bytes.
    pub(crate) bytes: usize,
}

impl Events {
    /// Writes the events to `path`, one JSON object a line; returns how many bytes.
    pub(crate) fn write(self, path: &Path) -> Result<u64> {
        let mut generator = Generator::new(Settings {
            seed: self.seed,
            rate_per_s: self.rate_per_s,
            anomaly_prob: self.anomaly_prob,
            start_us: START_US,
            first_incident_after_us: None,
            scenario: Scenario::Standard,
        });
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let (mut line, mut stamp, mut bytes) = (Vec::new(), Stamp::default(), 0);
        for _ in 0..self.count {
            line.clear();
            encode::json(generator.advance(), &mut stamp, &mut line)?;
            pad(&mut line, self.bytes);
            line.push(b'\n');
            bytes += line.len() as u64;
            out.write_all(&line)?;
        }
        out.flush()?;
        Ok(bytes)
    }
}

/// Lengthens a JSON object to `bytes` by a member that LogGuard does not know, as shippers add them.
pub(crate) fn pad(line: &mut Vec<u8>, bytes: usize) {
    const OPEN: &[u8] = b",\"trace_id\":\"";
    let filler = bytes.saturating_sub(line.len() + OPEN.len() + 1);
    if filler > 0 && line.pop() == Some(b'}') {
        line.extend_from_slice(OPEN);
        line.extend((0..filler).map(|at| b"0123456789abcdef"[at * 7 % 16]));
        line.extend_from_slice(b"\"}");
    }
}

/// Calls `visit` with every line of `path`, without its end.
pub(crate) fn for_each_line(path: &Path, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        visit(line.trim_ascii_end())?;
    }
}
