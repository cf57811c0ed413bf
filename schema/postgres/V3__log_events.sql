-- Raw log lines, for those who store them beside the results; nothing in this program writes them. No
-- key: lines may repeat, and a line that comes twice is two lines.
CREATE TABLE log_events (
    "timestamp" timestamptz NOT NULL,
    level       text        NOT NULL,
    component   text        NOT NULL,
    message     text        NOT NULL,
    is_anomaly  int         NOT NULL DEFAULT 0
);

-- Lines arrive nearly in time order, where a block-range index costs next to nothing.
CREATE INDEX log_events_timestamp_idx ON log_events USING brin ("timestamp");
