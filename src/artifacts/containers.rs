//! The lines of a Dockerfile that need a container: run once, or taken from where they
//! were published, or refused if there is no engine.

use std::sync::Arc;

use forebay_store::{RecipeKey, Sha256Digest};

use super::image::ImageInputs;
use super::lock::LockedContainer;
use super::{Build, BuildError, LockFile};
use crate::image::{
    BaseImage, BuiltImage, BuiltImages, ContainerRequest, Engine, EngineProgram, ImageError,
    ImageRequest, Layer, Step, build_below, engine_layers, known_layers, make_layers, step_key,
};
use crate::oci::{ImageReference, Repository, Tag};
use crate::project::EngineChoice;
use crate::registry::RegistryError;

/// The variable that says which engine runs: `docker`, `podman`, `buildah`, `none`, or `auto`.
const ENGINE: &str = "FOREBAY_ENGINE";

/// The layers of all lines that ran in containers.
#[derive(Debug, Default)]
pub(super) struct Containers {
    /// Step by step.
    pub(super) layers: Vec<Vec<Layer>>,
    /// The recipe of each step.
    pub(super) keys: Vec<RecipeKey>,
    /// Where layers are that were made elsewhere.
    pub(super) published: Option<Repository>,
}

/// A base with the layers of lines that ran in containers, ready to be published.
pub struct PublishableBase {
    /// The image; for several platforms an index of images.
    pub image: BuiltImages,
    /// The tag it gets: a name for people, everything else goes by digest.
    pub tag: Tag,
    /// What ran for each platform.
    containers: Vec<Containers>,
}

