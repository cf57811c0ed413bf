//! Opening: what a file is, told by its first bytes, and the layers to read it through.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read, Seek},
    path::Path,
    sync::Arc,
};

use flate2::read::MultiGzDecoder;

use super::{FileError, FileFormat, ReadProgress, ReadUnit};

/// Bytes read from the file, and taken from the decompressor, at a time.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// Longest signature looked for at the beginning of a file, in bytes.
const SIGNATURE_BYTES: u64 = 6;
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file by its kind.
pub(super) enum Opened {
    Parquet { name: String, file: File },
    Text(TextInput),
}

/// Decompressed text, at its beginning.
pub(super) struct TextInput {
    pub(super) name: String,
    pub(super) format: FileFormat,
    pub(super) reader: Box<dyn BufRead + Send>,
    pub(super) progress: Arc<ReadProgress>,
}

impl fmt::Debug for TextInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextInput")
            .field("name", &self.name)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl TextInput {
    /// Returns the error of a read that failed at `line`.
    pub(super) fn damaged(&self, line: u64, error: io::Error) -> FileError {
        let read = self.progress.done();
        let position = match self.progress.total() {
            Some(total) => format!("line {line} (within the first {read} of {total} bytes)"),
            None => format!("line {line} (within the first {read} bytes)"),
        };
        FileError::Damaged {
            name: self.name.clone(),
            position,
            source: Box::new(error),
        }
    }
}

pub(super) fn open_path(path: &Path) -> Result<Opened, FileError> {
    let name = path.display().to_string();
    let failed = |source| FileError::Open {
        name: path.display().to_string(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(FileError::Unsupported {
            name,
            found: "it is a directory; name the files in it",
        });
    }
    if !metadata.is_file() {
        // A named pipe has neither a length nor a second reading.
        return open_reader(&name, Box::new(file), None);
    }
    let mut magic = Vec::new();
    Read::take(&mut file, SIGNATURE_BYTES)
        .read_to_end(&mut magic)
        .and_then(|_| file.rewind())
        .map_err(failed)?;
    if magic.starts_with(b"PAR1") {
        return Ok(Opened::Parquet { name, file });
    }
    if has_extension(path, &["parquet", "pq"]) && !magic.is_empty() {
        return Err(FileError::Unsupported {
            name,
            found: "it is named parquet but does not begin like it",
        });
    }
    open_reader(&name, Box::new(file), Some(metadata.len()))
}

pub(super) fn open_stdin() -> Result<Opened, FileError> {
    open_reader("standard input", Box::new(io::stdin()), None)
}

pub(super) fn open_reader(
    name: &str,
    reader: Box<dyn Read + Send>,
    total_bytes: Option<u64>,
) -> Result<Opened, FileError> {
    let failed = |source| FileError::Open {
        name: name.to_owned(),
        source,
    };
    let unsupported = |found| FileError::Unsupported {
        name: name.to_owned(),
        found,
    };
    let progress = Arc::new(ReadProgress::new(ReadUnit::Bytes, total_bytes));
    let mut counted = Counted {
        reader,
        progress: Arc::clone(&progress),
    };
    let mut magic = Vec::new();
    Read::take(&mut counted, SIGNATURE_BYTES)
        .read_to_end(&mut magic)
        .map_err(failed)?;
    if magic.is_empty() {
        return Err(FileError::Empty {
            name: name.to_owned(),
        });
    }
    let kind = Compression::of(&magic).map_err(unsupported)?;
    let whole = Cursor::new(magic).chain(counted);
    let decompressed: Box<dyn Read + Send> = match kind {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(
            CHUNK_BYTES,
            whole,
        ))),
        Compression::Zstd => Box::new(zstd::Decoder::new(whole).map_err(failed)?),
    };
    let mut text = TextInput {
        name: name.to_owned(),
        format: FileFormat::Csv,
        reader: Box::new(BufReader::with_capacity(CHUNK_BYTES, decompressed)),
        progress,
    };
    text.format = match text.reader.fill_buf() {
        Ok([]) => {
            return Err(FileError::Empty {
                name: name.to_owned(),
            });
        }
        Ok(head) => text_format(Path::new(name), head).map_err(unsupported)?,
        Err(error) => return Err(text.damaged(1, error)),
    };
    Ok(Opened::Text(text))
}

enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(magic: &[u8]) -> Result<Self, &'static str> {
        const NOT_READ: [(&[u8], &str); 7] = [
            (b"PAR1", "parquet cannot be read from a pipe; give its path"),
            (
                b"\xfd7zXZ\0",
                "it is compressed with xz; decompress it or use gzip or zstd",
            ),
            (
                b"BZh",
                "it is compressed with bzip2; decompress it or use gzip or zstd",
            ),
            (b"PK\x03\x04", "it is a zip archive; unpack it"),
            (
                b"\x04\"M\x18",
                "it is compressed with lz4; decompress it or use gzip or zstd",
            ),
            (b"\xff\xfe", "it is UTF-16 text; convert it to UTF-8"),
            (b"\xfe\xff", "it is UTF-16 text; convert it to UTF-8"),
        ];
        if let Some((_, what)) = NOT_READ.iter().find(|(known, _)| magic.starts_with(known)) {
            return Err(what);
        }
        Ok(if magic.starts_with(b"\x1f\x8b") {
            Self::Gzip
        } else if magic.starts_with(b"\x28\xb5\x2f\xfd") {
            Self::Zstd
        } else {
            Self::None
        })
    }
}

/// Tells JSON lines from CSV: by the name, else by the first character.
fn text_format(path: &Path, head: &[u8]) -> Result<FileFormat, &'static str> {
    let head = head
        .strip_prefix(UTF8_MARK)
        .unwrap_or(head)
        .trim_ascii_start();
    if head.first() == Some(&b'[') {
        return Err("it is a JSON array; write one object per line (jq -c '.[]')");
    }
    let inner = if has_extension(path, &["gz", "zst"]) {
        path.with_extension("")
    } else {
        path.to_path_buf()
    };
    if has_extension(&inner, &["csv", "tsv"]) {
        Ok(FileFormat::Csv)
    } else if head.first() == Some(&b'{') || has_extension(&inner, &["json", "jsonl", "ndjson"]) {
        Ok(FileFormat::JsonLines)
    } else {
        Ok(FileFormat::Csv)
    }
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| {
            known
                .iter()
                .any(|name| extension.eq_ignore_ascii_case(name))
        })
}

/// Counts the bytes that pass.
struct Counted {
    reader: Box<dyn Read + Send>,
    progress: Arc<ReadProgress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        // usize is at most 64 bits wide on every platform Rust knows.
        self.progress.add(read as u64);
        Ok(read)
    }
}
