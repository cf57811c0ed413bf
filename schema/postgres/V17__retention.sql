-- Whether old rows are dropped: said once, by `migrate --retention`, and obeyed by every `migrate` and
-- `maintain` after it, so that an upgrade drops nothing that somebody wanted kept.
CREATE TABLE retention (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    enabled  boolean NOT NULL
);
INSERT INTO retention (enabled) VALUES (true);
