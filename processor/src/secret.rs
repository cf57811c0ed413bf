//! Values that must not be seen: passwords and URLs that hold them.
//!
//! A [`Secret`] never appears in `Debug` output, in a serialised configuration or in an error; the
//! only way to its text is [`Secret::expose`].

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// What is shown in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Longest secret read from a file, in bytes: a private key with its certificates is shorter.
const SECRET_BYTES_MAX: u64 = 256 * 1024;

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret with this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns what is in a file (a mounted secret), less the line ends after it.
    ///
    /// # Errors
    /// The file cannot be read, is no text, or is far longer than any secret.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        let read = File::open(path)?
            .take(SECRET_BYTES_MAX + 1)
            .read_to_string(&mut text)?;
        if read as u64 > SECRET_BYTES_MAX {
            let reason = format!("it has more than {SECRET_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(Self::new(text.trim_end_matches(['\r', '\n'])))
    }

    /// Returns the text, for handing it to what needs it and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Takes text. What else is there is refused without being shown, which serde's own errors would.
struct SecretVisitor;

impl SecretVisitor {
    fn refuse<E: de::Error>() -> Result<Secret, E> {
        Err(E::custom("a secret has to be text: put it in quotes"))
    }
}

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Self::refuse()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Self::refuse()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Self::refuse()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Self::refuse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_but_never_shown() {
        let secret: Secret = serde_json::from_str(r#""hunter2""#).unwrap();
        assert_eq!(secret.expose(), "hunter2");
        let shown = format!("{secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert_eq!(shown, r#"[redacted] "[redacted]""#);
    }

    #[test]
    fn a_file_gives_its_text_without_the_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, " pass word \r\n").unwrap();
        assert_eq!(Secret::from_file(&path).unwrap().expose(), " pass word ");
        std::fs::write(&path, vec![b'x'; 300_000]).unwrap();
        assert!(Secret::from_file(&path).is_err());
    }

    #[test]
    fn what_is_no_text_is_refused_without_being_shown() {
        for value in ["12345", "-12345", "12345.5", "true"] {
            let error = serde_json::from_str::<Secret>(value)
                .unwrap_err()
                .to_string();
            assert!(error.contains("quotes"), "{error}");
            assert!(!error.contains(value), "{error}");
        }
    }
}
