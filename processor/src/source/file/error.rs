//! What can be wrong with a file as a whole. Rows that are wrong are no error.

use std::io;

/// A file that cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It could not be opened or its first bytes not read.
    #[error("cannot open `{name}`")]
    Open {
        /// The path.
        name: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It holds no record.
    #[error("`{name}` is empty: there is no log line to read in it")]
    Empty {
        /// The path.
        name: String,
    },
    /// It is in a format that is not read.
    #[error("cannot read `{name}`: {found}")]
    Unsupported {
        /// The path.
        name: String,
        /// What it seems to be, and what to do.
        found: &'static str,
    },
    /// It lacks columns that are needed.
    #[error(
        "`{name}` has no column `{missing}`; its columns are {found} \
         (needed: timestamp, message; read if present: level, service or component, is_anomaly, \
         anomaly_type)"
    )]
    MissingColumn {
        /// The path.
        name: String,
        /// The missing ones.
        missing: String,
        /// The columns it has.
        found: String,
    },
    /// A column has a type that cannot be read for what it is needed for.
    #[error("cannot read column `{column}` of `{name}`: it has type {found}, expected {expected}")]
    ColumnType {
        /// The path.
        name: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The types that can be read.
        expected: &'static str,
    },
    /// It is cut short or damaged; everything before `position` was delivered.
    #[error("`{name}` is cut short or damaged at {position}: what stands before was read")]
    Damaged {
        /// The path.
        name: String,
        /// Line and byte, or row.
        position: String,
        /// What the decoder says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
