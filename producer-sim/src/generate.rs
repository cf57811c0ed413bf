//! `producer-sim generate`: a labelled set of events as a file, as fast as it can be written.
//!
//! Reads no clock for its content: the same flags give the same bytes.

use std::{path::PathBuf, time::Instant};

use tracing::info;

use crate::{
    failure::Failure,
    generator::{Generator, Settings},
    output::{
        Stamp,
        encode::{self, Format},
        file::{OutputFile, format_of},
        truth::TruthLog,
    },
};

/// What to write where.
#[derive(Clone, Debug)]
pub struct Job {
    /// The events.
    pub settings: Settings,
    /// Length of the set in microseconds.
    pub span_us: i64,
    /// File of the events; `-` is standard output.
    pub out: PathBuf,
    /// File of the ground truth.
    pub truth: Option<PathBuf>,
}

/// Writes the set.
///
/// # Errors
///
/// If a file cannot be opened or written.
pub fn generate(job: &Job) -> Result<(), Failure> {
    let started = Instant::now();
    let mut truth = TruthLog::open(job.truth.as_deref())?;
    let mut file = OutputFile::create(&job.out)?;
    let format = format_of(&job.out);
    let mut generator = Generator::new(job.settings);
    let end_us = job.settings.start_us.saturating_add(job.span_us);
    let mut stamp = Stamp::default();
    let mut line = Vec::new();
    if format == Format::Csv {
        file.write(encode::CSV_HEADER.as_bytes())?;
    }
    let (mut lines, mut labelled) = (0_u64, 0_u64);
    while generator.advance().time_us < end_us {
        let event = generator.event();
        lines += 1;
        labelled += u64::from(event.anomaly.is_some());
        line.clear();
        match format {
            Format::Csv => encode::csv(event, &mut stamp, &mut line),
            Format::Json => {
                encode::json(event, &mut stamp, &mut line).map_err(|source| Failure::Write {
                    path: job.out.clone(),
                    source,
                })?;
                line.push(b'\n');
            }
        }
        file.write(&line)?;
        for incident in generator.drain_finished() {
            truth.write(&incident)?;
        }
    }
    generator.retract();
    for incident in generator.finish(end_us) {
        truth.write(&incident)?;
    }
    file.finish()?;
    info!(
        lines,
        labelled,
        incidents = truth.incidents(),
        seconds = started.elapsed().as_secs_f32(),
        "wrote {}",
        job.out.display()
    );
    Ok(())
}
