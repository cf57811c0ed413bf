//! The one statement that writes windows: result rows, features, template counts and alarms, in one
//! round trip and one transaction, whatever their number.
//!
//! ```text
//! arrays ──► input ──► valid (fence holds) ──► anomaly_results ──► stored ──┬─► window_features
//!                                                                           ├─► log_templates
//!                                                                           └─► alarms
//! ```
//!
//! Only rows that took their place in `anomaly_results` have anything written elsewhere.

use super::columns::{
    ALARM_SHARED, AlarmRow, Column, FeaturesRow, LinesRow, ResultRow, TemplateRow,
};

/// Columns that a conflict leaves as they are: the key.
const KEY: [&str; 3] = ["\"window_start\"", "\"window_end\"", "\"stream\""];

/// Returns the statement.
///
/// `$1` is the consumer group; then come the arrays of the result rows, of their features and of
/// their fences, then those of the templates and of their lines, then those of the alarms and of the
/// numbers of their rows. The answer has one line per row
/// whose fence still holds: its number (from 1), and whether it was written or gave way to a better
/// one.
///
/// The owner row is locked `FOR SHARE`: a claim waits until this statement has ended, and a
/// statement that waited for a claim sees its epoch. Without the lock, a process that lost its
/// partition and waited on a row of the new owner would overwrite it.
///
/// Lines are counted with the first final row of a window, `final_revision` 1, and never again. The
/// number is worked out on the row version that the conflict locked: what the statement's snapshot
/// says of the row may be overtaken by an attempt that was given up and still runs.
///
/// An alarm follows its row, so a final one replaces a provisional one and never the reverse. One
/// whose final row is no anomaly stays as it was said. What people made of it is never touched.
pub(super) fn upsert_sql() -> String {
    let mut params = Params(1);
    let results = ResultRow::COLUMNS;
    let input = params.arrays(&[results, FeaturesRow::COLUMNS, &[("fence", "int8[]")]].concat());
    let templates = params.arrays(TemplateRow::COLUMNS);
    let lines = params.arrays(LinesRow::COLUMNS);
    let alarms = params.arrays(&[AlarmRow::COLUMNS, &[("number", "int8[]")]].concat());
    format!(
        "WITH input AS (
           SELECT * FROM UNNEST({input}) WITH ORDINALITY
             AS input({list}, {features_list}, fence, number)
         ), valid AS MATERIALIZED (
           SELECT input.* FROM input JOIN owner
             ON owner.consumer_group = $1 AND owner.topic = input.topic
            AND owner.partition = input.partition AND owner.epoch = input.fence
            ORDER BY input.number
            FOR SHARE OF owner
         ), written AS (
           INSERT INTO anomaly_results AS stored ({list}, final_revision, written_at)
           SELECT {list}, (NOT provisional)::int, now() FROM valid
           ON CONFLICT (window_start, window_end, stream) DO UPDATE
           SET {assignments}, written_at = EXCLUDED.written_at,
               final_revision = CASE WHEN EXCLUDED.provisional THEN 0
                                     WHEN stored.provisional THEN 1
                                     ELSE stored.final_revision + 1 END
           WHERE stored.provisional
              OR (NOT EXCLUDED.provisional AND (stored.partial OR NOT EXCLUDED.partial))
           RETURNING window_start, window_end, stream, final_revision
         ), stored AS MATERIALIZED (
           SELECT number, window_start, window_end, stream, final_revision
           FROM valid JOIN written USING (window_start, window_end, stream)
         ), described AS (
           INSERT INTO window_features ({key}, model_checksum, {features_list})
           SELECT {valid_key}, valid.model_checksum, {features_list}
           FROM valid JOIN stored USING (number)
           ON CONFLICT (window_start, window_end, stream) DO UPDATE
           SET model_checksum = EXCLUDED.model_checksum, {features_assignments}
         ), lines AS (
           SELECT template, min(window_start) AS first_seen, max(window_start) AS last_seen,
                  sum(lines) AS lines
           FROM UNNEST({lines}) AS lines(number, template, lines) JOIN stored USING (number)
           WHERE final_revision = 1
           GROUP BY template
         ), counted AS (
           INSERT INTO log_templates AS known
             (stream, id, text, service, level, first_seen, last_seen, count)
           SELECT stream, id, text, service, level, first_seen, last_seen, lines
           FROM UNNEST({templates}) WITH ORDINALITY
             AS templates(stream, id, text, service, level, template)
             JOIN lines USING (template)
           ORDER BY stream, id
           ON CONFLICT (stream, id) DO UPDATE
           SET first_seen = least(known.first_seen, EXCLUDED.first_seen),
               last_seen = greatest(known.last_seen, EXCLUDED.last_seen),
               count = known.count + EXCLUDED.count
         ), raised AS (
           INSERT INTO alarms AS raised ({alarm_list}, reasons, {shared})
           SELECT {alarm_values}, {reasons}, {valid_shared}
           FROM UNNEST({alarms}) AS alarms({alarm_list}, number)
             JOIN stored USING (number) JOIN valid USING (number)
           ON CONFLICT (alarm_id) DO UPDATE
           SET {alarm_assignments}, reasons = EXCLUDED.reasons, {shared_assignments}
           WHERE raised.provisional OR NOT EXCLUDED.provisional
         )
         SELECT valid.number, stored.number IS NOT NULL
         FROM valid LEFT JOIN stored USING (number)",
        list = names(results),
        assignments = assignments(results),
        features_list = names(FeaturesRow::COLUMNS),
        features_assignments = assignments(FeaturesRow::COLUMNS),
        alarm_list = names(AlarmRow::COLUMNS),
        alarm_values = alarm_values(),
        reasons = texts("valid.explanation -> 'reasons'"),
        alarm_assignments = assignments(AlarmRow::COLUMNS),
        shared = ALARM_SHARED.join(", "),
        valid_shared = ALARM_SHARED.map(|name| format!("valid.{name}")).join(", "),
        shared_assignments = ALARM_SHARED
            .map(|name| format!("{name} = EXCLUDED.{name}"))
            .join(", "),
        key = KEY.join(", "),
        valid_key = KEY.map(|name| format!("valid.{name}")).join(", "),
    )
}

/// Hands out parameter numbers; holds the last one given.
struct Params(usize);

impl Params {
    /// Returns the parameters of one array per column.
    fn arrays(&mut self, columns: &[Column]) -> String {
        let next = |(_, array): &Column| {
            self.0 += 1;
            format!("${}::{array}", self.0)
        };
        columns.iter().map(next).collect::<Vec<_>>().join(", ")
    }
}

fn names(columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Arrays of arrays cannot be unnested one level deep: lists of texts travel as JSON.
fn texts(json: &str) -> String {
    format!("ARRAY(SELECT jsonb_array_elements_text({json}))")
}

fn alarm_values() -> String {
    let value = |(name, array): &Column| match *array {
        "jsonb[]" => texts(&format!("alarms.{name}")),
        _ => format!("alarms.{name}"),
    };
    let values: Vec<_> = AlarmRow::COLUMNS.iter().map(value).collect();
    values.join(", ")
}

fn assignments(columns: &[Column]) -> String {
    let set: Vec<_> = columns
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !KEY.contains(name))
        .map(|name| format!("{name} = EXCLUDED.{name}"))
        .collect();
    set.join(", ")
}
