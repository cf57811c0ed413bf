//! The files that a replay writes: result messages, the report.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::NamedTempFile;

use crate::{config::ConfigError, model::ScoredWindow, sink::results::result_message};

/// A file that is being written.
pub(super) struct OutputFile {
    out: BufWriter<Target>,
    path: PathBuf,
}

/// A file takes its name when it is complete, so that a replay that fails leaves the old one. A
/// pipe or a device is written to as it is.
enum Target {
    Unnamed(NamedTempFile),
    Device(File),
}

impl OutputFile {
    /// Creates the file, which takes its name when it is complete.
    pub(super) fn create(path: &Path, flag: &str) -> Result<Self, ConfigError> {
        let file = Target::create(path).map_err(|error| {
            let name = path.display();
            ConfigError::from(format!("cannot create `{name}` ({flag}): {error}"))
        })?;
        Ok(Self {
            out: BufWriter::new(file),
            path: path.to_owned(),
        })
    }

    /// Writes with `write`.
    pub(super) fn with(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        write(&mut self.out).with_context(|| format!("cannot write to `{}`", self.path.display()))
    }

    /// Writes the message of a window.
    pub(super) fn write(&mut self, scored: &ScoredWindow) -> anyhow::Result<()> {
        self.with(|out| {
            serde_json::to_writer(&mut *out, &result_message(scored, false))?;
            out.write_all(b"\n")
        })
    }

    /// Gives the file its name.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Self { out, path } = self;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.finish(&path))
            .with_context(|| format!("cannot write to `{}`", path.display()))
    }
}

impl Target {
    fn create(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return File::create(path).map(Self::Device);
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut file = tempfile::Builder::new();
        // Temporary files are private; results are for whom the umask lets read them.
        #[cfg(unix)]
        file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        file.tempfile_in(dir.unwrap_or(Path::new(".")))
            .map(Self::Unnamed)
    }

    fn finish(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Unnamed(file) => file.persist(path).map(drop).map_err(|error| error.error),
            Self::Device(mut file) => file.flush(),
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unnamed(file) => file.write(bytes),
            Self::Device(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unnamed(file) => file.flush(),
            Self::Device(file) => file.flush(),
        }
    }
}
