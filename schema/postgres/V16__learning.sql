-- The first day of a model that was learnt at a first start.
ALTER TABLE anomaly_results
    -- The model is young, and the stream has not seen its first day with it.
    ADD COLUMN learning boolean NOT NULL DEFAULT false,
    -- The window is no anomaly because a young model's alarms of the day were spent.
    ADD COLUMN capped boolean NOT NULL DEFAULT false;

-- Which model judges the windows of a topic from when on, for replicas that have none of their own.
-- Windows from before the first of them are judged by that one. Rows are only added.
CREATE TABLE active_models (
    consumer_group  text COLLATE "C" NOT NULL,
    topic           text COLLATE "C" NOT NULL,
    -- Start of the first window that it judges.
    active_from     timestamptz      NOT NULL,
    checksum        text COLLATE "C" NOT NULL REFERENCES models,
    activated_at    timestamptz      NOT NULL DEFAULT now(),
    -- The process that learnt it.
    activated_by    text             NOT NULL,
    PRIMARY KEY (consumer_group, topic, active_from)
);

-- Who learns the first model of a topic: the holder of the lease, until it expires by the clock of this
-- server. Taking it over adds 1 to the epoch, and a model is published under the epoch that it was
-- learnt under, so that a learner that was paused or cut off publishes nothing when it comes back.
CREATE TABLE learning_leases (
    consumer_group  text COLLATE "C" NOT NULL,
    topic           text COLLATE "C" NOT NULL,
    holder          text             NOT NULL,
    epoch           bigint           NOT NULL,
    acquired_at     timestamptz      NOT NULL DEFAULT now(),
    expires_at      timestamptz      NOT NULL,
    -- How far the holder is, for those who wait.
    progress        text             NOT NULL DEFAULT '',
    PRIMARY KEY (consumer_group, topic)
)
-- Updated in place at every renewal.
WITH (fillfactor = 50);
