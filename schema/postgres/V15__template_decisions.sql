-- What people decided of templates that training had not seen: known to a stream from a window on, or
-- new to it however often they come.
--
-- Rows are only added: of those of a stream and template, the newest that is active at a window's start
-- holds for it, so that a window read again is judged as it was.
CREATE TABLE template_decisions (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream      text COLLATE "C" NOT NULL,
    -- Hash of the masked text, 16 hex digits, as in log_templates.
    template    text COLLATE "C" NOT NULL CHECK (template ~ '^[0-9a-f]{16}$'),
    decision    text             NOT NULL CHECK (decision IN ('adopt', 'forget')),
    -- Start of the first window it holds for.
    active_from timestamptz      NOT NULL,
    created_at  timestamptz      NOT NULL DEFAULT now(),
    created_by  text             NOT NULL
);
CREATE INDEX template_decisions_stream_idx ON template_decisions (stream, template, decision_id);
