-- From version 3 of the index to version 4.

-- An object's row is found by its digest with one descent of one tree: its id is the number
-- that the digest's first 8 bytes are, big-endian, divided by 4; if another object has that, one
-- of the 15 that follow it. The program moves the rows, in the transaction that makes these
-- tables, and drops the old ones.
ALTER TABLE condemned RENAME TO condemned_3;
ALTER TABLE objects RENAME TO objects_3;
DROP INDEX objects_by_sha256;
DROP INDEX objects_by_pack;

CREATE TABLE objects (
    id       INTEGER PRIMARY KEY,
    digest   BLOB NOT NULL CHECK (length(digest) = 32),
    sha256   BLOB NOT NULL CHECK (length(sha256) = 32),
    size     INTEGER NOT NULL CHECK (size >= 0),
    pack     INTEGER REFERENCES packs (id),
    offset   INTEGER CHECK (offset >= 0),
    checksum INTEGER NOT NULL,
    CHECK ((pack IS NULL) = (offset IS NULL))
) STRICT;

CREATE INDEX objects_by_sha256 ON objects (sha256);
CREATE INDEX objects_by_pack ON objects (pack) WHERE pack IS NOT NULL;

CREATE TABLE condemned (
    object INTEGER PRIMARY KEY REFERENCES objects (id) ON DELETE CASCADE,
    since  INTEGER NOT NULL
) STRICT;
