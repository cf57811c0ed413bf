//! The ground truth file: one JSON line per incident, written when the incident is over.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{failure::Failure, generator::Incident, output::Stamp};

/// Writes ground truth; without a file it only counts.
#[derive(Debug, Default)]
pub struct TruthLog {
    file: Option<(PathBuf, File)>,
    stamp: Stamp,
    incidents: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    start: String,
    end: String,
    kind: &'static str,
    is_anomaly: u8,
    service: Option<&'static str>,
    services: &'a [&'static str],
    lines: u64,
}

impl TruthLog {
    /// Opens the ground truth file at `path`, emptied; without one the log only counts.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let open = |path: &Path| {
            let opened = File::create(path).map(|file| (path.to_owned(), file));
            opened.map_err(|source| Failure::Open {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            file: path.map(open).transpose()?,
            ..Self::default()
        })
    }

    /// Writes one incident. Each is one write, so that a reader never sees half a line.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&mut self, incident: &Incident) -> Result<(), Failure> {
        self.incidents += u64::from(incident.kind.is_anomaly());
        let Some((path, file)) = &mut self.file else {
            return Ok(());
        };
        let line = Line {
            start: self.stamp.format(incident.start_us).to_owned(),
            end: self.stamp.format(incident.end_us).to_owned(),
            kind: incident.kind.as_str(),
            is_anomaly: u8::from(incident.kind.is_anomaly()),
            service: incident.services.first().copied(),
            services: &incident.services,
            lines: incident.lines,
        };
        let written = serde_json::to_vec(&line)
            .map_err(Into::into)
            .and_then(|mut bytes| {
                bytes.push(b'\n');
                file.write_all(&bytes)
            });
        written.map_err(|source| Failure::Write {
            path: path.clone(),
            source,
        })
    }

    /// Returns the number of incidents written so far, harmless ones left out.
    #[must_use]
    pub fn incidents(&self) -> u64 {
        self.incidents
    }
}
