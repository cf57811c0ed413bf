//! `/metrics` of a program whose log says where it is served.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
};

/// Returns every sample by its name and labels, as they stand.
pub(crate) fn metrics(log: &Path) -> BTreeMap<String, f64> {
    let log = fs::read_to_string(log).unwrap();
    let address = log
        .split(|c: char| c.is_whitespace() || c == '\u{1b}' || c == '=')
        .find(|word| word.starts_with("127.0.0.1:") && serves(word))
        .unwrap_or_else(|| panic!("no address in {log}"));
    let body = get(address).unwrap();
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn serves(address: &str) -> bool {
    get(address).is_ok_and(|body| body.contains("# EOF"))
}

fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
