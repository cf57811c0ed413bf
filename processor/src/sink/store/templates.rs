//! The templates of a batch and their lines, for the counts per stream that are kept for good.

use std::collections::BTreeMap;

use super::{
    batch::Entry,
    columns::{LinesRow, TemplateRow},
    features_row::template_id,
    json::without_nul,
};
use crate::window::TemplateCount;

/// Templates of a batch, each stream's once, and how many lines of them each row has.
///
/// Both come in order, so that the server has little to sort: the templates of stream and id, as
/// bytes; their lines of template and row.
#[derive(Debug, Default)]
pub(super) struct TemplateLines {
    pub(super) templates: Vec<TemplateRow>,
    pub(super) lines: Vec<LinesRow>,
}

impl TemplateLines {
    /// Returns those of the rows that are final: only they are counted. What is said of a template
    /// is what its first row says.
    pub(super) fn of(entries: &[Entry]) -> Self {
        // Hashes are in the order of ids, which are as many digits each.
        let mut known: BTreeMap<_, (TemplateRow, Vec<(i64, i64)>)> = BTreeMap::new();
        for (entry, number) in entries.iter().zip(1..) {
            if entry.row.provisional {
                continue;
            }
            for pair in &entry.scored.window.content.pairs {
                let key = (entry.row.stream.as_str(), pair.template.hash);
                let (_, rows) = known
                    .entry(key)
                    .or_insert_with(|| (template_row(entry, pair), Vec::new()));
                let count = i64::from(pair.count);
                match rows.last_mut() {
                    // Another service's.
                    Some((last, lines)) if *last == number => *lines += count,
                    _ => rows.push((number, count)),
                }
            }
        }
        let mut all = Self::default();
        for ((template, rows), place) in known.into_values().zip(1..) {
            all.templates.push(template);
            let lines = rows.into_iter().map(|(number, lines)| LinesRow {
                number,
                template: place,
                lines,
            });
            all.lines.extend(lines);
        }
        all
    }
}

fn template_row(entry: &Entry, pair: &TemplateCount) -> TemplateRow {
    TemplateRow {
        stream: entry.row.stream.clone(),
        id: template_id(&pair.template),
        text: without_nul(&pair.template.text),
        service: without_nul(entry.scored.window.content.service_of(pair)),
        level: pair.level.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::{EventTime, Level, LogEvent},
        sink::{
            WindowJob,
            store::{batch::Batch, speed::job},
        },
    };

    fn entries(jobs: impl IntoIterator<Item = WindowJob>) -> Vec<Entry> {
        let mut batch = Batch::default();
        for job in jobs {
            batch.push(job).unwrap();
        }
        batch.into_entries()
    }

    #[test]
    fn templates_come_in_order_of_stream_and_id_and_lines_in_theirs() {
        // Two windows of each of ten streams, twenty templates in each.
        let counted = TemplateLines::of(&entries((0..20).rev().map(job)));
        let keys = counted.templates.iter().map(|it| (&it.stream, &it.id));
        let lines = counted.lines.iter().map(|it| (it.template, it.number));
        assert_eq!((keys.len(), lines.len()), (200, 400));
        assert!(keys.is_sorted_by(|one, next| one < next));
        assert!(lines.is_sorted_by(|one, next| one < next));
        // Templates and what their lines add up to meet by place: each has its own.
        let mut places: Vec<_> = counted.lines.iter().map(|it| it.template).collect();
        places.dedup();
        assert!(places.into_iter().eq(1..=200));
        let first = LinesRow {
            number: 1,
            template: 1,
            lines: 3,
        };
        let second = LinesRow { number: 2, ..first };
        assert_eq!(counted.lines[..2], [first, second]);
    }

    #[test]
    fn a_template_of_two_services_is_as_the_first_has_it_with_the_lines_of_both() {
        let mut twice = job(0);
        let scored = Arc::make_mut(&mut twice.scored);
        let content = Arc::make_mut(&mut scored.window.content);
        let template = Arc::clone(&content.pairs[0].template);
        let event = LogEvent {
            time: EventTime::from_millis(0).unwrap(),
            level: Level::Fatal,
            service: "another".into(),
            message: "".into(),
            label: None,
        };
        content.add(&event, &template);
        let counted = TemplateLines::of(&entries([twice]));
        assert_eq!((counted.templates.len(), counted.lines.len()), (20, 20));
        let id = template_id(&template);
        let place = counted.templates.iter().position(|it| it.id == id).unwrap();
        let row = &counted.templates[place];
        assert_eq!((&*row.service, row.level), ("auth-service", "ERROR"));
        assert_eq!(counted.lines[place].lines, 4);
    }
}
