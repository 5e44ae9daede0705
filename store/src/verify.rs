//! Reading everything that the store has, to find what is missing, corrupt or orphaned.
//!
//! What is corrupt is treated as any read would treat it: moved to `corrupt/` and
//! forgotten, so that putting it again heals it. What is missing is forgotten too, and
//! so is an object whose SHA-256 is not what the index says. Orphans are only named:
//! `collect` removes them.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::collect::list_files;
use crate::inner::Inner;
use crate::object::{Located, ObjectInfo, ObjectReader, Place};
use crate::pack::{EntryKind, Pack};
use crate::{Digesting, ObjectDigest, StoreError};

/// How the store is to be verified.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// How many threads read; without a number, as many as there are processors.
    pub threads: Option<usize>,
    /// Go on where the last one was interrupted, instead of beginning anew.
    pub resume: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// How many objects were read.
    pub objects: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// Objects whose file is gone.
    pub missing: Vec<ObjectDigest>,
    /// Objects with other bytes than one of their digests says.
    pub corrupt: Vec<ObjectDigest>,
    /// Packs whose own index or records are damaged. Their objects are judged alone.
    pub damaged_packs: Vec<PathBuf>,
    /// Files of the store that its index does not know.
    pub orphaned: Vec<PathBuf>,
}

/// What is read by one thread at a time, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UnitName {
    Pack(ObjectDigest),
    File(ObjectDigest),
}

/// `verify-progress` in the store, JSON: what an interrupted run has done.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    last: Option<UnitName>,
    report: VerifyReport,
}

/// How many units are read between two notes of the progress.
const CHUNK: usize = 1024;

/// See [`crate::Store::verify`].
pub(crate) fn verify(
    store: &Arc<Inner>,
    options: &VerifyOptions,
) -> Result<VerifyReport, StoreError> {
    let path = store.layout.verify_progress();
    let mut progress = match options.resume {
        true => fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Progress>(&bytes).ok())
            .unwrap_or_default(),
        false => Progress::default(),
    };
    let files = list_files(store)?;
    let mut units: BTreeMap<UnitName, Vec<Located>> = BTreeMap::new();
    for located in store.index.all_objects()? {
        let name = match located.place {
            Place::Pack { name, .. } => UnitName::Pack(name),
            Place::File => UnitName::File(located.info.digest),
        };
        units.entry(name).or_default().push(located);
    }
    let packs: HashSet<ObjectDigest> = store.index.packs()?.into_iter().collect();
    for name in &packs {
        units.entry(UnitName::Pack(*name)).or_default();
    }
    let large: HashSet<ObjectDigest> = units
        .keys()
        .filter_map(|name| match name {
            UnitName::File(digest) => Some(*digest),
            UnitName::Pack(_) => None,
        })
        .collect();

    let units: Vec<(UnitName, Vec<Located>)> = units
        .into_iter()
        .filter(|(name, _)| progress.last.is_none_or(|last| *name > last))
        .collect();
    let threads = options
        .threads
        .or_else(|| thread::available_parallelism().ok().map(Into::into))
        .unwrap_or(1)
        .max(1);
    for chunk in units.chunks(CHUNK) {
        let found = read_chunk(store, chunk, threads)?;
        progress.report.add(found);
        progress.last = chunk.last().map(|(name, _)| *name);
        if chunk.len() == CHUNK {
            save(store, &progress)?;
        }
    }
    let _ = fs::remove_file(&path);
    let mut report = progress.report;
    report.orphaned = files.orphans(store, &large, &packs)?;
    report.missing.sort_unstable();
    report.corrupt.sort_unstable();
    report.damaged_packs.sort_unstable();
    Ok(report)
}

impl VerifyReport {
    fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.missing.extend(other.missing);
        self.corrupt.extend(other.corrupt);
        self.damaged_packs.extend(other.damaged_packs);
    }

    /// Whether nothing is wrong. Orphans are no fault of anybody: they are what killed
    /// batches leave.
    pub fn is_intact(&self) -> bool {
        self.missing.is_empty() && self.corrupt.is_empty() && self.damaged_packs.is_empty()
    }
}

