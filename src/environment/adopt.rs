//! Coming from BigFlow: the DAG files that it has left in `dags/` are found by their first
//! comments, which name workflow, version and image, and become a generation like any other.
//!
//! Left alone they would run beside the new ones. Order of writes: their bytes, the record,
//! the tags that retain their images, HEAD; nothing in `dags/` changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::draft::{Draft, ImageSource};
use super::head::Head;
use super::key::DAGS_PREFIX;
use super::observe::SeenHead;
use super::record::{Action, GenerationRecord, RecordReference, RecordedDag, state_digest};
use super::written::live_generation;
use super::{Environment, EnvironmentError, Live, PARALLEL};
use crate::bucket::{Checksums, Listing, ObjectKey, StoredObject, WriteCondition};
use crate::dags::{BuiltDagFile, read_dag_file};
use crate::oci::ImageReference;
use crate::project::{Version, WorkflowId};
use crate::registry::{FetchedManifest, ManifestName};
use forebay_store::ObjectDigest;

/// How all DAG files of BigFlow's and of ours end.
const FILE_NAME_END: &str = "_dag.py";

/// No DAG file is longer, in bytes.
const LONGEST: u64 = 4 << 20;

/// A DAG file of this project's that no generation has.
#[derive(Debug, Clone)]
pub struct OldFile {
    /// Where it is.
    pub key: ObjectKey,
    /// The workflow that it runs.
    pub workflow: WorkflowId,
    /// The project's version that it was built from.
    pub version: Version,
    /// The image as it names it.
    pub image: String,
    reference: ImageReference,
    /// Absent if the registry has lost it.
    manifest: Option<FetchedManifest>,
    built: BuiltDagFile,
}

impl OldFile {
    /// Whether its image is still in the registry, so that a rollback can restore it.
    pub fn can_be_restored(&self) -> bool {
        self.manifest.is_some()
    }
}

/// The files with all of `dags/` as it was seen.
#[derive(Debug, Clone)]
pub struct OldFiles {
    files: Vec<OldFile>,
    listing: Listing,
}

impl OldFiles {
    /// The files, sorted by key.
    pub fn files(&self) -> &[OldFile] {
        &self.files
    }

    /// What they are to a deploy that nobody has told what to do with them.
    pub fn undecided(&self) -> EnvironmentError {
        let describe = |file: &OldFile| {
            let lost = match file.can_be_restored() {
                true => String::new(),
                false => format!(", whose image {} is gone", file.image),
            };
            let OldFile {
                key,
                workflow,
                version,
                ..
            } = file;
            format!("{key}: workflow {workflow}, version {version}{lost}")
        };
        EnvironmentError::OldFiles {
            files: self.files.iter().map(describe).collect(),
        }
    }

    /// Those that nothing can bring back.
    fn lost(&self) -> BTreeSet<String> {
        let lost = self.files.iter().filter(|file| !file.can_be_restored());
        lost.map(|file| file.key.to_string()).collect()
    }

    /// The generation that they are; none if all images are gone.
    fn draft(&self) -> Option<(Draft, Vec<FetchedManifest>)> {
        let mut dags = BTreeMap::new();
        let mut bytes = BTreeMap::new();
        let mut manifests = BTreeMap::new();
        for file in &self.files {
            let Some(manifest) = &file.manifest else {
                continue;
            };
            let image = manifest.descriptor.digest;
            manifests.insert(image, manifest.clone());
            let built = &file.built.file;
            let object = ObjectDigest::of(&built.bytes);
            bytes.insert(object, Bytes::copy_from_slice(&built.bytes));
            let by_tag = file.reference.digest.is_none();
            let tag = file.reference.tag.as_ref().filter(|_| by_tag);
            let dag = RecordedDag {
                workflow: file.workflow.clone(),
                identity: built.identity,
                image,
                image_tag: tag.map(ToString::to_string),
                object,
                start: built.start,
                ends: None,
                checksums: Checksums::of(&built.bytes),
            };
            dags.insert(file.key.clone(), dag);
        }
        let restorable = self.files.iter().filter(|file| file.can_be_restored());
        let newest = restorable.max_by_key(|file| file.built.file.start.map(|start| start.time))?;
        let manifests: Vec<_> = manifests.into_values().collect();
        let draft = Draft {
            action: Action::Adopt,
            rollback_of: None,
            version: newest.version.clone(),
            git: None,
            ancestors: Vec::new(),
            rolled_away: Vec::new(),
            contents: BTreeMap::new(),
            image: newest.manifest.as_ref()?.descriptor.digest,
            retained: Vec::new(),
            source: ImageSource::Proven {
                untagged: manifests.clone(),
                lost: Vec::new(),
            },
            dags,
            bytes,
        };
        Some((draft, manifests))
    }
}

