//! Writing: everything of one batch becomes durable, then visible, together.
//!
//! The order of a commit:
//!
//! 1. the pack is finished; pack and large files are made read-only and synced,
//!    all of them still in `staging/`; the lease names every object of the batch;
//! 2. each gets its final name by a rename that replaces nothing;
//! 3. the directories that got names are synced;
//! 4. one transaction adds the rows: now others see the batch;
//! 5. the index is synced: now it is durable, and the commit returns.
//!
//! Killed before 4, files lie there that no row names: the next put of the same
//! bytes uses them. A row never names bytes that are not durable. What is seen of
//! another's batch between 4 and 5 may be lost in a power cut; so a commit syncs the
//! index even if all that it was to add was there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempPath;

use crate::durable::StagedFile;
use crate::index::Additions;
use crate::object::{Located, ObjectInfo, Place};
use crate::pack::{Entry, EntryKind, Pack, PackWriter, SealedPack};
use crate::record::{Record, RecordVersion};
use crate::{
    Digesting, ObjectDigest, Realisation, RecipeKey, RootName, Store, StoreError, durable,
};

/// From this size in bytes on an object is a file of its own.
///
/// Up to here a file would waste a noticeable part of its last block, and its
/// inode and sync would cost more than its bytes. From here on it pays that the
/// file can be deleted alone, and read by offset without its neighbours.
const LARGE: usize = 64 * 1024;

/// How many large files a batch keeps open, unsynced, so that the system can
/// write them together.
const MAX_UNSYNCED: usize = 64;

/// Puts, realisations and root changes that become visible together, or not at all.
///
/// Dropped without [`Batch::commit`], nothing has happened.
#[derive(Debug)]
pub struct Batch<'store> {
    store: &'store Store,
    pack: Option<PackWriter>,
    unsynced: Vec<(ObjectInfo, StagedFile)>,
    synced: Vec<(ObjectInfo, TempPath)>,
    /// What is staged, or was found intact in the store.
    known: HashMap<ObjectDigest, ObjectInfo>,
    realisations: BTreeMap<RecipeKey, Realisation>,
    roots: BTreeMap<RootName, Option<BTreeSet<ObjectDigest>>>,
}

impl<'store> Batch<'store> {
    pub(crate) fn new(store: &'store Store) -> Self {
        Self {
            store,
            pack: None,
            unsynced: Vec::new(),
            synced: Vec::new(),
            known: HashMap::new(),
            realisations: BTreeMap::new(),
            roots: BTreeMap::new(),
        }
    }

