-- Chunks older than 7 days are compressed: late data and rewound offsets reach back further only by
-- hand. One segment per stream, since that is how old rows are read; the ordering holds the rest of
-- the key, so that an upsert into an old chunk finds its row.
--
-- The names are those that every TimescaleDB since 2.14 understands; newer ones call the same
-- thing columnstore.
ALTER TABLE anomaly_results SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = 'stream',
    timescaledb.compress_orderby = 'window_start DESC, window_end DESC'
);
SELECT add_compression_policy('anomaly_results', INTERVAL '7 days');

-- log_events needs none: its chunks are dropped at the age at which they would be compressed.
