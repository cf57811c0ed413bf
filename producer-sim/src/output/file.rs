//! Files of events: to standard output or to a path, plain or compressed by its ending.
//!
//! A file appears under its name only when it is complete; until then it is `NAME.partial`.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

use crate::{failure::Failure, output::encode::Format};

/// Bytes gathered before a write: large enough that system calls do not count.
const BUFFER_BYTES: usize = 256 * 1024;

type Raw = Box<dyn Write + Send>;

enum Encoder {
    Plain(BufWriter<Raw>),
    Gzip(Box<GzEncoder<BufWriter<Raw>>>),
    Zstd(zstd::Encoder<'static, BufWriter<Raw>>),
}

/// A file being written.
pub struct OutputFile {
    path: PathBuf,
    /// Where the bytes go until the file is complete.
    partial: Option<PathBuf>,
    encoder: Encoder,
}

/// Returns the form that the ending of `path` names: CSV for `.csv`, before a `.gz` or `.zst`.
#[must_use]
pub fn format_of(path: &Path) -> Format {
    let inner = match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz" | "zst") => Path::new(path.file_stem().unwrap_or_default()),
        _ => path,
    };
    if inner.extension().is_some_and(|ending| ending == "csv") {
        Format::Csv
    } else {
        Format::Json
    }
}

impl OutputFile {
    /// Opens `path`; `-` is standard output. Endings `.gz` and `.zst` compress.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |source| Failure::Open {
            path: path.to_owned(),
            source,
        };
        let (raw, partial) = open(path).map_err(failed)?;
        let buffered = BufWriter::with_capacity(BUFFER_BYTES, raw);
        let encoder = match path.extension().and_then(|ending| ending.to_str()) {
            Some("gz") => Encoder::Gzip(Box::new(GzEncoder::new(buffered, Compression::fast()))),
            Some("zst") => Encoder::Zstd(zstd::Encoder::new(buffered, 3).map_err(failed)?),
            _ => Encoder::Plain(buffered),
        };
        Ok(Self {
            path: path.to_owned(),
            partial,
            encoder,
        })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.encoder {
            Encoder::Plain(out) => out.write_all(bytes),
            Encoder::Gzip(out) => out.write_all(bytes),
            Encoder::Zstd(out) => out.write_all(bytes),
        };
        written.map_err(|source| self.failed(source))
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    ///
    /// If what is left cannot be written or the file not be renamed.
    pub fn finish(self) -> Result<(), Failure> {
        let Self {
            path,
            partial,
            encoder,
        } = self;
        let flushed = match encoder {
            Encoder::Plain(mut out) => out.flush(),
            Encoder::Gzip(out) => out.finish().and_then(|mut out| out.flush()),
            Encoder::Zstd(out) => out.finish().and_then(|mut out| out.flush()),
        };
        let named = flushed.and_then(|()| partial.map_or(Ok(()), |from| fs::rename(from, &path)));
        named.map_err(|source| Failure::Write { path, source })
    }

    fn failed(&self, source: io::Error) -> Failure {
        Failure::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// Opens `path`, and says where its bytes go meanwhile. Devices and pipes are written directly.
fn open(path: &Path) -> io::Result<(Raw, Option<PathBuf>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdout()), None));
    }
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let file = File::options().write(true).open(path)?;
        return Ok((Box::new(file), None));
    }
    let mut name = OsString::from(path);
    name.push(".partial");
    let partial = PathBuf::from(name);
    Ok((Box::new(File::create(&partial)?), Some(partial)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_the_format() {
        for (name, expected) in [
            ("a.csv", Format::Csv),
            ("a.csv.gz", Format::Csv),
            ("a.csv.zst", Format::Csv),
            ("a.jsonl", Format::Json),
            ("a.jsonl.gz", Format::Json),
            ("csv", Format::Json),
            ("-", Format::Json),
        ] {
            assert_eq!(format_of(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn the_name_appears_when_the_file_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let mut file = OutputFile::create(&path).unwrap();
        file.write(b"x\n").unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
