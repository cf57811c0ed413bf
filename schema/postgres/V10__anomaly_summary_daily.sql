-- Final windows by the day (UTC). A plain view here; with TimescaleDB a continuous aggregate on top of the
-- hourly one takes its place, under the same name and with the same columns.
--
-- Why not on top of anomaly_summary_hourly here as well: TimescaleDB may come later and replaces that
-- view, which nothing may depend on then. The figures are the same.
CREATE VIEW anomaly_summary_daily AS
SELECT date_trunc('day', window_start, 'UTC')        AS bucket,
       count(*)                                      AS total_windows,
       count(*) FILTER (WHERE is_anomaly = 1)        AS anomaly_count,
       avg(anomaly_score)                            AS avg_anomaly_score,
       max(anomaly_score)                            AS max_anomaly_score,
       avg(error_rate)                               AS avg_error_rate,
       avg(critical_rate)                            AS avg_critical_rate
FROM anomaly_results
WHERE NOT provisional
GROUP BY 1;
