//! How far the learning of a first model is: said in the log, in the metrics and to those who wait.

use std::{
    fmt,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

/// What is told of the first model. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct LearningMetrics {
    ready: Gauge,
    learner: Gauge,
    covered: Gauge,
    asked: Gauge,
}

impl LearningMetrics {
    /// Registers every metric.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("model_ready", "There is a model to judge with", &self.ready),
            (
                "model_learner",
                "This process learns the first model of the topic",
                &self.learner,
            ),
            (
                "learning_covered_seconds",
                "Event time found to learn the first model from",
                &self.covered,
            ),
            (
                "learning_asked_seconds",
                "Event time asked for to learn the first model from",
                &self.asked,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    /// Notes that there is a model.
    pub fn set_ready(&self) {
        self.ready.set(1);
    }

    pub(super) fn set_learner(&self, learner: bool) {
        self.learner.set(learner.into());
    }
}

/// Where learning stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Stage {
    /// Nothing was read yet.
    #[default]
    Beginning,
    /// Looking whether the topic holds enough.
    Looking { covered: Duration, asked: Duration },
    /// Reading what it holds.
    Reading { passed: u64, total: u64 },
    /// Calibrating the thresholds.
    Calibrating { windows: u64, total: u64 },
    /// Making the model known.
    Publishing,
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = |time: Duration| Duration::from_secs(time.as_secs());
        match *self {
            Self::Beginning => out.write_str("begins"),
            Self::Looking { covered, asked } => {
                let (covered, asked) = (minutes(covered), minutes(asked));
                let covered = humantime::format_duration(covered);
                write!(
                    out,
                    "has {covered} of {}",
                    humantime::format_duration(asked)
                )
            }
            Self::Reading { passed, total } => write!(out, "has read {passed} of {total} records"),
            Self::Calibrating { windows, total } => {
                write!(out, "has calibrated on {windows} of {total} windows")
            }
            Self::Publishing => out.write_str("has learnt the model and makes it known"),
        }
    }
}

/// Shared between the thread that learns and the one that waits for it.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    stage: Arc<Mutex<Stage>>,
    cancelled: Arc<AtomicBool>,
    metrics: LearningMetrics,
}

impl Progress {
    pub(super) fn new(metrics: LearningMetrics) -> Self {
        Self {
            stage: Arc::default(),
            cancelled: Arc::default(),
            metrics,
        }
    }

    /// Notes where learning stands.
    pub(super) fn set(&self, stage: Stage) {
        if let Stage::Looking { covered, asked } = stage {
            let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            self.metrics.covered.set(seconds(covered));
            self.metrics.asked.set(seconds(asked));
        }
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Returns where learning stands.
    pub(super) fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has learning end when what this returns is dropped.
    pub(super) fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Arc::clone(&self.cancelled))
    }

    /// Returns whether that was asked.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Breaks off once that was asked.
    pub(super) fn go_on(&self) -> ControlFlow<()> {
        match self.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Asks to learn no more when it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
