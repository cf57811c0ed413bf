//! The one place that reads clocks. Everything that decides by one takes a [`Clock`], so that tests
//! inject their own; windows, features and scores never see one.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use chrono::{DateTime, Utc};

/// A source of wall-clock and of monotonic time.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    instant: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl Clock {
    /// Returns the machine's clocks.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn system() -> Self {
        Self {
            now: Arc::new(|| SystemTime::now().into()),
            instant: Arc::new(Instant::now),
        }
    }

    /// Returns a clock that asks `now`, for tests; its monotonic time runs alongside.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        let now = Arc::new(now);
        let (begin, begin_instant) = (now(), Instant::now());
        let same = Arc::clone(&now);
        Self {
            now: Arc::new(move || now()),
            instant: Arc::new(move || {
                begin_instant + (same() - begin).to_std().unwrap_or_default()
            }),
        }
    }

    /// Returns the present time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.now)()
    }

    /// Returns the present monotonic time.
    #[must_use]
    pub fn instant(&self) -> Instant {
        (self.instant)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
