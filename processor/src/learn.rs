//! A first start without a model: one replica learns it, the others wait for it.
//!
//! ```text
//! model in --model-dir? ─ yes ─► run
//!   └ no: active in the store? ─ yes ─► load, run
//!       └ no, and --learn: lease ─┬─ ours ──► teach ─► publish (fenced by the lease) ─► run
//!                                 └─ taken ─► look again, until there is a model or the lease expires
//! ```
//!
//! Whoever waits or learns is not in the consumer group: no partition is held up, nothing is committed
//! that was not scored, and once there is a model every record is scored from the first one on. The
//! lease only saves work: two learners at a time harm nothing, since one of them alone publishes;
//! one that finds its lease lost leaves off before its next step.

mod active;
mod enough;
mod lease;
mod progress;
mod suspicion;
mod teach;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use fail::fail_point;

pub(crate) use self::active::{active_model, warn_of_another};
pub use self::progress::LearningMetrics;
use self::{
    lease::{Kept, holder, lease_holds},
    progress::{Progress, Stage},
};
use crate::{
    config::Config,
    health::Health,
    model::{Bundle, BundleError},
    shutdown::Shutdown,
    sink::store::{Asked, Lease, Store, StoreError},
    source::SourceError,
};

/// How often those who wait look for the model.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is said how far learning is.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How often a stop is looked for.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// Pause after a failure that may mend itself.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a store that was asked something may still take once a stop is asked for: time to
/// publish or to give up the lease, and far less than a statement may last.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// What a first start needs to know, and whom it tells.
pub(crate) struct FirstStart<'a> {
    pub(crate) config: &'a Config,
    pub(crate) store: Option<&'a Store>,
    pub(crate) health: &'a Health,
    pub(crate) metrics: &'a LearningMetrics,
    pub(crate) shutdown: &'a Shutdown,
}

/// How learning under a lease ended.
enum Learnt {
    /// The model is ours and everybody's.
    Published(Arc<Bundle>),
    /// Somebody else has taken over.
    Lost,
    /// A stop was asked for.
    Stopped,
}

