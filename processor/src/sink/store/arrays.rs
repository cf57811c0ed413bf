//! A batch turned sideways: the arrays that the statement takes, in its order.

use tokio_postgres::types::ToSql;

use super::{
    batch::Entry,
    columns::{AlarmColumns, FeaturesColumns, LinesColumns, ResultColumns, TemplateColumns},
    templates::TemplateLines,
};

/// The parameters of [`super::upsert::upsert_sql`], but for the consumer group.
#[derive(Default)]
pub(super) struct Arrays<'a> {
    results: ResultColumns<'a>,
    features: FeaturesColumns<'a>,
    fences: Vec<i64>,
    templates: TemplateColumns<'a>,
    lines: LinesColumns<'a>,
    alarms: AlarmColumns<'a>,
    alarm_numbers: Vec<i64>,
}

impl<'a> Arrays<'a> {
    /// Returns the arrays of a batch; `counted` is [`TemplateLines::of`] the same.
    pub(super) fn of(entries: &'a [Entry], counted: &'a TemplateLines) -> Self {
        let mut arrays = Self::default();
        for (entry, number) in entries.iter().zip(1..) {
            arrays.results.push(&entry.row);
            arrays.features.push(&entry.features);
            arrays.fences.push(entry.fence);
            if let Some(alarm) = &entry.alarm {
                arrays.alarms.push(alarm);
                arrays.alarm_numbers.push(number);
            }
        }
        for template in &counted.templates {
            arrays.templates.push(template);
        }
        for lines in &counted.lines {
            arrays.lines.push(lines);
        }
        arrays
    }

    pub(super) fn params<'b>(&'b self, group: &'b &'b str) -> Vec<&'b (dyn ToSql + Sync)> {
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![group];
        params.extend(self.results.params());
        params.extend(self.features.params());
        params.push(&self.fences);
        params.extend(self.templates.params());
        params.extend(self.lines.params());
        params.extend(self.alarms.params());
        params.push(&self.alarm_numbers);
        params
    }
}
