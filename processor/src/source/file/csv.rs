//! CSV with a header line, fields quoted as RFC 4180 says; `,`, `;` or tab between them.
//!
//! Records are cut out of one buffer and unquoted into another, so that a row costs no allocation.
//! A quote that is never closed would swallow the rest of the file. Therefore a record of several
//! lines that does not fit the header, or that grows beyond the cap, gives up its first line as
//! rejected, and reading goes on at its second.

use std::io::{self, Read};

use csv_core::{ReadRecordResult, ReaderBuilder};

use super::{
    Delivery, FileError, FileRow, ReadOptions,
    columns::Columns,
    input::{CHUNK_BYTES, TextInput},
    row::{Cells, TimeCell, reject, rejected, too_long},
};
use crate::decode::{RejectReason, parse_label};

/// Separators tried on the header line; the most frequent one wins, the first of equals.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// A CSV file whose header was read.
#[derive(Debug)]
pub(super) struct CsvFile {
    records: Records,
    columns: Columns,
    fields: usize,
}

impl CsvFile {
    pub(super) fn open(input: TextInput, options: &ReadOptions) -> Result<Self, FileError> {
        let name = input.name.clone();
        let mut records = Records::new(input, options.line_bytes_max);
        records.recognise_separator()?;
        let header: Vec<String> = match records.next()? {
            Cut::Record { .. } => records
                .row()
                .iter()
                .map(|field| String::from_utf8_lossy(field).into_owned())
                .collect(),
            Cut::TooLong { .. } => {
                return Err(FileError::Unsupported {
                    name,
                    found: "its first line is too long for a CSV header; is it a text file?",
                });
            }
            Cut::End => return Err(FileError::Empty { name }),
        };
        records.accept();
        Ok(Self {
            columns: Columns::find(&name, &header, &options.label_column)?,
            fields: header.len(),
            records,
        })
    }

    /// Delivers every record.
    pub(super) fn read(mut self, delivery: &mut Delivery<'_, '_>) -> Result<(), FileError> {
        loop {
            let cut = self.records.next()?;
            let line = self.records.line;
            let flow = match cut {
                Cut::End => return Ok(()),
                Cut::TooLong { first_line } => {
                    let row = too_long(self.records.bytes_max, self.records.text(first_line));
                    let flow = delivery.deliver(line, row);
                    self.records.skip_line()?;
                    flow
                }
                Cut::Record { first_line } => {
                    let row = self.records.row();
                    if row.len() == self.fields {
                        let payload = self.records.text(self.records.end);
                        let flow = delivery.deliver(line, self.to_row(row, payload));
                        self.records.accept();
                        flow
                    } else {
                        let detail =
                            format!("{} fields, the header has {}", row.len(), self.fields);
                        let payload = self.records.text(first_line);
                        let bad_row = rejected(RejectReason::BadRow, detail);
                        let flow = delivery.deliver(line, reject(bad_row, payload));
                        self.records.advance(first_line);
                        flow
                    }
                }
            };
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    fn to_row<'a>(&self, row: Row<'a>, payload: &'a [u8]) -> FileRow<'a> {
        // An empty field is how CSV writes null.
        let cell = |column: Option<usize>| {
            column
                .and_then(|column| row.field(column))
                .filter(|field| !field.is_empty())
        };
        let columns = &self.columns;
        let cells = Cells {
            time: cell(Some(columns.timestamp)).map_or(TimeCell::Missing, TimeCell::Text),
            level: cell(columns.level),
            service: cell(columns.service),
            message: cell(Some(columns.message)),
            label: cell(columns.label)
                .and_then(|field| std::str::from_utf8(field).ok())
                .and_then(parse_label),
            anomaly_type: cell(columns.anomaly_type),
        };
        cells.into_row(payload)
    }
}

/// The unquoted fields of a record.
#[derive(Clone, Copy)]
struct Row<'a> {
    text: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Row<'a> {
    const fn len(self) -> usize {
        self.ends.len()
    }

    fn field(self, index: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            None => 0,
            Some(previous) => *self.ends.get(previous)?,
        };
        self.text.get(start..end)
    }

    fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).filter_map(move |index| self.field(index))
    }
}

/// What lies at the reading position.
enum Cut {
    /// A record from there to `Records::end`; its first line ends before `first_line`.
    Record {
        first_line: usize,
    },
    /// No record within the cap. As much of its first line as is held ends before `first_line`.
    TooLong {
        first_line: usize,
    },
    End,
}

