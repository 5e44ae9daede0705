//! Everything that is recorded of an environment's generations, read at once: records, what is in
//! their images, their DAG files. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::head::Intent;
use super::record::GenerationRecord;
use super::{Environment, EnvironmentError};
use crate::image::{ImageContents, LayerOfImage, layers_of_image};
use crate::oci::{Repository, Sha256Digest};
use crate::progress::{Event, Phase, Unit};
use crate::registry::{Registry, RegistryError};
use forebay_store::ObjectDigest;

/// How many requests are on their way at the same time.
const PARALLEL: usize = 16;

/// What is known of an environment's generations.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The generations, the newest first. The first one is live.
    pub generations: Vec<Arc<GenerationRecord>>,
    /// Whether there are older ones that were not asked for.
    pub has_older: bool,
    /// A change that is being applied, or was left unfinished.
    pub applying: Option<Intent>,
    /// The images that the generations name.
    pub images: BTreeMap<Sha256Digest, SurveyedImage>,
    /// What is in them, by the digests that the records have; lost ones are missing.
    pub contents: BTreeMap<ObjectDigest, ImageContents>,
    /// The bytes of the DAG files; lost ones are missing.
    pub files: BTreeMap<ObjectDigest, Bytes>,
}

/// What a registry says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SurveyedImage {
    /// Its layers, the lowest first.
    Present(Vec<LayerOfImage>),
    /// The registry no longer has it.
    Gone,
    /// The registry could not be asked, or has something else than an image of one platform.
    Unknown,
}

impl Environment {
    /// Reads the newest `limit` generations with all that belongs to them. A registry that cannot be
    /// read is a warning: the rest is worth showing.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn survey(&self, limit: usize) -> Result<Survey, EnvironmentError> {
        let applying = self.read_head().await?.and_then(|seen| seen.head.applying);
        let mut generations = self.history(Some(limit.saturating_add(1))).await?;
        let has_older = generations.len() > limit;
        generations.truncate(limit);
        let images = generations.iter().flat_map(|record| &record.images);
        let contents: BTreeSet<_> = images.filter_map(|image| image.contents).collect();
        let asked = by_repository(&generations);
        let dags = generations.iter().flat_map(|record| record.dags.values());
        let files: BTreeSet<_> = dags.map(|dag| dag.object).collect();
        self.progress.report(Event::Started {
            phase: Phase::Survey,
            total: u64::try_from(contents.len() + files.len() + images_of(&asked)).ok(),
            unit: Unit::Items,
        });
        let (contents, files) = (self.objects(contents).await?, self.objects(files).await?);
        let images = self.survey_images(asked).await;
        self.progress.report(Event::Finished {
            phase: Phase::Survey,
            summary: match generations.len() {
                1 => "1 generation".to_owned(),
                number => format!("{number} generations"),
            },
        });
        let contents = contents
            .into_iter()
            .filter_map(|(digest, bytes)| Some((digest, serde_json::from_slice(&bytes).ok()?)));
        Ok(Survey {
            images,
            has_older,
            applying,
            contents: contents.collect(),
            files,
            generations,
        })
    }

    /// Those of the objects that are not lost.
    async fn objects(
        &self,
        digests: BTreeSet<ObjectDigest>,
    ) -> Result<BTreeMap<ObjectDigest, Bytes>, EnvironmentError> {
        let read = |digest| async move {
            match self.object(digest).await {
                Ok(bytes) => Ok(Some((digest, bytes))),
                Err(EnvironmentError::LostObject { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let found = stream::iter(digests).map(read).buffer_unordered(PARALLEL);
        let found = found.inspect(|_| self.one_more());
        found
            .try_filter_map(|found| async { Ok(found) })
            .try_collect()
            .await
    }

    fn one_more(&self) {
        self.progress.report(Event::Advanced {
            phase: Phase::Survey,
            amount: 1,
        });
    }

    async fn survey_images(&self, asked: ByRepository) -> BTreeMap<Sha256Digest, SurveyedImage> {
        let mut known = BTreeMap::new();
        for (repository, images) in asked {
            let unknown = images.iter().map(|image| (*image, SurveyedImage::Unknown));
            known.extend(unknown);
            let surveyed = match self.repository(&repository) {
                Ok(Some(registry)) => self.survey_repository(&*registry, images, &mut known).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = surveyed {
                self.progress.report(Event::Warning(format!(
                    "layers of some images in {repository} are not shown, because they could not be read: {}",
                    with_causes(&error)
                )));
            }
        }
        known
    }

    /// The environment's own repository, or another one; none if nothing opens it.
    fn repository(&self, name: &str) -> Result<Option<Arc<dyn Registry>>, RegistryError> {
        if self.registry.repository().to_string() == name {
            return Ok(Some(Arc::clone(&self.registry)));
        }
        match (&self.open_repository, name.parse::<Repository>()) {
            (Some(open), Ok(repository)) => open(&repository).map(Some),
            _ => Ok(None),
        }
    }

    async fn survey_repository(
        &self,
        registry: &dyn Registry,
        images: BTreeSet<Sha256Digest>,
        known: &mut BTreeMap<Sha256Digest, SurveyedImage>,
    ) -> Result<(), RegistryError> {
        let ask = |image| async move {
            Ok::<_, RegistryError>((image, surveyed(registry, image).await?))
        };
        let mut answers = stream::iter(images).map(ask).buffer_unordered(PARALLEL);
        while let Some(answer) = answers.next().await {
            self.one_more();
            let (image, found) = answer?;
            known.insert(image, found);
        }
        Ok(())
    }
}

/// Images by the names of their repositories.
type ByRepository = BTreeMap<String, BTreeSet<Sha256Digest>>;

/// An image that was deployed from several repositories is asked for where the newest generation
/// has it.
fn by_repository(generations: &[Arc<GenerationRecord>]) -> ByRepository {
    let mut seen = BTreeSet::new();
    let mut images = ByRepository::new();
    for image in generations.iter().flat_map(|record| &record.images) {
        if seen.insert(image.digest) {
            let repository = images.entry(image.repository.clone()).or_default();
            repository.insert(image.digest);
        }
    }
    images
}

fn images_of(repositories: &ByRepository) -> usize {
    repositories.values().map(BTreeSet::len).sum()
}

async fn surveyed(
    registry: &dyn Registry,
    image: Sha256Digest,
) -> Result<SurveyedImage, RegistryError> {
    Ok(match layers_of_image(registry, image).await? {
        None => SurveyedImage::Gone,
        Some(None) => SurveyedImage::Unknown,
        Some(Some(layers)) => SurveyedImage::Present(layers),
    })
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
