//! What earlier builds of a project have compiled, so that a build compiles only what changed
//! and writes little more than that.
//!
//! Most of it is in one archive; what came since then is in a second, small one, which is
//! written anew each time and becomes part of the first when it is no longer small.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use forebay_store::{Batch, ObjectDigest, ObjectFile, Realisation, RecipeKey, Store};

use super::ImageError;
use crate::wheels::{Archive, ArchiveWriter};

/// The outputs of the realisation that has the archives.
const ARCHIVE: &str = "bytecode";
const RECENT: &str = "bytecode-recent";
/// The second archive's part of the first at most.
const RECENT_PART: u64 = 4;

/// The compiled form of a source; empty if it does not compile.
#[derive(Debug, Clone)]
pub(super) struct CompiledModule {
    /// Names the bytes by what they were compiled from.
    pub(super) name: ObjectDigest,
    pub(super) bytes: ModuleBytes,
}

/// Where a module's bytes are.
#[derive(Debug, Clone)]
pub(super) enum ModuleBytes {
    New(Arc<[u8]>),
    Kept {
        archive: Arc<Archive<ObjectFile>>,
        entry: usize,
        is_recent: bool,
    },
}

impl CompiledModule {
    pub(super) fn size(&self) -> u64 {
        match &self.bytes {
            ModuleBytes::New(bytes) => bytes.len() as u64,
            ModuleBytes::Kept { archive, entry, .. } => {
                archive.entries().get(*entry).map_or(0, |entry| entry.size)
            }
        }
    }

    pub(super) fn reader(&self) -> Box<dyn Read + '_> {
        match &self.bytes {
            ModuleBytes::New(bytes) => Box::new(&**bytes),
            ModuleBytes::Kept { archive, entry, .. } => match archive.entries().get(*entry) {
                Some(entry) => Box::new(archive.reader(entry)),
                None => Box::new(io::empty()),
            },
        }
    }
}

/// The archives of one project and compiler.
#[derive(Default)]
pub(super) struct KeptModules {
    main: Option<ObjectDigest>,
    main_size: u64,
    places: HashMap<String, ModuleBytes>,
}

impl KeptModules {
    /// Finds what is kept under `key`. What was lost is compiled again.
    ///
    /// # Errors
    /// The store.
    pub(super) fn find(store: &Store, key: &RecipeKey) -> Result<Self, ImageError> {
        let outputs = store.local_realisation(key)?.unwrap_or_default().outputs;
        let mut kept = Self {
            main: outputs.get(ARCHIVE).copied(),
            ..Self::default()
        };
        for (name, is_recent) in [(ARCHIVE, false), (RECENT, true)] {
            let file = outputs.get(name).and_then(|object| store.file(object).ok());
            let Some(Ok(archive)) = file.map(Archive::open) else {
                continue;
            };
            let archive = Arc::new(archive);
            for (entry, module) in archive.entries().iter().enumerate() {
                let archive = Arc::clone(&archive);
                if !is_recent {
                    kept.main_size += module.size;
                }
                let bytes = ModuleBytes::Kept {
                    archive,
                    entry,
                    is_recent,
                };
                kept.places.insert(module.path.clone(), bytes);
            }
        }
        Ok(kept)
    }

    /// What was kept under that name.
    pub(super) fn module(&self, known_as: &str) -> Option<ModuleBytes> {
        self.places.get(known_as).cloned()
    }

    /// Keeps `modules`, by the names under which they are found again, in the place of what
    /// was kept.
    ///
    /// # Errors
    /// The store, or kept bytes that cannot be read.
    pub(super) fn replace(
        &self,
        modules: &BTreeMap<String, CompiledModule>,
        key: &RecipeKey,
        batch: &mut Batch<'_>,
    ) -> Result<(), ImageError> {
        let cannot_write = || ImageError::io("cannot keep compiled modules");
        let is_recent = |module: &CompiledModule| match module.bytes {
            ModuleBytes::New(_) => true,
            ModuleBytes::Kept { is_recent, .. } => is_recent,
        };
        let recent = modules.values().filter(|module| is_recent(module));
        let recent_size: u64 = recent.map(CompiledModule::size).sum();
        let main = self
            .main
            .filter(|_| recent_size < self.main_size / RECENT_PART);
        let mut writer = ArchiveWriter::new(Vec::new(), 0);
        for (known_as, module) in modules {
            if main.is_some() && !is_recent(module) {
                continue;
            }
            let mut bytes = Vec::new();
            module
                .reader()
                .read_to_end(&mut bytes)
                .and_then(|_| writer.add(known_as, &bytes, false))
                .map_err(cannot_write())?;
        }
        let written = batch.put(&writer.finish().map_err(cannot_write())?)?.digest;
        let outputs = match main {
            Some(main) => vec![(ARCHIVE, main), (RECENT, written)],
            None => vec![(ARCHIVE, written)],
        };
        let outputs = outputs.into_iter();
        let outputs = outputs.map(|(name, object)| (name.to_owned(), object));
        batch.realise(
            key,
            &Realisation {
                outputs: outputs.collect(),
            },
        )?;
        Ok(())
    }
}
