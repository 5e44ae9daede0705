-- From version 1 of the index to version 2.

-- Objects that a collection found unreachable, and since when (seconds since
-- 1970). A later one deletes them, unless somebody has used them again, which
-- removes the row. It is the only table that files cannot make anew: without it
-- the grace period begins again.
CREATE TABLE condemned (
    object INTEGER PRIMARY KEY REFERENCES objects (id) ON DELETE CASCADE,
    since  INTEGER NOT NULL
) STRICT;
