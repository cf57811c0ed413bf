//! `logguard maintain`: drops old rows and refreshes summaries, once, and says what it did. Meant for
//! cron or a timer; TimescaleDB does most of it by itself.

use std::io::Write;

use crate::{
    cli::MaintainArgs,
    clock::Clock,
    config::Config,
    run,
    sink::maintain::{MaintainOptions, MaintainReport, maintain as maintain_store},
};

/// Maintains the database and prints what was done.
///
/// # Errors
/// Returns an error if the server cannot be reached or refuses.
pub fn maintain(config: &Config, args: &MaintainArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let options = MaintainOptions {
        dry_run: args.dry_run,
        now: Clock::system().now(),
    };
    let report = run::runtime()?.block_on(maintain_store(&config.store, options))?;
    write_report(&report, args.dry_run, out)
}

fn write_report(
    report: &MaintainReport,
    dry_run: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if let Some(reason) = report.kept {
        writeln!(out, "nothing is dropped: {reason}")?;
    }
    let verb = if dry_run { "to drop" } else { "dropped" };
    for table in &report.dropped {
        let (name, days) = (table.table, table.days);
        match table.rows {
            Some(rows) => writeln!(out, "{name}: {rows} rows older than {days} days {verb}")?,
            None => writeln!(out, "{name}: {days} days, by TimescaleDB's own policy")?,
        }
    }
    match report.refreshed.as_slice() {
        [] if dry_run => {}
        [] => writeln!(out, "summaries: views, always up to date")?,
        names => writeln!(out, "refreshed {}", names.join(", "))?,
    }
    Ok(())
}
