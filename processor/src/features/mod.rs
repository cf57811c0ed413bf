//! A closed window to a fixed-width row of named columns.
//!
//! ```text
//! ClosedWindow + facts about its templates (from the model) ──► FeatureRow
//! ```
//!
//! Pure; float sums run in sorted template order, so that a row does not depend on arrival order.

/// The values of one window, by column.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureRow {
    /// One value per name in [`COLUMNS`].
    pub values: Vec<f64>,
}

/// Column names, in order.
pub const COLUMNS: [&str; 0] = [];
