//! Parquet: the needed columns, in batches of rows, straight from the column readers.

use std::{
    fs::File,
    ops::ControlFlow,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit, Type as PhysicalType},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType, FixedLenByteArray, Int96},
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    schema::types::ColumnDescPtr,
};

use super::{
    Delivery, FileError, FileRow, ReadOptions, ReadProgress,
    columns::Columns,
    row::{Cells, TimeCell},
};
use crate::{
    decode::{from_epoch, parse_label},
    event::EventTime,
};

/// Rows decoded at a time: enough to amortise the calls, few enough to stay in the cache.
const BATCH_ROWS: usize = 4096;

/// A parquet file whose footer was read.
#[derive(Debug)]
pub(super) struct ParquetFile {
    name: String,
    file: OpenFile,
    columns: Columns,
    progress: Arc<ReadProgress>,
    /// Rows delivered.
    rows: u64,
}

struct OpenFile(SerializedFileReader<File>);

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SerializedFileReader")
    }
}

impl ParquetFile {
    pub(super) fn open(
        name: &str,
        file: File,
        options: &ReadOptions,
        progress: &Arc<ReadProgress>,
    ) -> Result<Self, FileError> {
        let file =
            guarded(|| SerializedFileReader::new(file)).map_err(|error| FileError::Damaged {
                name: name.to_owned(),
                position: "its footer, so that no row can be read".to_owned(),
                source: Box::new(error),
            })?;
        let metadata = file.metadata().file_metadata();
        progress.set_total(u64::try_from(metadata.num_rows()).unwrap_or_default());
        // Nested and repeated columns have no single value per row: their names never match.
        let descriptions = metadata.schema_descr().columns();
        let names: Vec<String> = descriptions
            .iter()
            .map(|column| column.path().string())
            .collect();
        let columns = Columns::find(name, &names, &options.label_column)?;
        check_types(name, descriptions, &columns)?;
        Ok(Self {
            name: name.to_owned(),
            file: OpenFile(file),
            columns,
            progress: Arc::clone(progress),
            rows: 0,
        })
    }

    /// Delivers every row.
    pub(super) fn read(mut self, delivery: &mut Delivery<'_, '_>) -> Result<(), FileError> {
        for group in 0..self.file.0.num_row_groups() {
            let rows_before = self.rows;
            let mut read = self.read_group(group, 0, BATCH_ROWS, delivery);
            if read.is_err() {
                // A batch with damage in it gives no rows at all: those before the damage are had
                // by going there once more, in steps of one row.
                let skip = usize::try_from(self.rows - rows_before).unwrap_or(usize::MAX);
                read = self.read_group(group, skip, 1, delivery);
            }
            match read {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(source) => {
                    let (row, rows) = (self.rows + 1, self.progress.total().unwrap_or_default());
                    return Err(FileError::Damaged {
                        name: self.name,
                        position: format!("row {row} of {rows} (row group {group})"),
                        source: Box::new(source),
                    });
                }
            }
        }
        Ok(())
    }

    /// Delivers the rows of a row group behind its first `skip`, `batch_rows` at a time.
    fn read_group(
        &mut self,
        group: usize,
        skip: usize,
        batch_rows: usize,
        delivery: &mut Delivery<'_, '_>,
    ) -> Result<ControlFlow<()>, ParquetError> {
        let mut batch = guarded(|| {
            let mut batch = Batch::open(&self.file.0, group, &self.columns)?;
            batch.skip(skip)?;
            Ok(batch)
        })?;
        loop {
            let rows = guarded(|| batch.next(batch_rows))?;
            if rows == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            self.progress.add(rows as u64);
            for _ in 0..rows {
                self.rows += 1;
                if delivery.deliver(self.rows, batch.row()).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
}

/// Calls the decoder, which panics on some damaged pages (a run length beyond the page's end, for
/// one): that must not end a command whose other files are fine. What it worked on is dropped.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    panic::catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ParquetError::General(
            "the decoder gave up on a damaged page".to_owned(),
        ))
    })
}

fn check_types(
    name: &str,
    descriptions: &[ColumnDescPtr],
    columns: &Columns,
) -> Result<(), FileError> {
    use PhysicalType::{
        BOOLEAN, BYTE_ARRAY, DOUBLE, FIXED_LEN_BYTE_ARRAY, FLOAT, INT32, INT64, INT96,
    };
    const TEXT: &[PhysicalType] = &[BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY];
    const TIME: &[PhysicalType] = &[BYTE_ARRAY, INT64, INT96, DOUBLE];
    const LABEL: &[PhysicalType] = &[BYTE_ARRAY, BOOLEAN, INT32, INT64, FLOAT, DOUBLE];
    let needed = [
        (
            Some(columns.timestamp),
            TIME,
            "text, a timestamp or a number",
        ),
        (Some(columns.message), TEXT, "text"),
        (columns.level, TEXT, "text"),
        (columns.service, TEXT, "text"),
        (columns.label, LABEL, "a number, a boolean or text"),
        (columns.anomaly_type, TEXT, "text"),
    ];
    for (column, types, expected) in needed {
        let Some(description) = column.and_then(|column| descriptions.get(column)) else {
            continue;
        };
        if !types.contains(&description.physical_type()) || description.max_rep_level() > 0 {
            return Err(FileError::ColumnType {
                name: name.to_owned(),
                column: description.name().to_owned(),
                found: description.physical_type().to_string(),
                expected,
            });
        }
    }
    Ok(())
}

