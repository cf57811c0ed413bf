-- Views that answer what people ask; docs/SQL.md shows each with its output. They read the same
-- tables on plain PostgreSQL and on TimescaleDB, and none of them reads anomaly_summary_hourly, which
-- TimescaleDB replaces by a continuous aggregate of the same name.

CREATE VIEW anomaly_services AS
SELECT r.window_start, r.window_end, r.stream, r.topic, r.partition,
       COALESCE(r.service, named.service) AS service,
       named.lines, r.anomaly_score, r.severity, r.provisional
FROM anomaly_results r
LEFT JOIN LATERAL (
    SELECT item ->> 'service' AS service, (item ->> 'lines')::int AS lines
    FROM jsonb_array_elements(r.explanation -> 'services') AS item
) AS named ON true
WHERE r.is_anomaly = 1;
COMMENT ON VIEW anomaly_services IS
'Anomalous windows, one row per service that the explanation names. A window of a partition holds
lines of many services; whoever is on call wants to know which of them it is about. `lines` are the
lines of the templates named; service is null where only volume was unusual.';

CREATE VIEW anomaly_templates AS
SELECT r.window_start, r.window_end, r.stream, r.topic, r.partition,
       item ->> 'service' AS service, item ->> 'kind' AS kind, item ->> 'level' AS level,
       (item ->> 'lines')::int AS lines, item ->> 'text' AS text,
       r.anomaly_score, r.severity
FROM anomaly_results r
CROSS JOIN LATERAL jsonb_array_elements(r.explanation -> 'templates') AS item
WHERE r.is_anomaly = 1;
COMMENT ON VIEW anomaly_templates IS
'The templates that anomalous windows were about: new, rare or surging, with their lines. The same
text again and again is one incident, not many.';

CREATE VIEW anomalies_last_hour AS
SELECT service, count(*) AS anomalies, count(DISTINCT stream) AS streams,
       max(severity) AS max_severity, sum(lines) AS lines,
       min(window_start) AS first_window, max(window_start) AS last_window
FROM anomaly_services
WHERE window_start >= now() - interval '1 hour'
GROUP BY service
ORDER BY anomalies DESC, max_severity DESC;
COMMENT ON VIEW anomalies_last_hour IS
'What is on fire now, by service. Windows that are not final yet count as well: news does not wait.';

CREATE VIEW detection_quality_hourly AS
SELECT bucket, labelled_windows, true_positives, false_positives, false_negatives, true_negatives,
       true_positives::float8 / NULLIF(true_positives + false_positives, 0) AS precision,
       true_positives::float8 / NULLIF(true_positives + false_negatives, 0) AS recall,
       2 * true_positives::float8
           / NULLIF(2 * true_positives + false_positives + false_negatives, 0) AS f1
FROM (
    SELECT date_bin('1 hour', window_start, 'epoch') AS bucket,
           count(*) AS labelled_windows,
           count(*) FILTER (WHERE is_anomaly = 1 AND ground_truth = 1) AS true_positives,
           count(*) FILTER (WHERE is_anomaly = 1 AND ground_truth = 0) AS false_positives,
           count(*) FILTER (WHERE is_anomaly = 0 AND ground_truth = 1) AS false_negatives,
           count(*) FILTER (WHERE is_anomaly = 0 AND ground_truth = 0) AS true_negatives
    FROM anomaly_results
    WHERE labelled_count > 0 AND NOT provisional
    GROUP BY 1
) AS counted;
COMMENT ON VIEW detection_quality_hourly IS
'Precision, recall and F1 by hour, over final windows with labelled lines only: ground_truth is 0 for
unlabelled windows as well, and those prove nothing. A measure without a denominator is null, not 0.';

CREATE VIEW new_templates_today AS
SELECT t.id, (array_agg(t.service ORDER BY t.first_seen, t.stream))[1] AS service,
       (array_agg(t.level ORDER BY t.first_seen, t.stream))[1] AS level,
       min(t.first_seen) AS first_seen, max(t.last_seen) AS last_seen,
       sum(t.count)::bigint AS lines, count(*) AS streams, min(t.text) AS text
