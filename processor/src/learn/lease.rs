//! The lease of a learner: kept alive while it learns, and what its model is published under.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fail::fail_point;
use tokio::task::JoinHandle;

use super::{FirstStart, LOOK_EVERY, Learnt, TELL_EVERY, WATCH_EVERY, progress::Progress};
use crate::{
    model::Bundle,
    sink::store::{Lease, Store},
};

/// How long a lease holds without being renewed. Short: what a learner loses that was only paused is
/// work, nothing else.
const LEASE_HOLDS: Duration = Duration::from_secs(10);
/// Renewals in that time.
const RENEWALS: u32 = 5;

/// How keeping the lease ended.
pub(super) enum Kept {
    /// The model is learnt, or cannot be.
    Ended,
    /// The lease is somebody else's.
    Lost,
    /// A stop was asked for.
    Stopped,
}

impl FirstStart<'_> {
    /// Keeps the lease alive while the model is learnt.
    pub(super) async fn keep<T>(
        &self,
        teaching: &JoinHandle<T>,
        lease: Option<(&Store, &Lease)>,
        progress: &Progress,
    ) -> Kept {
        let (mut renewed, mut told) = (Instant::now(), Instant::now());
        while !teaching.is_finished() {
            if self.shutdown.requested() {
                return Kept::Stopped;
            }
            self.health.turn();
            tokio::time::sleep(WATCH_EVERY).await;
            let stage = progress.stage().to_string();
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tracing::info!(progress = stage, "learning");
            }
            let Some((store, lease)) = lease else {
                continue;
            };
            if renewed.elapsed() < lease_holds() / RENEWALS {
                continue;
            }
            renewed = Instant::now();
            match store.renew_lease(lease, lease_holds(), &stage).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!("another replica has taken over learning; leaving it to that");
                    return Kept::Lost;
                }
                // It may expire meanwhile; then somebody else publishes.
                Err(error) => tracing::warn!(%error, "cannot renew the lease yet"),
            }
        }
        Kept::Ended
    }

    /// Publishes the model, however long the store is away, unless somebody else has taken over.
    pub(super) async fn publish(
        &self,
        (store, lease): (&Store, &Lease),
        bundle: Arc<Bundle>,
    ) -> anyhow::Result<Learnt> {
        let active_from = bundle.summary().from;
        while !self.shutdown.requested() {
            match store.publish_model(lease, &bundle, active_from).await {
                Ok(true) => {
                    tracing::info!(%active_from, "the model is published for all replicas");
                    return Ok(Learnt::Published(bundle));
                }
                Ok(false) => {
                    tracing::warn!(
                        "another replica has taken over learning; this model is dropped"
                    );
                    return Ok(Learnt::Lost);
                }
                Err(error) if error.is_unreachable() => {
                    tracing::warn!(%error, "cannot publish the model yet");
                    self.pause(LOOK_EVERY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Learnt::Stopped)
    }
}

/// Returns how long a lease holds; tests have less patience.
pub(super) fn lease_holds() -> Duration {
    fail_point!("learning.lease_ms", |ms| {
        let ms = ms.and_then(|ms| ms.parse().ok());
        ms.map_or(LEASE_HOLDS, Duration::from_millis)
    });
    LEASE_HOLDS
}

/// Returns the name of this process for others to read.
pub(super) fn holder() -> String {
    let host = whoami::hostname().unwrap_or_else(|_| "unknown".to_owned());
    format!("{host}, process {}", std::process::id())
}
