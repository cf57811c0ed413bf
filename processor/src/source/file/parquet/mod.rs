//! Parquet: the needed columns, in batches of rows, straight from the column readers.

mod column;

use std::{
    fs::File,
    ops::ControlFlow,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use parquet::{
    basic::Type as PhysicalType,
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    schema::types::ColumnDescPtr,
};

use self::column::{Cell, Column};
use super::{
    Delivery, FileError, FileRow, ReadOptions, ReadProgress,
    columns::Columns,
    row::{Cells, TimeCell},
};
use crate::{decode::from_epoch, event::EventTime};

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
