//! The templates of a batch and their lines, for the counts per stream that are kept for good.

use std::collections::HashMap;

use super::{
    batch::Entry,
    columns::{LinesRow, TemplateRow},
    features_row::template_id,
    json::without_nul,
};

/// Templates of a batch, each stream's once, and how many lines of them each row has.
#[derive(Debug, Default)]
pub(super) struct TemplateLines {
    pub(super) templates: Vec<TemplateRow>,
    pub(super) lines: Vec<LinesRow>,
}

impl TemplateLines {
    /// Returns those of the rows that are final: only they are counted.
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut all = Self::default();
        let mut places = HashMap::new();
        for (entry, number) in entries.iter().zip(1..) {
            if entry.row.provisional {
                continue;
            }
            let content = &*entry.scored.window.content;
            for pair in &content.pairs {
                let key = (entry.row.stream.as_str(), pair.template.hash);
                let template = *places.entry(key).or_insert_with(|| {
                    all.templates.push(TemplateRow {
                        stream: entry.row.stream.clone(),
                        id: template_id(&pair.template),
                        text: without_nul(&pair.template.text),
                        service: without_nul(content.service_of(pair)),
                        level: pair.level.as_str(),
                    });
                    // As `WITH ORDINALITY` numbers them.
                    i64::try_from(all.templates.len()).unwrap_or(i64::MAX)
                });
                all.lines.push(LinesRow {
                    number,
                    template,
                    lines: i64::from(pair.count),
                });
            }
        }
        all
    }
}
