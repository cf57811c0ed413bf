//! Log files for `train` and `replay`: parquet, CSV and JSON lines, the last two also compressed.
//!
//! ```text
//! path ──sniff──► parquet ──column batches──┐
//!            └──► [gzip | zstd] ──► CSV ────┼──► FileRecord (row or line number, event or reject)
//!                              └──► JSON ───┘
//! ```
//!
//! A bad row never ends the run: it becomes a [`FileRow::Rejected`]. A damaged file never ends it
//! early: all that stands before the damage is delivered first. Nothing here keeps rows, sorts
//! them or reads a clock, and no line longer than [`ReadOptions::line_bytes_max`] is held.

mod columns;
mod csv;
mod error;
mod input;
mod json_lines;
mod order;
mod parquet;
mod progress;
mod row;

use std::{borrow::Cow, io::Read, ops::ControlFlow, path::Path, sync::Arc};

pub use error::FileError;
pub use order::TimeOrder;
pub use progress::{ReadBar, ReadProgress, ReadUnit};

use self::{csv::CsvFile, input::Opened, json_lines::JsonLinesFile, parquet::ParquetFile};
use crate::{
    decode::{PAYLOAD_BYTES_MAX, Rejected},
    event::LogEvent,
};

/// Column that holds the ground truth unless another is asked for.
pub const LABEL_COLUMN: &str = "is_anomaly";
/// Column that names the kind of an anomaly.
const ANOMALY_TYPE_COLUMN: &str = "anomaly_type";
/// Most of a rejected row's text handed to the visitor, in bytes: what a dead letter keeps.
const REJECTED_BYTES_MAX: usize = 64 * 1024;

/// How a file is to be read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Column with the ground truth (default [`LABEL_COLUMN`]); `0`/`1`, `true`/`false`, a number
    /// or nothing. Asking for another one makes it required in parquet and CSV.
    pub label_column: String,
    /// Longest line or CSV record read, in bytes (default [`PAYLOAD_BYTES_MAX`], which is what
    /// `run` decodes); longer ones are rejected.
    pub line_bytes_max: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            label_column: LABEL_COLUMN.to_owned(),
            line_bytes_max: PAYLOAD_BYTES_MAX,
        }
    }
}

/// What a file turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Delimited text with a header line.
    Csv,
    /// One JSON object per line.
    JsonLines,
}

/// One row of a file, borrowed from the reader's buffers.
#[derive(Debug)]
pub struct FileRecord<'a> {
    /// Line the record begins at (text, counted from 1, header included) or row (parquet, from 1).
    pub line: u64,
    /// What the row holds.
    pub row: FileRow<'a>,
}

/// What a row turned out to be.
#[derive(Debug)]
pub enum FileRow<'a> {
    /// A log line.
    Event {
        /// The line.
        event: LogEvent<'a>,
        /// Kind of anomaly, on lines labelled anomalous that name one.
        anomaly_type: Option<Cow<'a, str>>,
    },
    /// A row that cannot be scored.
    Rejected {
        /// Why.
        rejected: Rejected,
        /// The row's text, at most its first 64 KiB; for parquet the message alone.
        payload: &'a [u8],
    },
}

/// What the caller does with each record; `Break` ends the reading.
pub type Visit<'v> = dyn FnMut(FileRecord<'_>) -> ControlFlow<()> + 'v;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Log lines delivered.
    pub events: u64,
    /// Rows delivered as rejected.
    pub rejected: u64,
    /// Events that carried a label.
    pub labelled: u64,
    /// Line or row of the first reject.
    pub first_rejected: Option<u64>,
}

/// A file that was opened and recognised, with nothing delivered yet.
#[derive(Debug)]
pub struct LogFile {
    name: String,
    progress: Arc<ReadProgress>,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    Parquet(Box<ParquetFile>),
    Csv(Box<CsvFile>),
    JsonLines(Box<JsonLinesFile>),
}

