//! The bundle: everything a score depends on besides the window and the stream's baseline, in one
//! versioned, inspectable file.
//!
//! ```text
//! {"format":3,"checksum":"<sha256 of what follows `model`>","model":{…}}
//! ```
//!
//! Written to a temporary file, synced and renamed, so that a reader finds the old bundle or the
//! new one. A file that is damaged in any way is refused, never half used.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{calibration::Calibration, density::Density, profile::Profile, second::Second};
use crate::{
    decode::{MaskError, MaskRule, Masker},
    event::EventTime,
    features::COLUMNS,
};

/// Name of the bundle in its directory.
pub const BUNDLE_FILE: &str = "model.json";
/// Version of the format; files of another one are refused.
pub const BUNDLE_FORMAT: u32 = 3;
/// Largest bundle, in bytes.
pub const BUNDLE_BYTES_MAX: u64 = 20 * 1024 * 1024;

/// Largest magnitude of a number in a bundle: far beyond what training makes, so small that sums and
/// products of such numbers stay finite.
const MAGNITUDE_MAX: f64 = 1e15;

/// Returns whether a number of a bundle can be calculated with.
pub(super) fn is_usable(value: f64) -> bool {
    // Neither NaN nor infinity is.
    value.abs() <= MAGNITUDE_MAX
}

/// What is wrong with the content of a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleDefect {
    /// It is larger than [`BUNDLE_BYTES_MAX`].
    #[error("it has more than {BUNDLE_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not JSON of the bundle's shape: cut short, or not a bundle.
    #[error("it is cut short or not a model bundle")]
    Shape(#[source] serde_json::Error),
    /// It was written by a version with another format.
    #[error("its format is {found}, this version reads {BUNDLE_FORMAT}; train again")]
    Format {
        /// The format it names.
        found: u32,
    },
    /// Its content is not what was written.
    #[error("its checksum does not match its content; it was changed or damaged")]
    Checksum,
    /// Lists in it have lengths that do not fit each other.
    #[error("its section `{0}` has wrong dimensions")]
    Dimensions(&'static str),
    /// A number in it is not finite or out of range.
    #[error("its section `{0}` holds a number that is not finite or out of range")]
    NotFinite(&'static str),
    /// A masking rule in it does not compile.
    #[error("one of its masks cannot be used")]
    Mask(#[from] MaskError),
}

/// A bundle that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file cannot be read.
    #[error("cannot read model bundle `{}`; `logguard train` makes one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write model bundle `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and is refused.
    #[error("model bundle `{}` is refused", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleDefect,
    },
}

/// The usual range of a column in training, for explanations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Usual {
    /// 1 % of training windows lie below.
    pub(super) low: f64,
    pub(super) median: f64,
    /// 1 % of training windows lie above.
    pub(super) high: f64,
}

/// What is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    pub(super) window_length_ms: i64,
    /// It was learnt at a first start, from less than a day: caution is due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) young: bool,
    /// First instant of training and first after.
    pub(super) span: (EventTime, EventTime),
    pub(super) masks: Vec<MaskRule>,
    pub(super) profile: Profile,
    pub(super) density: Density,
    pub(super) calibration: Calibration,
    /// Per column.
    pub(super) usual: Vec<Usual>,
    /// The second detector, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) second: Option<Second>,
}

/// A model, complete and checked.
#[derive(Debug)]
pub struct Bundle {
    pub(super) content: Content,
    checksum: Arc<str>,
}

/// What a bundle was trained on and holds, for a person.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BundleSummary {
    /// First instant of training.
    pub from: EventTime,
    /// First instant after training.
    pub to: EventTime,
    /// Lines.
    pub lines: u64,
    /// Windows, empty ones included.
    pub windows: u64,
    /// Distinct templates.
    pub templates: usize,
    /// Services.
    pub services: usize,
    /// Terms in the vocabulary.
    pub terms: usize,
    /// DBSCAN core points kept.
    pub core_points: usize,
    /// DBSCAN radius, in scaled units.
    pub eps: f64,
    /// Windows that the calibration was learnt from.
    pub calibration_windows: u64,
    /// Share of those that looks like incidents.
    #[serde(serialize_with = "rounded")]
    pub presumed_incidents: f64,
    /// It was learnt at a first start from less than a day: a stream's first day with it says
    /// `learning`.
    pub learning: bool,
}

/// A template that training saw.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LearntTemplate {
    /// Identity, 16 hex digits.
    pub id: String,
    /// The masked text.
    pub text: Arc<str>,
    /// Lines in training.
    pub lines: u64,
    /// Windows in which it is expected on normal time.
    pub occasions: f64,
}

fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e6).round() / 1e6)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    format: u32,
    checksum: String,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Bundle {
    /// Seals what was trained.
    pub(super) fn seal(content: Content) -> Result<Self, BundleDefect> {
        content.check()?;
        let body = serde_json::to_string(&content).map_err(BundleDefect::Shape)?;
        if body.len() as u64 > BUNDLE_BYTES_MAX {
            return Err(BundleDefect::TooLarge);
        }
        Ok(Self {
            checksum: checksum(&body),
            content,
        })
    }

    /// Writes the bundle to `dir`, which is created if need be, and returns the file's path.
    ///
    /// # Errors
    /// Names the file and what the file system says; the bundle that was there before stays.
    pub fn save(&self, dir: &Path) -> Result<PathBuf, BundleError> {
        let path = dir.join(BUNDLE_FILE);
        match self.write(dir, &path) {
            Ok(()) => Ok(path),
            Err(source) => Err(BundleError::Write { path, source }),
        }
    }

    /// Returns what [`Self::save`] writes.
    ///
    /// # Errors
    /// There are none but those of the JSON writer, which has no reason for any.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let body = serde_json::value::to_raw_value(&self.content)?;
        let envelope = Envelope {
            format: BUNDLE_FORMAT,
            checksum: self.checksum.as_ref().to_owned(),
            model: &body,
        };
        let mut text = serde_json::to_vec(&envelope)?;
        text.push(b'\n');
        Ok(text)
    }

    fn write(&self, dir: &Path, path: &Path) -> io::Result<()> {
        let text = self.to_bytes()?;
        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new()
            .prefix(".model-")
            .suffix(".tmp")
            .tempfile_in(dir)?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        share(file.as_file())?;
        file.persist(path)?;
        // The rename itself has to survive a power cut.
        File::open(dir)?.sync_all()
    }

    /// Reads the bundle in `dir`.
    ///
    /// # Errors
    /// Names the file and the first defect found; see [`BundleDefect`].
    pub fn load(dir: &Path) -> Result<Self, BundleError> {
        let path = dir.join(BUNDLE_FILE);
        let text = match read(&path) {
            Ok(text) => text,
            Err(source) => return Err(BundleError::Read { path, source }),
        };
        match Self::from_bytes(&text) {
            Ok(bundle) => Ok(bundle),
            Err(source) => Err(BundleError::Refused { path, source }),
        }
    }

    /// Returns the bundle that `text` holds, as [`Self::to_bytes`] wrote it. Nothing of it is trusted:
    /// whoever can write the file can also make its checksum fit.
    ///
    /// # Errors
    /// The first defect found; see [`BundleDefect`].
    pub fn from_bytes(text: &[u8]) -> Result<Self, BundleDefect> {
        if text.len() as u64 > BUNDLE_BYTES_MAX {
            return Err(BundleDefect::TooLarge);
        }
        let FormatOnly { format } = serde_json::from_slice(text).map_err(BundleDefect::Shape)?;
        if format != BUNDLE_FORMAT {
            return Err(BundleDefect::Format { found: format });
        }
        let envelope: Envelope<'_> = serde_json::from_slice(text).map_err(BundleDefect::Shape)?;
        let body = envelope.model.get();
        let checksum = checksum(body);
        if *checksum != *envelope.checksum {
            return Err(BundleDefect::Checksum);
        }
        let mut content: Content = serde_json::from_str(body).map_err(BundleDefect::Shape)?;
        content.check()?;
        content.profile.reindex();
        content.density.reindex();
        Ok(Self { content, checksum })
    }

    /// Returns the SHA-256 of the content, hexadecimal: the model's identity.
    #[must_use]
    pub fn checksum(&self) -> &Arc<str> {
        &self.checksum
    }

    /// Returns the masking rules it was trained with; scoring has to use the same.
    #[must_use]
    pub fn masks(&self) -> &[MaskRule] {
        &self.content.masks
    }

    /// Returns the window length it was trained with, in milliseconds; scoring has to use the
    /// same.
    #[must_use]
    pub fn window_length_ms(&self) -> i64 {
        self.content.window_length_ms
    }

    /// Returns the templates that training saw, those with most lines first.
    #[must_use]
    pub fn templates(&self) -> Vec<LearntTemplate> {
        let known = self.content.profile.templates.iter();
        let mut learnt: Vec<LearntTemplate> = known
            .map(|known| LearntTemplate {
                id: format!("{:016x}", known.hash),
                text: Arc::clone(&known.text),
                lines: known.lines,
                occasions: known.occasions,
            })
            .collect();
        learnt.sort_by(|a, b| (b.lines, &a.id).cmp(&(a.lines, &b.id)));
        learnt
    }

    /// Returns whether training saw the template of this identity.
    #[must_use]
    pub fn has_learnt(&self, template: u64) -> bool {
        self.content.profile.template(template).is_some()
    }

    /// Returns what it was trained on and holds.
    #[must_use]
    pub fn summary(&self) -> BundleSummary {
        let Content {
            span,
            profile,
            density,
            calibration,
            young,
            ..
        } = &self.content;
        BundleSummary {
            from: span.0,
            to: span.1,
            lines: profile.lines,
            windows: profile.windows,
            templates: profile.templates.len(),
            services: profile.services.len(),
            terms: profile.text.terms(),
            core_points: density.core_points(),
            eps: density.eps,
            calibration_windows: calibration.windows,
            presumed_incidents: calibration.presumed_incidents,
            learning: *young,
        }
    }
}

impl Content {
    fn check(&self) -> Result<(), BundleDefect> {
        if self.window_length_ms <= 0 || self.usual.len() != COLUMNS.len() {
            return Err(BundleDefect::Dimensions("columns"));
        }
        let usable = |u: &Usual| [u.low, u.median, u.high].into_iter().all(is_usable);
        if !self.usual.iter().all(usable) {
            return Err(BundleDefect::NotFinite("columns"));
        }
        self.profile.check()?;
        self.density.check()?;
        self.calibration.check()?;
        self.second.as_ref().map_or(Ok(()), Second::check)?;
        Masker::new(&self.masks)?;
        Ok(())
    }
}

fn checksum(body: &str) -> Arc<str> {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(body.as_bytes()) {
        // Writing to a string cannot fail.
        write!(hex, "{byte:02x}").ok();
    }
    hex.into()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // One byte more than allowed tells that it is too large without reading it all.
    File::open(path)?
        .take(BUNDLE_BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// Temporary files are private; a model is for every replica's user to read.
#[cfg(unix)]
fn share(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share(_file: &File) -> io::Result<()> {
    Ok(())
}