/// A torn note is as none: it is no JSON.
fn save(store: &Inner, progress: &Progress) -> Result<(), StoreError> {
    let path = store.layout.verify_progress();
    let json = serde_json::to_vec(progress).map_err(StoreError::record)?;
    let mut staged = store.staged_file()?;
    staged.append(&json)?;
    staged
        .into_temp_path()
        .persist(&path)
        .map_err(|refused| StoreError::io("write", &path)(refused.error))
}

fn read_chunk(
    store: &Arc<Inner>,
    units: &[(UnitName, Vec<Located>)],
    threads: usize,
) -> Result<VerifyReport, StoreError> {
    let next = AtomicUsize::new(0);
    let result = Mutex::new(Ok(VerifyReport::default()));
    thread::scope(|scope| {
        for _ in 0..threads.min(units.len()) {
            scope.spawn(|| {
                let mut found = Ok(VerifyReport::default());
                while let (Ok(report), Some((name, objects))) =
                    (&mut found, units.get(next.fetch_add(1, Ordering::Relaxed)))
                {
                    if let Err(error) = read_unit(store, name, objects, report) {
                        found = Err(error);
                    }
                }
                let mut all = result.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *all, found) {
                    (Ok(all), Ok(found)) => all.add(found),
                    (Ok(_), Err(error)) => *all = Err(error),
                    (Err(_), _) => {}
                }
            });
        }
    });
    result.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn read_unit(
    store: &Arc<Inner>,
    name: &UnitName,
    objects: &[Located],
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let mut buffer = Vec::new();
    let mut pack_file = None;
    if let UnitName::Pack(name) = name {
        let path = store.layout.pack(name);
        match Pack::open(&path) {
            Ok(pack) => {
                let mut records = pack
                    .entries
                    .iter()
                    .filter(|entry| entry.kind == EntryKind::Record);
                if pack.name != *name
                    || !records.all(|entry| pack.is_intact(entry).unwrap_or(false))
                {
                    report.damaged_packs.push(path.clone());
                }
            }
            Err(StoreError::Pack { .. }) => report.damaged_packs.push(path.clone()),
            // Its objects are missing.
            Err(StoreError::Io { .. }) if !path.exists() => {}
            Err(error) => return Err(error),
        }
        pack_file = File::open(&path).ok();
    }
    for located in objects {
        let intact = match &pack_file {
            Some(file) => is_intact(file, located, &mut buffer),
            None => File::open(store.path_of(located))
                .is_ok_and(|file| is_intact(&file, located, &mut buffer)),
        };
        if intact {
            report.objects += 1;
            report.bytes += located.info.size;
            continue;
        }
        // The slow way says what is wrong, and does something about it.
        let verified = store
            .open_object(*located)
            .and_then(|object| ObjectReader::new(Arc::clone(store), object).verify());
        match verified {
            Ok(()) => match store.index.locate(&located.info.digest)? {
                // It has another SHA-256 than its row says.
                Some((now, _)) if now == *located => {
                    store.index.forget_if(located, || Ok(true))?;
                    report.corrupt.push(located.info.digest);
                }
                // A collection has moved it, or somebody has healed it, since the list was made.
                _ => {
                    report.objects += 1;
                    report.bytes += located.info.size;
                }
            },
            Err(StoreError::Lost { digest, .. }) => report.missing.push(digest),
            Err(StoreError::Damaged { digest, .. }) => report.corrupt.push(digest),
            // Collected since the list was made.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an object's bytes in that file have both of its digests.
fn is_intact(file: &File, located: &Located, buffer: &mut Vec<u8>) -> bool {
    let size = located.info.size;
    buffer.resize(size.min(256 * 1024) as usize, 0);
    if located.place == Place::File && !file.metadata().is_ok_and(|found| found.len() == size) {
        return false;
    }
    let mut digesting = Digesting::new();
    let mut done = 0;
    while done < size {
        let wanted = (size - done).min(buffer.len() as u64) as usize;
        let (part, _) = buffer.split_at_mut(wanted);
        if file.read_exact_at(part, located.offset() + done).is_err() {
            return false;
        }
        digesting.update(part);
        done += part.len() as u64;
    }
    ObjectInfo::from(digesting) == located.info
}
