-- Who may write the rows of a partition: the process that claimed it last.
--
-- Why a table of ours: the generation of a Kafka consumer group starts again with the group and is
-- no fence. Claiming adds 1 to the epoch; every upsert joins this row FOR SHARE and its epoch, so
-- that a process that lost its partition, but does not know it yet, writes nothing.
CREATE TABLE owner (
    consumer_group  text        NOT NULL,
    topic           text        NOT NULL,
    partition       int         NOT NULL,
    epoch           bigint      NOT NULL,
    claimed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, topic, partition)
)
-- Updated in place on every claim: leave room, so that no index entry has to move.
WITH (fillfactor = 50);