FROM log_templates t
WHERE t.first_seen >= date_trunc('day', now())
  AND NOT EXISTS (
      SELECT FROM log_templates older
      WHERE older.id = t.id AND older.first_seen < date_trunc('day', now()))
GROUP BY t.id
ORDER BY lines DESC, first_seen;
COMMENT ON VIEW new_templates_today IS
'Lines of a kind that no stream had before today (since midnight in the time zone of the session),
most frequent first: what a release, or an attack, brought along.';

CREATE VIEW score_timeline AS
SELECT stream, window_start, window_end, anomaly_score, severity, is_anomaly, log_count,
       error_rate, critical_rate, provisional, cold, gap,
       explanation -> 'reasons' ->> 0 AS reason
FROM anomaly_results;
COMMENT ON VIEW score_timeline IS
'One stream over time: score, volume, error rate and the strongest reason of each window. Ask for a
stream and a time range; the index on (stream, window_start) serves both.';

CREATE VIEW level_volume AS
SELECT window_start, window_end, stream,
       (features ->> 'debug_count')::float8::bigint AS debug,
       (features ->> 'info_count')::float8::bigint AS info,
       (features ->> 'warn_count')::float8::bigint AS warn,
       (features ->> 'error_count')::float8::bigint AS error,
       (features ->> 'fatal_count')::float8::bigint AS fatal
FROM window_features;
COMMENT ON VIEW level_volume IS
'Lines by level of each window. The result row counts errors only; a flood of warnings shows here.';

CREATE VIEW service_volume AS
SELECT f.window_start, f.window_end, f.stream, t.service,
       sum(t.count)::bigint AS lines,
       COALESCE(sum(t.count) FILTER (WHERE t.level IN ('ERROR', 'FATAL')), 0)::bigint
           AS critical_lines
FROM window_features f
CROSS JOIN LATERAL jsonb_to_recordset(f.templates) AS t (service text, level text, count bigint)
GROUP BY f.window_start, f.window_end, f.stream, t.service;
COMMENT ON VIEW service_volume IS
'Lines of each service in each window, whether windows are grouped by service or not. Unpacks the
template counts: ask for a time range. Templates beyond those listed are not in it.';

CREATE VIEW pipeline_health_hourly AS
SELECT date_bin('1 hour', minute, 'epoch') AS bucket, consumer_group, topic, partition,
       max(lag) AS max_lag, (array_agg(lag ORDER BY minute DESC))[1] AS last_lag,
       sum(read)::bigint AS read, sum(scored)::bigint AS scored,
       sum(late)::bigint AS late, sum(rejected)::bigint AS rejected,
       sum(late)::float8 / NULLIF(sum(read), 0) AS late_share
FROM pipeline_health
GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW pipeline_health_hourly IS
'How far reading was behind, and how many events came too late to count, by hour and partition: lag
says that the processor is too slow, late events that producers (or their clocks) are.';

CREATE VIEW last_deploys AS
SELECT DISTINCT ON (service) service, version, previous_version, deployed_at
FROM (
    SELECT service, version, deployed_at,
           lag(version) OVER (PARTITION BY service ORDER BY deployed_at, version)
               AS previous_version
    FROM deploys
    WHERE deployed_at <= now()
) AS history
ORDER BY service, deployed_at DESC, version DESC;
COMMENT ON VIEW last_deploys IS
'The version each service runs, since when, and the one before. Deploys of the future do not count.';

