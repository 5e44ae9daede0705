-- The index of a store: version 1 (PRAGMA user_version). The files index-2.sql and on
-- lead from each version to the next; a new index runs them all.
--
-- It says nothing that the files beside it do not say: objects are files or
-- entries of packs, realisations and roots are records in packs. So it can be
-- deleted at any time and is rebuilt when the store is opened.
--
-- Digests are 32 raw bytes. Sizes and offsets are bytes. Rows that others
-- refer to have small integer ids, so that marking what is reachable can work
-- on integers.

-- One pack file: packs/<name in hex>.pack
CREATE TABLE packs (
    id   INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE CHECK (length(name) = 32)
) STRICT;

-- One object. Without a pack it is the file objects/<first two digits>/<digest in hex>.
CREATE TABLE objects (
    id     INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    size   INTEGER NOT NULL CHECK (size >= 0),
    pack   INTEGER REFERENCES packs (id),
    offset INTEGER CHECK (offset >= 0),
    CHECK ((pack IS NULL) = (offset IS NULL))
) STRICT;

CREATE INDEX objects_by_sha256 ON objects (sha256);
CREATE INDEX objects_by_pack ON objects (pack) WHERE pack IS NOT NULL;

-- What a recipe gave. Of several records for one key the one with the highest
-- sequence counts; among equals, the one with the greater outputs.
CREATE TABLE realisations (
    id       INTEGER PRIMARY KEY,
    key      BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
    sequence INTEGER NOT NULL
) STRICT;

CREATE TABLE realisation_outputs (
    realisation INTEGER NOT NULL REFERENCES realisations (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    digest      BLOB NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (realisation, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX realisation_outputs_by_digest ON realisation_outputs (digest);

-- What must be kept, and under which name. A removed root keeps its row, so
-- that an older record cannot bring it back.
CREATE TABLE roots (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    sequence INTEGER NOT NULL,
    removed  INTEGER NOT NULL CHECK (removed IN (0, 1))
) STRICT;

CREATE TABLE root_objects (
    root   INTEGER NOT NULL REFERENCES roots (id) ON DELETE CASCADE,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (root, digest)
) STRICT, WITHOUT ROWID;

-- The highest sequence of any record: one row.
CREATE TABLE clock (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    last_sequence INTEGER NOT NULL
) STRICT;

INSERT INTO clock (id, last_sequence) VALUES (1, 0);
