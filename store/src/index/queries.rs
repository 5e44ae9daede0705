//! What the index is asked, and told of single objects.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension as _, params};

use super::columns::to_integer;
use super::objects::{self, AT_DIGEST, LOCATED, at_digest};
use super::{Index, records};
use crate::object::{Located, Place};
use crate::{ObjectDigest, Realisation, RecipeKey, Root, RootName, Sha256Digest, StoreError};

impl Index {
    /// Where the object is, and whether it is condemned.
    pub(crate) fn locate(
        &self,
        digest: &ObjectDigest,
    ) -> Result<Option<(Located, bool)>, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {LOCATED}, EXISTS (SELECT 1 FROM condemned WHERE object = objects.id)
                     FROM objects WHERE {AT_DIGEST}",
                ))?
                .query_row(at_digest(digest), |row| {
                    Ok((objects::located(row)?, row.get(7)?))
                })
                .optional()
        })
    }

    /// Takes back that the object is condemned; where it is, if it is not deleted yet.
    pub(crate) fn revive(&self, digest: &ObjectDigest) -> Result<Option<Located>, StoreError> {
        self.write(|transaction| {
            objects::revive(transaction, digest)?;
            Ok(())
        })?;
        Ok(self.locate(digest)?.map(|(located, _)| located))
    }

    /// Where the object with that SHA-256 is.
    pub(crate) fn locate_by_sha256(
        &self,
        digest: &Sha256Digest,
    ) -> Result<Option<Located>, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {LOCATED} FROM objects WHERE sha256 = ?1 ORDER BY id LIMIT 1",
                ))?
                .query_row([digest.as_bytes()], objects::located)
                .optional()
        })
    }

    /// Where every object is.
    pub(crate) fn all_objects(&self) -> Result<Vec<Located>, StoreError> {
        self.query(|connection| {
            connection
                .prepare(&format!(
                    "SELECT {LOCATED} FROM objects ORDER BY pack, offset, digest",
                ))?
                .query_map([], objects::located)?
                .collect()
        })
    }

    /// Drops the row of an object if it still says that place, and `is_bad` finds, while
    /// nobody else can write to the index, that the bytes there are still not the object's.
    pub(crate) fn forget_if(
        &self,
        object: &Located,
        is_bad: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let (pack, offset) = match object.place {
            Place::File => (None, None),
            Place::Pack { name, offset } => (Some(name), Some(offset)),
        };
        self.write(|transaction| {
            if is_bad()? {
                let (first, digest) = at_digest(&object.info.digest);
                transaction.execute(
                    &format!(
                        "DELETE FROM objects WHERE {AT_DIGEST} AND offset IS ?4
                         AND pack IS (SELECT id FROM packs WHERE name = ?3)"
                    ),
                    params![
                        first,
                        digest,
                        pack.as_ref().map(ObjectDigest::as_bytes),
                        offset.map(to_integer).transpose()?,
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// The recorded outputs of a recipe, whether or not they are in the store.
    pub(crate) fn realisation(&self, key: &RecipeKey) -> Result<Option<Realisation>, StoreError> {
        self.query(|connection| Ok(records::realisation(connection, key)?.map(|(_, value)| value)))
    }

    /// The objects of one root; none if there is no such root.
    pub(crate) fn root(
        &self,
        name: &RootName,
    ) -> Result<Option<BTreeSet<ObjectDigest>>, StoreError> {
        self.query(|connection| {
            Ok(records::root(connection, name)?.and_then(|(_, objects)| objects))
        })
    }

    /// Every root, sorted by name.
    pub(crate) fn roots(&self) -> Result<Vec<Root>, StoreError> {
        self.read(|connection| Ok(records::roots(connection)?))
    }

    /// The names of all packs.
    pub(crate) fn packs(&self) -> Result<Vec<ObjectDigest>, StoreError> {
        self.query(|connection| {
            connection
                .prepare("SELECT name FROM packs")?
                .query_map([], |row| Ok(ObjectDigest::from_bytes(row.get(0)?)))?
                .collect()
        })
    }

    /// Every realisation with its sequence, sorted by key.
    pub(crate) fn realisations(&self) -> Result<Vec<(RecipeKey, i64, Realisation)>, StoreError> {
        self.query(|connection| {
            let keys: Vec<[u8; 32]> = connection
                .prepare("SELECT key FROM realisations ORDER BY key")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut found = Vec::with_capacity(keys.len());
            for key in keys.into_iter().map(RecipeKey::from_bytes) {
                if let Some((sequence, value)) = records::realisation(connection, &key)? {
                    found.push((key, sequence, value));
                }
            }
            Ok(found)
        })
    }

    /// The highest sequence of any record.
    pub(crate) fn last_sequence(&self) -> Result<i64, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached("SELECT last_sequence FROM clock")?
                .query_row([], |row| row.get(0))
        })
    }
}