    /// Puts an object. One that the store has is read and compared, and written again if
    /// it is damaged or lost.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn put(&mut self, bytes: &[u8]) -> Result<ObjectInfo, StoreError> {
        let info = ObjectInfo::of(bytes);
        if self.has(&info)? {
            return Ok(info);
        }
        if bytes.len() < LARGE {
            self.pack()?.append(EntryKind::Object, info, bytes)?;
            self.known.insert(info.digest, info);
        } else {
            let mut staged = self.store.inner().staged_file()?;
            staged.append(bytes)?;
            self.stage(info, staged)?;
        }
        Ok(info)
    }

    /// Puts what `reader` gives, streaming.
    ///
    /// # Errors
    /// From the reader, the index or the file system.
    pub fn put_reader(&mut self, reader: &mut dyn Read) -> Result<ObjectInfo, StoreError> {
        let mut start = Vec::new();
        reader
            .take(LARGE as u64)
            .read_to_end(&mut start)
            .map_err(|source| StoreError::Input { source })?;
        if start.len() < LARGE {
            self.put(&start)
        } else {
            self.put_large(&start, reader)
        }
    }

    /// Records what following a recipe gave. A later record for the same key replaces it.
    ///
    /// # Errors
    /// None at present: what fails, fails in [`Batch::commit`].
    pub fn realise(
        &mut self,
        key: &RecipeKey,
        realisation: &Realisation,
    ) -> Result<(), StoreError> {
        self.realisations.insert(*key, realisation.clone());
        Ok(())
    }

    /// Keeps exactly these objects under that name.
    ///
    /// # Errors
    /// None at present: what fails, fails in [`Batch::commit`].
    pub fn set_root(
        &mut self,
        name: &RootName,
        objects: &[ObjectDigest],
    ) -> Result<(), StoreError> {
        let objects = objects.iter().copied().collect();
        self.roots.insert(name.clone(), Some(objects));
        Ok(())
    }

    /// No longer keeps what was kept under that name.
    ///
    /// # Errors
    /// None at present: what fails, fails in [`Batch::commit`].
    pub fn remove_root(&mut self, name: &RootName) -> Result<(), StoreError> {
        self.roots.insert(name.clone(), None);
        Ok(())
    }

    /// Makes all of it durable and visible. A batch with nothing new writes nothing.
    ///
    /// # Errors
    /// From the index or the file system, also if an earlier put failed to write. Then
    /// nothing of the batch is visible, unless it was the index's sync that failed; an
    /// index that is made anew may find all of it.
    pub fn commit(mut self) -> Result<(), StoreError> {
        if self.known.is_empty() && self.realisations.is_empty() && self.roots.is_empty() {
            return Ok(());
        }
        // Before the index is asked what it says of them already.
        self.store.inner().hold(self.named())?;
        let mut additions = Additions {
            records: self.new_records()?,
            ..Additions::default()
        };
        for record in &additions.records {
            let json = record.to_json().map_err(StoreError::record)?;
            self.pack()?
                .append(EntryKind::Record, ObjectInfo::of(&json), &json)?;
        }

        if self.pack.is_none() && self.unsynced.is_empty() && self.synced.is_empty() {
            return self.store.inner().index.sync();
        }
        let pack = self.pack.take().map(PackWriter::seal).transpose()?;
        self.sync_staged()?;
        let publishing = self.store.inner().publishing()?;

        let layout = &self.store.inner().layout;
        let file_system = self.store.inner().file_system.as_ref();
        let mut directories = BTreeSet::new();
        for (info, path) in std::mem::take(&mut self.synced) {
            let directory = layout.object_directory(&info.digest);
            durable::create_directory(file_system, &directory)?;
            directories.insert(directory);
            self.publish_file(&info, path)?;
            additions.files.push(info);
        }
        if !directories.is_empty() {
            // Even if no directory was created here: whoever did may have died before syncing.
            directories.insert(layout.objects());
        }
        if let Some(pack) = pack {
            directories.insert(layout.packs());
            let objects = pack
                .entries
                .iter()
                .filter(|entry| entry.kind == EntryKind::Object)
                .map(|entry| (entry.info, entry.offset))
                .collect();
            additions.packs.push((pack.name, objects));
            self.publish_pack(pack)?;
        }
        for directory in &directories {
            durable::sync_directory(file_system, directory)?;
        }

        self.store.inner().index.add(&additions)?;
        drop(publishing);
        self.store.inner().index.sync()
    }

    /// Every object that the batch has, or names.
    fn named(&self) -> HashSet<ObjectDigest> {
        let realised = self.realisations.values();
        let realised = realised.flat_map(|realisation| realisation.outputs.values());
        let rooted = self.roots.values().flatten().flatten();
        let known = self.known.keys();
        known.chain(realised).chain(rooted).copied().collect()
    }

    /// The records of what the index does not say already.
    fn new_records(&self) -> Result<Vec<Record>, StoreError> {
        let index = &self.store.inner().index;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let sequence = now.max(index.last_sequence()?.saturating_add(1));
        let version = RecordVersion;
        let mut records = Vec::new();
        for (key, realisation) in &self.realisations {
            if index.realisation(key)?.as_ref() != Some(realisation) {
                records.push(Record::Realisation {
                    version,
                    key: *key,
                    sequence,
                    outputs: realisation.outputs.clone(),
                });
            }
        }
        for (name, objects) in &self.roots {
            if index.root(name)? != *objects {
                records.push(Record::Root {
                    version,
                    name: name.clone(),
                    sequence,
                    objects: objects.clone(),
                });
            }
        }
        Ok(records)
    }

    /// Whether the object is staged, or in the store and intact.
    fn has(&mut self, info: &ObjectInfo) -> Result<bool, StoreError> {
        if self.known.contains_key(&info.digest) {
            return Ok(true);
        }
        let store = self.store.inner();
        let has = match store.locate_unlikely(&info.digest)? {
            Some(located) => store.is_intact(located)?,
            None => false,
        };
        if has {
            self.known.insert(info.digest, *info);
        }
        Ok(has)
    }

    fn pack(&mut self) -> Result<&mut PackWriter, StoreError> {
        let pack = match self.pack.take() {
            Some(pack) => pack,
            None => PackWriter::new(self.store.inner().staged_file()?)?,
        };
        Ok(self.pack.insert(pack))
    }

    /// Stages a large object that begins with `start`, and whose digests are not known yet.
    fn put_large(&mut self, start: &[u8], reader: &mut dyn Read) -> Result<ObjectInfo, StoreError> {
        let mut staged = self.store.inner().staged_file()?;
        let mut digesting = Digesting::new();
        digesting.update(start);
        staged.append(start)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let part = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => buffer.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StoreError::Input { source: error }),
            };
            digesting.update(part);
            staged.append(part)?;
        }
        let info = ObjectInfo::from(digesting);
        if !self.has(&info)? {
            self.stage(info, staged)?;
        }
        Ok(info)
    }

    fn stage(&mut self, info: ObjectInfo, staged: StagedFile) -> Result<(), StoreError> {
        if self.unsynced.len() >= MAX_UNSYNCED {
            self.sync_staged()?;
        }
        self.unsynced.push((info, staged));
        self.known.insert(info.digest, info);
        Ok(())
    }

    fn sync_staged(&mut self) -> Result<(), StoreError> {
        for (info, staged) in self.unsynced.drain(..) {
            self.synced.push((info, staged.seal()?));
        }
        Ok(())
    }

    fn publish_file(&self, info: &ObjectInfo, mut staged: TempPath) -> Result<(), StoreError> {
        let store = self.store.inner();
        let target = store.layout.object(&info.digest);
        let file_system = store.file_system.as_ref();
        while let Some(refused) = durable::publish(file_system, staged, &target)? {
            // Left by a batch that was killed, or just published by another.
            let present = Located {
                info: *info,
                place: Place::File,
            };
            if store.is_intact(present)? {
                return Ok(());
            }
            staged = refused;
        }
        Ok(())
    }

    fn publish_pack(&self, pack: SealedPack) -> Result<(), StoreError> {
        let layout = &self.store.inner().layout;
        let target = layout.pack(&pack.name);
        let file_system = self.store.inner().file_system.as_ref();
        let mut staged = pack.path;
        while let Some(refused) = durable::publish(file_system, staged, &target)? {
            // Its name covers every byte, so an intact one is the same.
            if is_intact_pack(&target, &pack.entries)? {
                return Ok(());
            }
            let aside = layout.corrupt().join(format!("{}.pack", pack.name));
            match fs::rename(&target, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("move", &target)(error));
                }
                _ => staged = refused,
            }
        }
        Ok(())
    }
}

/// Whether the pack at `path` has exactly these entries, all of them undamaged.
pub(crate) fn is_intact_pack(path: &Path, entries: &[Entry]) -> Result<bool, StoreError> {
    let pack = match Pack::open(path) {
        Ok(pack) if pack.entries == entries => pack,
        Ok(_) | Err(StoreError::Pack { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if !pack
            .is_intact(entry)
            .map_err(StoreError::io("read", path))?
        {
            return Ok(false);
        }
    }
    Ok(true)
}
