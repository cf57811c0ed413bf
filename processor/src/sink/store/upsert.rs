//! The one statement that writes windows: result rows, features, template counts and alarms, in one
//! round trip and one transaction, whatever their number.
//!
//! ```text
//! arrays ──► valid (fence holds) ──► anomaly_results ──► outcome ──┬─► window_features
//!                                                                  ├─► log_templates
//!                                                                  └─► alarms
//! ```
//!
//! Only rows that took their place in `anomaly_results` have anything written elsewhere.

use super::columns::{
    ALARM_SHARED, AlarmRow, Column, FeaturesRow, LinesRow, ResultRow, TemplateRow,
};

/// Columns that a conflict leaves as they are: the key.
const KEY: [&str; 3] = ["\"window_start\"", "\"window_end\"", "\"stream\""];

/// Holds for numbers of rows that took their place. An array, searched from end to end, costs less
/// than the plan of a join whose size nobody can estimate.
const WAS_WRITTEN: &str =
    "number = ANY (ARRAY(SELECT number FROM outcome WHERE final_revision IS NOT NULL))";

/// Holds for numbers of rows that are the first final ones of their windows.
const IS_FIRST_FINAL: &str = "(SELECT of_rows FROM revisions)[number] = 1";

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
/// Rows find each other by grouping, or by their place in an array, and hardly ever by a join: the
/// planner takes a batch for a handful of rows, and would compare each with each.
///
/// Templates come in the order in which everyone locks them, and their lines in the same: what is
/// summed up per template, in numbers alone, stands beside it as it came.
///
/// An alarm follows its row, so a final one replaces a provisional one and never the reverse; an early
/// one says the same in each of its rows. One
/// whose final row is no anomaly stays as it was said, and one that was told in time never becomes
/// stale, however late its window is read again. What people made of it is never touched.
#[allow(
    clippy::too_many_lines,
    reason = "one statement, read from top to bottom"
)]
pub(super) fn upsert_sql() -> String {
    let mut params = Params::default();
    let results = ResultRow::COLUMNS;
    let input = params.arrays(&[results, FeaturesRow::COLUMNS].concat());
    let fences = params.arrays(&[("fence", "int8[]")]);
    let templates = params.unnested(TemplateRow::COLUMNS);
    let lines = params.unnested(LinesRow::COLUMNS);
    let alarms = params.arrays(&[AlarmRow::COLUMNS, &[("number", "int8[]")]].concat());
    let [topics, partitions, starts] =
        ["\"topic\"", "\"partition\"", "\"window_start\""].map(|name| params.named(name));
    format!(
        "WITH held AS MATERIALIZED (
           SELECT claimed.number
           FROM UNNEST({topics}, {partitions}, {fences}) WITH ORDINALITY
             AS claimed(topic, partition, fence, number)
             JOIN owner ON owner.consumer_group = $1 AND owner.topic = claimed.topic
              AND owner.partition = claimed.partition AND owner.epoch = claimed.fence
           FOR SHARE OF owner
         ), valid AS MATERIALIZED (
           SELECT * FROM UNNEST({input}) WITH ORDINALITY
             AS input({list}, {features_list}, number)
           WHERE number = ANY (ARRAY(SELECT number FROM held))
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
         ), outcome AS MATERIALIZED (
           SELECT max(number) AS number, max(final_revision) AS final_revision
           FROM (SELECT number, window_start, window_end, stream COLLATE \"C\" AS stream,
                        NULL::int AS final_revision FROM valid
                 UNION ALL
                 SELECT NULL, window_start, window_end, stream COLLATE \"C\", final_revision
                 FROM written) AS both_ends
           GROUP BY window_start, window_end, stream
         ), described AS (
           INSERT INTO window_features ({key}, model_checksum, {features_list})
           SELECT {key}, model_checksum, {features_list}
           FROM valid WHERE {was_written}
           ON CONFLICT (window_start, window_end, stream) DO UPDATE
           SET model_checksum = EXCLUDED.model_checksum, {features_assignments}
         ), revisions AS MATERIALIZED (
           SELECT ARRAY(
             SELECT max(final_revision)
             FROM (SELECT number, final_revision FROM outcome
                   UNION ALL
                   SELECT number, 0 FROM generate_series(1, cardinality({fences})) AS number
             ) AS revisions GROUP BY number ORDER BY number) AS of_rows
         ), lines AS (
           SELECT array_agg(first_seen ORDER BY template) AS first_seen,
                  array_agg(last_seen ORDER BY template) AS last_seen,
                  array_agg(lines ORDER BY template) AS lines
           FROM (SELECT template, min(({starts})[number]) FILTER (WHERE {is_first_final}) AS first_seen,
                        max(({starts})[number]) FILTER (WHERE {is_first_final}) AS last_seen,
                        sum(lines) FILTER (WHERE {is_first_final}) AS lines
                 FROM (SELECT {lines}) AS lines
                 GROUP BY template) AS by_template
         ), counted AS (
           INSERT INTO log_templates AS known
             (stream, id, text, service, level, first_seen, last_seen, count)
           SELECT stream, id, text, service, level, first_seen, last_seen, lines
           FROM (SELECT {templates}, UNNEST(first_seen) AS first_seen,
                        UNNEST(last_seen) AS last_seen, UNNEST(lines) AS lines
                 FROM lines) AS templates
           WHERE lines > 0
           ORDER BY stream COLLATE \"C\", id COLLATE \"C\"
           ON CONFLICT (stream, id) DO UPDATE
           SET first_seen = least(known.first_seen, EXCLUDED.first_seen),
               last_seen = greatest(known.last_seen, EXCLUDED.last_seen),
               count = known.count + EXCLUDED.count
         ), raised AS (
           INSERT INTO alarms AS raised ({alarm_list}, reasons, {shared})
           SELECT {alarm_values}, {reasons}, {valid_shared}
           FROM UNNEST({alarms}) AS alarms({alarm_list}, number) JOIN valid USING (number)
           WHERE {was_written}
           ON CONFLICT (alarm_id) DO UPDATE
           SET {alarm_assignments}, reasons = EXCLUDED.reasons, {shared_assignments}
           WHERE raised.provisional OR NOT EXCLUDED.provisional
         )
         SELECT number, final_revision IS NOT NULL FROM outcome",
        list = names(results),
        assignments = assignments(results),
        features_list = names(FeaturesRow::COLUMNS),
        features_assignments = assignments(FeaturesRow::COLUMNS),
        alarm_list = names(AlarmRow::COLUMNS),
        alarm_values = alarm_values(),
        reasons = texts("alarms.explanation -> 'reasons'"),
        alarm_assignments = assignments(AlarmRow::COLUMNS),
        shared = ALARM_SHARED.join(", "),
        valid_shared = ALARM_SHARED.map(|name| format!("valid.{name}")).join(", "),
        shared_assignments = ALARM_SHARED.map(shared_assignment).join(", "),
        key = KEY.join(", "),
        was_written = WAS_WRITTEN,
        is_first_final = IS_FIRST_FINAL,
    )
}

