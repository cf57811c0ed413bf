-- Tables become hypertables, cut by day: a day of windows fits in memory, and compression and
-- retention work on whole chunks. Rows that are there already move into chunks, so that a database
-- that began on plain PostgreSQL can get TimescaleDB later.
SELECT create_hypertable('anomaly_results', by_range('window_start', INTERVAL '1 day'),
                         migrate_data => true);
SELECT create_hypertable('log_events', by_range('timestamp', INTERVAL '1 day'),
                         migrate_data => true);
