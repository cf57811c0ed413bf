//! The columns of `anomaly_results`, listed once: rows, arrays and SQL come from the same list, so
//! that they cannot fall out of step.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::types::ToSql;

macro_rules! columns {
    ($($name:ident: $rust:ty => $sql:literal,)+) => {
        /// One row, without what the server adds (`written_at`).
        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct Row {
            $(pub(super) $name: $rust,)+
        }

        /// Rows turned sideways: one array per column, as `UNNEST` takes them.
        #[derive(Default)]
        pub(super) struct Columns<'a> {
            $($name: Vec<&'a $rust>,)+
        }

        impl<'a> Columns<'a> {
            pub(super) fn of(rows: impl IntoIterator<Item = &'a Row>) -> Self {
                let mut columns = Self::default();
                for row in rows {
                    $(columns.$name.push(&row.$name);)+
                }
                columns
            }

            pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
                vec![$(&self.$name),+]
            }
        }

        /// Column names, quoted, with the array type each is sent as.
        pub(super) const COLUMNS: &[(&str, &str)] =
            &[$((concat!("\"", stringify!($name), "\""), concat!($sql, "[]")),)+];
    };
}

columns! {
    timestamp: DateTime<Utc> => "timestamptz",
    window_start: DateTime<Utc> => "timestamptz",
    window_end: DateTime<Utc> => "timestamptz",
    is_anomaly: i32 => "int",
    anomaly_score: f64 => "float8",
    cluster_label: i32 => "int",
    log_count: i32 => "int",
    error_count: i32 => "int",
    critical_count: i32 => "int",
    error_rate: f64 => "float8",
    critical_rate: f64 => "float8",
    ground_truth: i32 => "int",
    labelled_count: i32 => "int",
    stream: String => "text",
    topic: String => "text",
    partition: i32 => "int",
    service: Option<String> => "text",
    final_by: &'static str => "text",
    provisional: bool => "bool",
    partial: bool => "bool",
    gap: bool => "bool",
    stale: bool => "bool",
    cold: bool => "bool",
    level_shift: bool => "bool",
    severity: f64 => "float8",
    dbscan_score: f64 => "float8",
    model_checksum: String => "text",
    first_offset: Option<i64> => "int8",
    next_offset: Option<i64> => "int8",
    features: Value => "jsonb",
    explanation: Value => "jsonb",
    state: Value => "jsonb",
}

/// Columns that a conflict leaves as they are: the key.
const KEY: [&str; 3] = ["\"window_start\"", "\"window_end\"", "\"stream\""];

/// Returns the upsert: one round trip, whatever the number of rows.
///
/// `$1` is the consumer group, then come the arrays of [`COLUMNS`], then that of the fences. The
/// answer has one line per row whose fence still holds: its number (from 1), and whether it was
/// written or gave way to a better one.
///
/// The owner row is locked `FOR SHARE`: a claim waits until this statement has ended, and a
/// statement that waited for a claim sees its epoch. Without the lock, a process that lost its
/// partition and waited on a row of the new owner would overwrite it.
pub(super) fn upsert_sql() -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let list = names.join(", ");
    let arrays: Vec<String> = COLUMNS
        .iter()
        .map(|(_, array)| *array)
        .chain(["int8[]"])
        .enumerate()
        .map(|(index, array)| format!("${}::{array}", index + 2))
        .collect();
    let assignments: Vec<String> = names
        .iter()
        .filter(|name| !KEY.contains(name))
        .map(|name| format!("{name} = EXCLUDED.{name}"))
        .collect();
    format!(
        "WITH input AS (
           SELECT * FROM UNNEST({arrays}) WITH ORDINALITY AS input({list}, fence, number)
         ), valid AS MATERIALIZED (
           SELECT input.* FROM input JOIN owner
             ON owner.consumer_group = $1 AND owner.topic = input.topic
            AND owner.partition = input.partition AND owner.epoch = input.fence
            ORDER BY input.number
            FOR SHARE OF owner
         ), written AS (
           INSERT INTO anomaly_results AS stored ({list}, written_at)
           SELECT {list}, now() FROM valid
           ON CONFLICT (window_start, window_end, stream) DO UPDATE
           SET {assignments}, written_at = EXCLUDED.written_at
           WHERE stored.provisional
              OR (NOT EXCLUDED.provisional AND (stored.partial OR NOT EXCLUDED.partial))
           RETURNING window_start, window_end, stream
         )
         SELECT valid.number, written.stream IS NOT NULL
         FROM valid LEFT JOIN written USING (window_start, window_end, stream)",
        arrays = arrays.join(", "),
        assignments = assignments.join(", "),
    )
}