/// Cuts records out of a buffered text. Positions count from the beginning of the buffer.
#[derive(Debug)]
struct Records {
    input: TextInput,
    parser: csv_core::Reader,
    bytes_max: usize,
    raw: Vec<u8>,
    /// Where the present record begins.
    start: usize,
    /// Where the parser stands, after `next` the end of the present record.
    end: usize,
    /// Line of `start`, from 1.
    line: u64,
    at_end_of_file: bool,
    text: Vec<u8>,
    ends: Vec<usize>,
    text_len: usize,
    ends_len: usize,
}

impl Records {
    fn new(input: TextInput, bytes_max: usize) -> Self {
        Self {
            input,
            parser: csv_core::Reader::new(),
            bytes_max,
            raw: Vec::new(),
            start: 0,
            end: 0,
            line: 1,
            at_end_of_file: false,
            text: vec![0; 4096],
            ends: vec![0; 64],
            text_len: 0,
            ends_len: 0,
        }
    }

    /// Chooses the separator by the first line, before anything else is read.
    fn recognise_separator(&mut self) -> Result<(), FileError> {
        while !self.at_end_of_file && self.raw.len() <= self.bytes_max && !self.raw.contains(&b'\n')
        {
            self.fill()?;
        }
        self.parser = parser_for(&self.raw);
        Ok(())
    }

    /// Finds the record at the reading position, which other calls move on.
    fn next(&mut self) -> Result<Cut, FileError> {
        self.skip_blank_lines()?;
        self.parser.reset();
        (self.end, self.text_len, self.ends_len) = (self.start, 0, 0);
        loop {
            if self.end == self.raw.len() && !self.at_end_of_file {
                self.fill()?;
            }
            let (result, read, written, ended) = self.parser.read_record(
                &self.raw[self.end..],
                &mut self.text[self.text_len..],
                &mut self.ends[self.ends_len..],
            );
            self.end += read;
            self.text_len += written;
            self.ends_len += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(Cut::End),
            }
            if self.end - self.start > self.bytes_max {
                break;
            }
        }
        let first_line = self.first_line();
        Ok(if self.end - self.start > self.bytes_max {
            Cut::TooLong { first_line }
        } else {
            Cut::Record { first_line }
        })
    }

    /// Returns the present record's fields.
    fn row(&self) -> Row<'_> {
        Row {
            text: &self.text[..self.text_len],
            ends: &self.ends[..self.ends_len],
        }
    }

    /// Returns the text from the reading position to `end`, without its line ending.
    fn text(&self, end: usize) -> &[u8] {
        self.raw[self.start..end].trim_ascii_end()
    }

    /// Moves the reading position behind the present record.
    fn accept(&mut self) {
        self.advance(self.end);
    }

    /// Moves the reading position to the next line, however far that is, holding nothing of what
    /// lies between.
    fn skip_line(&mut self) -> Result<(), FileError> {
        loop {
            let rest = &self.raw[self.start..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                self.advance(self.start + length + 1);
                return Ok(());
            }
            self.start = self.raw.len();
            if self.at_end_of_file {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn skip_blank_lines(&mut self) -> Result<(), FileError> {
        loop {
            let rest = &self.raw[self.start..];
            let blank = rest
                .iter()
                .take_while(|byte| matches!(byte, b'\r' | b'\n'))
                .count();
            self.advance(self.start + blank);
            if self.start < self.raw.len() || self.at_end_of_file {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn advance(&mut self, to: usize) {
        let passed = &self.raw[self.start..to];
        let line_feeds = passed.iter().filter(|byte| **byte == b'\n').count();
        self.line += line_feeds as u64;
        self.start = to;
    }

    /// Returns the position behind the first line feed of the present record, or its end.
    fn first_line(&self) -> usize {
        let record = &self.raw[self.start..self.end];
        record
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.end, |length| self.start + length + 1)
    }

    /// Reads more text behind what is held, dropping what lies before the reading position.
    fn fill(&mut self) -> Result<(), FileError> {
        let (start, length) = (self.start, self.raw.len());
        self.raw.copy_within(start.., 0);
        let held = length - start;
        self.end = self.end.saturating_sub(start);
        self.start = 0;
        self.raw.resize(held + CHUNK_BYTES, 0);
        let read = read_some(&mut self.input.reader, &mut self.raw[held..]);
        self.raw
            .truncate(held + read.as_ref().copied().unwrap_or_default());
        match read {
            Ok(read) => self.at_end_of_file = read == 0,
            Err(error) => return Err(self.input.damaged(self.line, error)),
        }
        Ok(())
    }
}

fn read_some(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn parser_for(head: &[u8]) -> csv_core::Reader {
    let header = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |separator: u8| header.iter().filter(|byte| **byte == separator).count();
    let mut best = SEPARATORS[0];
    for separator in SEPARATORS {
        if count(separator) > count(best) {
            best = separator;
        }
    }
    ReaderBuilder::new().delimiter(best).build()
}
