//! One column of a row group: typed batches of values, nulls put back in their places.

use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType, FixedLenByteArray, Int96},
    errors::ParquetError,
    schema::types::ColumnDescPtr,
};

use crate::{decode::parse_label, event::EventTime};

/// A value of a column.
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A timestamp; `None` outside the years 1 to 9999.
    Time(Option<EventTime>),
    Bytes(&'a [u8]),
}

impl<'a> Cell<'a> {
    pub(super) const fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn label(self) -> Option<bool> {
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
pub(super) struct Column {
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
    pub(super) fn new(reader: ColumnReader, description: &ColumnDescPtr) -> Self {
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
    pub(super) fn read_batch(&mut self, rows: usize) -> Result<usize, ParquetError> {
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

    pub(super) fn skip(&mut self, rows: usize) -> Result<(), ParquetError> {
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
    pub(super) fn next(&mut self) -> Cell<'_> {
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
