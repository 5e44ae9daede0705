//! Making the index from what lies in the store, reading and verifying all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::index::Additions;
use crate::inner::Inner;
use crate::layout::Layout;
use crate::object::ObjectInfo;
use crate::pack::{Entry, EntryKind, Pack};
use crate::record::Record;
use crate::{Digesting, ObjectDigest, StoreError};

/// What a rebuild found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebuildReport {
    /// How many objects are in the store.
    pub objects: usize,
    /// How many records (of realisations and roots) were read.
    pub records: usize,
    /// Damaged files and bytes, where they are now.
    pub damaged: Vec<PathBuf>,
}

/// What was found on disk so far.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    files: BTreeMap<ObjectDigest, ObjectInfo>,
    packs: BTreeMap<ObjectDigest, Vec<Entry>>,
    records: Vec<Record>,
    damaged: BTreeSet<PathBuf>,
}

impl Survey {
    /// Looks at everything that has not been looked at before.
    pub(crate) fn extend(&mut self, layout: &Layout) -> Result<(), StoreError> {
        for directory in list(&layout.objects())? {
            // A desktop's or a person's own file is no reason to fail.
            if !directory.is_dir() {
                continue;
            }
            for path in list(&directory)? {
                match path.file_name().and_then(parse_name) {
                    Some(digest) if !self.files.contains_key(&digest) => {
                        self.add_file(layout, digest, &path)?;
                    }
                    _ => {}
                }
            }
        }
        for path in list(&layout.packs())? {
            match path.file_stem().and_then(parse_name) {
                Some(name) if !self.packs.contains_key(&name) => {
                    self.add_pack(layout, name, &path)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What an index must say.
    pub(crate) fn additions(&self) -> Additions {
        Additions {
            files: self.files.values().copied().collect(),
            packs: self
                .packs
                .iter()
                .map(|(name, entries)| {
                    let objects = entries
                        .iter()
                        .filter(|entry| entry.kind == EntryKind::Object)
                        .map(|entry| (entry.info, entry.offset))
                        .collect();
                    (*name, objects)
                })
                .collect(),
            records: self.records.clone(),
        }
    }

    fn report(self) -> RebuildReport {
        let packed = self
            .packs
            .values()
            .flatten()
            .filter(|entry| entry.kind == EntryKind::Object)
            .map(|entry| entry.info.digest);
        let objects: BTreeSet<_> = self.files.keys().copied().chain(packed).collect();
        RebuildReport {
            objects: objects.len(),
            records: self.records.len(),
            damaged: self.damaged.into_iter().collect(),
        }
    }

    fn add_file(
        &mut self,
        layout: &Layout,
        digest: ObjectDigest,
        path: &Path,
    ) -> Result<(), StoreError> {
        let info = digest_file(path).map_err(StoreError::io("read", path))?;
        if info.digest == digest {
            self.files.insert(digest, info);
            return Ok(());
        }
        self.move_aside(layout, path)
    }

    fn add_pack(
        &mut self,
        layout: &Layout,
        name: ObjectDigest,
        path: &Path,
    ) -> Result<(), StoreError> {
        let pack = match Pack::open(path) {
            Ok(pack) if pack.name == name => pack,
            Ok(_) | Err(StoreError::Pack { .. }) => return self.move_aside(layout, path),
            Err(error) => return Err(error),
        };
        let mut intact = Vec::with_capacity(pack.entries.len());
        for entry in &pack.entries {
            let read = StoreError::io("read", path);
            if !pack.is_intact(entry).map_err(read)? {
                let read = StoreError::io("read", path);
                let copy = layout.corrupt().join(entry.info.digest.to_string());
                fs::write(&copy, pack.bytes(entry).map_err(read)?)
                    .map_err(StoreError::io("copy damaged bytes to", &copy))?;
                self.damaged.insert(copy);
                continue;
            }
            if entry.kind == EntryKind::Record {
                let read = StoreError::io("read", path);
                let record = Record::from_json(&pack.bytes(entry).map_err(read)?);
                // Its bytes are as they were written.
                let record = record.map_err(|_| StoreError::NewerPack {
                    path: path.to_owned(),
                })?;
                self.records.push(record);
            }
            intact.push(*entry);
        }
        self.packs.insert(name, intact);
        Ok(())
    }

    fn move_aside(&mut self, layout: &Layout, path: &Path) -> Result<(), StoreError> {
        let target = layout
            .corrupt()
            .join(path.file_name().unwrap_or(OsStr::new("unnamed")));
        fs::rename(path, &target).map_err(StoreError::io("move", path))?;
        self.damaged.insert(target);
        Ok(())
    }
}

/// See [`crate::Store::rebuild_index`].
pub(crate) fn rebuild(store: &Inner) -> Result<RebuildReport, StoreError> {
    let _collecting = store.collecting()?;
    let mut survey = Survey::default();
    // All the reading is done before the others have to wait; what they have
    // committed meanwhile is looked at while they do.
    survey.extend(&store.layout)?;
    let _publishing = store.nobody_publishes()?;
    store.index.replace(|| {
        survey.extend(&store.layout)?;
        Ok(survey.additions())
    })?;
    Ok(survey.report())
}

/// Both digests of the file at `path`.
fn digest_file(path: &Path) -> io::Result<ObjectInfo> {
    let mut file = File::open(path)?;
    let mut digesting = Digesting::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => digesting.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(digesting.into())
}

pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(StoreError::io("list", directory))?;
    paths.sort_unstable();
    Ok(paths)
}

pub(crate) fn parse_name(name: &OsStr) -> Option<ObjectDigest> {
    name.to_str()?.parse().ok()
}
