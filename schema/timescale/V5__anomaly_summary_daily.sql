-- The daily summary on top of the hourly one: days are summed up from 24 rows each, not from thousands.
-- Averages are weighted, so that they are those of the windows.
DROP VIEW anomaly_summary_daily;

CREATE MATERIALIZED VIEW anomaly_summary_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT time_bucket(INTERVAL '1 day', bucket)         AS bucket,
       sum(total_windows)::bigint                    AS total_windows,
       sum(anomaly_count)::bigint                    AS anomaly_count,
       sum(avg_anomaly_score * total_windows) / sum(total_windows)::double precision
                                                     AS avg_anomaly_score,
       max(max_anomaly_score)                        AS max_anomaly_score,
       sum(avg_error_rate * total_windows) / sum(total_windows)::double precision
                                                     AS avg_error_rate,
       sum(avg_critical_rate * total_windows) / sum(total_windows)::double precision
                                                     AS avg_critical_rate
FROM anomaly_summary_hourly
GROUP BY 1
WITH NO DATA;

-- A day more than the hourly summary reaches back, since days hold whole hours.
SELECT add_continuous_aggregate_policy('anomaly_summary_daily',
    start_offset      => INTERVAL '8 days',
    end_offset        => INTERVAL '1 day',
    schedule_interval => INTERVAL '1 hour');
