-- Final windows by the hour. A plain view here; with TimescaleDB a continuous aggregate of the same
-- name and columns takes its place.
--
-- Provisional rows are left out: they are replaced within minutes, and an hour counted twice
-- must not differ by when it was looked at.
CREATE VIEW anomaly_summary_hourly AS
SELECT date_trunc('hour', window_start, 'UTC')       AS bucket,
       count(*)                                      AS total_windows,
       count(*) FILTER (WHERE is_anomaly = 1)        AS anomaly_count,
       avg(anomaly_score)                            AS avg_anomaly_score,
       max(anomaly_score)                            AS max_anomaly_score,
       avg(error_rate)                               AS avg_error_rate,
       avg(critical_rate)                            AS avg_critical_rate
FROM anomaly_results
WHERE NOT provisional
GROUP BY 1;
