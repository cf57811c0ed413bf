//! Signals to one stop flag: the first SIGTERM or SIGINT asks for a drain, the second ends the
//! process at once. SIGHUP asks for the alarm file to be opened anew.
//!
//! No signal handler does work: handlers only set flags or wake the thread that reads them.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag,
    iterator::Signals,
};
use tokio::sync::watch;

/// Exit code of a process ended by a second signal, as a shell reports SIGINT.
const SECOND_SIGNAL_EXIT: i32 = 130;

/// What signals asked for.
#[derive(Clone, Debug)]
pub struct Shutdown {
    stop: watch::Receiver<bool>,
    reopen: watch::Receiver<u64>,
}

impl Shutdown {
    /// Installs the handlers.
    ///
    /// # Errors
    /// Returns an error if the system refuses them.
    pub fn install() -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // Order matters: the conditional exit must see the flag as it was before this signal.
            flag::register_conditional_shutdown(signal, SECOND_SIGNAL_EXIT, Arc::clone(&stopping))?;
            flag::register(signal, Arc::clone(&stopping))?;
        }
        // A file that has reached the limit on its size is an error of the write, as a full disk is,
        // and no reason to die; its flag is never read.
        flag::register(SIGXFSZ, Arc::default())?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let (stop_sender, stop) = watch::channel(false);
        let (reopen_sender, reopen) = watch::channel(0);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    if signal == SIGHUP {
                        reopen_sender.send_modify(|count| *count += 1);
                    } else {
                        tracing::info!(
                            signal,
                            "draining; a second signal ends the process at once"
                        );
                        stop_sender.send_replace(true);
                    }
                }
            })?;
        Ok(Self { stop, reopen })
    }

    /// Returns whether a stop was asked for.
    #[must_use]
    pub fn requested(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns the count of SIGHUPs, to watch for changes.
    #[must_use]
    pub fn reopen(&self) -> watch::Receiver<u64> {
        self.reopen.clone()
    }
}
