//! What a processor says of itself while it runs: metrics, health, memory.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::program::Running;

/// Far longer than a live processor takes to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the sum of a metric over its labels that have all of `labels` (`sink="store"`); 0 where
/// there is none (yet).
pub(crate) fn metric(processor: &Running, name: &str, labels: &[&str]) -> f64 {
    let (_, text) = get(processor, "/metrics").unwrap_or_default();
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labelled) = series.split_once('{').unwrap_or((series, ""));
        let counted = found == name && labels.iter().all(|label| labelled.contains(label));
        counted.then(|| value.parse::<f64>().unwrap())
    });
    values.sum()
}

/// Returns whether `/livez` or `/readyz` says yes.
pub(crate) fn says_yes(processor: &Running, path: &str) -> bool {
    get(processor, path).is_some_and(|(status, _)| status.contains(" 200 "))
}

/// Returns status line and body of what the processor answers; `None` before it serves.
fn get(processor: &Running, path: &str) -> Option<(String, String)> {
    let address = address(processor)?;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap_or_default();
    Some((status.to_owned(), body.to_owned()))
}

fn address(processor: &Running) -> Option<String> {
    let log = processor.log();
    let line = log.lines().find(|line| line.contains("serving /metrics"))?;
    let (_, address) = line.split_once("address=")?;
    address.split_whitespace().next().map(str::to_owned)
}

/// Returns the most memory the processor has held so far, in MiB.
pub(crate) fn memory_peak_mib(processor: &Running) -> u64 {
    let status = format!("/proc/{}/status", processor.id());
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() / 1024
}