/// The needed columns of a row group, a batch of rows at a time.
struct Batch {
    time: Column,
    message: Column,
    level: Option<Column>,
    service: Option<Column>,
    label: Option<Column>,
    anomaly_type: Option<Column>,
}

impl Batch {
    fn open(
        file: &SerializedFileReader<File>,
        group: usize,
        columns: &Columns,
    ) -> Result<Self, ParquetError> {
        let group = file.get_row_group(group)?;
        let open = |index: usize| -> Result<Column, ParquetError> {
            let description = group.metadata().schema_descr().column(index);
            Ok(Column::new(group.get_column_reader(index)?, &description))
        };
        Ok(Self {
            time: open(columns.timestamp)?,
            message: open(columns.message)?,
            level: columns.level.map(open).transpose()?,
            service: columns.service.map(open).transpose()?,
            label: columns.label.map(open).transpose()?,
            anomaly_type: columns.anomaly_type.map(open).transpose()?,
        })
    }

    fn columns(&mut self) -> impl Iterator<Item = &mut Column> {
        let needed = [&mut self.time, &mut self.message];
        let optional = [
            &mut self.level,
            &mut self.service,
            &mut self.label,
            &mut self.anomaly_type,
        ];
        needed
            .into_iter()
            .chain(optional.into_iter().filter_map(Option::as_mut))
    }

    fn skip(&mut self, rows: usize) -> Result<(), ParquetError> {
        self.columns().try_for_each(|column| column.skip(rows))
    }

    /// Reads the next batch of at most `batch_rows`; returns how many there are, 0 at the end.
    fn next(&mut self, batch_rows: usize) -> Result<usize, ParquetError> {
        let mut rows = None;
        for column in self.columns() {
            let read = column.read_batch(batch_rows)?;
            if *rows.get_or_insert(read) != read {
                return Err(ParquetError::General(
                    "the columns of a row group have unequal lengths".to_owned(),
                ));
            }
        }
        Ok(rows.unwrap_or_default())
    }

    /// Returns the next row of the batch.
    fn row(&mut self) -> FileRow<'_> {
        let time = match self.time.next() {
            Cell::Null | Cell::Bool(_) => TimeCell::Missing,
            Cell::Time(time) => TimeCell::Number(time),
            Cell::Int(number) => TimeCell::Number(from_epoch(number)),
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the cast saturates, from_millis checks"
            )]
            Cell::Float(seconds) if seconds.is_finite() => {
                TimeCell::Number(EventTime::from_millis((seconds * 1e3) as i64))
            }
            Cell::Float(_) => TimeCell::NotANumber,
            Cell::Bytes(text) => TimeCell::Text(text),
        };
        let message = self.message.next().bytes();
        let cells = Cells {
            time,
            message,
            level: self.level.as_mut().and_then(|column| column.next().bytes()),
            service: self
                .service
                .as_mut()
                .and_then(|column| column.next().bytes()),
            label: self.label.as_mut().and_then(|column| column.next().label()),
            anomaly_type: self
                .anomaly_type
                .as_mut()
                .and_then(|column| column.next().bytes()),
        };
        cells.into_row(message.unwrap_or_default())
    }
}

/// A value of a column.
enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A timestamp; `None` outside the years 1 to 9999.
    Time(Option<EventTime>),
    Bytes(&'a [u8]),
}

impl<'a> Cell<'a> {
    const fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn label(self) -> Option<bool> {
        match self {
            Self::Null | Self::Time(_) => None,
            Self::Bool(value) => Some(value),
            Self::Int(value) => Some(value != 0),
            Self::Float(value) => value.is_finite().then_some(value != 0.0),
            Self::Bytes(text) => std::str::from_utf8(text).ok().and_then(parse_label),
        }
    }
}

