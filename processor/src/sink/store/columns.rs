//! The columns of every table that windows are written to, each listed once: rows, arrays and SQL
//! come from the same list, so that they cannot fall out of step.

use chrono::{DateTime, Utc};
use tokio_postgres::types::ToSql;

use super::json::Json;

/// A column: its name, quoted, and the array type it is sent as.
pub(super) type Column = (&'static str, &'static str);

macro_rules! table {
    (
        $(#[$row_doc:meta])* $row:ident,
        $(#[$columns_doc:meta])* $columns:ident {
            $($name:ident: $rust:ty => $sql:literal,)+
        }
    ) => {
        $(#[$row_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct $row {
            $(pub(super) $name: $rust,)+
        }

        impl $row {
            /// The columns, in the order of [`Self::params`].
            pub(super) const COLUMNS: &[Column] =
                &[$((concat!("\"", stringify!($name), "\""), concat!($sql, "[]")),)+];
        }

        $(#[$columns_doc])*
        #[derive(Default)]
        pub(super) struct $columns<'a> {
            $($name: Vec<&'a $rust>,)+
        }

        impl<'a> $columns<'a> {
            pub(super) fn push(&mut self, row: &'a $row) {
                $(self.$name.push(&row.$name);)+
            }

            pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
                vec![$(&self.$name),+]
            }
        }
    };
}

table! {
    /// A row of `anomaly_results`, without what the server adds (`final_revision`, `written_at`).
    ResultRow,
    /// Rows of `anomaly_results` turned sideways: one array per column, as `UNNEST` takes them.
    ResultColumns {
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
        muted: bool => "bool",
        learning: bool => "bool",
        capped: bool => "bool",
        severity: f64 => "float8",
        dbscan_score: f64 => "float8",
        model_checksum: String => "text",
        first_offset: Option<i64> => "int8",
        next_offset: Option<i64> => "int8",
        explanation: Json => "jsonb",
        early: Option<Json> => "jsonb",
        state: Json => "jsonb",
    }
}

table! {
    /// What `window_features` has beside the columns it shares with `anomaly_results`.
    FeaturesRow,
    /// Rows of `window_features` turned sideways.
    FeaturesColumns {
        features: Json => "jsonb",
        templates: Json => "jsonb",
        templates_overflow: i32 => "int",
    }
}

table! {
    /// A template of a stream, as `log_templates` knows it from its first window on.
    TemplateRow,
    /// The templates of a batch turned sideways, each stream's once, in order of stream and id.
    TemplateColumns {
        stream: String => "text",
        id: String => "text",
        text: String => "text",
        service: String => "text",
        level: &'static str => "text",
    }
}

table! {
    /// Lines of one template in one row, both by their number in the batch (from 1).
    LinesRow,
    /// Such lines turned sideways, in order of their templates.
    LinesColumns {
        number: i64 => "int8",
        template: i64 => "int8",
        lines: i64 => "int8",
    }
}

table! {
    /// What `alarms` has beside the columns that it takes from `anomaly_results`.
    AlarmRow,
    /// Rows of `alarms` turned sideways.
    AlarmColumns {
        alarm_id: String => "text",
        kind: &'static str => "text",
        threshold: f64 => "float8",
        samples: Json => "jsonb",
        max_event_time_before: Option<DateTime<Utc>> => "timestamptz",
        state_window_start: Option<DateTime<Utc>> => "timestamptz",
        state_window_end: Option<DateTime<Utc>> => "timestamptz",
        lateness_ms: i64 => "int8",
        provisional: bool => "bool",
        early_at: Option<DateTime<Utc>> => "timestamptz",
        anomaly_score: f64 => "float8",
        severity: f64 => "float8",
        log_count: i32 => "int",
        error_count: i32 => "int",
        critical_count: i32 => "int",
        explanation: Json => "jsonb",
        next_offset: Option<i64> => "int8",
    }
}

/// The columns of `alarms` that are those of its row in `anomaly_results`; `stale` stays false once
/// the alarm was told in time, whatever later rows say.
pub(super) const ALARM_SHARED: [&str; 9] = [
    "window_start",
    "window_end",
    "stream",
    "topic",
    "partition",
    "service",
    "stale",
    "first_offset",
    "model_checksum",
];