impl LogFile {
    /// Opens the file at `path`; `-` is standard input.
    ///
    /// Parquet, gzip and zstd are recognised by content. Text is taken for what its name says
    /// (`.csv`, `.tsv`, `.json`, `.jsonl`, `.ndjson`), else for JSON lines if it begins with `{`,
    /// else for CSV.
    ///
    /// # Errors
    /// If the file cannot be opened, is empty, is in no format read here, or lacks a column.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, FileError> {
        let opened = if path.as_os_str() == "-" {
            input::open_stdin()?
        } else {
            input::open_path(path)?
        };
        Self::recognise(opened, options)
    }

    /// Reads JSON lines or CSV, compressed or not, from `reader`; `name` stands for it in messages.
    ///
    /// # Errors
    /// If nothing comes, or what comes is in no format read here or lacks a column.
    pub fn from_reader(
        name: &str,
        reader: impl Read + Send + 'static,
        options: &ReadOptions,
    ) -> Result<Self, FileError> {
        Self::recognise(input::open_reader(name, Box::new(reader), None)?, options)
    }

    fn recognise(opened: Opened, options: &ReadOptions) -> Result<Self, FileError> {
        let (name, progress, reader) = match opened {
            Opened::Parquet { name, file } => {
                let progress = Arc::new(ReadProgress::new(ReadUnit::Rows, None));
                let file = ParquetFile::open(&name, file, options, &progress)?;
                (name, progress, Reader::Parquet(Box::new(file)))
            }
            Opened::Text(text) => {
                let (name, progress) = (text.name.clone(), Arc::clone(&text.progress));
                let reader = match text.format {
                    FileFormat::JsonLines => {
                        Reader::JsonLines(Box::new(JsonLinesFile::new(text, options)))
                    }
                    FileFormat::Csv | FileFormat::Parquet => {
                        Reader::Csv(Box::new(CsvFile::open(text, options)?))
                    }
                };
                (name, progress, reader)
            }
        };
        Ok(Self {
            name,
            progress,
            reader,
        })
    }

    /// Returns the path, or `standard input`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the format found.
    #[must_use]
    pub fn format(&self) -> FileFormat {
        match self.reader {
            Reader::Parquet(_) => FileFormat::Parquet,
            Reader::Csv(_) => FileFormat::Csv,
            Reader::JsonLines(_) => FileFormat::JsonLines,
        }
    }

    /// Returns how far reading has come; keeps being updated while [`read`](Self::read) runs.
    #[must_use]
    pub fn progress(&self) -> Arc<ReadProgress> {
        Arc::clone(&self.progress)
    }

    /// Hands every record to `visit`, in file order, until the end or until it breaks.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read on, after everything before that point was handed
    /// over; and if it holds no record at all.
    pub fn read(self, visit: &mut Visit<'_>) -> Result<ReadSummary, FileError> {
        let mut delivery = Delivery {
            visit,
            summary: ReadSummary::default(),
        };
        match self.reader {
            Reader::Parquet(file) => file.read(&mut delivery)?,
            Reader::Csv(file) => file.read(&mut delivery)?,
            Reader::JsonLines(file) => file.read(&mut delivery)?,
        }
        let summary = delivery.summary;
        if summary.events + summary.rejected == 0 {
            return Err(FileError::Empty { name: self.name });
        }
        Ok(summary)
    }
}

/// The visitor, and the count of what it was given.
struct Delivery<'d, 'v> {
    visit: &'d mut Visit<'v>,
    summary: ReadSummary,
}

impl Delivery<'_, '_> {
    fn deliver(&mut self, line: u64, row: FileRow<'_>) -> ControlFlow<()> {
        match &row {
            FileRow::Event { event, .. } => {
                self.summary.events += 1;
                self.summary.labelled += u64::from(event.label.is_some());
            }
            FileRow::Rejected { .. } => {
                self.summary.rejected += 1;
                self.summary.first_rejected.get_or_insert(line);
            }
        }
        (self.visit)(FileRecord { line, row })
    }
}