/// The values of a batch that are not null, by physical type.
enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int96(Vec<Int96>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

impl Values {
    const fn of(reader: &ColumnReader) -> Self {
        match reader {
            ColumnReader::BoolColumnReader(_) => Self::Bool(Vec::new()),
            ColumnReader::Int32ColumnReader(_) => Self::Int32(Vec::new()),
            ColumnReader::Int64ColumnReader(_) => Self::Int64(Vec::new()),
            ColumnReader::Int96ColumnReader(_) => Self::Int96(Vec::new()),
            ColumnReader::FloatColumnReader(_) => Self::Float(Vec::new()),
            ColumnReader::DoubleColumnReader(_) => Self::Double(Vec::new()),
            ColumnReader::ByteArrayColumnReader(_) => Self::Bytes(Vec::new()),
            ColumnReader::FixedLenByteArrayColumnReader(_) => Self::Fixed(Vec::new()),
        }
    }

    fn cell(&self, index: usize, unit: Option<TimeUnit>) -> Option<Cell<'_>> {
        Some(match self {
            Self::Bool(values) => Cell::Bool(*values.get(index)?),
            Self::Int32(values) => Cell::Int(i64::from(*values.get(index)?)),
            Self::Int64(values) => {
                let value = *values.get(index)?;
                match unit {
                    None => Cell::Int(value),
                    Some(unit) => Cell::Time(EventTime::from_millis(millis(value, unit))),
                }
            }
            Self::Int96(values) => {
                Cell::Time(EventTime::from_millis(values.get(index)?.to_millis()))
            }
            Self::Float(values) => Cell::Float(f64::from(*values.get(index)?)),
            Self::Double(values) => Cell::Float(*values.get(index)?),
            Self::Bytes(values) => Cell::Bytes(values.get(index)?.data()),
            Self::Fixed(values) => Cell::Bytes(values.get(index)?.data()),
        })
    }
}

const fn millis(value: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => value,
        TimeUnit::MICROS => value.div_euclid(1_000),
        TimeUnit::NANOS => value.div_euclid(1_000_000),
    }
}

/// A column of a row group, with the present batch of it.
struct Column {
    reader: ColumnReader,
    values: Values,
    /// Per row of the batch; empty for a column that cannot be null.
    levels: Vec<i16>,
    level_present: i16,
    unit: Option<TimeUnit>,
    next_row: usize,
    next_value: usize,
}

impl Column {
    fn new(reader: ColumnReader, description: &ColumnDescPtr) -> Self {
        Self {
            values: Values::of(&reader),
            reader,
            levels: Vec::new(),
            level_present: description.max_def_level(),
            unit: time_unit(description),
            next_row: 0,
            next_value: 0,
        }
    }

    /// Reads the next batch of at most `rows`; returns how many rows there are.
    fn read_batch(&mut self, rows: usize) -> Result<usize, ParquetError> {
        (self.next_row, self.next_value) = (0, 0);
        self.levels.clear();
        let batch = (&mut self.levels, rows);
        match (&mut self.reader, &mut self.values) {
            (ColumnReader::BoolColumnReader(from), Values::Bool(to)) => fill(from, to, batch),
            (ColumnReader::Int32ColumnReader(from), Values::Int32(to)) => fill(from, to, batch),
            (ColumnReader::Int64ColumnReader(from), Values::Int64(to)) => fill(from, to, batch),
            (ColumnReader::Int96ColumnReader(from), Values::Int96(to)) => fill(from, to, batch),
            (ColumnReader::FloatColumnReader(from), Values::Float(to)) => fill(from, to, batch),
            (ColumnReader::DoubleColumnReader(from), Values::Double(to)) => fill(from, to, batch),
            (ColumnReader::ByteArrayColumnReader(from), Values::Bytes(to)) => fill(from, to, batch),
            (ColumnReader::FixedLenByteArrayColumnReader(from), Values::Fixed(to)) => {
                fill(from, to, batch)
            }
            // `Values::of` chose the buffer by the reader's type, so there is no other pair.
            _ => Ok(0),
        }
    }

    fn skip(&mut self, rows: usize) -> Result<(), ParquetError> {
        match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::Int32ColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::Int64ColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::Int96ColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::FloatColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::DoubleColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::ByteArrayColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => reader.skip_records(rows),
        }
        .map(drop)
    }

    /// Returns the value of the next row; null behind the end of the batch.
    fn next(&mut self) -> Cell<'_> {
        let present =
            self.level_present == 0 || self.levels.get(self.next_row) == Some(&self.level_present);
        self.next_row += 1;
        if !present {
            return Cell::Null;
        }
        self.next_value += 1;
        self.values
            .cell(self.next_value - 1, self.unit)
            .unwrap_or(Cell::Null)
    }
}

fn fill<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    values: &mut Vec<T::T>,
    (levels, rows): (&mut Vec<i16>, usize),
) -> Result<usize, ParquetError> {
    values.clear();
    let (rows, _, _) = reader.read_records(rows, Some(levels), None, values)?;
    Ok(rows)
}

fn time_unit(description: &ColumnDescPtr) -> Option<TimeUnit> {
    match (description.logical_type_ref(), description.converted_type()) {
        (Some(LogicalType::Timestamp(timestamp)), _) => Some(timestamp.unit),
        (_, ConvertedType::TIMESTAMP_MILLIS) => Some(TimeUnit::MILLIS),
        (_, ConvertedType::TIMESTAMP_MICROS) => Some(TimeUnit::MICROS),
        _ => None,
    }
}