impl Build<'_> {
    /// Runs the lines of `request`'s plan that need a container; what ran before for the
    /// same inputs is only looked up.
    pub(super) async fn containers(
        &self,
        inputs: &ImageInputs,
        request: &ImageRequest<'_>,
    ) -> Result<Containers, BuildError> {
        let mut done = Containers::default();
        let store = self.workspace.store();
        let progress = self.workspace.progress();
        for (index, step) in inputs.plan.steps.iter().enumerate() {
            let Step::Engine(step) = step else { continue };
            let request = ImageRequest {
                container_layers: &done.layers,
                published: done.published.as_ref(),
                ..*request
            };
            let below = build_below(&request, index, store, progress.as_ref())?;
            let arguments = &self.workspace.project().settings.engine.arguments;
            let wanted = ContainerRequest {
                step,
                below: &below,
                context: request.context,
                arguments,
            };
            let key = step_key(&wanted)?;
            let known = match self.rebuild {
                true => None,
                false => known_layers(store, &key)?,
            };
            let layers = match known {
                Some(layers) => layers,
                None => match self.published_layers(&key, &inputs.base).await? {
                    Some((repository, made)) => {
                        let layers = engine_layers(step, made);
                        done.published = Some(repository);
                        layers
                    }
                    None => self.run_engine(inputs, &wanted, &key).await?,
                },
            };
            done.layers.push(layers);
            done.keys.push(key);
        }
        Ok(done)
    }

    async fn run_engine(
        &self,
        inputs: &ImageInputs,
        wanted: &ContainerRequest<'_>,
        key: &RecipeKey,
    ) -> Result<Vec<Layer>, BuildError> {
        let Some(engine) = self.engine()? else {
            let of_step = |number| wanted.step.lines.iter().any(|line| line.line == number);
            let lines = inputs.plan.engine_lines();
            return Err(ImageError::NoEngine {
                lines: lines.filter(|line| of_step(line.line)).cloned().collect(),
            }
            .into());
        };
        let image = self.one_to_push(wanted.below)?;
        let (store, progress) = (
            Arc::clone(self.workspace.store()),
            Arc::clone(self.workspace.progress()),
        );
        let (step, below, key) = (wanted.step.clone(), wanted.below.clone(), *key);
        let arguments = wanted.arguments.to_vec();
        let (directory, tree) = (
            wanted.context.directory.to_owned(),
            wanted.context.tree.clone(),
        );
        let fresh = self.rebuild;
        let made = tokio::task::spawn_blocking(move || {
            let wanted = ContainerRequest {
                step: &step,
                below: &below,
                context: crate::image::BuildContext {
                    directory: &directory,
                    tree: &tree,
                },
                arguments: &arguments,
            };
            make_layers(
                &wanted,
                &key,
                &image,
                &engine,
                fresh,
                &store,
                progress.as_ref(),
            )
        })
        .await
        .map_err(|error| RegistryError::Io {
            action: "the engine was not waited for".to_owned(),
            source: std::io::Error::other(error),
        })?;
        Ok(made?)
    }

    /// The engine that would run lines in containers, if one works here and is allowed.
    ///
    /// # Errors
    /// `$FOREBAY_ENGINE` names none.
    pub fn engine(&self) -> Result<Option<Engine>, BuildError> {
        let choice = match std::env::var(ENGINE) {
            Ok(text) if !text.is_empty() => text
                .parse()
                .map_err(|problem| BuildError::Engine { problem })?,
            _ => self.workspace.project().settings.engine.program,
        };
        Ok(match choice {
            EngineChoice::None => None,
            EngineChoice::Auto => Engine::find(None),
            EngineChoice::Docker => Engine::find(Some(EngineProgram::Docker)),
            EngineChoice::Podman => Engine::find(Some(EngineProgram::Podman)),
            EngineChoice::Buildah => Engine::find(Some(EngineProgram::Buildah)),
        })
    }

    /// The layers that the lock file says were published for `key`.
    async fn published_layers(
        &self,
        key: &RecipeKey,
        base: &BaseImage,
    ) -> Result<Option<(Repository, Vec<Layer>)>, BuildError> {
        let lock = LockFile::read(&self.workspace.project().directory)?;
        let Some(locked) = lock.container(&key.to_string()).filter(|_| !self.rebuild) else {
            return Ok(None);
        };
        let refused = |problem: String| ImageError::Base {
            name: locked.image.clone(),
            problem,
        };
        let reference: ImageReference = locked
            .image
            .parse()
            .map_err(|error| refused(format!("{error}")))?;
        let registry = self.open_for_reading(&reference.repository)?;
        let layers =
            BaseImage::layers_of(&reference, &registry, base.platform, self.workspace.store())
                .await?;
        let wanted = locked
            .layers
            .iter()
            .map(|diff_id| {
                let found = layers.iter().find(|(_, found)| found == diff_id);
                found
                    .map(|(descriptor, diff_id)| Layer::published(descriptor.clone(), *diff_id))
                    .ok_or_else(|| refused(format!("it has no layer {diff_id}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Some((reference.repository, wanted)))
    }

    /// The image up to the last line that needs a container; `None` if no line does.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn publishable_base(&self) -> Result<Option<PublishableBase>, BuildError> {
        let inputs = self.image_inputs().await?;
        let Some((first, containers)) = self.image_with_containers(&inputs.first).await? else {
            return Ok(None);
        };
        let mut all = vec![containers];
        let mut others = Vec::new();
        for one in &inputs.others {
            if let Some((image, containers)) = self.image_with_containers(one).await? {
                others.push(image);
                all.push(containers);
            }
        }
        let image = BuiltImages::new(first, others, self.workspace.store())?;
        let digest = image.digest().to_string();
        let start: String = digest.chars().skip("sha256:".len()).take(12).collect();
        let tag = format!("base-{start}")
            .parse()
            .map_err(|source| BuildError::Base {
                name: digest,
                source,
            })?;
        Ok(Some(PublishableBase {
            image,
            tag,
            containers: all,
        }))
    }

    /// One platform's image up to the last line that needs a container.
    async fn image_with_containers(
        &self,
        inputs: &ImageInputs,
    ) -> Result<Option<(BuiltImage, Containers)>, BuildError> {
        let is_engine = |step: &Step| matches!(step, Step::Engine(_));
        let Some(last) = inputs.plan.steps.iter().rposition(is_engine) else {
            return Ok(None);
        };
        self.with_request(inputs, async |request| {
            let containers = self.containers(inputs, request).await?;
            let request = ImageRequest {
                container_layers: &containers.layers,
                published: containers.published.as_ref(),
                ..*request
            };
            let progress = self.workspace.progress().as_ref();
            let image = build_below(&request, last + 1, self.workspace.store(), progress)?;
            Ok(Some((image, containers)))
        })
        .await
    }

    /// Notes in the lock file that `base` is in `repository`, so that builds elsewhere take
    /// the layers from there and need no engine.
    ///
    /// # Errors
    /// The lock file cannot be written.
    pub fn lock_published(
        &self,
        base: &PublishableBase,
        repository: &Repository,
    ) -> Result<(), BuildError> {
        let mut lock = LockFile::read(&self.workspace.project().directory)?;
        let image = format!("{repository}@{}", base.image.digest());
        let mut entries = Vec::new();
        let containers = base.containers.iter();
        for (key, layers) in containers.flat_map(|one| one.keys.iter().zip(&one.layers)) {
            let diff_ids: Vec<Sha256Digest> = layers.iter().map(|layer| layer.diff_id).collect();
            entries.push(LockedContainer {
                inputs: key.to_string(),
                image: image.clone(),
                layers: diff_ids,
            });
        }
        lock.pin_containers(entries);
        Ok(lock.write()?)
    }
}