CREATE VIEW new_templates_since_deploy AS
SELECT d.service, d.version, d.deployed_at, t.id, t.level, t.first_seen, t.lines, t.text
FROM last_deploys d
-- first_seen is the start of a window: that of the window the deploy fell into counts as after.
CROSS JOIN LATERAL (
    SELECT COALESCE(min(r.window_start), d.deployed_at) AS at
    FROM anomaly_results r
    WHERE r.window_start <= d.deployed_at AND r.window_end > d.deployed_at AND NOT r.gap
) AS since
CROSS JOIN LATERAL (
    SELECT t.id, min(t.level) AS level, min(t.first_seen) AS first_seen,
           sum(t.count)::bigint AS lines, min(t.text) AS text
    FROM log_templates t
    WHERE t.service = d.service
      AND t.first_seen >= since.at
      AND NOT EXISTS (
          SELECT FROM log_templates older
          WHERE older.id = t.id AND older.first_seen < since.at)
    GROUP BY t.id
) AS t;
COMMENT ON VIEW new_templates_since_deploy IS
'Lines of a kind that nobody had before the last deploy of the service: the quickest answer to "what
did this release change?".';

CREATE VIEW deploy_impact AS
SELECT d.service, d.version, d.previous_version, d.deployed_at, compared.span AS compared,
       volume.lines_before, volume.lines_after,
       volume.critical_before::float8 / NULLIF(volume.lines_before, 0) AS critical_rate_before,
       volume.critical_after::float8 / NULLIF(volume.lines_after, 0) AS critical_rate_after,
       anomalies.before AS anomalies_before, anomalies.after AS anomalies_after,
       (SELECT count(*) FROM new_templates_since_deploy n WHERE n.service = d.service)
           AS new_templates
FROM last_deploys d
CROSS JOIN LATERAL (
    SELECT LEAST(now() - d.deployed_at, interval '1 hour') AS span
) AS compared
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(v.lines) FILTER (WHERE v.window_end <= d.deployed_at), 0)::bigint
               AS lines_before,
           COALESCE(sum(v.lines) FILTER (WHERE v.window_end > d.deployed_at), 0)::bigint
               AS lines_after,
           sum(v.critical_lines) FILTER (WHERE v.window_end <= d.deployed_at) AS critical_before,
           sum(v.critical_lines) FILTER (WHERE v.window_end > d.deployed_at) AS critical_after
    FROM service_volume v
    WHERE v.service = d.service
      AND v.window_start >= d.deployed_at - compared.span
      AND v.window_start < d.deployed_at + compared.span
) AS volume
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE a.window_end <= d.deployed_at) AS before,
           count(*) FILTER (WHERE a.window_end > d.deployed_at) AS after
    FROM anomaly_services a
    WHERE a.service = d.service
      AND a.window_start >= d.deployed_at - compared.span
      AND a.window_start < d.deployed_at + compared.span
) AS anomalies;
COMMENT ON VIEW deploy_impact IS
'Each service before and after its last deploy: volume, share of critical lines, anomalies, new
templates. Equal stretches on both sides, at most an hour, so that day is not compared with night. The
window that the deploy fell into counts as after.';

CREATE VIEW feedback_precision_weekly AS
SELECT date_trunc('week', raised_at, 'UTC') AS week, count(*) AS alarms,
       count(feedback) AS judged,
       count(*) FILTER (WHERE feedback = 'real') AS real,
       count(*) FILTER (WHERE feedback = 'false-alarm') AS false_alarms,
       (count(*) FILTER (WHERE feedback = 'real'))::float8 / NULLIF(count(feedback), 0) AS precision
FROM alarms
GROUP BY 1;
COMMENT ON VIEW feedback_precision_weekly IS
'How many of the alarms that people judged were real, by week (from Monday, UTC) in which they were
raised. Alarms that nobody judged are no evidence either way.';

CREATE VIEW open_mutes AS
SELECT m.mute_id, m.stream, m.kind, m.template, m.template_text AS text, m.alarm_id, m.created_by,
       m.active_from, m.expires_at, m.expires_at - now() AS expires_in,
       m.active_from <= now() AS active
FROM mutes m
WHERE m.expires_at > now()
ORDER BY m.expires_at;
COMMENT ON VIEW open_mutes IS
'What raises no alarm at present, where, since whose word, and until when: silence that nobody
remembers is worse than noise.';
