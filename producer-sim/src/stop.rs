//! The wish to stop: SIGTERM and SIGINT, turned into a flag that can be waited on.
//!
//! A second signal ends the process at once.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};

/// A flag that the first SIGTERM or SIGINT raises. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Returns a flag that the process's signals raise.
    ///
    /// # Errors
    ///
    /// If the signal handlers or their thread cannot be set up.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let raised = stop.clone();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut pending = signals.forever();
                pending.next();
                raised.raise();
                if let Some(signal) = pending.next() {
                    // 128 + signal is what shells report for a process that a signal ended.
                    low_level::exit(128 + signal);
                }
            })?;
        Ok(stop)
    }

    /// Raises the flag.
    pub fn raise(&self) {
        let (flag, changed) = &*self.0;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Waits until the flag is raised.
    pub fn wait(&self) {
        let (flag, changed) = &*self.0;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            changed
                .wait_while(guard, |raised| !*raised)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Waits until the flag is raised, at most `timeout`; returns whether it is.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let (flag, changed) = &*self.0;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = changed
            .wait_timeout_while(guard, timeout, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}
