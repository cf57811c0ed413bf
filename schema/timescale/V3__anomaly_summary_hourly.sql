-- The hourly summary as a continuous aggregate: same name and columns as the plain view. Hours that
-- are not materialised yet are computed when asked for (materialized_only = false).
DROP VIEW anomaly_summary_hourly;

CREATE MATERIALIZED VIEW anomaly_summary_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT time_bucket(INTERVAL '1 hour', window_start)  AS bucket,
       count(*)                                      AS total_windows,
       count(*) FILTER (WHERE is_anomaly = 1)        AS anomaly_count,
       avg(anomaly_score)                            AS avg_anomaly_score,
       max(anomaly_score)                            AS max_anomaly_score,
       avg(error_rate)                               AS avg_error_rate,
       avg(critical_rate)                            AS avg_critical_rate
FROM anomaly_results
WHERE NOT provisional
GROUP BY 1
WITH NO DATA;

-- Reaches back 7 days, as far as rows change without anyone's hand and well short of the
-- retention: a refresh over dropped chunks would empty the summary of those days.
SELECT add_continuous_aggregate_policy('anomaly_summary_hourly',
    start_offset      => INTERVAL '7 days',
    end_offset        => INTERVAL '1 hour',
    schedule_interval => INTERVAL '15 minutes');
