//! Mutes on their way from the store to the consumer thread, and the times they hold for.
//!
//! ```text
//! table mutes ──every few seconds──► task ──newest snapshot──► consumer thread
//! ```
//!
//! A mute begins, and ends, far enough in the future that every replica knows of it before the first
//! window it concerns can close. So replicas agree, and a window that is read again is judged as
//! before. A replica that cannot ask goes on with what it knew.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::{
    event::EventTime,
    model::Mutes,
    sink::store::{Store, StoreError},
};

/// How often the store is asked.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// How far in the future mutes begin and end: ten times as long.
pub const LEAD: Duration = Duration::from_secs(30);

/// Where the consumer thread finds the newest mutes.
pub type MutesReceiver = Receiver<Arc<Mutes>>;

/// Returns the start of the first window of `length_ms` that everyone knows of in time at `now`.
#[must_use]
pub fn active_from(now: DateTime<Utc>, length_ms: i64) -> DateTime<Utc> {
    let known = EventTime::from(ends_at(now));
    let start = known.saturating_add(length_ms - 1).window_start(length_ms);
    start.to_datetime()
}

/// Returns when a mute that is lifted at `now` holds no more.
#[must_use]
pub fn ends_at(now: DateTime<Utc>) -> DateTime<Utc> {
    now + LEAD
}

/// Starts asking on the current runtime, until the receiver is gone.
#[must_use]
pub fn watch(store: Option<Store>) -> MutesReceiver {
    // One waits at most: the consumer thread takes it at its next turn.
    let (sender, receiver) = bounded(1);
    if let Some(store) = store {
        tokio::spawn(ask(store, sender));
    }
    receiver
}

async fn ask(store: Store, sender: Sender<Arc<Mutes>>) {
    let mut failing = false;
    loop {
        match store.mutes().await {
            Ok(mutes) => {
                failing = false;
                // Full: the consumer thread is busy, and the next answer is newer anyway.
                if let Err(TrySendError::Disconnected(_)) = sender.try_send(Arc::new(mutes)) {
                    return;
                }
            }
            Err(error) => {
                tell_once(&error, &mut failing);
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn tell_once(error: &StoreError, failing: &mut bool) {
    if !*failing {
        tracing::warn!(%error, "cannot read mutes; those known so far go on");
    }
    *failing = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mute_begins_with_a_window_that_all_replicas_can_still_learn_of() {
        let at = |ms: i64| DateTime::from_timestamp_millis(ms).unwrap();
        assert_eq!(active_from(at(0), 30_000), at(30_000));
        assert_eq!(active_from(at(1), 30_000), at(60_000));
        assert_eq!(active_from(at(30_000), 10_000), at(60_000));
        assert!(LEAD >= 5 * ASK_EVERY);
    }
}
