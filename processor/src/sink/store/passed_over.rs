//! What is read newest first and up to a number only: whoever has more of it is told, once.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Row;
use tracing::warn;

/// What was told of already; mutes and decisions are read again every few seconds.
#[derive(Debug, Default)]
pub(super) struct PassedOver {
    mutes: AtomicBool,
    decisions: AtomicBool,
}

impl PassedOver {
    /// Looks at rows of mutes, each with the number that there are in column `there_are`.
    pub(super) fn mutes(&self, rows: &[Row]) {
        if let Some((found, read)) = first_time(&self.mutes, rows) {
            warn!(
                found,
                read,
                "more mutes than are read: the oldest do not hold; have `logguard maintain` drop \
                 those that expired long ago, mute less, or train a model that knows what is muted"
            );
        }
    }

    /// Looks at rows of decisions on templates, as at those of mutes.
    pub(super) fn decisions(&self, rows: &[Row]) {
        if let Some((found, read)) = first_time(&self.decisions, rows) {
            warn!(
                found,
                read,
                "more decisions on templates than are read: the oldest do not hold; train a model \
                 that knows these templates, and delete old decisions from table \
                 `template_decisions`"
            );
        }
    }
}

/// Returns how many there are and how many were read, if some were not and nobody was told yet.
fn first_time(told: &AtomicBool, rows: &[Row]) -> Option<(i64, usize)> {
    let found: i64 = rows.first()?.get("there_are");
    let some_are_left = usize::try_from(found).is_ok_and(|found| found > rows.len());
    (some_are_left && !told.swap(true, Ordering::Relaxed)).then_some((found, rows.len()))
}
