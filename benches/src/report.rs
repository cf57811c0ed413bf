//! Tables for people and JSON for machines.

use std::{fs::File, io::Write, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

/// One measured program on one topic or file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured on, such as `1 partition, zstd`.
    pub(crate) input: String,
    /// What was measured.
    pub(crate) program: String,
    pub(crate) events_per_s: f64,
    /// CPU seconds per million events, which is microseconds per event.
    pub(crate) cpu_s_per_million: f64,
    pub(crate) rss_peak_mib: f64,
    /// Events/s as a share of those of the row it is compared with.
    pub(crate) ratio: Option<f64>,
}

/// Returns the rows as a Markdown table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| input | program | events/s | CPU µs/event | peak RSS MiB | ratio |\n|---|---|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let ratio = row
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.2}"));
        text.push_str(&format!(
            "| {} | {} | {:.0} | {:.2} | {:.0} | {ratio} |\n",
            row.input, row.program, row.events_per_s, row.cpu_s_per_million, row.rss_peak_mib
        ));
    }
    text
}

/// Writes `value` as JSON to `path`, if one is given.
pub(crate) fn write_json(path: Option<&Path>, value: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut file =
        File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    serde_json::to_writer_pretty(&mut file, value)?;
    writeln!(file)?;
    Ok(())
}