impl Environment {
    /// The DAG files of this project's that nobody has recorded: `None` as soon as a DAG was
    /// live here, without any request, and if there are none.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub async fn find_old_files(&self, live: &Live) -> Result<Option<OldFiles>, EnvironmentError> {
        let had_dags = live
            .generation()
            .is_some_and(|live| live.state != state_digest(&live.image, std::iter::empty()));
        if had_dags {
            return Ok(None);
        }
        // BigFlow knows no folder below `dags/`.
        let listing = match self.options.dags_prefix.as_str() {
            DAGS_PREFIX => live.listing.clone(),
            _ => self.bucket.list(DAGS_PREFIX).await?,
        };
        let candidates = listing.objects.iter().filter(|object| {
            let place = object.key.rsplit_once('/').map(|(folder, _)| folder);
            let is_place = |prefix: &str| prefix.strip_suffix('/') == place;
            object.key.ends_with(FILE_NAME_END)
                && object.size <= LONGEST
                && (is_place(DAGS_PREFIX) || is_place(self.options.dags_prefix.as_str()))
        });
        let reads = candidates.map(|object| self.read_old_file(object));
        let found: Vec<_> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        let mut files: Vec<OldFile> = found.into_iter().flatten().collect();
        let keys = files.iter().map(|file| file.key.as_str()).collect();
        let owners = self.owners(&keys).await?;
        files.retain(|file| !owners.contains_key(file.key.as_str()));
        if files.is_empty() {
            return Ok(None);
        }
        let mut manifests = BTreeMap::new();
        for file in &mut files {
            if !manifests.contains_key(&file.image) {
                let name = match (&file.reference.digest, &file.reference.tag) {
                    (Some(digest), _) => ManifestName::Digest(*digest),
                    (None, Some(tag)) => ManifestName::Tag(tag.clone()),
                    (None, None) => continue,
                };
                let manifest = self.registry.manifest(&name).await?;
                manifests.insert(file.image.clone(), manifest);
            }
            file.manifest = manifests.get(&file.image).cloned().flatten();
        }
        Ok(Some(OldFiles { files, listing }))
    }

    /// A file whose comments say that its image is in our repository.
    async fn read_old_file(
        &self,
        object: &StoredObject,
    ) -> Result<Option<OldFile>, EnvironmentError> {
        let Ok(key) = object.key.parse::<ObjectKey>() else {
            return Ok(None);
        };
        let Some(read) = self.bucket.read(&key).await? else {
            return Ok(None);
        };
        let name = key.as_str().rsplit('/').next().unwrap_or_default();
        let Ok(built) = read_dag_file(name, read.bytes.to_vec()) else {
            return Ok(None);
        };
        let reference = built.image.parse::<ImageReference>().ok();
        let reference = reference.filter(|image| image.repository == *self.registry.repository());
        Ok(reference.map(|reference| OldFile {
            key,
            workflow: built.file.workflow.clone(),
            version: built.version.clone(),
            image: built.image.clone(),
            reference,
            manifest: None,
            built,
        }))
    }

    /// Records the files as a generation, which is live then.
    ///
    /// # Errors
    /// [`EnvironmentError::Lost`] if somebody else was faster.
    pub async fn adopt(&self, live: Live, old: &OldFiles) -> Result<Live, EnvironmentError> {
        let lost = old.lost();
        let Some((mut draft, manifests)) = old.draft() else {
            return Ok(Live { lost, ..live });
        };
        let bytes = std::mem::take(&mut draft.bytes);
        self.keep_bytes(bytes, None).await?;
        let (record, reference) = self.claim_number(&live, &draft).await?;
        self.retain_images(&record, &manifests).await?;
        let condition = match live.seen.as_ref().and_then(|seen| seen.generation) {
            Some(seen) => WriteCondition::Unchanged(seen),
            None => WriteCondition::Absent,
        };
        let committed = self.live_generation_of(&record, reference, old);
        self.write_head(Some(committed), None, condition).await?;
        self.remember(&reference, &record).await?;
        let image = live.image.map(|(image, _)| image);
        let live = self.observe(image.as_ref()).await?;
        Ok(Live { lost, ..live })
    }

    /// What the environment would be at after [`Environment::adopt`]. Writes nothing; what is
    /// planned on it can only be looked at.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub fn foresee_adoption(&self, live: Live, old: &OldFiles) -> Result<Live, EnvironmentError> {
        let lost = old.lost();
        let Some((draft, _)) = old.draft() else {
            return Ok(Live { lost, ..live });
        };
        let parent = live.generation().map(|live| live.reference);
        let number = parent.map_or(0, |parent| parent.generation) + 1;
        let record = self.record(&draft, number, parent)?;
        let reference = RecordReference {
            generation: number,
            record: ObjectDigest::of(&record.to_bytes()?),
        };
        let committed = self.live_generation_of(&record, reference, old);
        let holder = &self.options.holder;
        Ok(Live {
            seen: Some(SeenHead {
                head: Head::new(&self.key, Some(committed), None, holder),
                generation: live.seen.as_ref().and_then(|seen| seen.generation),
                updated: live.listing.server_time,
                server_time: live.listing.server_time,
            }),
            record: Some(Arc::new(record)),
            lost,
            foreseen: true,
            ..live
        })
    }

    fn live_generation_of(
        &self,
        record: &GenerationRecord,
        reference: RecordReference,
        old: &OldFiles,
    ) -> super::LiveGeneration {
        let listing = self.seen_next(record, old.listing.clone());
        live_generation(record, reference, &listing)
    }
}
