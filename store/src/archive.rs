//! An artifact with all it needs, as one file that another store can take in.
//!
//! The file is a pack as [`crate::pack::PackWriter`] describes it, only that it
//! holds large objects too: objects first, then the records of the realisations
//! whose outputs are all among them. Its name in its footer covers every byte.
//! It knows no roots: what is to be kept is for the importing side to say.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::durable::{self, StagedFile};
use crate::object::ObjectInfo;
use crate::pack::{Entry, EntryKind, Pack, PackWriter};
use crate::record::{Record, RecordVersion};
use crate::{ObjectDigest, Realisation, RecipeKey, RootName, Store, StoreError};

/// No record is larger, in bytes; a file that says so is not ours.
const MAX_RECORD: u64 = 64 * 1024 * 1024;

/// What is to be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artifact {
    /// Everything that a root names.
    Root(RootName),
    /// Everything that following a recipe gave.
    Realisation(RecipeKey),
    /// An object, with everything else that the newest realisation gave that names it.
    Object(ObjectDigest),
}

/// What was written to, or read from, an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveReport {
    /// The objects, sorted.
    pub objects: Vec<ObjectDigest>,
    /// How many bytes they have.
    pub bytes: u64,
    /// The recipes whose results are in it, sorted.
    pub realisations: Vec<RecipeKey>,
}

/// See [`Store::export`].
pub(crate) fn export(
    store: &Store,
    artifact: &Artifact,
    target: &Path,
) -> Result<ArchiveReport, StoreError> {
    let inner = store.inner();
    let target = std::path::absolute(target).map_err(StoreError::io("open", target))?;
    let directory = target.parent().unwrap_or(Path::new("/"));
    let objects = objects_of(store, artifact)?;
    let staged = StagedFile::create(directory, Arc::clone(&inner.file_system))?;
    let mut writer = PackWriter::new(staged)?;
    let mut report = ArchiveReport::default();
    for digest in &objects {
        let mut reader = store.reader(digest)?;
        let info = *reader.info();
        writer.append_from(EntryKind::Object, info, &mut reader)?;
        report.bytes += info.size;
        report.objects.push(*digest);
    }
    for (key, sequence, realisation) in inner.index.realisations()? {
        if realisation.outputs.is_empty()
            || !realisation
                .outputs
                .values()
                .all(|digest| objects.contains(digest))
        {
            continue;
        }
        let record = Record::Realisation {
            version: RecordVersion,
            key,
            sequence,
            outputs: realisation.outputs,
        };
        let json = record.to_json().map_err(StoreError::record)?;
        writer.append(EntryKind::Record, ObjectInfo::of(&json), &json)?;
        report.realisations.push(key);
    }
    report.realisations.sort_unstable();
    let sealed = writer.seal()?;
    sealed
        .path
        .persist(&target)
        .map_err(|refused| StoreError::io("create", &target)(refused.error))?;
    durable::sync_directory(inner.file_system.as_ref(), directory)?;
    Ok(report)
}

fn objects_of(store: &Store, artifact: &Artifact) -> Result<BTreeSet<ObjectDigest>, StoreError> {
    let index = &store.inner().index;
    let absent = |what: String| StoreError::NoArtifact {
        what,
        root: store.root().to_owned(),
    };
    let outputs = |realisation: Realisation| realisation.outputs.into_values().collect();
    match artifact {
        Artifact::Root(name) => index
            .root(name)?
            .ok_or_else(|| absent(format!("root {}", name.as_str()))),
        Artifact::Realisation(key) => index
            .realisation(key)?
            .map(outputs)
            .ok_or_else(|| absent(format!("realisation of recipe {key}"))),
        Artifact::Object(digest) => {
            let explanation = store
                .why(digest)?
                .ok_or_else(|| store.inner().not_found(digest))?;
            match explanation.realisations.first() {
                Some(newest) => Ok(index
                    .realisation(&newest.key)?
                    .map(outputs)
                    .unwrap_or_else(|| [*digest].into())),
                None => Ok([*digest].into()),
            }
        }
    }
}

/// See [`Store::import`].
pub(crate) fn import(
    store: &Store,
    path: &Path,
    root: Option<&RootName>,
) -> Result<ArchiveReport, StoreError> {
    let damaged = |problem| StoreError::Pack {
        path: path.to_owned(),
        problem,
    };
    let pack = Pack::open(path)?;
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut report = ArchiveReport::default();
    let mut batch = store.begin()?;
    for entry in &pack.entries {
        match entry.kind {
            EntryKind::Object => {
                let info = batch.put_reader(&mut Body::new(&file, entry))?;
                if info != entry.info {
                    return Err(damaged("an object has other bytes than its digest says"));
                }
                report.bytes += info.size;
                report.objects.push(info.digest);
            }
            EntryKind::Record => {
                if entry.info.size > MAX_RECORD {
                    return Err(damaged("a record is impossibly large"));
                }
                let bytes = pack.bytes(entry).map_err(StoreError::io("read", path))?;
                if ObjectDigest::of(&bytes) != entry.info.digest {
                    return Err(damaged("a record has other bytes than its digest says"));
                }
                let record = Record::from_json(&bytes).map_err(|_| StoreError::NewerPack {
                    path: path.to_owned(),
                })?;
                if let Record::Realisation { key, outputs, .. } = record {
                    batch.realise(&key, &Realisation { outputs })?;
                    report.realisations.push(key);
                }
            }
        }
    }
    report.objects.sort_unstable();
    report.realisations.sort_unstable();
    if let Some(root) = root {
        batch.set_root(root, &report.objects)?;
    }
    batch.commit()?;
    Ok(report)
}

/// The bytes of one entry of an archive.
struct Body<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl<'a> Body<'a> {
    fn new(file: &'a File, entry: &Entry) -> Self {
        Self {
            file,
            position: entry.offset,
            end: entry.offset + entry.info.size,
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (self.end - self.position).min(buffer.len() as u64) as usize;
        let (part, _) = buffer.split_at_mut(wanted);
        let read = self.file.read_at(part, self.position)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += read as u64;
        Ok(read)
    }
}
