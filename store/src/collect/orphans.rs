//! Files that no row of the index names: left by batches that were killed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rusqlite::OptionalExtension as _;

use crate::index::{AT_DIGEST, at_digest};
use crate::inner::Inner;
use crate::pack::Pack;
use crate::rebuild::{list, parse_name};
use crate::{ObjectDigest, StoreError};

/// The files that a store has.
#[derive(Debug, Default)]
pub(crate) struct Files {
    objects: Vec<(ObjectDigest, PathBuf)>,
    packs: Vec<(ObjectDigest, PathBuf)>,
}

/// Lists the files. Batches may be between their files and their rows.
pub(crate) fn list_files(store: &Inner) -> Result<Files, StoreError> {
    let mut files = Files::default();
    for directory in list(&store.layout.objects())? {
        if directory.is_dir() {
            for path in list(&directory)? {
                if let Some(digest) = path.file_name().and_then(parse_name) {
                    files.objects.push((digest, path));
                }
            }
        }
    }
    for path in list(&store.layout.packs())? {
        if let Some(name) = path.file_stem().and_then(parse_name) {
            files.packs.push((name, path));
        }
    }
    Ok(files)
}

impl Files {
    /// Those that no row names, and no batch is about to: neither among these large objects
    /// and packs, which the index knew when it was asked, nor among those it knows now.
    pub(crate) fn orphans(
        self,
        store: &Inner,
        objects: &HashSet<ObjectDigest>,
        packs: &HashSet<ObjectDigest>,
    ) -> Result<Vec<PathBuf>, StoreError> {
        // What a newer program wrote is not ours to judge.
        let is_newer =
            |path: &PathBuf| matches!(Pack::open(path), Err(StoreError::NewerPack { .. }));
        let objects = self
            .objects
            .into_iter()
            .filter(|(digest, _)| !objects.contains(digest));
        let packs = self
            .packs
            .into_iter()
            .filter(|(name, path)| !packs.contains(name) && !is_newer(path));
        let mut paths: Vec<_> = objects.chain(packs).map(|(_, path)| path).collect();
        if paths.is_empty() {
            return Ok(paths);
        }
        // Every batch whose file was listed has its rows once nobody publishes.
        drop(store.nobody_publishes()?);
        paths.sort_unstable();
        without_rows(store, paths)
    }
}

/// Those of the files that no row names.
pub(super) fn without_rows(store: &Inner, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, StoreError> {
    store.index.read(|connection| {
        let mut file = connection.prepare(&format!(
            "SELECT 1 FROM objects WHERE {AT_DIGEST} AND pack IS NULL"
        ))?;
        let mut pack = connection.prepare("SELECT 1 FROM packs WHERE name = ?1")?;
        let mut orphans = Vec::new();
        for path in paths {
            let row: Option<i64> = match named_by(&path) {
                Named::Object(digest) => file.query_row(at_digest(&digest), |row| row.get(0)),
                Named::Pack(name) => pack.query_row([name.as_bytes()], |row| row.get(0)),
                Named::Nothing => continue,
            }
            .optional()?;
            // Gone meanwhile: it was no orphan, but an old pack.
            if row.is_none() && path.exists() {
                orphans.push(path);
            }
        }
        Ok(orphans)
    })
}

/// What a file's name says that it is.
pub(super) enum Named {
    Object(ObjectDigest),
    Pack(ObjectDigest),
    Nothing,
}

pub(super) fn named_by(path: &Path) -> Named {
    let is_pack = path
        .extension()
        .is_some_and(|extension| extension == "pack");
    match path.file_stem().and_then(parse_name) {
        Some(name) if is_pack => Named::Pack(name),
        Some(digest) => Named::Object(digest),
        None => Named::Nothing,
    }
}
