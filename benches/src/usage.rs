//! What a process has used: CPU time and peak resident memory, from `/proc`.

use anyhow::{Context, Result};
use procfs::process::Process;
use serde::{Deserialize, Serialize};

/// Resources of one process since its start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time of all threads, in seconds.
    pub(crate) cpu_s: f64,
    /// Largest resident set, in MiB.
    pub(crate) rss_peak_mib: f64,
    /// Resident set now, in MiB.
    pub(crate) rss_mib: f64,
}

impl Usage {
    /// Returns what process `pid` has used so far.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let process = Process::new(i32::try_from(pid)?).context("the process is gone")?;
        Self::read(&process)
    }

    /// Returns what this process has used so far.
    pub(crate) fn of_self() -> Result<Self> {
        Self::read(&Process::myself()?)
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "ticks and KiB are far below 2^52"
    )]
    fn read(process: &Process) -> Result<Self> {
        let (stat, status) = (process.stat()?, process.status()?);
        let ticks = (stat.utime + stat.stime) as f64;
        let mib = |kib: Option<u64>| kib.unwrap_or_default() as f64 / 1024.0;
        Ok(Self {
            cpu_s: ticks / procfs::ticks_per_second() as f64,
            rss_peak_mib: mib(status.vmhwm),
            rss_mib: mib(status.vmrss),
        })
    }

    /// Returns what was used since `earlier`; memory is that of now.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_s: self.cpu_s - earlier.cpu_s,
            ..self
        }
    }
}
