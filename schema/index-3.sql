-- From version 2 of the index to version 3.

-- A row that a failing disk has changed is found when it is read. Each checksum is the
-- CRC-32 (ISO 3309) of what the row says, numbers as 8 bytes, little-endian:
--   objects       digest, sha256, size, pack and offset (-1 for NULL)
--   realisations  key, sequence, and for each output, sorted by name: the length of the
--                 name, the name, the digest
--   roots         sequence, removed, the name, and the digests of its objects, sorted
-- The program fills them in, in the transaction that adds the columns.
ALTER TABLE objects ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE realisations ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE roots ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
