//! A closed window to a fixed-width row of named columns.
//!
//! ```text
//! ClosedWindow + facts about its templates (from the model) ──► FeatureRow
//! ```
//!
//! Pure; float sums run in sorted template order, so that a row does not depend on arrival order.
//! No column is ever NaN or infinite: an empty window is all zeros, and a denominator of 0 counts
//! as 1.

mod columns;
mod row;

pub use columns::{COLUMNS, Column, TEXT_DIMENSIONS};
pub use row::{
    Observed, PairFact, ServiceFact, TemplateFact, TemplateFacts, Trailing, observe, row,
};

/// The values of one window, by column.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureRow {
    /// One finite value per name in [`COLUMNS`].
    pub values: Vec<f64>,
}

impl FeatureRow {
    /// Returns the value of `column`, 0 if the row is too short to have it.
    #[must_use]
    pub fn get(&self, column: Column) -> f64 {
        self.values.get(column as usize).copied().unwrap_or(0.0)
    }
}
