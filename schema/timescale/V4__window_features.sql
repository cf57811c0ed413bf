-- The feature store is cut and compressed as the results are, whose rows it completes: the same days
-- are read, written late and dropped together. It gains most, since its columns repeat from row to row.
SELECT create_hypertable('window_features', by_range('window_start', INTERVAL '1 day'),
                         migrate_data => true);

ALTER TABLE window_features SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = 'stream',
    timescaledb.compress_orderby = 'window_start DESC, window_end DESC'
);
SELECT add_compression_policy('window_features', INTERVAL '7 days');

-- Templates, alarms, models and deploys stay ordinary tables: they are few, and looked up by their ids.
