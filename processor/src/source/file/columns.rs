//! Which column is which: by name, in any order, in any case; the others are ignored.

use super::{ANOMALY_TYPE_COLUMN, FileError, LABEL_COLUMN};

/// Most columns listed in an error message, so that a file of another kind does not flood it.
const LISTED_MAX: usize = 20;

/// Where the columns stand, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) timestamp: usize,
    pub(super) message: usize,
    pub(super) level: Option<usize>,
    pub(super) service: Option<usize>,
    pub(super) label: Option<usize>,
    pub(super) anomaly_type: Option<usize>,
}

impl Columns {
    /// Finds the columns in the file's `names`.
    ///
    /// `level`, `service` and the label may be missing (then lines count as `INFO`, of no service,
    /// unlabelled), but a label column other than the usual one was asked for, so it must be there.
    pub(super) fn find(
        file: &str,
        names: &[String],
        label_column: &str,
    ) -> Result<Self, FileError> {
        let position = |wanted: &str| {
            names
                .iter()
                .position(|name| name.trim().eq_ignore_ascii_case(wanted))
        };
        let (timestamp, message) = (position("timestamp"), position("message"));
        let label = position(label_column);
        let mut missing = Vec::new();
        if timestamp.is_none() {
            missing.push("timestamp");
        }
        if message.is_none() {
            missing.push("message");
        }
        if label.is_none() && label_column != LABEL_COLUMN {
            missing.push(label_column);
        }
        match (timestamp, message) {
            (Some(timestamp), Some(message)) if missing.is_empty() => Ok(Self {
                timestamp,
                message,
                level: position("level"),
                service: position("service").or_else(|| position("component")),
                label,
                anomaly_type: position(ANOMALY_TYPE_COLUMN),
            }),
            _ => Err(FileError::MissingColumn {
                name: file.to_owned(),
                missing: missing.join("`, `"),
                found: listed(names),
            }),
        }
    }
}

fn listed(names: &[String]) -> String {
    let mut listed: Vec<String> = names
        .iter()
        .take(LISTED_MAX)
        .map(|name| {
            format!(
                "`{}`",
                name.chars().take(40).collect::<String>().escape_debug()
            )
        })
        .collect();
    if names.len() > LISTED_MAX {
        listed.push(format!("{} more", names.len() - LISTED_MAX));
    }
    listed.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(names: &[&str], label: &str) -> Result<Columns, FileError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Columns::find("x.csv", &names, label)
    }

    #[test]
    fn order_case_and_extra_columns_do_not_matter() {
        let columns = find(
            &["id", "Message", "component", " TIMESTAMP ", "is_anomaly"],
            LABEL_COLUMN,
        )
        .unwrap();
        assert_eq!(
            columns,
            Columns {
                timestamp: 3,
                message: 1,
                level: None,
                service: Some(2),
                label: Some(4),
                anomaly_type: None,
            }
        );
    }

    #[test]
    fn service_wins_over_component() {
        let columns = find(
            &["timestamp", "component", "service", "message"],
            LABEL_COLUMN,
        );
        assert_eq!(columns.unwrap().service, Some(2));
    }

    #[test]
    fn missing_columns_are_named_with_those_found() {
        let error = find(&["time", "text"], LABEL_COLUMN)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(
                "`x.csv` has no column `timestamp`, `message`; its columns are `time`, `text` "
            ),
            "{error}"
        );
    }

    #[test]
    fn a_label_column_that_was_asked_for_must_be_there() {
        let error = find(&["timestamp", "message"], "block_anomaly")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no column `block_anomaly`"), "{error}");
    }
}