impl FirstStart<'_> {
    /// Returns the model to run with: the process's own, or as [`Self::model`].
    ///
    /// # Errors
    /// As [`Self::model`].
    pub(crate) async fn model_or_own(
        &self,
        own: Result<Arc<Bundle>, BundleError>,
    ) -> anyhow::Result<Option<Arc<Bundle>>> {
        let model = match own {
            Ok(bundle) => Some(bundle),
            Err(missing) => self.model(missing).await?,
        };
        if model.is_some() {
            self.health.set_model();
            self.metrics.set_ready();
        }
        Ok(model)
    }

    /// Returns the model to run with where `missing` says that there is none in the model directory;
    /// `None` if a stop was asked for meanwhile.
    ///
    /// # Errors
    /// There is no model, and none is to be learnt; or none can be.
    async fn model(&self, missing: BundleError) -> anyhow::Result<Option<Arc<Bundle>>> {
        let bundle = match (self.store, self.config.model.learn) {
            (_, None) => return Err(missing.into()),
            (None, Some(asked)) => self.learn_alone(asked).await?,
            (Some(store), Some(asked)) => self.learn_or_wait(store, asked).await?,
        };
        Ok(bundle)
    }

    async fn active(&self, store: &Store) -> anyhow::Result<Option<Arc<Bundle>>> {
        active_model(self.config, store).await
    }

    /// Learns without a store: for itself, and for its model directory.
    async fn learn_alone(&self, asked: Duration) -> anyhow::Result<Option<Arc<Bundle>>> {
        let dir = &self.config.model.dir;
        tracing::warn!(
            dir = %dir.display(),
            "no model and no store: this process learns one for itself and keeps it in its model \
             directory; other replicas learn others"
        );
        loop {
            match self.learn(asked, None).await {
                Ok(Learnt::Published(bundle)) => {
                    let path = bundle.save(dir)?;
                    tracing::info!(path = %path.display(), "the model is learnt");
                    return Ok(Some(bundle));
                }
                Ok(Learnt::Lost | Learnt::Stopped) => return Ok(None),
                Err(error) => self.after_failure(error).await?,
            }
        }
    }

    /// Looks for the active model until there is one, and learns it whenever nobody else does.
    async fn learn_or_wait(
        &self,
        store: &Store,
        asked: Duration,
    ) -> anyhow::Result<Option<Arc<Bundle>>> {
        tracing::info!(
            topic = self.config.kafka.input_topic,
            "no model: one replica learns it, the others wait outside the group"
        );
        let mut told: Option<Instant> = None;
        while !self.shutdown.requested() {
            let turn = tokio::select! {
                turn = self.take_turn(store, asked) => turn,
                () = self.stop_is_overdue() => {
                    tracing::warn!(
                        "the store does not answer; stopping without it: a lease expires by itself"
                    );
                    break;
                }
            };
            match turn {
                Ok(Turn::Model(bundle)) => return Ok(Some(bundle)),
                Ok(Turn::Waiting { holder, progress }) => {
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        told = Some(Instant::now());
                        tracing::info!(holder, progress, "waiting for the model");
                    }
                    self.pause(LOOK_EVERY).await;
                }
                Ok(Turn::Again) => {}
                Err(error) => self.after_failure(error).await?,
            }
        }
        Ok(None)
    }

    async fn take_turn(&self, store: &Store, asked: Duration) -> anyhow::Result<Turn> {
        if let Some(bundle) = self.active(store).await? {
            return Ok(Turn::Model(bundle));
        }
        let topic = &self.config.kafka.input_topic;
        let lease = match store.acquire_lease(topic, &holder(), lease_holds()).await? {
            Asked::Taken { holder, progress } => return Ok(Turn::Waiting { holder, progress }),
            Asked::Ours(lease) => lease,
        };
        // Published between the two questions?
        let learnt = match self.active(store).await {
            Ok(Some(bundle)) => Ok(Learnt::Published(bundle)),
            Ok(None) => self.learn(asked, Some((store, &lease))).await,
            Err(error) => Err(error),
        };
        if !matches!(learnt, Ok(Learnt::Lost)) {
            // Nobody has to wait until it expires; if this fails they do.
            let given_up = store.renew_lease(&lease, Duration::ZERO, "").await;
            if let Err(error) = given_up {
                tracing::debug!(%error, "cannot give up the lease");
            }
        }
        Ok(match learnt? {
            Learnt::Published(bundle) => Turn::Model(bundle),
            Learnt::Lost | Learnt::Stopped => Turn::Again,
        })
    }

    /// Learns the model, with the lease kept alive and progress told; publishes it if there is a lease.
    async fn learn(
        &self,
        asked: Duration,
        lease: Option<(&Store, &Lease)>,
    ) -> anyhow::Result<Learnt> {
        tracing::info!(
            asked = %humantime::format_duration(asked),
            "learning the first model of the topic"
        );
        let progress = Progress::new(self.metrics.clone());
        // The thread ends even where a stop cuts this short.
        let _cancelled = progress.cancel_on_drop();
        self.metrics.set_learner(true);
        let learnt = self.learn_under(asked, lease, &progress).await;
        self.metrics.set_learner(false);
        learnt
    }

    async fn learn_under(
        &self,
        asked: Duration,
        lease: Option<(&Store, &Lease)>,
        progress: &Progress,
    ) -> anyhow::Result<Learnt> {
        let (config, theirs) = (self.config.clone(), progress.clone());
        let teaching = tokio::task::spawn_blocking(move || teach::teach(&config, asked, &theirs));
        let ended = self.keep(&teaching, lease, progress).await;
        match ended {
            Kept::Stopped => return Ok(Learnt::Stopped),
            Kept::Lost => return Ok(Learnt::Lost),
            Kept::Ended => {}
        }
        let bundle = teaching
            .await
            .map_err(|_| anyhow!("learning panicked; see the log"))??;
        let Some(bundle) = bundle.map(Arc::new) else {
            return Ok(Learnt::Stopped);
        };
        fail_point!("learning.learnt");
        let summary = bundle.summary();
        tracing::info!(
            from = %summary.from,
            to = %summary.to,
            windows = summary.windows,
            templates = summary.templates,
            young = summary.learning,
            checksum = %bundle.checksum(),
            "the model is learnt"
        );
        progress.set(Stage::Publishing);
        match lease {
            None => Ok(Learnt::Published(bundle)),
            Some(lease) => self.publish(lease, bundle).await,
        }
    }

    /// Waits after a failure that may mend itself: a broker or a store that is away.
    async fn after_failure(&self, error: anyhow::Error) -> anyhow::Result<()> {
        let away = error.chain().any(|cause| {
            let store = cause.downcast_ref::<StoreError>();
            let source = cause.downcast_ref::<SourceError>();
            store.is_some_and(StoreError::is_unreachable)
                || source.is_some_and(SourceError::is_unreachable)
        });
        if !away {
            return Err(error);
        }
        tracing::warn!(error = format!("{error:#}"), "no model yet; trying again");
        self.pause(RETRY_AFTER).await;
        Ok(())
    }

    /// Returns once a stop was asked for and has waited for long enough.
    async fn stop_is_overdue(&self) {
        while !self.shutdown.requested() {
            tokio::time::sleep(WATCH_EVERY).await;
        }
        tokio::time::sleep(STOP_WITHIN).await;
    }

    /// Waits, alive, and not for long once a stop is asked for.
    async fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.shutdown.requested() {
            self.health.turn();
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
}

/// What came of one look at the store.
enum Turn {
    /// There is a model.
    Model(Arc<Bundle>),
    /// Somebody else learns it.
    Waiting { holder: String, progress: String },
    /// Neither; look again.
    Again,
}
