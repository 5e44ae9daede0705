//! What is in the store, and why.

use std::collections::BTreeSet;
use std::fs;

use rusqlite::OptionalExtension as _;

use crate::index::{AT_DIGEST, at_digest, from_integer};
use crate::inner::Inner;
use crate::{ObjectDigest, ObjectInfo, RecipeKey, RootName, Sha256Digest, StoreError, staging};

/// Counts and sizes, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Objects.
    pub objects: u64,
    /// What they have together.
    pub bytes: u64,
    /// How many of them are files of their own.
    pub files: u64,
    /// What those have together.
    pub file_bytes: u64,
    /// Packs, which hold all others and the records.
    pub packs: u64,
    /// Realisations: what recipes gave.
    pub realisations: u64,
    /// Roots.
    pub roots: u64,
    /// Objects that a collection has found unneeded.
    pub condemned: u64,
    /// What those have together.
    pub condemned_bytes: u64,
    /// Damaged files and bytes that were moved aside.
    pub corrupt: u64,
    /// Objects that live processes hold.
    pub leased: u64,
}

/// One object of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedObject {
    /// Its names and size.
    pub info: ObjectInfo,
    /// Whether it shares a pack with others.
    pub packed: bool,
    /// Whether a collection has found it unneeded.
    pub condemned: bool,
}

/// Why an object is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The object.
    pub info: ObjectInfo,
    /// The roots that name it.
    pub roots: Vec<RootName>,
    /// The realisations that gave it.
    pub realisations: Vec<NamedOutput>,
    /// Whether a live process holds it.
    pub leased: bool,
    /// Since when it is condemned, in seconds since 1970.
    pub condemned_since: Option<i64>,
}

/// One output of one realisation, and what keeps that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedOutput {
    /// The recipe.
    pub key: RecipeKey,
    /// What the recipe calls the object.
    pub output: String,
    /// The roots that keep every output of it, together: none if some output has no root.
    pub kept_by: Vec<RootName>,
}

impl Explanation {
    /// Whether the next collection spares it.
    pub fn is_needed(&self) -> bool {
        self.leased || !self.roots.is_empty()
    }
}

/// See [`crate::Store::stats`].
pub(crate) fn stats(store: &Inner) -> Result<Stats, StoreError> {
    let mut stats = store.index.read(|connection| {
        Ok(connection.query_row(
            "SELECT count(*), coalesce(sum(size), 0), count(*) FILTER (WHERE pack IS NULL),
                 coalesce(sum(size) FILTER (WHERE pack IS NULL), 0),
                 count(condemned.object),
                 coalesce(sum(size) FILTER (WHERE condemned.object IS NOT NULL), 0),
                 (SELECT count(*) FROM packs), (SELECT count(*) FROM realisations),
                 (SELECT count(*) FROM roots WHERE removed = 0)
             FROM objects LEFT JOIN condemned ON condemned.object = objects.id",
            [],
            |row| {
                Ok(Stats {
                    objects: from_integer(row, 0)?,
                    bytes: from_integer(row, 1)?,
                    files: from_integer(row, 2)?,
                    file_bytes: from_integer(row, 3)?,
                    condemned: from_integer(row, 4)?,
                    condemned_bytes: from_integer(row, 5)?,
                    packs: from_integer(row, 6)?,
                    realisations: from_integer(row, 7)?,
                    roots: from_integer(row, 8)?,
                    ..Stats::default()
                })
            },
        )?)
    })?;
    stats.leased = staging::live_leases(&store.layout.staging())?.len() as u64;
    let corrupt = store.layout.corrupt();
    stats.corrupt = fs::read_dir(&corrupt)
        .map_err(StoreError::io("list", &corrupt))?
        .count() as u64;
    Ok(stats)
}

/// See [`crate::Store::list`].
pub(crate) fn list(store: &Inner, each: &mut dyn FnMut(ListedObject)) -> Result<(), StoreError> {
    store.index.read(|connection| {
        let mut statement = connection.prepare(
            "SELECT digest, sha256, size, pack IS NOT NULL,
                 EXISTS (SELECT 1 FROM condemned WHERE object = objects.id)
             FROM objects ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(ListedObject {
                info: ObjectInfo {
                    digest: ObjectDigest::from_bytes(row.get(0)?),
                    sha256: Sha256Digest::from_bytes(row.get(1)?),
                    size: from_integer(row, 2)?,
                },
                packed: row.get(3)?,
                condemned: row.get(4)?,
            });
        }
        Ok(())
    })
}

/// See [`crate::Store::why`].
pub(crate) fn why(store: &Inner, digest: &ObjectDigest) -> Result<Option<Explanation>, StoreError> {
    let Some((located, _)) = store.index.locate(digest)? else {
        return Ok(None);
    };
    let roots: Vec<_> = store.index.roots()?;
    let naming = |digest: &ObjectDigest| -> BTreeSet<&RootName> {
        roots
            .iter()
            .filter(|root| root.objects.binary_search(digest).is_ok())
            .map(|root| &root.name)
            .collect()
    };
    let (outputs, condemned_since) = store.index.read(|connection| {
        let outputs: Vec<(RecipeKey, String)> = connection
            .prepare(
                "SELECT key, name FROM realisation_outputs
                 JOIN realisations ON realisations.id = realisation
                 WHERE digest = ?1 ORDER BY sequence DESC, name",
            )?
            .query_map([digest.as_bytes()], |row| {
                Ok((RecipeKey::from_bytes(row.get(0)?), row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let since = connection
            .query_row(
                &format!(
                    "SELECT since FROM condemned
                     WHERE object = (SELECT id FROM objects WHERE {AT_DIGEST})"
                ),
                at_digest(digest),
                |row| row.get(0),
            )
            .optional()?;
        Ok((outputs, since))
    })?;
    let mut realisations = Vec::new();
    for (key, output) in outputs {
        let all = store.index.realisation(&key)?.unwrap_or_default().outputs;
        let each: Vec<_> = all.values().map(naming).collect();
        let kept_by = match each.iter().any(BTreeSet::is_empty) {
            true => Vec::new(),
            false => each
                .into_iter()
                .flatten()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .cloned()
                .collect(),
        };
        realisations.push(NamedOutput {
            key,
            output,
            kept_by,
        });
    }
    let leased = staging::live_leases(&store.layout.staging())?.contains(digest);
    Ok(Some(Explanation {
        info: located.info,
        roots: naming(digest).into_iter().cloned().collect(),
        realisations,
        leased,
        condemned_since,
    }))
}
