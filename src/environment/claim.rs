//! Puts a draft on record: steps 2 and 3 of an apply's order. Nothing can be seen of it yet.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::draft::Draft;
use super::key::LAST_GENERATION;
use super::record::{GenerationRecord, RecordReference, RecordedImage};
use super::{Environment, EnvironmentError, Live, PARALLEL};
use crate::bucket::{BucketError, WriteCondition};
use forebay_store::ObjectDigest;

/// How often somebody else may claim the number that we were about to take.
const CLAIMS: usize = 20;

impl Environment {
    /// Step 2. What an earlier generation already has there is not written again. The bytes are
    /// not held any longer: whoever needs them reads them from the store.
    pub(super) async fn keep_bytes(
        &self,
        bytes: BTreeMap<ObjectDigest, Bytes>,
        base: Option<&GenerationRecord>,
    ) -> Result<(), EnvironmentError> {
        self.local.put(bytes.values().cloned().collect()).await?;
        let known: BTreeSet<ObjectDigest> = base
            .into_iter()
            .flat_map(GenerationRecord::objects)
            .collect();
        let new = bytes.iter();
        let new = new.filter(|(digest, _)| !known.contains(digest));
        let writes = new.map(|(digest, bytes)| self.keep_object(digest, bytes));
        let mut writes = stream::iter(writes).buffer_unordered(PARALLEL);
        while let Some(written) = writes.next().await {
            written?;
        }
        Ok(())
    }

    async fn keep_object(
        &self,
        digest: &ObjectDigest,
        bytes: &Bytes,
    ) -> Result<(), EnvironmentError> {
        let key = self.key.object(digest)?;
        match self
            .bucket
            .write(&key, bytes.clone(), WriteCondition::Absent)
            .await
        {
            Ok(_) => Ok(()),
            // Somebody wrote the same bytes long ago. They are written again, so that whoever
            // deletes what no record needs finds that they are not what he saw.
            Err(BucketError::ConditionFailed { .. }) => match self.bucket.read(&key).await? {
                Some(read) => {
                    let seen = WriteCondition::Unchanged(read.object.generation);
                    match self.bucket.write(&key, bytes.clone(), seen).await {
                        Ok(_) | Err(BucketError::ConditionFailed { .. }) => Ok(()),
                        Err(error) => Err(error.into()),
                    }
                }
                None => {
                    let write = self
                        .bucket
                        .write(&key, bytes.clone(), WriteCondition::Absent);
                    write.await.map(|_| ()).map_err(EnvironmentError::from)
                }
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Step 3. A number that a dead deploy has left its record at is passed over.
    pub(super) async fn claim_number(
        &self,
        live: &Live,
        draft: &Draft,
    ) -> Result<(GenerationRecord, RecordReference), EnvironmentError> {
        let parent = live.generation().map(|live| live.reference);
        let next = |number: u64| match number {
            ..LAST_GENERATION => Ok(number + 1),
            last => Err(EnvironmentError::NumbersTaken { last }),
        };
        let mut number = next(parent.map_or(0, |parent| parent.generation))?;
        for _ in 0..CLAIMS {
            let record = self.record(draft, number, parent)?;
            let bytes = Bytes::from(record.to_bytes()?);
            let reference = RecordReference {
                generation: number,
                record: ObjectDigest::of(&bytes),
            };
            let key = self.key.generation(number)?;
            let write = self
                .bucket
                .write(&key, bytes.clone(), WriteCondition::Absent);
            match write.await {
                Ok(_) => {
                    self.local.put(vec![bytes]).await?;
                    return Ok((record, reference));
                }
                Err(BucketError::ConditionFailed { .. }) => {
                    let taken = self.numbers().await?.into_iter().max();
                    number = next(number.max(taken.unwrap_or_default()))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(EnvironmentError::NumbersTaken { last: number })
    }

    pub(super) fn record(
        &self,
        draft: &Draft,
        number: u64,
        parent: Option<RecordReference>,
    ) -> Result<GenerationRecord, EnvironmentError> {
        let tag = self.key.retention_tag(number)?;
        let repository = self.registry.repository().to_string();
        let new = draft.untagged().into_iter().enumerate();
        let new = new.map(|(position, digest)| RecordedImage {
            digest,
            repository: repository.clone(),
            // Only a rollback to several images that have all lost their tags needs more than one.
            retention_tag: match position {
                0 => tag.to_string(),
                _ => format!("{tag}.{position}"),
            },
            contents: draft.contents_of(&digest),
        });
        let mut images: Vec<_> = new.chain(draft.retained.iter().cloned()).collect();
        images.sort_by_key(|image| image.digest);
        Ok(GenerationRecord {
            schema: GenerationRecord::SCHEMA,
            project: self.key.project.clone(),
            environment: self.key.environment.clone(),
            generation: number,
            parent,
            action: draft.action,
            rollback_of: draft.rollback_of,
            version: draft.version.clone(),
            git: draft.git.clone(),
            ancestors: draft.ancestors.clone(),
            rolled_away: draft.rolled_away.clone(),
            created_at: self.clock.now(),
            created_by: self.options.holder.clone(),
            program: concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned(),
            image: draft.image,
            images,
            dags: draft.dags.clone(),
        })
    }
}