/// Hands out the parameters from `$2` on, and remembers their columns.
#[derive(Default)]
struct Params(Vec<(&'static str, String)>);

impl Params {
    /// Returns the parameters of one array per column.
    fn arrays(&mut self, columns: &[Column]) -> String {
        let params: Vec<_> = columns.iter().map(|&column| self.add(column)).collect();
        params.join(", ")
    }

    /// Returns them as columns of a `SELECT`, which walks long arrays side by side; `FROM` would
    /// first write each to a table of its own.
    fn unnested(&mut self, columns: &[Column]) -> String {
        let mut unnested = Vec::with_capacity(columns.len());
        for &(name, array) in columns {
            let param = self.add((name, array));
            unnested.push(format!("UNNEST({param}) AS {name}"));
        }
        unnested.join(", ")
    }

    fn add(&mut self, (name, array): Column) -> String {
        let param = format!("${}::{array}", self.0.len() + 2);
        self.0.push((name, param.clone()));
        param
    }

    /// Returns the parameter first given for a column.
    fn named(&self, column: &str) -> String {
        let found = self.0.iter().find(|(name, _)| *name == column);
        found.map_or_else(String::new, |(_, param)| param.clone())
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
    let value = |(name, _): &Column| match *name {
        "\"samples\"" => texts("alarms.samples"),
        _ => format!("alarms.{name}"),
    };
    let values: Vec<_> = AlarmRow::COLUMNS.iter().map(value).collect();
    values.join(", ")
}

/// After a crash a window may be read again long after its alarm was told.
fn shared_assignment(name: &str) -> String {
    match name {
        "stale" => "stale = raised.stale AND EXCLUDED.stale".to_owned(),
        _ => format!("{name} = EXCLUDED.{name}"),
    }
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
