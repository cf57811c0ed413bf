-- How far reading is behind and what became of the records, by minute and partition: the part of the
-- metrics that is asked for in SQL, next to the results.
--
-- Why counts that add up: a partition may change hands within a minute, and then both processes write
-- to the same row. Why minutes: an hour would hide an outage of ten minutes. `run` writes one note a
-- partition and minute, best effort, and drops those older than 7 days: ten thousand short rows a
-- partition. Whoever needs every count exactly has /metrics.
CREATE TABLE pipeline_health (
    -- Start of the minute in which the note was written, by the server's clock.
    minute          timestamptz NOT NULL,
    consumer_group  text        NOT NULL,
    topic           text        NOT NULL,
    partition       int         NOT NULL,
    -- Records not yet read at the last note of the minute; null while that was not known.
    lag             bigint,
    -- Largest event time read so far.
    newest_event    timestamptz,
    -- Records read, those read again after a restart included.
    read            bigint      NOT NULL,
    -- Lines in windows that closed.
    scored          bigint      NOT NULL,
    -- Records that came after their window was final.
    late            bigint      NOT NULL,
    -- Records not scored for any other reason; the dead-letter topic says which.
    rejected        bigint      NOT NULL,
    -- Time first: it is asked for, and dropped, by time.
    PRIMARY KEY (minute, consumer_group, topic, partition)
)
-- Updated in place when a partition changes hands.
WITH (fillfactor = 90);
