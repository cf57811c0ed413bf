//! Masking of variables: ordered regex rules, applied in one pass.

/// One masking rule.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MaskRule {
    /// What a match is replaced by, without angle brackets: `num` gives `<num>`.
    pub name: String,
    /// The pattern (syntax of the `regex` crate).
    pub pattern: String,
}

/// A rule that does not compile.
#[derive(Debug, thiserror::Error)]
#[error("mask rule `{name}` is not a valid pattern: {reason}")]
pub struct MaskError {
    /// The rule's name.
    pub name: String,
    /// What the regex compiler says.
    pub reason: String,
}

/// Replaces the variables of a message.
#[derive(Debug)]
pub struct Masker {}

impl Masker {
    /// Appends `message` with its variables masked to `out`.
    pub fn mask_into(&self, message: &str, out: &mut String) {
        out.push_str(message);
    }
}
